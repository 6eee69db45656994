"""Statistics of the input Jacobian of a trained network, example by example: how sensitive it is to its input.

    python -m scripts.compute_jacobian_stats --run=/tmp/networks/mlp/digits/SETTING/seed-0 --checkpoint=all

reads a network of train_model, a run of a zoo (<zoo>/<experiment>/<subset_ratio>/<run_id>), or a --model of one's own
with its data, measures at every example of --dataset_split each --metric, under each --normalization, at the example
and by each --strategy around it, and writes for each checkpoint

    stats_<...>.parquet     one row an example: id, label, clean_label, epoch, one column for each statistic
    <metric>_<...>.json     the same in the published schema: sample_ids, targets, ground_truths, stats, metadata

into SAVE_DIR/NAME/MODEL/DATA/SETTING/seed-S/jacobian_stats/; without --save_dir and --outdir beside the checkpoints of
a network of train_model, into jacobian_stats/, or jacobian_stats-NAME/ if --name is given. A folder has results of one
set of settings. A network whose training has not ended, or diverged, is refused where the end of its training is asked
for (last, all, order:-N), unless --unfinished is given. Names of files say normalisation, number of examples, learning
rate, epochs, checkpoint and shard; names of columns say metric__normalisation__strategy__average, without "none".

Which examples: --skip passes over the first examples of the split, --num_examples takes so many of the rest, and
--shard=i/n takes each n-th of those, from the i-th on. So the shards 1/n to n/n of the same --skip have no example in
common, and together all; --skip is no part of sharding. --num_shards=n does all shards, on workers with --workers or
--runner=ray. merge_jacobian_stats joins them.

All checkpoints of a network are measured by one compiled function, at is_training=False. Values do not depend on
batch size, memory limit, order and shards but for rounding; what is random belongs to (--mc_sample_seed, example,
direction). A healthy run prints for each checkpoint the mean and the largest value of each statistic, with its example:
the largest jacobian_operator_norm is the empirical Lipschitz constant. Status 1 if an iteration ended above its
tolerance. The same command continues after a kill, and does nothing where all is there. Hyphens in names of flags are
accepted; environment variables SAVE_DIR, NAME, DATA_DIR, DEVICE and WORKERS are defaults.
"""

from collections.abc import Sequence
import contextlib
import glob
import os
import pathlib
import sys
from typing import Any

from absl import flags

from heldout.running import runners
from heldout.training import model_files
from scripts import choices, cli, common_flags, old_command_lines, runner_flags, transfer_bar
from scripts.jacobian_stats import stats_config, stats_dispatch
from zoo import errors

_SHARED_FLAGS = ("dataset", "data_dir", "device", *runner_flags.NAMES)
_ENVIRONMENT = old_command_lines.defaults_from_environment()
_DEFAULTS = stats_config.StatsConfig()
_SOURCE = stats_config.SourceConfig(run=".")
flags.set_default(common_flags.DEVICE, _ENVIRONMENT.get("device", common_flags.DEVICE.default))

_RUN = flags.DEFINE_multi_string(
    "run",
    None,
    "Folder of a network of train_model, or of a run of a zoo; also a folder that networks lie below, or a pattern "
    "with * as in ZOO/EXPERIMENT/0.7/*.",
)
_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Instead of a run, one's own: package.module:callable, which returns (model, (x_train, y_train), (x_test, y_test)) "
    "or, with --dataset, the model alone; or a .keras file, with --dataset, whose images it is given as the data set "
    "normalises them.",
)
_ARCH = flags.DEFINE_string("arch", None, "Architecture of a zoo's run, where no recipe tells.")
_SAVE_DIR = flags.DEFINE_string(
    "save_dir",
    _ENVIRONMENT.get("save_dir"),
    "Folder of all results. Without it beside a network of train_model, for others $SAVE_DIR.",
)
_NAME = flags.DEFINE_string(
    "name",
    _ENVIRONMENT.get("name"),
    "Folder below it; without it $NAME, else networks. Without --save_dir part of the name of the folder beside a "
    "network of train_model.",
)
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of these results, in place of --save_dir and --name.")
_METRIC = flags.DEFINE_multi_string(
    "metric", list(_DEFAULTS.metrics), f"What is measured: {', '.join(stats_config.METRICS)}."
)
_NORMALIZATION = flags.DEFINE_multi_string(
    "normalization",
    list(_DEFAULTS.normalisations),
    f"Of what the Jacobian is: {', '.join(stats_config.NORMALISATIONS)} (none: the logits).",
)
_TARGET_LOGIT_ONLY = flags.DEFINE_bool(
    "target_logit_only", _DEFAULTS.target_logit_only, "Of the label's entry of that alone."
)
_STRATEGY = flags.DEFINE_multi_string(
    "strategy",
    list(_DEFAULTS.strategies),
    f"Where besides the example itself: {', '.join(stats_config.STRATEGIES)}.",
)
_AVERAGE = flags.DEFINE_multi_string(
    "average",
    list(_DEFAULTS.averages),
    f"Over the points of each strategy: {', '.join(stats_config.AVERAGES)} (raw: none, values and lengths).",
)
_NUM_DIRECTIONS = flags.DEFINE_integer("num_directions", _DEFAULTS.num_directions, "Directions of shift and svd.")
_NUM_SIGNS = flags.DEFINE_integer(
    "num_signs",
    _DEFAULTS.num_signs,
    "Random signs of each Frobenius norm where there are more than 128 outputs, or with --method=products: it is then "
    "an estimate, with its standard error in a column of its own.",
)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", _DEFAULTS.num_samples, "Draws of gaussian, ball, sphere and mixup.")
_RADIUS = flags.DEFINE_float(
    "radius", _DEFAULTS.radius, "Of ball and sphere, standard deviation of gaussian; in the --units of the inputs."
)
_SHIFT_PIXELS = flags.DEFINE_list("shift_pixels", list(map(str, _DEFAULTS.shift_pixels)), "How far shift moves images.")
_SVD_SIZES = flags.DEFINE_list(
    "svd_sizes", list(map(str, _DEFAULTS.svd_sizes)), "How many singular values svd removes from each channel."
)
_CHECKPOINT = flags.DEFINE_multi_string(
    "checkpoint",
    list(_DEFAULTS.checkpoints),
    "last, first, all, an epoch (20 or epoch:20), step:400, or by order: order:0 is the first, order:-1 the last.",
)
_UNFINISHED = flags.DEFINE_bool(
    "unfinished",
    _SOURCE.unfinished,
    "Take last, all and order:-N of a network of train_model from what is there, though its training has not ended, or "
    "diverged.",
)
_DATASET_SPLIT = flags.DEFINE_enum(
    "dataset_split",
    _DEFAULTS.dataset_split,
    stats_config.SPLITS,
    "Examples: train (trained on) or test; val of train_model; of a zoo's run heldout (not trained on) or all_train.",
)
_UNITS = flags.DEFINE_enum(
    "units", _DEFAULTS.units, stats_config.UNITS, "Derivatives by inputs as the model takes them, or by [0, 1] pixels."
)
_SHARD = flags.DEFINE_string("shard", "1/1", "i/n: each n-th example from the i-th on; see above.")
_NUM_SHARDS = flags.DEFINE_integer("num_shards", None, "Instead of --shard: all shards of so many.")
_SKIP = flags.DEFINE_integer(
    "skip", _DEFAULTS.skip, "Examples at the beginning of the split that are passed over, before sharding."
)
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", None, "Examples after those; without it all.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", _DEFAULTS.batch_size, "Points that are differentiated at a time.")
_MEMORY_LIMIT_MB = flags.DEFINE_float(
    "memory_limit_mb",
    _DEFAULTS.memory_limit_mb,
    "Of Jacobians or vectors that are held at a time; batches are smaller where they would take more.",
)
_BIGMEM = flags.DEFINE_bool("bigmem", None, "Of old command lines: use --memory_limit_mb.")
_METHOD = flags.DEFINE_enum(
    "method",
    _DEFAULTS.method,
    stats_config.METHODS,
    "gram: a backward pass for each class, which gives all; products: norms by iteration and random signs.",
)
_TOLERANCE = flags.DEFINE_float("tolerance", _DEFAULTS.tolerance, "Relative bound at which an iteration stops.")
_STOP = flags.DEFINE_enum(
    "stop",
    _DEFAULTS.stop,
    stats_config.STOPS,
    "Which bound: residual, proved for any network; gap, residual^2 / gap, with a quarter fewer products: some three "
    "examples in a thousand may be off by more than a thousandth.",
)
_MC_SAMPLE_SEED = flags.DEFINE_integer("mc_sample_seed", _DEFAULTS.mc_sample_seed, "Of all that is drawn here.")
_JSON = flags.DEFINE_bool("json", _DEFAULTS.json, "Write the published JSON files beside the tables.")
_JIT_COMPILE = flags.DEFINE_bool("jit_compile", _DEFAULTS.jit_compile, "Have XLA compile what is differentiated.")
_WORKERS = flags.DEFINE_integer(
    "workers",
    _ENVIRONMENT.get("workers"),
    "Processes, or workers of --runner=ray, for several runs or shards. Without it $WORKERS, else one process.",
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete results of other settings in the folder.")
_PROGRESS = flags.DEFINE_bool("progress", True, "Show what is done and the time left.")


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> files. Status 1 if an iteration ended above its tolerance."""
    del argv
    old_command_lines.check_environment()
    config, sources, shards = _config(), _sources(), _shards()
    num_unconverged, was_there = 0, []
    with _bar() as show:
        messages = stats_dispatch.compute(
            config,
            sources,
            shards,
            common_flags.DEVICE.value,
            runner_flags.runner(),
            _num_workers(len(sources) * len(shards)),
        )
        with contextlib.closing(messages):
            for message in messages:
                if "progress" in message:
                    show(*message["progress"])
                if "note" in message:
                    transfer_bar.note(message["note"])
                if "found" in message:
                    found = message["found"]
                    print(f"{found['text']}{' (was there)' if found['was_there'] else ''}\n{found['path']}", flush=True)
                    num_unconverged += found["num_unconverged"]
                    was_there.append(found["was_there"])
    print("up to date, nothing to do" if all(was_there) else "done")
    if num_unconverged:
        print(
            f"{num_unconverged} values ended above --tolerance={_TOLERANCE.value:g}; take a larger one, or "
            "--method=gram"
        )
    return 1 if num_unconverged else 0


def _config() -> stats_config.StatsConfig:
    if _BIGMEM.value is not None:
        raise errors.UsageError(
            "--bigmem: how much memory may be used is a number of megabytes here; use --memory_limit_mb=8192 or so, "
            "which values do not depend on"
        )
    return stats_config.StatsConfig(
        metrics=_names("metric", _METRIC.value, stats_config.METRICS),
        normalisations=_names("normalization", _NORMALIZATION.value, stats_config.NORMALISATIONS),
        target_logit_only=_TARGET_LOGIT_ONLY.value,
        strategies=_names("strategy", _STRATEGY.value, stats_config.STRATEGIES),
        averages=_names("average", _AVERAGE.value, stats_config.AVERAGES),
        num_directions=_NUM_DIRECTIONS.value,
        num_samples=_NUM_SAMPLES.value,
        num_signs=_NUM_SIGNS.value,
        radius=_RADIUS.value,
        shift_pixels=choices.integers("shift_pixels", _SHIFT_PIXELS.value),
        svd_sizes=choices.integers("svd_sizes", _SVD_SIZES.value),
        checkpoints=tuple(part.strip() for text in _CHECKPOINT.value for part in text.split(",")),
        dataset_split=_DATASET_SPLIT.value,
        units=_UNITS.value,
        skip=_SKIP.value,
        num_examples=_NUM_EXAMPLES.value,
        batch_size=_BATCH_SIZE.value,
        memory_limit_mb=_MEMORY_LIMIT_MB.value,
        method=_METHOD.value,
        tolerance=_TOLERANCE.value,
        stop=_STOP.value,
        mc_sample_seed=_MC_SAMPLE_SEED.value,
        json=_JSON.value,
        jit_compile=_JIT_COMPILE.value,
        overwrite=_OVERWRITE.value,
    )


def _names(flag: str, texts: list[str], known: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(choices.several_of(flag, texts, known)))


def _shards() -> list[tuple[int, int]]:
    if _NUM_SHARDS.value is None:
        shard = stats_config.parse_shard(_SHARD.value)
        stats_config.StatsConfig(shard=shard)
        return [shard]
    if flags.FLAGS["shard"].present:
        raise errors.InvalidValueError(f"--shard={_SHARD.value} beside --num_shards: give one of them")
    if _NUM_SHARDS.value < 1:
        raise errors.InvalidValueError(f"--num_shards={_NUM_SHARDS.value}: must be at least 1")
    return [(number, _NUM_SHARDS.value) for number in range(1, _NUM_SHARDS.value + 1)]


def _num_workers(num_tasks: int) -> int | None:
    """As many as there are tasks for; a default of the environment says nothing where there is one."""
    asked = _WORKERS.value
    if asked is not None and asked < 1:
        raise errors.InvalidValueError(f"--workers={asked}: must be at least 1")
    if num_tasks == 1 and asked is not None and asked > 1 and flags.FLAGS["workers"].present:
        raise errors.InvalidValueError(
            f"--workers={asked}: there is one shard of one model to compute; add --num_shards, or leave it out"
        )
    if asked is None and runner_flags.RUNNER.value == runners.RAY:
        return None
    return min(asked or 1, num_tasks)


def _sources() -> list[stats_config.SourceConfig]:
    if _OUTDIR.value is not None and (flags.FLAGS["save_dir"].present or flags.FLAGS["name"].present):
        raise errors.InvalidValueError("--outdir is in place of --save_dir and --name; give one or the others")
    folders = [None] if _RUN.value is None else _folders([part for text in _RUN.value for part in text.split(",")])
    if _OUTDIR.value is not None and len(folders) > 1:
        raise errors.InvalidValueError(
            f"--outdir={_OUTDIR.value}: there are {len(folders)} runs, whose results would mix; give --save_dir"
        )
    return [_source(folder) for folder in folders]


def _source(folder: str | None) -> stats_config.SourceConfig:
    has_home = folder is not None and model_files.is_model_run(folder)
    of_flags = flags.FLAGS["save_dir"].present or flags.FLAGS["name"].present
    return stats_config.SourceConfig(
        run=None if folder is None else os.path.abspath(folder),
        model=choices.path(_MODEL.value),
        dataset=choices.dataset(common_flags.DATASET.value),
        data_dir=choices.path(common_flags.DATA_DIR.value),
        architecture=_ARCH.value,
        # What train_model wrote has its place already, whatever the environment says.
        save_dir=choices.path(_SAVE_DIR.value) if of_flags or not has_home else None,
        name=_NAME.value if of_flags or not has_home else None,
        outdir=choices.path(_OUTDIR.value),
        unfinished=_UNFINISHED.value,
    )


def _folders(texts: list[str]) -> list[str | None]:
    """Folders of runs: themselves, what lies below, or what a pattern names; each once."""
    found: list[str | None] = []
    for text in texts:
        path = choices.required_path("run", text)
        named = sorted(filter(os.path.isdir, glob.glob(path))) if "*" in path else [path]
        if not named or not all(map(os.path.isdir, named)):
            raise errors.MissingFileError(f"--run={text}: there is no such folder; check the path")
        for folder in named:
            below = sorted(str(one.parent) for one in pathlib.Path(folder).rglob(model_files.SETTINGS_NAME))
            found += [folder] if model_files.is_model_run(folder) or not below else below
    return list(dict.fromkeys(found))


def _bar() -> contextlib.AbstractContextManager[Any]:
    """Shows (stage, done, all), or nothing."""
    if not _PROGRESS.value:
        return contextlib.nullcontext(lambda stage, done, total: None)
    return transfer_bar.stages(lambda stage: stage, lambda stage: "example")


def main() -> None:
    """Console command."""
    sys.argv = old_command_lines.with_underscores(sys.argv)
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
