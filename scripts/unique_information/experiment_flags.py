"""Flags that say an experiment: data, network and training, for all programs that train or linearise it.

The same flags say the same experiment in each of them. A program passes `NAMES` to `cli.launch` among its shared flags.
An experiment that `ground_truth_effects` has begun can also be named by its folder, with `--experiment`, which a
program that reads it adds to its shared flags.
"""

import json
import os
import re
from typing import Any

from absl import flags

from heldout.training import leave_out_config, leave_out_draw
from scripts import choices, common_flags
from scripts.model_training import command_lines
from scripts.unique_information import pretrained_weights
from zoo import errors, files, layout

_CLASSES = flags.DEFINE_list(
    "classes", [], "Labels to keep, such as 4,9; the first of two is regressed on 0, the second on 1. Without it all."
)
_COARSE_LABELS = flags.DEFINE_string(
    "coarse_labels",
    "{}",
    'Instead of --classes: labels of each class as JSON, such as {"0": [0, 2, 4], "1": [1, 3]}; its labels are then '
    "subclasses.",
)
_CLASS_COUNTS = flags.DEFINE_list(
    "class_counts",
    [],
    "Training examples of some labels of the data set, such as 4:900,9:100; the other labels give the rest of "
    "--num_train. Validation examples are drawn as without it.",
)
_NUM_TRAIN = flags.DEFINE_integer("num_train", 1000, "Training examples to draw.")
_NUM_VAL = flags.DEFINE_integer("num_val", 1000, "Validation examples to draw.")
_DATA_SEED = flags.DEFINE_integer("data_seed", 0, "Seed of this draw, and of other choices of examples by chance.")
_VAL_SPLIT = flags.DEFINE_enum(
    "val_split",
    "train",
    leave_out_draw.VAL_SPLITS,
    "Where validation examples are drawn: beside the training examples, or test.",
)
_LABEL_NOISE = flags.DEFINE_string(
    "label_noise",
    "none",
    "Labels of drawn training examples to change: a share like 0.1 (symmetric), or a kind with a share or a number, as "
    "in pair:30.",
)
_LABEL_SEED = flags.DEFINE_integer("label_seed", 0, "Seed of the changed labels; nothing else depends on it.")
_ARCH = flags.DEFINE_string(
    "arch",
    "mlp",
    "Architecture: mlp, lenet, conv5_16, vgg11_16 and others of train_runs, keras:ResNet50 and others of "
    "keras.applications, or module:callable.",
)
_ARCH_OPTIONS = flags.DEFINE_string(
    "arch_options",
    "{}",
    'Its options as JSON, such as {"hidden_sizes": [1024]} for mlp, or {"weights": "imagenet"}, or a path instead, for '
    "keras:ResNet50.",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the initialisation, which all networks share.")
_INIT_CHECKPOINT = flags.DEFINE_string(
    "init_checkpoint", None, "Prefix of a checkpoint of this architecture to begin with, instead of --seed."
)
_INIT_BODY = flags.DEFINE_bool(
    "init_body",
    False,
    "Take only the body from --init_checkpoint, a network with another number of classes; --seed draws the last layer.",
)
LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Step of gradient descent on the mean loss.")
NUM_STEPS = flags.DEFINE_integer("num_steps", 2000, "Steps, each over all examples.")
L2 = flags.DEFINE_float("l2", 0.0, "Weight of 1/2 |w - w0|^2, the squared distance to the initialisation.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", leave_out_config.DTYPES, "Type of weights and inputs.")
# The shared flag of this name says an experiment of a zoo.
_EXPERIMENT = flags.DEFINE_string(
    "experiment",
    None,
    "Folder that ground_truth_effects has written, instead of flags that say the experiment again.",
    allow_override=True,
)

# For the list of shared flags of a program.
NAMES = (
    *("dataset", "classes", "coarse_labels", "class_counts"),
    *("num_train", "num_val", "data_seed", "val_split", "label_noise", "label_seed"),
    *("arch", "arch_options", "seed", "init_checkpoint", "init_body", "learning_rate", "num_steps", "l2", "dtype"),
)


def config(record_steps: tuple[int, ...] = ()) -> leave_out_config.LeaveOutConfig:
    """What the flags say; without the fingerprint of the data, which nobody has seen.

    Args:
        record_steps: steps after which predictions of the full network are kept.

    Raises:
        UsageError: there is no --dataset.
        InvalidValueError: a value lies outside what is allowed.
        MissingFileError: the checkpoint to begin with is not there.
    """
    return leave_out_config.LeaveOutConfig(
        dataset=choices.required("dataset", choices.dataset(common_flags.DATASET.value)),
        classes=choices.integers("classes", _CLASSES.value),
        coarse_labels=_coarse_labels(choices.json_object("coarse_labels", _COARSE_LABELS.value)),
        class_counts=_class_counts(_CLASS_COUNTS.value),
        num_train=_NUM_TRAIN.value,
        num_val=_NUM_VAL.value,
        data_seed=_DATA_SEED.value,
        val_split=_VAL_SPLIT.value,
        noise=command_lines.noise(_LABEL_NOISE.value, _LABEL_SEED.value, {}),
        architecture=_ARCH.value,
        architecture_options=pretrained_weights.pinned(
            _ARCH.value, choices.json_object("arch_options", _ARCH_OPTIONS.value)
        ),
        seed=_SEED.value,
        learning_rate=LEARNING_RATE.value,
        num_steps=NUM_STEPS.value,
        l2=L2.value,
        dtype=_DTYPE.value,
        record_steps=record_steps,
        **_beginning(),
    )


def _coarse_labels(asked: dict[str, Any]) -> tuple[tuple[int, ...], ...]:
    """Labels of each class, in the order of their numbers."""
    names = [str(number) for number in range(len(asked))]
    is_known = set(asked) == set(names) and all(isinstance(asked[name], list) for name in names)
    if not is_known or not all(type(label) is int for members in asked.values() for label in members):
        raise errors.InvalidValueError(
            f"--coarse_labels={json.dumps(asked)}: expected lists of labels under the numbers of the classes from 0, "
            'such as {"0": [0, 2, 4], "1": [1, 3]}'
        )
    return tuple(tuple(asked[name]) for name in names)


def _class_counts(parts: list[str]) -> tuple[tuple[int, int], ...]:
    """(label, number) by label."""
    matches = [re.fullmatch("([0-9]{1,9}):([0-9]{1,15})", part.strip()) for part in parts]
    if None in matches:
        raise errors.InvalidValueError(
            f"--class_counts={','.join(parts)}: expected labels with numbers of examples, such as 4:900,9:100"
        )
    return tuple(sorted((int(match[1]), int(match[2])) for match in matches if match is not None))


def _beginning() -> dict[str, Any]:
    """The checkpoint that the training begins with, and its digest."""
    prefix = choices.path(_INIT_CHECKPOINT.value)
    if prefix is None:
        return {"init_body": _INIT_BODY.value}
    path = f"{prefix}{layout.CHECKPOINT_DATA_SUFFIX}"
    if not os.path.isfile(path):
        raise errors.MissingFileError(
            f"--init_checkpoint={prefix}: {path} is not there; give what its files begin with"
        )
    return {
        "init_checkpoint": os.path.abspath(prefix),
        "init_sha256": files.sha256_of_file(path),
        "init_body": _INIT_BODY.value,
    }


def of_folder() -> tuple[str, leave_out_config.LeaveOutConfig] | None:
    """The folder of --experiment and what is stored there; None where the flag is not given.

    Raises:
        InvalidValueError: flags say an experiment beside it.
        MissingFileError, DamagedFileError: of its config.json.
    """
    folder = choices.path(_EXPERIMENT.value)
    if folder is None:
        return None
    refuse("--experiment, whose folder has its own")
    return os.path.abspath(folder), leave_out_config.read(folder)


def refuse(beside: str, but: tuple[str, ...] = ()) -> None:
    """Refuses flags that say an experiment, where something else does.

    Args:
        beside: what does, for the message.
        but: names of flags that may be given.

    Raises:
        InvalidValueError: one is given.
    """
    for name in NAMES:
        if name not in but and flags.FLAGS[name].present:
            raise errors.InvalidValueError(f"--{name} says nothing beside {beside}; leave it out")
