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
--recipe=NAME sets data set, architecture, training, ratios and number of runs as a known zoo has them, where no flag
says otherwise; --recipe=help explains all names. Runs that fail, because their loss is no number, are noted in
failures.jsonl with the command that trains each alone; the same command tries them again, with the same seeds.
--runner=ray trains on a Ray cluster, and --zoo=gs://bucket/zoo trains into a bucket (docs/cluster.md); a worker that is
lost is replaced, there and here.
Next: compute_scores --zoo=/tmp/zoo
"""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

from absl import flags

from heldout import subsets
from heldout.experiments import label_noise, named_recipes, training_config
from heldout.running import shares
from heldout.training import train_runs_config, zoo_training
from scripts import choices, cli, common_flags, runner_flags, terminal
from zoo import errors, files

_SHARED_FLAGS = ("zoo", "experiment", "dataset", "data_dir", "device", *runner_flags.NAMES)

_DEFAULTS = training_config.TrainingConfig()

_RECIPE = flags.DEFINE_string(
    "recipe", None, "Name of a recipe, which sets what no other flag sets; --recipe=help prints all of them."
)
_ARCH = flags.DEFINE_string(
    "arch",
    "mlp",
    "Architecture: mlp, lenet, resnet50; conv5, resnet18, resnet34, vgg11, vgg13, vgg16, vgg19, vit, small_inception, "
    "also with a width as in resnet18_16; or module:callable for one of your own.",
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
_MIXED_PRECISION = flags.DEFINE_enum(
    "mixed_precision",
    _DEFAULTS.mixed_precision,
    training_config.MIXED_PRECISION,
    "Type of products and activations in training, for devices that are quicker with it; weights stay float32.",
)
_DTYPE = flags.DEFINE_enum("dtype", _DEFAULTS.dtype, training_config.DTYPES, "Precision of weights and inputs.")
_WORKERS = flags.DEFINE_integer(
    "workers", None, "Worker processes; without it one for each core on a CPU, else one, or all that a cluster holds."
)
_RUNS_PER_GROUP = flags.DEFINE_string(
    "runs_per_group",
    "auto",
    "Runs that a worker trains as one batched computation, where the architecture has one (all of ours have). auto: by "
    "what a step costs and by memory; on a CPU only small networks gain.",
)
_SUBSET_SAMPLING = flags.DEFINE_enum(
    "subset_sampling",
    subsets.UNIFORM,
    subsets.SAMPLINGS,
    "How a subset is drawn: any examples, or of each class the same share.",
)
_LABEL_NOISE = flags.DEFINE_string(
    "label_noise",
    "none",
    "Training labels to change: symmetric, pair or asymmetric, and a share of all examples or a number of them, as in "
    "symmetric:0.2 or pair:300; or class_conditional, with shares of each class in --label_map.",
)
_LABEL_SEED = flags.DEFINE_integer("label_seed", 0, "Seed of the changed labels; nothing else depends on it.")
_LABEL_MAP = flags.DEFINE_string(
    "label_map",
    "{}",
    'Which class becomes which with asymmetric noise, as JSON like {"7": 1, "2": 7}; without it the map that is known '
    'for mnist, digits and cifar10. With class_conditional noise shares of each class: {"3": {"5": 0.3, "8": 0.1}}.',
)
_MARGINS = flags.DEFINE_bool("margins", False, "Store with every run the margin of each example, 2 bytes each.")
_MAX_FAILURES = flags.DEFINE_integer(
    "max_failures", 5, "Stop when so many runs in a row have failed; 0 for never.", lower_bound=0
)
_GRACE_S = flags.DEFINE_float(
    "grace_s",
    0.0,
    "Seconds that runs which are being trained have to be finished after Ctrl-C or SIGTERM; with 0 they are given up.",
    lower_bound=0,
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "none",
    train_runs_config.STRATEGIES,
    "Train a run on each replica of a tf.distribute strategy: mirrored for all GPUs of a machine, tpu for all cores, "
    "multi_worker for all GPUs of each machine of a cluster, where TF_CONFIG tells a machine its share of the runs.",
)
_NUM_REPLICAS = flags.DEFINE_integer(
    "num_replicas", None, "With --strategy=mirrored or multi_worker and --device=cpu: logical devices of the CPU.", 1
)
_SHARE = flags.DEFINE_string(
    "share",
    None,
    "Which part of the runs to train, where the same command is started on several machines or as an array of jobs: "
    "2/8 for the second of eight.",
)
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", False, "Write scalars for TensorBoard into the folder tensorboard of the experiment."
)
_REDO_DAMAGED = flags.DEFINE_bool("redo_damaged", False, "Train damaged runs anew; replaces their files.")


_TRAINING_FLAGS = (
    *(_NUM_EPOCHS, _BATCH_SIZE, _LEARNING_RATE, _MOMENTUM, _NESTEROV, _WEIGHT_DECAY, _SCHEDULE, _WARMUP_EPOCHS),
    *(_STEP_EPOCHS, _STEP_FACTOR, _AUGMENTATION, _CROP_PADDING, _DTYPE, _MIXED_PRECISION),
)


def _training_config(base: training_config.TrainingConfig) -> training_config.TrainingConfig:
    """The base with what flags say otherwise."""
    given: dict[str, Any] = {holder.name: holder.value for holder in _TRAINING_FLAGS if holder.present}
    if "step_epochs" in given:
        given["step_epochs"] = choices.integers("step_epochs", given["step_epochs"])
    if "augmentation" in given:
        given["augmentation"] = tuple(given["augmentation"])
    return dataclasses.replace(base, **given)


def _from_recipe(named: named_recipes.NamedRecipe) -> dict[str, Any]:
    """What a recipe sets, where no flag says otherwise, as arguments of the configuration."""
    settings: dict[str, Any] = {} if common_flags.EXPERIMENT.present else {"experiment": named.name}
    if not common_flags.DATASET.present:
        settings["dataset"] = named.dataset
    if not _ARCH.present or _ARCH.value == named.architecture:
        settings["architecture"] = named.architecture
        if not _ARCH_OPTIONS.present:
            settings["architecture_options"] = dict(named.architecture_options)
    if not _SUBSET_RATIO.present:
        settings["subset_ratios"] = named.subset_ratios
    if not _RUN_IDS.present:
        settings["run_ids"] = tuple(range(named.num_runs))
    return settings


def _share() -> shares.Share:
    if _STRATEGY.value != "multi_worker":
        return shares.Share() if _SHARE.value is None else shares.parse(_SHARE.value)
    if _SHARE.value is not None:
        raise errors.InvalidValueError(
            f"--share={_SHARE.value} with --strategy=multi_worker: there {shares.VARIABLE} says which; leave one out"
        )
    return shares.from_environment(os.environ)


def _noise() -> label_noise.LabelNoise | None:
    noise = label_noise.parse(_LABEL_NOISE.value, _LABEL_SEED.value, choices.json_object("label_map", _LABEL_MAP.value))
    if noise is None and _LABEL_SEED.present:
        raise errors.InvalidValueError(
            f"--label_seed={_LABEL_SEED.value}: no labels are changed; give --label_noise, or leave it out"
        )
    return noise


def _config() -> train_runs_config.TrainRunsConfig:
    named = None if _RECIPE.value is None else named_recipes.find(_RECIPE.value)
    from_recipe = {} if named is None else _from_recipe(named)
    from_flags: dict[str, Any] = {
        "zoo": choices.required_path("zoo", common_flags.ZOO.value),
        "experiment": common_flags.EXPERIMENT.value,
        "data_dir": choices.path(common_flags.DATA_DIR.value),
        "architecture": _ARCH.value,
        "architecture_options": choices.json_object("arch_options", _ARCH_OPTIONS.value),
        "subset_ratios": tuple(_SUBSET_RATIO.value),
        "run_ids": choices.run_ids(_RUN_IDS.value),
        "training": _training_config(_DEFAULTS if named is None else named.training),
        "workers": _WORKERS.value,
        "runs_per_group": choices.integer_or_auto("runs_per_group", _RUNS_PER_GROUP.value),
        "device": common_flags.DEVICE.value,
        "redo_damaged": _REDO_DAMAGED.value,
        "strategy": _STRATEGY.value,
        "num_replicas": _NUM_REPLICAS.value,
        "noise": _noise(),
        "subset_sampling": _SUBSET_SAMPLING.value,
        "margins": _MARGINS.value,
        "max_failures": _MAX_FAILURES.value,
        "grace_s": _GRACE_S.value,
        "runner": runner_flags.runner(),
        "share": _share(),
    }
    if "dataset" not in from_recipe:
        from_flags["dataset"] = choices.dataset(choices.required("dataset", common_flags.DATASET.value))
    return train_runs_config.TrainRunsConfig(**(from_flags | from_recipe))


def run(argv: Sequence[str]) -> int:
    """Flags -> config -> training. Status 1 if a run diverged or is damaged."""
    del argv
    if _RECIPE.value == "help":
        print(named_recipes.describe())
        return 0
    config = _config()
    terminal.quiet_tensorflow(config.dataset)
    summary = terminal.train_runs(config, tensorboard=_TENSORBOARD.value)
    if summary.failed:
        _say_how_to_retry(config, summary)
    return 1 if summary.failed or summary.damaged else 0


def _say_how_to_retry(config: train_runs_config.TrainRunsConfig, summary: zoo_training.TrainRunsSummary) -> None:
    if summary.stopped:
        limit = files.count_text(config.max_failures, "run")
        print(f"stopped: the last {limit} in a row failed (--max_failures={config.max_failures}; 0 never stops)")
    first = min(summary.failures, key=lambda failure: (failure.subset_ratio, failure.run_id))
    print(f"a failed run alone, with the same seed: {first.retry}")


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
