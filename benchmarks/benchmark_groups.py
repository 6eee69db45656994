"""Times one step of training for groups of several sizes: what heldout/training/group_size.py is founded on.

    python -m benchmarks.benchmark_groups                       # all architectures that are quick enough
    python -m benchmarks.benchmark_groups --arch=lenet --groups=1,2,4,8,16

On a CPU as many processes as there are cores train at the same time, with one thread each, as `train_runs` does; on
another --device one process. Milliseconds are those of one step of one run in one process; the group of 1 is the
model alone. Random images. Results go to benchmarks/results/groups.json,
with --jit_compile to groups_xla.json.
"""

from collections.abc import Sequence
import json
import statistics
import subprocess
import sys
import time

from absl import app, flags
import numpy as np
import tensorflow as tf

from benchmarks import environment
from heldout import devices, subsets
from heldout.experiments import training_config
from heldout.models import registry
from heldout.running import workers
from heldout.training import batches, ensemble, learners, training_loop

_ARCH = flags.DEFINE_list("arch", ["mlp", "mlp-digits", "mlp-tiny", "lenet"], "Any of those, and small_inception.")
_GROUPS = flags.DEFINE_list("groups", ["1", "2", "4", "8", "16"], "Sizes to time.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Examples in a step.")
_DEVICE = flags.DEFINE_enum("device", "cpu", devices.DEVICES, "Where.")
_JIT_COMPILE = flags.DEFINE_bool("jit_compile", False, "Let XLA compile the epoch.")
_WORKER = flags.DEFINE_bool("worker", False, "Time in this process and print JSON.")
# Architecture, options, image shape, steps that are timed together.
_CASES = {
    "mlp": ("mlp", {}, (28, 28, 1), 40),
    "mlp-digits": ("mlp", {}, (8, 8, 1), 80),
    "mlp-tiny": ("mlp", {"hidden_sizes": [32]}, (8, 8, 1), 200),
    "lenet": ("lenet", {}, (28, 28, 1), 10),
    "small_inception": ("small_inception", {}, (32, 32, 3), 2),
}
_REPEATS = 5


def _milliseconds(name: str, num_runs: int) -> float:
    """Of one step of one run."""
    architecture, options, shape, num_steps = _CASES[name]
    batch_size = _BATCH_SIZE.value
    generator = np.random.default_rng(0)
    num_train = 2 * num_steps * batch_size
    images = generator.integers(0, 256, (num_train, *shape), np.uint8)
    config = training_config.TrainingConfig(num_epochs=_REPEATS + 1, batch_size=batch_size, learning_rate=1e-3)
    module = registry.build(architecture, 10, shape, options)
    learner: learners.Learner = (
        learners.SingleLearner(module) if num_runs == 1 else ensemble.EnsembleLearner(module, num_runs)
    )
    trainer = training_loop.Trainer(
        learner,
        images,
        generator.integers(0, 10, num_train),
        lambda x: tf.cast(x, tf.float32) / 255,
        config,
        jit_compile=_JIT_COMPILE.value,
    )
    draws = [
        batches.RunDraw(("e", 0.5, run), subsets.subset_indices("e", 0.5, run, num_train)) for run in range(num_runs)
    ]
    times = []
    trainer.train(draws, [learners.read_values(module)] * num_runs, lambda *_: times.append(time.perf_counter()))
    return min(np.diff(times)) / num_steps / num_runs * 1e3


def _measure() -> dict[str, dict[str, float]]:
    with devices.configure(_DEVICE.value, 1 if _DEVICE.value == "cpu" else None):
        return {name: {size: _milliseconds(name, int(size)) for size in _GROUPS.value} for name in _ARCH.value}


def main(argv: Sequence[str]) -> None:
    """Starts the processes, prints and stores the mean over them."""
    if _WORKER.value:
        print(json.dumps(_measure()))
        return
    num_processes = workers.num_cores() if _DEVICE.value == "cpu" else 1
    command = [sys.executable, "-m", "benchmarks.benchmark_groups", "--worker", *argv[1:], *sys.argv[1:]]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(num_processes)
    ]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    figures = {
        name: {size: statistics.mean(of_process[name][size] for of_process in found) for size in _GROUPS.value}
        for name in _ARCH.value
    }
    for name, by_size in figures.items():
        print(f"{name:>16}: " + "  ".join(f"{size}: {value:.3f} ms" for size, value in by_size.items()))
    print(
        environment.save(
            "groups_xla" if _JIT_COMPILE.value else "groups", {"num_processes": num_processes, "milliseconds": figures}
        )
    )


if __name__ == "__main__":
    app.run(main)
