"""Flags that `train_model` and `train_sweep` share, and the settings of networks that they make."""

import pathlib
from typing import Any

from absl import flags

from heldout.datasets import random_images
from heldout.experiments import data_split, training_config
from heldout.training import model_settings
from scripts import choices, common_flags, old_command_lines
from scripts.model_training import command_lines
from zoo import errors

_ENVIRONMENT = old_command_lines.defaults_from_environment()
_DEFAULTS = training_config.TrainingConfig()

SAVE_DIR = flags.DEFINE_string(
    "save_dir",
    _ENVIRONMENT.get("save_dir"),
    "Folder of all networks: SAVE_DIR/NAME/MODEL/DATA/SETTING/seed-S/. Without it $SAVE_DIR.",
)
NAME = flags.DEFINE_string(
    "name", _ENVIRONMENT.get("name", "networks"), "Name of a group of networks. Without it $NAME, else networks."
)
MODEL_OPTIONS = flags.DEFINE_string(
    "model_options",
    "{}",
    'Keyword arguments of the architecture as JSON, such as {"pooling": "average"} for conv5 on images below 8 x 8.',
)
AUGMENTATION = flags.DEFINE_list(
    "augmentation", [], "Any of crop,flip, or none; alone it means both. Training images only."
)
CROP_PADDING = flags.DEFINE_integer("crop_padding", _DEFAULTS.crop_padding, "Pixels of zero padding before a crop.")
LABEL_SEED = flags.DEFINE_integer("label_seed", 0, "Seed of the changed labels; nothing else depends on it.")
LABEL_MAP = flags.DEFINE_string(
    "label_map",
    "{}",
    'Which class becomes which with asymmetric noise, as JSON like {"7": 1, "2": 7}; without it the map that is known '
    'for mnist, digits and cifar10. With class_conditional noise shares of each class: {"3": {"5": 0.3, "8": 0.1}}.',
)
TRAIN_SPLIT = flags.DEFINE_string(
    "train_split",
    "rest",
    "Training examples to train on: a number like 49000, a share like 0.98, or rest for all that do not validate.",
)
VAL_SPLIT = flags.DEFINE_string(
    "val_split",
    "auto",
    "Training examples that validate instead: a number, a share, or rest; auto is 1000 of cifar10 and cifar100, and 0 "
    "of others.",
)
DATA_SPLIT_SEED = flags.DEFINE_integer(
    "data_split_seed", 0, "Seed of the split into training and validation; nothing else depends on it."
)
RANDOM_DATA = flags.DEFINE_enum(
    "random_data",
    random_images.NONE,
    [random_images.NONE, *random_images.KINDS],
    "Random images with the channel statistics of the real ones in their place; jitter is real images with as much "
    "noise as signal.",
)
MC_SAMPLE_SEED = flags.DEFINE_integer(
    "mc_sample_seed", 0, "Seed of the images of --random_data; without those it decides nothing and is not kept."
)
STANDARDISE = flags.DEFINE_bool(
    "standardise",
    True,
    "Shift and scale channels to mean 0 and standard deviation 1: by the published constants for cifar10 and "
    "cifar100, else by the training images. Without it inputs are pixels in [0, 1].",
)
EPOCHS = flags.DEFINE_integer("epochs", _DEFAULTS.num_epochs, "Passes over the training examples, at most.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", _DEFAULTS.batch_size, "Examples per step.")
OPTIMIZER = flags.DEFINE_enum("optimizer", _DEFAULTS.optimizer, training_config.OPTIMIZERS, "Update rule.")
LEARNING_RATE = flags.DEFINE_float("learning_rate", _DEFAULTS.learning_rate, "Base learning rate.")
MOMENTUM = flags.DEFINE_float("momentum", _DEFAULTS.momentum, "Momentum of SGD.")
NESTEROV = flags.DEFINE_bool("nesterov", _DEFAULTS.nesterov, "Nesterov's form of momentum.")
ADAM_BETA1 = flags.DEFINE_float("adam_beta1", _DEFAULTS.adam_beta1, "Decay of Adam's first moment.")
ADAM_BETA2 = flags.DEFINE_float("adam_beta2", _DEFAULTS.adam_beta2, "Decay of Adam's second moment.")
ADAM_EPSILON = flags.DEFINE_float("adam_epsilon", _DEFAULTS.adam_epsilon, "Added to the root of Adam's second moment.")
WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", _DEFAULTS.weight_decay, "Times the weights and filters, added to their gradient."
)
L2 = flags.DEFINE_float(
    "l2", 0.0, "Coefficient of half the sum of squares of weights and filters; another name of --weight_decay."
)
L1 = flags.DEFINE_float("l1", _DEFAULTS.l1, "Coefficient of the sum of absolute values of weights and filters.")
SCHEDULE = flags.DEFINE_enum(
    "schedule", _DEFAULTS.schedule, training_config.SCHEDULES, "Learning rate over time, after the warm-up."
)
STEP_EPOCHS = flags.DEFINE_list("step_epochs", [], "Epochs at which --schedule=step lowers the rate: 30,60,80.")
STEP_FACTOR = flags.DEFINE_float("step_factor", _DEFAULTS.step_factor, "Factor at each of --step_epochs.")
LR_WARMUP_EPOCHS = flags.DEFINE_float("lr_warmup_epochs", _DEFAULTS.warmup_epochs, "Length of the linear warm-up.")
LR_WARMUP_INITIAL = flags.DEFINE_float(
    "lr_warmup_initial", _DEFAULTS.warmup_initial, "Learning rate at which the warm-up begins."
)
STOP_ACCURACY = flags.DEFINE_float(
    "stop_accuracy",
    _DEFAULTS.stop_accuracy,
    "End the training at an evaluation whose accuracy on the labels trained with is at least this; 0 for never.",
)
STOP_LOSS = flags.DEFINE_float(
    "stop_loss", _DEFAULTS.stop_loss, "End it after an epoch whose mean training loss is at most this; 0 for never."
)
MIXED_PRECISION = flags.DEFINE_enum(
    "mixed_precision",
    _DEFAULTS.mixed_precision,
    training_config.MIXED_PRECISION,
    "Type of products and activations in training; weights stay float32.",
)
DTYPE = flags.DEFINE_enum("dtype", _DEFAULTS.dtype, training_config.DTYPES, "Precision of weights and inputs.")
EVAL_EVERY = flags.DEFINE_integer(
    "eval_every", 1, "Epochs between two evaluations, which are rows of history.csv; epochs with a checkpoint have one."
)
CHECKPOINT_EPOCHS = flags.DEFINE_string(
    "checkpoint_epochs",
    "",
    "Epochs after which a checkpoint is kept, besides the last: 0,1,2,5 (0 is the initialisation), every:10, log:8 "
    "(0 and eight in equal ratios), or several of these with commas between.",
)
RESUME_MINUTES = flags.DEFINE_float(
    "resume_minutes",
    1.0,
    "Least time between two savings of what a killed training goes on from; 0 for every epoch.",
    lower_bound=0,
)
TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Write scalars for TensorBoard into the folders of networks.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Train anew what is there already; deletes its files.")
PROGRESS = flags.DEFINE_bool("progress", True, "Say how far the training is; --noprogress prints the results only.")

_OWN = (
    *(SAVE_DIR, NAME, MODEL_OPTIONS, AUGMENTATION, CROP_PADDING, LABEL_SEED, LABEL_MAP, TRAIN_SPLIT, VAL_SPLIT),
    *(DATA_SPLIT_SEED, RANDOM_DATA, MC_SAMPLE_SEED, STANDARDISE, EPOCHS, BATCH_SIZE, OPTIMIZER, LEARNING_RATE),
    *(MOMENTUM, NESTEROV, ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, WEIGHT_DECAY, L2, L1, SCHEDULE, STEP_EPOCHS),
    *(STEP_FACTOR, LR_WARMUP_EPOCHS, LR_WARMUP_INITIAL, STOP_ACCURACY, STOP_LOSS, MIXED_PRECISION, DTYPE),
    *(EVAL_EVERY, CHECKPOINT_EPOCHS, RESUME_MINUTES, TENSORBOARD, OVERWRITE, PROGRESS),
)
# For the list of shared flags of a program.
NAMES = tuple(flag.name for flag in _OWN)


def device() -> str:
    """--device, else $DEVICE, else cpu."""
    if common_flags.DEVICE.present:
        return common_flags.DEVICE.value
    return _ENVIRONMENT.get("device", common_flags.DEVICE.value)


def default_workers() -> int | None:
    """$WORKERS; None where it is not set."""
    return int(_ENVIRONMENT["workers"]) if "workers" in _ENVIRONMENT else None


def save_dir() -> str:
    """Where the networks go."""
    return choices.required_path("save_dir", SAVE_DIR.value)


def settings(model: str, label_noise: str, seed: int) -> model_settings.ModelSettings:
    """The settings that the flags describe.

    Args:
        model: name of the architecture, with its width.
        label_noise: as in --label_noise.
        seed: as in --seed.

    Raises:
        InvalidValueError: what a flag says cannot be.
    """
    dataset = choices.dataset(choices.required("dataset", common_flags.DATASET.value))
    assert dataset is not None
    label_map = choices.json_object("label_map", LABEL_MAP.value)
    random_data = RANDOM_DATA.value
    return model_settings.ModelSettings(
        dataset=_absolute(dataset),
        architecture=model,
        architecture_options=choices.json_object("model_options", MODEL_OPTIONS.value),
        training=_training(),
        noise=command_lines.noise(label_noise, LABEL_SEED.value, label_map),
        train_split=data_split.parse("train_split", TRAIN_SPLIT.value),
        val_split=command_lines.val_split(VAL_SPLIT.value, dataset),
        data_split_seed=DATA_SPLIT_SEED.value,
        random_data=random_data,
        mc_sample_seed=MC_SAMPLE_SEED.value if random_data != random_images.NONE else 0,
        standardise=STANDARDISE.value,
        seed=seed,
        eval_every=EVAL_EVERY.value,
        checkpoint_epochs=model_settings.parse_epochs(CHECKPOINT_EPOCHS.value, EPOCHS.value),
    )


def _training() -> training_config.TrainingConfig:
    if WEIGHT_DECAY.value and L2.value:
        raise errors.InvalidValueError(
            f"--weight_decay={WEIGHT_DECAY.value} with --l2={L2.value}: they mean the same; give one of them"
        )
    if LR_WARMUP_INITIAL.present and not LR_WARMUP_EPOCHS.value:
        raise errors.InvalidValueError(
            f"--lr_warmup_initial={LR_WARMUP_INITIAL.value}: there is no warm-up; give --lr_warmup_epochs, or leave it "
            "out"
        )
    of_flags: dict[str, Any] = {"step_epochs": choices.integers("step_epochs", STEP_EPOCHS.value)}
    for holder in (BATCH_SIZE, OPTIMIZER, LEARNING_RATE, MOMENTUM, NESTEROV, ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON):
        of_flags[holder.name] = holder.value
    for holder in (L1, SCHEDULE, STEP_FACTOR, STOP_ACCURACY, STOP_LOSS, MIXED_PRECISION, DTYPE, CROP_PADDING):
        of_flags[holder.name] = holder.value
    try:
        return training_config.TrainingConfig(
            **of_flags,
            num_epochs=EPOCHS.value,
            weight_decay=WEIGHT_DECAY.value or L2.value,
            warmup_epochs=LR_WARMUP_EPOCHS.value,
            warmup_initial=LR_WARMUP_INITIAL.value,
            augmentation=command_lines.augmentation(AUGMENTATION.value),
        )
    except errors.InvalidValueError as error:
        # Flags have other names here than members of the configuration.
        raise errors.InvalidValueError(_with_flag_names(str(error))) from error


def _with_flag_names(message: str) -> str:
    for name, flag in (("num_epochs", "epochs"), ("warmup_epochs", "lr_warmup_epochs")):
        message = message.replace(f"--{name}=", f"--{flag}=").replace(f" {name}", f" --{flag}")
    return message.replace("--warmup_initial=", "--lr_warmup_initial=")


def _absolute(dataset: str) -> str:
    """A data set of one's own by its whole path, which other programs find from any folder."""
    kind, _, path = dataset.partition(":")
    return f"{kind}:{pathlib.Path(path).absolute()}" if path else dataset
