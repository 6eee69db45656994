r"""Scores training examples by how much a linearised network would change without each: smooth unique information.

    python -m scripts.compute_unique_information --dataset=digits --classes=3,8 --num_train=60 --num_val=60 \
        --learning_rate=0.05 --num_steps=400 --outdir=/tmp/information

linearises the network of an experiment at its initialisation and, from one decomposition of its tangent kernel, trains
it without each of the training examples at once, for --t steps or infinitely many: what `ground_truth_effects` does by
training the network itself again, in seconds. The experiment is said by the same flags as there, by its folder
(--experiment=DIR, which also brings checkpoints and says how far the linearised network is the true one), or it is a
model of your own (--model=package.module:callable) with --learning_rate, --num_steps and --l2. --measure names what is
asked; some of

    weights, weights_sgd, weights_langevin     nats about the weights, for three kinds of noise
    predictions                                nats about validation predictions
    train_prediction_stability, train_loss_stability, val_loss_stability
    self_effect, accumulation                  of the example itself
    effects                                    signed, on each validation output
    influence_functions                        the same by influence functions, in place of leaving out

It writes, under --outdir,

    unique_information.npz      train_index, labels, and a column of float64 for each measure; .parquet has the same
    unique_information.json     settings, constants, units, measured errors, the highest and lowest examples
    histogram.png               each measure by class; most_informative.png and least_informative.png show the images
    effects.npz                 with effects: change of each validation output without each example
    group_information.npz       with --groups: the same scores of groups, and what pairs have in common
    kernel/                     tangent kernel or features as memory maps: other measures and times need no new ones

A healthy run ends with lines such as

    mlp on digits: 60 training, 60 validation examples, 1 output, 164865 parameters; dual form, 60 rows
    t 400: contour, largest error of 2 checked examples 1.9e-11 of its change
    weights, highest: 1352 (label 0) 0.0309, 463 (label 0) 0.0254, 1284 (label 0) 0.0154
    weights, lowest: 588 (label 0) 1.59e-05, 411 (label 1) 2.63e-05, 1411 (label 1) 2.83e-05
    /tmp/information/unique_information.npz

The same command again does nothing; a killed one goes on. Other settings in the same folder are refused; with
--overwrite they take the place of the results, and the kernel stays if it is of the same network. Next:
aggregate_ground_truth, to compare with the truth.
"""

from collections.abc import Sequence
import os
from typing import Any

from absl import flags

from scripts import choices, cli, common_flags
from scripts.unique_information import (
    experiment_flags,
    information_config,
    information_files,
    linearisation_dispatch,
    linearisation_flags,
    scoring_config,
)
from zoo import errors, files

_SHARED_FLAGS = (*linearisation_flags.NAMES, "data_dir", "device")
_DEFAULTS = scoring_config.ScoringConfig()
_MEASURE = flags.DEFINE_multi_string(
    "measure",
    list(_DEFAULTS.measures),
    "What is asked. " + "; ".join(f"{name}: {text}" for name, text in scoring_config.MEASURES.items()) + ".",
)
_T = flags.DEFINE_list(
    "t", ["experiment"], "Steps of gradient descent; several, or inf. Without it those of the experiment."
)
_DYNAMICS = flags.DEFINE_enum(
    "dynamics", _DEFAULTS.dynamics, list(scoring_config.DYNAMICS), "Steps of gradient descent, or gradient flow."
)
_CONVENTION = flags.DEFINE_enum(
    "convention",
    _DEFAULTS.convention,
    list(scoring_config.CONVENTIONS),
    "What the loss is without an example: the mean of what is left, with its own weight of l2, as where networks are "
    "trained again (mean); that of all with its weights 1/n (fixed); or as in the program of the source (published).",
)
_FORM = flags.DEFINE_enum(
    "form",
    "auto",
    list(scoring_config.FORMS),
    "Compute with the kernel of training examples (dual) or with features (primal); auto takes the smaller.",
)
_START = flags.DEFINE_enum(
    "start",
    "checkpoint",
    list(scoring_config.STARTS),
    "Where linearised training begins: at --checkpoint, or first, at the initialisation, with what the network that is "
    "linearised at --checkpoint says there: the training as it was, by the gradients of later.",
)
_SIGMA_WEIGHTS = flags.DEFINE_float(
    "sigma_weights", _DEFAULTS.sigma_weights, "Standard deviation of the noise of each weight."
)
_SIGMA_PREDICTIONS = flags.DEFINE_float(
    "sigma_predictions", _DEFAULTS.sigma_predictions, "Standard deviation of the noise of each predicted output."
)
_SIGMA_GRADIENTS = flags.DEFINE_float(
    "sigma_gradients", _DEFAULTS.sigma_gradients, "weights_langevin: that of the gradient of one example."
)
_NOISE_BATCH_SIZE = flags.DEFINE_integer(
    "noise_batch_size", _DEFAULTS.noise_batch_size, "weights_sgd, weights_langevin: batch size that the noise is of."
)
_NOISE_FLOORS = flags.DEFINE_list(
    "noise_floors",
    [f"{floor:g}" for floor in _DEFAULTS.noise_floors],
    "weights_sgd: variances that each weight has beside its noise, a column for each.",
)
_INFLUENCE_DAMPING = flags.DEFINE_float(
    "influence_damping",
    _DEFAULTS.influence_damping,
    "influence_functions: what is added to the diagonal of the Gauss-Newton matrix of the mean loss.",
)
_NUM_CHECKED = flags.DEFINE_integer(
    "num_checked", _DEFAULTS.num_checked, "Examples that are left out once more, explicitly, to measure the error.", 0
)
_GROUPS = flags.DEFINE_string(
    "groups",
    None,
    "File of groups to score beside single examples: a group a line, of positions in the training split.",
)
_NUM_SHOWN = flags.DEFINE_integer("num_shown", 24, "Examples in each gallery, and at each end in the JSON file.", 1)
_KEEP_KERNEL = flags.DEFINE_bool("keep_kernel", True, "Keep kernel or features in the folder for further measures.")
_OUTDIR = flags.DEFINE_string("outdir", None, "Folder of the results.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace results that were made with other flags.")
_NUM_PRINTED = 5
# From this share on a score is not of the whole change.
_MUCH_OUTSIDE = 0.01


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> kernel -> scores -> files."""
    del argv
    config = _config()
    device = common_flags.DEVICE.value
    messages = linearisation_dispatch.information(config, device, overwrite=_OVERWRITE.value)
    found = linearisation_flags.follow(messages)
    for line in _lines(found):
        print(line)
    for name in (*found["files"], information_files.RESULTS_NAME):
        print(os.path.join(config.outdir, name))
    if config.source.folder is not None:
        cli.say_next(
            "aggregate_ground_truth",
            f"--ground_truth={config.source.folder}",
            f"--scores={os.path.join(config.outdir, information_files.SCORES_NAME)}",
            f"--outdir={os.path.join(config.outdir, 'agreement')}",
        )
    return 0


def _config() -> information_config.InformationConfig:
    source = linearisation_flags.source(training_too=True)
    groups = choices.path(_GROUPS.value)
    if groups is not None and not os.path.isfile(groups):
        raise errors.MissingFileError(f"--groups={groups}: no such file; expected a file with a group a line")
    return information_config.InformationConfig(
        outdir=choices.required_path("outdir", _OUTDIR.value),
        source=source,
        training=_training() if source.experiment is None else source.training(),
        linearisation=scoring_config.LinearisationConfig(
            form=_FORM.value, start=_START.value, **linearisation_flags.settings()
        ),
        scoring=_scoring(),
        groups=None if groups is None else os.path.abspath(groups),
        groups_sha256=None if groups is None else files.sha256_of_file(groups),
        num_shown=_NUM_SHOWN.value,
        keep_kernel=_KEEP_KERNEL.value,
        memory_limit_mb=linearisation_flags.MEMORY_LIMIT_MB.value,
    )


def _training() -> scoring_config.Training:
    return scoring_config.Training(
        experiment_flags.LEARNING_RATE.value, experiment_flags.NUM_STEPS.value, experiment_flags.L2.value
    )


def _scoring() -> scoring_config.ScoringConfig:
    return scoring_config.ScoringConfig(
        measures=tuple(choices.several_of("measure", _MEASURE.value, scoring_config.MEASURES)),
        times=linearisation_flags.times(_T.value),
        dynamics=_DYNAMICS.value,
        convention=_CONVENTION.value,
        sigma_weights=_SIGMA_WEIGHTS.value,
        sigma_predictions=_SIGMA_PREDICTIONS.value,
        sigma_gradients=_SIGMA_GRADIENTS.value,
        noise_batch_size=_NOISE_BATCH_SIZE.value,
        noise_floors=_floors(_NOISE_FLOORS.value),
        influence_damping=_INFLUENCE_DAMPING.value,
        num_checked=_NUM_CHECKED.value,
    )


def _floors(texts: list[str]) -> tuple[float, ...]:
    try:
        return tuple(float(text) for text in texts)
    except ValueError as error:
        raise errors.InvalidValueError(
            f"--noise_floors={','.join(texts)}: expected variances from 0 up, such as 1e-10,1e-6"
        ) from error


def _lines(found: dict[str, Any]) -> list[str]:
    """What came out, for people."""
    network = found["network"]
    counts = f"{network['num_train']} training, {network['num_val']} validation examples"
    outputs = files.count_text(network["num_outputs"], "output")
    shape = f"{network['shape'][0]} rows" + (f", {network['shape'][1]} features" if network["form"] == "primal" else "")
    again = " (was there, nothing to do)" if found["up_to_date"] else ""
    lines = [
        f"{network['name']}: {counts}, {outputs}, {network['num_parameters']} parameters; {network['form']} form, "
        f"{shape}{again}"
    ]
    if network["projection_error"] is not None:
        lines.append(
            f"projection: the kernel of {network['projection_sample']} examples is off by "
            f"{network['projection_error']:.2g} of its norm"
        )
    lines += [line for time, facts in found["times"].items() for line in _time_lines(time, facts)]
    if found["agreement"] is not None:
        lines.append(_agreement_line(found["agreement"]))
    for name in found["main_columns"]:
        for end in ("highest", "lowest"):
            listed = (f"{index} (label {label}) {value:.3g}" for index, label, value in found["ends"][name][end])
            lines.append(f"{name}, {end}: {', '.join(list(listed)[:_NUM_PRINTED])}")
    return lines


def _time_lines(time: str, facts: dict[str, Any]) -> list[str]:
    error = ""
    if facts["change_error"] is not None:
        checked = files.count_text(facts["num_checked"], "checked example")
        error = f", largest error of {checked} {facts['change_error']:.2g} of its change"
    lines = [f"t {time}: {facts['method']}{error}"]
    outside = facts.get("sgd_noise_outside", 0.0)
    if outside > _MUCH_OUTSIDE:
        lines.append(
            f"t {time}: weights_sgd leaves out up to {outside:.0%} of |dw|^2, along eigenvectors of the kernel that "
            "the rounding of its entries hides; --kernel_dtype=float64 shows more of them"
        )
    return lines


def _agreement_line(found: dict[str, Any]) -> str:
    last = {name: values[-1] for name, values in found.items()}
    train, val = (last[f"{name}_relative_error"] for name in ("train", "val"))
    parts = [f"{'unknown' if value is None else format(value, '.2g')}" for value in (train, val)]
    return (
        f"after {last['steps']} steps predictions are off those of the trained network by {parts[0]} (training) and "
        f"{parts[1]} (validation) of their change"
    )


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
