"""Runs per hour of the MNIST demonstration beside a plain loop that trains one run after the other.

    python -m benchmarks.benchmark_training --data_dir=DIR              # real MNIST, prepared for TensorFlow Datasets
    python -m benchmarks.benchmark_training --synthetic                 # random images of the same shape

Recipe: MLP 784-512-256-10, subset ratio 0.5, batches of 128, momentum 0.9, step 0.1, 10 epochs, then evaluation of the
whole training set and the test set. The reference is the plain loop in JAX (or, with --reference=tf, in TensorFlow):
data in memory, one compiled step, one run at a time, all cores. Its imports, compilation and first epoch are left out
of its time; ours is the whole `train_runs` from start to finish, processes, imports, tracing and files included. The
reference runs before and after ours, in the same session, because shared machines drift. Writes
benchmarks/results/training.json.
"""

import tempfile
import time

from absl import app, flags
import numpy as np

from benchmarks import environment, plain_training
from heldout.datasets import registry as datasets
from heldout.experiments import training_config
from heldout.training import train_runs_config, zoo_training

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets with mnist.")
_SYNTHETIC = flags.DEFINE_bool("synthetic", False, "Random images instead of MNIST.")
_REFERENCE = flags.DEFINE_enum("reference", "jax", ["jax", "tf"], "What to stand beside.")
_NUM_RUNS = flags.DEFINE_integer("num_runs", 32, "Runs of ours.")
_NUM_REFERENCE_RUNS = flags.DEFINE_integer("num_reference_runs", 2, "Runs of the reference, before and again after.")
_NUM_EPOCHS = flags.DEFINE_integer("num_epochs", 10, "Epochs of each run.")
_RUNS_PER_GROUP = flags.DEFINE_integer("runs_per_group", None, "Of ours; without it the choice of the trainer.")
_WORKERS = flags.DEFINE_integer("workers", None, "Of ours.")
_NAME = flags.DEFINE_string("name", "training", "Name of the result file.")


def main(argv: list[str]) -> None:
    """Times reference, ours, reference, and prints the ratio."""
    del argv
    with tempfile.TemporaryDirectory() as folder:
        dataset = f"npz:{_synthetic(folder)}" if _SYNTHETIC.value else "mnist"
        data = datasets.load(dataset, _DATA_DIR.value)
        reference = plain_training.load(_REFERENCE.value, data, _NUM_EPOCHS.value)
        before = reference(_NUM_REFERENCE_RUNS.value)
        ours, accuracy = _ours(folder, dataset)
        after = reference(_NUM_REFERENCE_RUNS.value)
    seconds_per_run = ours / _NUM_RUNS.value
    plain = [seconds / _NUM_REFERENCE_RUNS.value for seconds in (before.seconds, after.seconds)]
    figures = {
        "reference": _REFERENCE.value,
        "reference_seconds_per_run": plain,
        "reference_heldout_accuracy": before.heldout_accuracy,
        "seconds_per_run": seconds_per_run,
        "heldout_accuracy": accuracy,
        "runs_per_hour": 3600 / seconds_per_run,
        "reference_runs_per_hour": 3600 / float(np.mean(plain)),
        "ratio": float(np.mean(plain)) / seconds_per_run,
        "num_runs": _NUM_RUNS.value,
        "num_epochs": _NUM_EPOCHS.value,
        "runs_per_group": _RUNS_PER_GROUP.value,
        "dataset": "synthetic" if _SYNTHETIC.value else "mnist",
    }
    for key, value in figures.items():
        print(f"{key}: {value}")
    print(environment.save(_NAME.value, figures))


def _ours(folder: str, dataset: str) -> tuple[float, float]:
    config = train_runs_config.TrainRunsConfig(
        zoo=f"{folder}/zoo",
        experiment="benchmark",
        dataset=dataset,
        data_dir=_DATA_DIR.value,
        architecture="mlp",
        architecture_options={},
        subset_ratios=(0.5,),
        run_ids=tuple(range(_NUM_RUNS.value)),
        training=training_config.TrainingConfig(num_epochs=_NUM_EPOCHS.value),
        runs_per_group=_RUNS_PER_GROUP.value,
        workers=_WORKERS.value,
    )
    start = time.perf_counter()
    summary = zoo_training.train_runs(config)
    seconds = time.perf_counter() - start
    return seconds, float(np.mean([result.accuracy_heldout for result in summary.trained]))


def _synthetic(folder: str) -> str:
    generator = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 60000), ("test", 10000)):
        arrays[f"{split}__image"] = generator.integers(0, 256, (count, 28, 28, 1), np.uint8)
        arrays[f"{split}__label"] = generator.integers(0, 10, count)
    path = f"{folder}/synthetic.npz"
    np.savez(path, **arrays, __num_classes=10, __data_scale=255)
    return path


if __name__ == "__main__":
    app.run(main)
