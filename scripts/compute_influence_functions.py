"""Influence functions of a trained model: which training examples help or harm its predictions of test examples.

    python -m scripts.compute_influence_functions --run=/tmp/zoo/digits-mlp/0.7/12 --test_sample_num=2 --outdir=/tmp/if

reads a run of a zoo (or --model, one's own) with its training and test examples and writes into --outdir

    scores/                          the matrix [training examples, test examples] with its labels, a memory map
    influence_results_0_2.json       by test example: influence, harmful and helpful, as the PyTorch packages have it
    influences_results_meta_0-2.json settings, signs, what stands where, rankings averaged over the test examples
    top_influence.npz                the --top_k most helpful and most harmful training examples of each test example
    average_influence.npz            influence averaged over the test examples, with rankings
    gallery.html                     each test image beside the training images that help and harm it most

Influence of training example i on test example t is R = +(1/n) g_i^T (C + damp I)^-1 g_t, the predicted rise of the
test loss (or fall of the --measured output) if i were left out: positive helps. C is the curvature of the training
loss, by the --method:

    ekfac, kfac          layer by layer: for networks of any size; two passes over the training examples. An
                         approximation of C: rankings agree better with the exact ones than sizes do
    conjugate_gradient   to a tolerance, with the Gauss-Newton matrix
    lissa                by random batches: --recursion_depth, --r, --scale as known from the PyTorch packages
    arnoldi, nystroem    on the largest eigenvalues; explicit: exactly, for thousands of parameters
    ekfac_neumann        EK-FAC made exact by iteration; identity: no curvature, inner products of gradients

A healthy run prints the most helpful and harmful examples of the first test example, and the files. Status 1 if systems
were not solved to their tolerance. The same command continues after a kill, and does nothing where all is there. From
Python the same takes three lines, see docs/attribution.md.
"""

from collections.abc import Sequence
import contextlib
import os
from typing import Any

from absl import flags

from scripts import choices, cli, common_flags, runner_flags, transfer_bar
from scripts.attribution import influence_config, influence_dispatch, source_config
from zoo import errors

_SHARED_FLAGS = ("dataset", "data_dir", "device", *runner_flags.NAMES)

_DEFAULTS = influence_config.InfluenceConfig()
_LISSA_FLAGS = ("recursion_depth", "r", "scale", "compat", "tolerance")

_RUN = flags.DEFINE_string("run", None, "Folder of the run: <zoo>/<experiment>/<subset_ratio>/<run_id>.")
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Instead of a run, one's own: package.module:callable, which returns (model, (x_train, y_train), (x_test, y_test)) "
    "or, with --dataset, the model alone; or a .keras file, with --dataset, whose images it is given as the data set "
    "normalises them. The model may be an estimators.targets.Target.",
)
_ARCH = flags.DEFINE_string("arch", None, "Architecture of the run, where no recipe tells.")
_EPOCH = flags.DEFINE_integer("epoch", None, "Epoch of the run's checkpoint; without it the last one.")
_LOSS = flags.DEFINE_enum(
    "loss", "cross_entropy", ["cross_entropy", "binary_cross_entropy", "squared_error"], "What was trained with."
)
_PARAMETERS = flags.DEFINE_string(
    "parameters", "", "Regular expression of the parameters to differentiate, by attribute path; without it all."
)
_WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", None, "L2 coefficient of weights and filters; without it that of the recipe, else 0."
)
_JIT_COMPILE = flags.DEFINE_bool("jit_compile", False, "Have XLA compile what is differentiated.")
_OUTDIR = flags.DEFINE_string("outdir", _DEFAULTS.outdir, "Folder of the results.")
_METHOD = flags.DEFINE_enum("method", _DEFAULTS.method, influence_config.METHODS, "The inverse of the curvature.")
_MEASURED = flags.DEFINE_enum(
    "measured", _DEFAULTS.measured, influence_config.MEASURED, "What of the test examples is predicted."
)
_MODE = flags.DEFINE_enum(
    "mode",
    _DEFAULTS.mode,
    influence_config.MODES,
    "per_test_example: training gradients are formed again for every block of test examples; all_gradients: formed "
    "once, kept below --save_pth.",
)
_TEST_SAMPLE_NUM = flags.DEFINE_integer("test_sample_num", None, "Test examples of each class; without it all.")
_TEST_SAMPLE_START_PER_CLASS = flags.DEFINE_integer(
    "test_sample_start_per_class", _DEFAULTS.test_sample_start_per_class, "How many of each class are passed over."
)
_TEST_IDS = flags.DEFINE_string("test_ids", None, "Instead: original indices, like 7 or 0:10,20.")
_RECURSION_DEPTH = flags.DEFINE_integer("recursion_depth", _DEFAULTS.recursion_depth, "LiSSA: steps.")
_R = flags.DEFINE_integer("r", _DEFAULTS.r, "LiSSA: repeats, averaged. r times recursion_depth should be n or more.")
_DAMP = flags.DEFINE_float("damp", _DEFAULTS.damp, "Damping: added to every eigenvalue; not for identity.")
_SCALE = flags.DEFINE_string(
    "scale",
    f"{_DEFAULTS.scale:g}",
    "LiSSA: above the largest eigenvalue of a batch's curvature; or auto.",
)
_SEED = flags.DEFINE_integer("seed", _DEFAULTS.seed, "Of what is drawn.")
_COMPAT = flags.DEFINE_enum(
    "compat",
    _DEFAULTS.compat,
    influence_config.COMPATIBILITIES,
    "published: LiSSA's recursion as first published, whose effective damping is damp times scale.",
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance",
    _DEFAULTS.tolerance,
    "LiSSA: fewer steps and repeats once the result moves by less than this share of itself; 0: always all.",
)
_OPTIONS = flags.DEFINE_string(
    "options", "{}", 'Further settings of the method as JSON, like {"rank": 200}; a wrong one is answered with a list.'
)
_SAVE_PTH = flags.DEFINE_string(
    "save_pth", None, "Folder for inverse-Hessian test gradients (s_test) and, with all_gradients, grad_z."
)
_MAX_SAVE_GB = flags.DEFINE_float("max_save_gb", _DEFAULTS.max_save_gb, "The most that these may take.")
_LOG_FILENAME = flags.DEFINE_string("log_filename", None, "File that is told what was done.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", _DEFAULTS.batch_size, "Training examples differentiated at a time.")
_MEMORY_LIMIT_MB = flags.DEFINE_float(
    "memory_limit_mb",
    _DEFAULTS.memory_limit_mb,
    "Of gradients, right-hand sides and solutions; activations come on top.",
)
_TOP_K = flags.DEFINE_integer("top_k", _DEFAULTS.top_k, "Training examples in top_influence.npz, on either side.")
_JSON = flags.DEFINE_enum(
    "json",
    _DEFAULTS.json,
    influence_config.JSON_CHOICES,
    "Whether to write the JSON file; auto: up to a gigabyte.",
)
_NUM_SHOWN = flags.DEFINE_integer("num_shown", _DEFAULTS.num_shown, "Test images in the gallery; 0 for none.")
_NUM_NEIGHBOURS = flags.DEFINE_integer(
    "num_neighbours", _DEFAULTS.num_neighbours, "Training images on either side of each."
)
_WORKERS = flags.DEFINE_integer("workers", None, "With --runner=ray: workers; without it as many as there is room for.")
_PROGRESS = flags.DEFINE_bool("progress", True, "Show what is done and the time left.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete results of another config in --outdir.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> files. Status 1 if a system was not solved to its tolerance."""
    del argv
    config, source = _config(), _source()
    finished: dict[str, Any] = {}
    with _bars() as show:
        messages = influence_dispatch.compute(
            config, source, common_flags.DEVICE.value, runner_flags.runner(), _WORKERS.value
        )
        with contextlib.closing(messages):
            for message in messages:
                if "progress" in message:
                    show(*message["progress"])
                if "note" in message:
                    transfer_bar.note(message["note"])
                finished = message.get("finished", finished)
    return _report(config, finished)


def _config() -> influence_config.InfluenceConfig:
    if _METHOD.value != "lissa":
        for name in _LISSA_FLAGS:
            if flags.FLAGS[name].present:
                raise errors.InvalidValueError(
                    f"--{name} says nothing with --method={_METHOD.value}; add --method=lissa, or leave it out"
                )
    return influence_config.InfluenceConfig(
        outdir=choices.required_path("outdir", _OUTDIR.value),
        method=_METHOD.value,
        measured=_MEASURED.value,
        mode=_MODE.value,
        test_sample_num=_TEST_SAMPLE_NUM.value,
        test_sample_start_per_class=_TEST_SAMPLE_START_PER_CLASS.value,
        test_ids=None if _TEST_IDS.value is None else choices.run_ids(_TEST_IDS.value, "test_ids", "test example"),
        recursion_depth=_RECURSION_DEPTH.value,
        r=_R.value,
        damp=_DAMP.value,
        scale=choices.number_or_auto("scale", _SCALE.value),
        seed=_SEED.value,
        compat=_COMPAT.value,
        tolerance=_TOLERANCE.value,
        options=choices.json_object("options", _OPTIONS.value),
        save_pth=choices.path(_SAVE_PTH.value),
        max_save_gb=_MAX_SAVE_GB.value,
        log_filename=choices.path(_LOG_FILENAME.value),
        batch_size=_BATCH_SIZE.value,
        memory_limit_mb=_MEMORY_LIMIT_MB.value,
        top_k=_TOP_K.value,
        json=_JSON.value,
        num_shown=_NUM_SHOWN.value,
        num_neighbours=_NUM_NEIGHBOURS.value,
        overwrite=_OVERWRITE.value,
    )


def _source() -> source_config.SourceConfig:
    run_folder, model = choices.path(_RUN.value), choices.path(_MODEL.value)
    return source_config.SourceConfig(
        run=None if run_folder is None else os.path.abspath(run_folder),
        epoch=_EPOCH.value,
        architecture=_ARCH.value,
        model=model,
        dataset=choices.dataset(common_flags.DATASET.value),
        data_dir=choices.path(common_flags.DATA_DIR.value),
        loss=_LOSS.value,
        measured=_MEASURED.value,
        parameters=_PARAMETERS.value,
        weight_decay=_WEIGHT_DECAY.value,
        jit_compile=_JIT_COMPILE.value,
    )


def _bars() -> contextlib.AbstractContextManager[Any]:
    """Shows (stage, done, all), or nothing."""
    if not _PROGRESS.value:
        return contextlib.nullcontext(lambda stage, done, total: None)
    return transfer_bar.stages(lambda stage: stage, lambda stage: "pair" if stage == "scores" else "part")


def _report(config: influence_config.InfluenceConfig, found: dict[str, Any]) -> int:
    state = "up to date, nothing to do" if found["up_to_date"] else "done"
    print(f"{found['num_train']} training and {found['num_test']} test examples, {config.method}: {state}")
    test_id, label = found["first"]
    for kind in ("helpful", "harmful"):
        listed = ", ".join(f"{index} (label {of}, {value:+.3g})" for index, of, value in found[kind])
        print(f"most {kind} for test example {test_id} (label {label}): {listed}")
    for path in found["files"]:
        print(path)
    if found["num_not_converged"]:
        more = "--recursion_depth or --r" if config.method == "lissa" else "iterations (--options)"
        print(
            f"not solved to the tolerance: {found['num_not_converged']} of {found['num_test']} test examples, largest "
            f"residual {found['largest_residual']:.3g}; take more {more}, a larger --damp, or another --method"
        )
    return 1 if found["num_not_converged"] else 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
