"""Trains the runs of a zoo: many models, each on a random subset of one training set.

    python -m scripts.train_runs --dataset=digits --arch=mlp --subset_ratio=0.7 --run_ids=0:40 --zoo=/tmp/zoo

reads the data set and writes, for every run, in the layout of the published zoos

    /tmp/zoo/digits-mlp/recipe.json                            what all runs share
    /tmp/zoo/digits-mlp/0.7/12/checkpoints/ckpt-10.index, ...  weights, a tf.train.Checkpoint
    /tmp/zoo/digits-mlp/0.7/12/aux_arrays.npz                  which examples it got right, trained on and held out
    /tmp/zoo/digits-mlp/run_table.npz                          all runs packed, for the programs that score them

A healthy run shows a progress bar and ends with lines such as

    40 runs trained, 0 skipped
      ratio 0.7, 40 runs: accuracy 0.995 on the subset, 0.966 held out, 0.970 on the test set

The same command again continues after a kill, and does nothing when all is there. Runs of another recipe are refused.
Next: compute_scores --zoo=/tmp/zoo
"""

from collections.abc import Sequence

from absl import flags

from heldout import training_config, zoo_training
from scripts import choices, cli, common_flags, terminal

_SHARED_FLAGS = ("zoo", "experiment", "dataset", "data_dir", "device")

_DEFAULTS = training_config.TrainingConfig()

_ARCH = flags.DEFINE_string(
    "arch", "mlp", "Architecture: mlp, lenet, small_inception, resnet50, or module:callable for one of your own."
)
_ARCH_OPTIONS = flags.DEFINE_string(
    "arch_options", "{}", 'Keyword arguments of the architecture as JSON, such as {"hidden_sizes": [128, 64]}.'
)
_SUBSET_RATIO = flags.DEFINE_multi_float("subset_ratio", [0.7], "Share of the training set that each run sees.")
_RUN_IDS = flags.DEFINE_string("run_ids", "0:100", "Runs to have at every ratio: 0:400, or 0:10,20,30:40.")
_NUM_EPOCHS = flags.DEFINE_integer("num_epochs", _DEFAULTS.num_epochs, "Passes over the subset.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", _DEFAULTS.batch_size, "Examples per step.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", _DEFAULTS.learning_rate, "Base learning rate.")
_MOMENTUM = flags.DEFINE_float("momentum", _DEFAULTS.momentum, "Momentum of SGD.")
_NESTEROV = flags.DEFINE_bool("nesterov", _DEFAULTS.nesterov, "Nesterov's form of momentum.")
_WEIGHT_DECAY = flags.DEFINE_float(
    "weight_decay", _DEFAULTS.weight_decay, "L2 coefficient on weights and filters, added to the gradient."
)
_SCHEDULE = flags.DEFINE_enum(
    "schedule", _DEFAULTS.schedule, training_config.SCHEDULES, "Learning rate over time, after the warm-up."
)
_WARMUP_EPOCHS = flags.DEFINE_float("warmup_epochs", _DEFAULTS.warmup_epochs, "Length of the linear warm-up.")
_STEP_EPOCHS = flags.DEFINE_list("step_epochs", [], "Epochs at which --schedule=step lowers the rate: 30,60,80.")
_STEP_FACTOR = flags.DEFINE_float("step_factor", _DEFAULTS.step_factor, "Factor at each of --step_epochs.")
_AUGMENTATION = flags.DEFINE_list("augmentation", [], "Any of crop,flip; training images only.")
_CROP_PADDING = flags.DEFINE_integer("crop_padding", _DEFAULTS.crop_padding, "Pixels of zero padding before a crop.")
_DTYPE = flags.DEFINE_enum("dtype", _DEFAULTS.dtype, training_config.DTYPES, "Precision of weights and inputs.")
_WORKERS = flags.DEFINE_integer("workers", None, "Worker processes; without it one for each core on a CPU, else one.")
_RUNS_PER_GROUP = flags.DEFINE_integer(
    "runs_per_group",
    None,
    "Runs that a worker trains as one batch, for architectures that can (mlp, lenet); without it as many as keep "
    "their weights in the cache, up to 8.",
)
_REDO_DAMAGED = flags.DEFINE_bool("redo_damaged", False, "Train damaged runs anew; replaces their files.")


def _training_config() -> training_config.TrainingConfig:
    return training_config.TrainingConfig(
        num_epochs=_NUM_EPOCHS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        momentum=_MOMENTUM.value,
        nesterov=_NESTEROV.value,
        weight_decay=_WEIGHT_DECAY.value,
        schedule=_SCHEDULE.value,
        warmup_epochs=_WARMUP_EPOCHS.value,
        step_epochs=choices.integers("step_epochs", _STEP_EPOCHS.value),
        step_factor=_STEP_FACTOR.value,
        augmentation=tuple(_AUGMENTATION.value),
        crop_padding=_CROP_PADDING.value,
        dtype=_DTYPE.value,
    )


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> training. Status 1 if a run diverged or is damaged."""
    del argv
    config = zoo_training.TrainRunsConfig(
        zoo=choices.required_path("zoo", common_flags.ZOO.value),
        experiment=common_flags.EXPERIMENT.value,
        dataset=choices.dataset(choices.required("dataset", common_flags.DATASET.value)) or "",
        data_dir=choices.path(common_flags.DATA_DIR.value),
        architecture=_ARCH.value,
        architecture_options=choices.json_object("arch_options", _ARCH_OPTIONS.value),
        subset_ratios=tuple(_SUBSET_RATIO.value),
        run_ids=choices.run_ids(_RUN_IDS.value),
        training=_training_config(),
        workers=_WORKERS.value,
        runs_per_group=_RUNS_PER_GROUP.value,
        device=common_flags.DEVICE.value,
        redo_damaged=_REDO_DAMAGED.value,
    )
    terminal.quiet_tensorflow(config.dataset)
    summary = terminal.train_runs(config)
    return 1 if summary.failed or summary.damaged else 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
