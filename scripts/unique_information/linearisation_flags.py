"""Flags of programs that linearise a network: which network, at which weights, by which parameters."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import os
from typing import Any

from absl import flags

from scripts import choices, common_flags, transfer_bar
from scripts.attribution import source_config
from scripts.unique_information import experiment_flags, network_source, scoring_config
from zoo import errors

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "A model of your own instead of an experiment: package.module:callable that returns (model, (x_train, y_train), "
    "(x_val, y_val)), or the path of a .keras file beside --dataset.",
)
_RUN = flags.DEFINE_string(
    "run", None, "A run of a zoo instead of an experiment: its folder, <zoo>/<experiment>/<subset_ratio>/<run_id>."
)
_EPOCH = flags.DEFINE_integer("epoch", None, "With --run: the epoch of the checkpoint; without it the last.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "first",
    "Weights that an experiment is linearised at: first (the initialisation), last, a step of which --experiment has a "
    "checkpoint, or the prefix of a checkpoint.",
)
_HEAD = flags.DEFINE_string(
    "head", "", "Regular expression of the parameters that are trained, such as layers/4/; without it all."
)
_PROJECTION = flags.DEFINE_enum(
    "projection",
    "none",
    list(scoring_config.PROJECTIONS),
    "How gradients are projected to features: random_subset takes --num_features coordinates of each tensor, "
    "sparse_signs and hadamard mix all of them.",
)
_NUM_FEATURES = flags.DEFINE_integer("num_features", 2000, "Features of a projection.")
_PROJECTION_SEED = flags.DEFINE_integer("projection_seed", 0, "Seed of a projection.")
_KERNEL_DTYPE = flags.DEFINE_enum(
    "kernel_dtype",
    "auto",
    list(scoring_config.KERNEL_DTYPES),
    "Type of gradients and their products; auto is that of the network. Gradients of a network that is of no "
    "experiment stay in its own.",
)
MEMORY_LIMIT_MB = flags.DEFINE_float(
    "memory_limit_mb", 4096.0, "Most memory for gradients, kernels and solutions; activations come on top."
)
PROGRESS = flags.DEFINE_bool("progress", True, "Tell on the error stream how far it is.")

# For the list of shared flags of a program; --run and --epoch are read by some only.
NAMES = (
    *experiment_flags.NAMES,
    *("experiment", "model", "checkpoint", "head", "projection", "num_features", "projection_seed", "kernel_dtype"),
    *("memory_limit_mb", "progress"),
)
RUN_NAMES = ("run", "epoch")
_OF_OTHERS = ("dataset",)


def source(*, training_too: bool = False) -> network_source.NetworkSource:
    """Which network the flags name.

    Args:
        training_too: flags that say the training may stand beside --model, which does not say it.

    Raises:
        UsageError, InvalidValueError: none, or several.
        MissingFileError, DamagedFileError: of the folder of an experiment.
    """
    data_dir = choices.path(common_flags.DATA_DIR.value)
    named = [name for name in ("experiment", "model", "run") if flags.FLAGS[name].value]
    if len(named) > 1:
        raise errors.InvalidValueError(f"--{named[0]} with --{named[1]}: both say which network; give one of them")
    if _EPOCH.value is not None and not _RUN.value:
        raise errors.InvalidValueError("--epoch: names a checkpoint of --run, which is not given; leave it out")
    if _MODEL.value or _RUN.value:
        training = ("learning_rate", "num_steps", "l2") if training_too else ()
        experiment_flags.refuse(f"--{named[0]}", (*_OF_OTHERS, *training))
        return network_source.NetworkSource(other=_other(data_dir), data_dir=data_dir)
    stored = experiment_flags.of_folder()
    if stored is not None:
        return network_source.NetworkSource(experiment=stored[1], folder=stored[0], data_dir=data_dir)
    if common_flags.DATASET.value is None:
        raise errors.UsageError(
            "which network: give --experiment (a folder of ground_truth_effects), --dataset with the other flags of an "
            "experiment, or --model; see --help"
        )
    return network_source.NetworkSource(experiment=experiment_flags.config(), data_dir=data_dir)


def _other(data_dir: str | None) -> source_config.SourceConfig:
    run = choices.path(_RUN.value)
    return source_config.SourceConfig(
        run=None if run is None else os.path.abspath(run),
        epoch=_EPOCH.value,
        model=choices.path(_MODEL.value),
        dataset=choices.dataset(common_flags.DATASET.value),
        data_dir=data_dir,
    )


def settings() -> dict[str, Any]:
    """Members that `scoring_config.LinearisationConfig` and `kernel_config.KernelConfig` share."""
    if _PROJECTION.value == "none":
        for name in ("num_features", "projection_seed"):
            if flags.FLAGS[name].present:
                raise errors.InvalidValueError(f"--{name}: says nothing without --projection; add it, or leave it out")
    return {
        "checkpoint": _checkpoint(_CHECKPOINT.value),
        "head": _HEAD.value,
        "projection": _PROJECTION.value,
        "num_features": _NUM_FEATURES.value,
        "projection_seed": _PROJECTION_SEED.value,
        "kernel_dtype": _KERNEL_DTYPE.value,
    }


def _checkpoint(text: str) -> str:
    """Prefixes do not depend on where a worker is started."""
    return text if text in ("first", "last") or text.isdecimal() else os.path.abspath(os.path.expanduser(text))


@contextlib.contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """Shows (stage, done, all), or nothing."""
    if not PROGRESS.value:
        yield lambda stage, done, total: None
        return
    with transfer_bar.stages(lambda stage: stage, _unit) as show:
        yield show


def _unit(stage: str) -> str:
    return "example" if stage.startswith(("kernel", "features")) else "part"


def follow(messages: Any) -> dict[str, Any]:
    """Shows the progress of a worker, and returns what it ended with."""
    finished: dict[str, Any] = {}
    with bars() as show, contextlib.closing(messages):
        for message in messages:
            if "progress" in message:
                show(*message["progress"])
            if "note" in message:
                transfer_bar.note(message["note"])
            finished = message.get("finished", finished)
    return finished


def times(texts: Sequence[str]) -> tuple[float | None, ...]:
    """Times of --t: numbers, inf, or experiment."""
    found: list[float | None] = []
    for text in texts:
        try:
            found.append(None if text.strip() == "experiment" else float(text))
        except ValueError as error:
            raise errors.InvalidValueError(
                f"--t={','.join(texts)}: expected numbers of steps, inf, or experiment for its --num_steps"
            ) from error
    return tuple(found)
