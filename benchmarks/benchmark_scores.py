"""Time and peak memory of the blockwise subset influence writer beside the plain two-product formula.

    python -m benchmarks.benchmark_scores --num_train_slice=10000

A synthetic run table (4000 runs, 50000 training and 10000 test examples unless flags say otherwise) is made once.
Then two programs of their own read it and compute subset influence of the first --num_train_slice training examples:

- ours: `heldout.scoring.influence_file.write`, which writes values and standard errors to disk in blocks;
- plain: the formula of Feldman & Zhang (2020) as it is usually written, two float32 products over unpacked matrices
  that are held in memory, once with values only, once with standard errors and `np.savez` of the same members.

`ours_values` and `plain_values` compare the arithmetic alone, without files. Every program is run --repeats times,
the programs in turn; the medians count. Their results are compared bit by bit on some rows. A healthy run prints a
table with seconds and MiB (ru_maxrss of the process; `import_mib` is what it took before it read the table), then
ratios plain / ours above 1, and writes benchmarks/results/scores.json with the environment.
"""

from collections.abc import Callable
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app, flags
import numpy as np

from benchmarks import environment
from heldout.scoring import influence_file, influence_matrix
from zoo import files, run_table

_RATIO = 0.7
_NUM_RUNS = flags.DEFINE_integer("num_runs", 4000, "T.")
_NUM_TRAIN = flags.DEFINE_integer("num_train", 50000, "N.")
_NUM_TEST = flags.DEFINE_integer("num_test", 10000, "M.")
_NUM_TRAIN_SLICE = flags.DEFINE_integer("num_train_slice", None, "Take only so many of the training examples.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of every program.")
_MEMORY_LIMIT_MB = flags.DEFINE_integer("memory_limit_mb", 1024, "Of ours.")
_FOLDER = flags.DEFINE_string("folder", None, "Where the programs work; a temporary folder if not given.")
_WORKER = flags.DEFINE_string("worker", None, "For the processes that are timed.")
_NAME = flags.DEFINE_string("name", "scores", "Name of the result file.")


def make_table(num_runs: int, num_train: int, num_test: int) -> run_table.RunTable:
    """A table of random bits, each true in 3 of 4 cases, drawn as packed bytes."""
    generator = np.random.default_rng(0)

    def bits(columns: int) -> np.ndarray:
        one, other = generator.integers(0, 256, (2, num_runs, -(-columns // 8)), np.uint8)
        packed = one | other
        if columns % 8:
            packed[:, -1] &= (1 << columns % 8) - 1
        return packed

    return run_table.RunTable(
        experiment="benchmark",
        num_train=num_train,
        num_test=num_test,
        run_id=np.arange(num_runs),
        subset_ratio=np.full(num_runs, _RATIO),
        subset_mask_bits=bits(num_train),
        train_correctness_bits=bits(num_train),
        test_correctness_bits=bits(num_test),
        source_sha256=np.zeros((num_runs, 32), np.uint8),
        source_size=np.zeros(num_runs, np.int64),
        source_mtime_ns=np.zeros(num_runs, np.int64),
    )


def run_ours(table: run_table.RunTable, path: pathlib.Path, limit: int) -> None:
    influence_file.write(path, table, _RATIO, memory_limit_bytes=limit)


def run_ours_values(table: run_table.RunTable, path: pathlib.Path, limit: int) -> None:
    runs = table.select(_RATIO)
    sides = influence_matrix.sides_of(runs)
    for start, block in influence_matrix.count_blocks(runs, limit, arrays_per_block=1):
        influence_matrix.fill_values(block, sides, start, block)


def plain_rates(table: run_table.RunTable) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rate of right test answers and number of runs, for runs that trained on an example and runs that did not."""
    correct = table.test_correctness().astype(np.float32)
    mask = table.subset_mask().astype(np.float32)
    sides = []
    for side in (mask, 1 - mask):
        number = side.sum(axis=0)[:, None]
        sides.append((side.T @ correct / number, number))
    return sides


def run_plain_values(table: run_table.RunTable, path: pathlib.Path, limit: int) -> np.ndarray:
    (p1, _), (p0, _) = plain_rates(table)
    return p1 - p0


def run_plain(table: run_table.RunTable, path: pathlib.Path, limit: int) -> None:
    (p1, n1), (p0, n0) = plain_rates(table)
    standard_error = np.sqrt(p1 * (1 - p1) / n1 + p0 * (1 - p0) / n0)
    np.savez(path, subset_influence=p1 - p0, standard_error=standard_error, num_in=n1, num_heldout=n0)
    files.sync(path)


PROGRAMS: dict[str, Callable[..., Any]] = {
    "ours": run_ours,
    "plain": run_plain,
    "ours_values": run_ours_values,
    "plain_values": run_plain_values,
}


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(program: str, folder: pathlib.Path, limit: int) -> None:
    """One program in a process of its own; prints seconds and MiB as JSON."""
    import_mib = peak_mib()
    table = run_table.read(folder / "table.npz")
    start = time.perf_counter()
    PROGRAMS[program](table, folder / f"{program}.npz", limit)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_mib": peak_mib(), "import_mib": import_mib}))


def measure(folder: pathlib.Path, repeats: int, limit_mib: int) -> dict[str, dict[str, float]]:
    """Medians over the repeats; the programs take turns, so that a busy spell hits all of them."""
    samples: dict[str, list[dict[str, float]]] = {program: [] for program in PROGRAMS}
    for _ in range(repeats):
        for program, found in samples.items():
            command = [sys.executable, "-m", "benchmarks.benchmark_scores", f"--worker={program}", f"--folder={folder}"]
            command += [f"--memory_limit_mb={limit_mib}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout))
    return {
        program: {key: statistics.median(sample[key] for sample in found) for key in found[0]}
        for program, found in samples.items()
    }


def check_equal(folder: pathlib.Path) -> None:
    """Holds some rows of our file against those of the plain one."""
    with np.load(folder / "plain.npz") as plain, np.load(folder / "ours.npz") as ours:
        rows = slice(None, None, 97)
        np.testing.assert_array_equal(ours["subset_influence"][rows], plain["subset_influence"][rows])
        np.testing.assert_allclose(ours["standard_error"][rows], plain["standard_error"][rows], rtol=1e-5)


def main(argv: list[str]) -> None:
    """Makes the table, times the programs in processes of their own, and prints and writes the figures."""
    del argv
    if _WORKER.value:
        work(_WORKER.value, pathlib.Path(_FOLDER.value), _MEMORY_LIMIT_MB.value << 20)
        return
    num_train = min(_NUM_TRAIN.value, _NUM_TRAIN_SLICE.value or _NUM_TRAIN.value)
    with tempfile.TemporaryDirectory(dir=_FOLDER.value) as name:
        folder = pathlib.Path(name)
        run_table.write(folder / "table.npz", make_table(_NUM_RUNS.value, num_train, _NUM_TEST.value))
        programs = measure(folder, _REPEATS.value, _MEMORY_LIMIT_MB.value)
        check_equal(folder)
    ratios = {
        f"{kind}_{key}": programs[plain][key] / programs[ours][key]
        for kind, ours, plain in (("with_files", "ours", "plain"), ("values_only", "ours_values", "plain_values"))
        for key in ("seconds", "peak_mib")
    }
    for program, found in programs.items():
        print(f"{program:13s} {found['seconds']:8.2f} s {found['peak_mib']:9.0f} MiB at most")
    for key, ratio in ratios.items():
        print(f"plain / ours, {key}: {ratio:.2f}")
    sizes = {"num_runs": _NUM_RUNS.value, "num_train": num_train, "num_test": _NUM_TEST.value}
    settings = {"memory_limit_mb": _MEMORY_LIMIT_MB.value, "repeats": _REPEATS.value}
    print(environment.save(_NAME.value, {**sizes, **settings, "programs": programs, "ratios": ratios}))


if __name__ == "__main__":
    app.run(main)
