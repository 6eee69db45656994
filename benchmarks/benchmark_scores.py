"""Time and peak memory of subset influence beside the plain two-product formula, and beside what the machine can do.

    python -m benchmarks.benchmark_scores

A synthetic run table (4000 runs, 50000 training and 10000 test examples unless flags say otherwise) is made once. Then
programs of their own read it and compute subset influence of the first --num_train_slice training examples:

- ours: `influence_pass.run`, which keeps lists, pairs and distribution, and writes the matrix; ours_summary, the same
  without the matrix; ours_values, the values alone, without files and lists; class_wise, the published file of
  influence within each of 1000 classes; cross_class, the mean influence between all of these classes;
- plain: the formula of Feldman & Zhang (2020) as it is usually written, two float32 products over unpacked matrices
  that are held in memory, with standard errors and `np.savez`; plain_values, the values alone.

Every program is run --repeats times, the programs in turn; the medians count. Results are compared bit by bit on some
rows. `limit` counts bits of words that stay in the nearest cache and adds nothing up: no way of counting common bits
with the same instructions can be quicker; beside it stands how many words are copied from memory to memory. A healthy
run prints seconds and MiB (ru_maxrss; `import_mib` is what the process took before it read the table), ratios
plain / ours above 1, and words per second beside the limit, and writes benchmarks/results/scores.json with the
environment.

    python -m benchmarks.benchmark_scores --alone --num_runs=2000 --num_train=1281167 --num_test=50000

times ours_summary, class_wise and cross_class alone, at the size of ImageNet, where the plain formula would need half a
terabyte; with --programs=cross_class that one only, in seconds, where the others take minutes.
"""

from collections.abc import Callable, Sequence
import concurrent.futures
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
from heldout import compiling
from heldout.running import workers
from heldout.scoring import (
    class_means,
    influence_files,
    influence_matrix,
    influence_parts,
    influence_pass,
    joint_counts,
    published_formats,
    run_words,
    scores,
)
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
_NAME = flags.DEFINE_string("name", None, "Name of the result file; without it scores, and scores_alone with --alone.")
_PROGRAMS = flags.DEFINE_list("programs", None, "Time these only.")
_ALONE = flags.DEFINE_bool("alone", False, "Time ours_summary alone, for sizes that the plain formula cannot do.")
_ROWS = 64
_NUM_CLASSES = 1000


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


def make_work(table: run_table.RunTable, dense: bool) -> influence_pass.Work:
    counts = scores.count_sides_of(table)
    settings = influence_pass.Settings(
        least_influence=0.15, least_z=influence_files.candidate_z(table.num_train, table.num_test), dense=dense
    )
    counter = joint_counts.WordCounter.of_runs(table)
    memorization = scores.memorization_from_counts(counts).values
    return influence_pass.Work(counter, influence_matrix.sides_of(table), memorization, settings)


def run_pass(table: run_table.RunTable, path: pathlib.Path, limit: int, *, dense: bool) -> None:
    work = make_work(table, dense)
    threads = workers.num_cores()
    rows = influence_pass.strip_rows(table.num_runs, table.num_test, work.settings.top_k, threads, limit)
    shape = (table.num_train, table.num_test)
    folder = influence_parts.Folder(path.parent, path.stem, shape, "benchmark", dense=dense)
    folder.prepare()
    influence_pass.run(work, folder, path, {}, num_threads=threads, rows_per_strip=rows)


def run_ours(table: run_table.RunTable, path: pathlib.Path, limit: int) -> None:
    run_pass(table, path, limit, dense=True)


def run_ours_summary(table: run_table.RunTable, path: pathlib.Path, limit: int) -> None:
    run_pass(table, path, limit, dense=False)


def run_ours_values(table: run_table.RunTable, path: pathlib.Path, limit: int) -> None:
    counter, sides = joint_counts.WordCounter.of_runs(table), influence_matrix.sides_of(table)

    def compute(start: int) -> None:
        values = np.empty((min(_ROWS, table.num_train - start), table.num_test), np.float32)
        counter.count(start, values)
        influence_matrix.fill_values(values, sides, start, values)

    with concurrent.futures.ThreadPoolExecutor(workers.num_cores()) as threads:
        list(threads.map(compute, range(0, table.num_train, _ROWS)))


def run_class_wise(table: run_table.RunTable, path: pathlib.Path, limit: int) -> None:
    labels = [np.arange(size) % _NUM_CLASSES for size in (table.num_train, table.num_test)]
    memorization = scores.memorization_from_counts(scores.count_sides_of(table)).values
    published_formats.write_class_influence(path, influence_files.within_class(table), memorization, *labels)


def run_cross_class(table: run_table.RunTable, path: pathlib.Path, limit: int) -> None:
    labels = [np.arange(size) % _NUM_CLASSES for size in (table.num_train, table.num_test)]
    class_means.write(path, class_means.of_runs(table.with_labels(*labels)), _RATIO, {})


def run_limit(table: run_table.RunTable, path: pathlib.Path, limit: int) -> dict[str, float]:
    words = np.random.default_rng(0).integers(0, 1 << 63, 1024, np.uint64)
    rounds = 1 << 20
    count_bits(words, words, 1)
    threads = workers.num_cores()
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: count_bits(words, words, rounds), range(threads)))
    found = {"words_per_second": threads * rounds * len(words) / (time.perf_counter() - start)}
    large = np.ones((threads, 1 << 25), np.uint64)  # 256 MiB a thread: far beyond any cache
    target = np.empty_like(large)
    target[:] = large  # the pages are there now
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda k: [np.copyto(target[k], large[k]) for _ in range(4)], range(threads)))
    return found | {"copied_words_per_second": 4 * large.size / (time.perf_counter() - start)}


_ones = run_words.ones


@compiling.later
def count_bits(words: np.ndarray, others: np.ndarray, rounds: int) -> np.uint64:
    """AND, population count and a sum, over words that stay in the nearest cache."""
    total = np.uint64(0)
    for number in range(rounds):
        other = np.uint64(number)
        for one in range(len(words)):
            total += _ones(words[one] & (others[one] ^ other))
    return total


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
    "ours_summary": run_ours_summary,
    "ours_values": run_ours_values,
    "class_wise": run_class_wise,
    "cross_class": run_cross_class,
    "plain_values": run_plain_values,
    "limit": run_limit,
}


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def work(program: str, folder: pathlib.Path, limit: int) -> None:
    """One program in a process of its own; prints seconds and MiB as JSON."""
    import_mib = peak_mib()
    table = run_table.read(folder / "table.npz")
    start, processor_start = time.perf_counter(), time.process_time()
    found = PROGRAMS[program](table.select(_RATIO), folder / f"{program}.npz", limit)
    times = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor_start,  # of all threads; tells how busy the machine was
    }
    more = found if isinstance(found, dict) else {}
    print(json.dumps({**times, "peak_mib": peak_mib(), "import_mib": import_mib, **more}))


def measure(folder: pathlib.Path, names: Sequence[str], repeats: int, limit_mib: int) -> dict[str, dict[str, float]]:
    """Medians over the repeats; the programs take turns, so that a busy spell hits all of them."""
    samples: dict[str, list[dict[str, float]]] = {program: [] for program in names}
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
    ours = np.load(folder / "ours.npy", mmap_mode="r")
    with np.load(folder / "plain.npz") as plain:
        rows = slice(None, None, 97)
        np.testing.assert_array_equal(ours[rows], plain["subset_influence"][rows])


def main(argv: list[str]) -> None:
    """Makes the table, times the programs in processes of their own, and prints and writes the figures."""
    del argv
    if _WORKER.value:
        work(_WORKER.value, pathlib.Path(_FOLDER.value), _MEMORY_LIMIT_MB.value << 20)
        return
    num_train = min(_NUM_TRAIN.value, _NUM_TRAIN_SLICE.value or _NUM_TRAIN.value)
    names = ["ours_summary", "class_wise", "cross_class", "limit"] if _ALONE.value else list(PROGRAMS)
    names = _PROGRAMS.value or names
    with tempfile.TemporaryDirectory(dir=_FOLDER.value) as name:
        folder = pathlib.Path(name)
        run_table.write(folder / "table.npz", make_table(_NUM_RUNS.value, num_train, _NUM_TEST.value))
        programs = measure(folder, names, _REPEATS.value, _MEMORY_LIMIT_MB.value)
        if {"ours", "plain"} <= set(names):
            check_equal(folder)
    for program, found in programs.items():
        print(f"{program:13s} {found['seconds']:8.2f} s {found['peak_mib']:9.0f} MiB at most")
    num_words = run_words.num_words(_NUM_RUNS.value) * num_train * _NUM_TEST.value
    best = "ours_summary" if _ALONE.value else "ours_values"
    ratios = {}
    if {best, "limit"} <= set(names):
        ratios["of_limit"] = num_words / programs[best]["seconds"] / programs["limit"]["words_per_second"]
        ratios["of_copy"] = num_words / programs[best]["seconds"] / programs["limit"]["copied_words_per_second"]
        print(
            f"{best}: {num_words / programs[best]['seconds']:.3g} words/s, {ratios['of_limit']:.2f} of the limit, "
            f"{ratios['of_copy']:.1f} times what is copied in memory"
        )
    for kind, ours, plain in (("with_files", "ours", "plain"), ("values_only", "ours_values", "plain_values")):
        for key in ("seconds", "peak_mib") if {ours, plain} <= set(names) else ():
            ratios[f"{kind}_{key}"] = programs[plain][key] / programs[ours][key]
            print(f"plain / ours, {kind}_{key}: {ratios[f'{kind}_{key}']:.2f}")
    sizes = {"num_runs": _NUM_RUNS.value, "num_train": num_train, "num_test": _NUM_TEST.value}
    settings = {"memory_limit_mb": _MEMORY_LIMIT_MB.value, "repeats": _REPEATS.value}
    print(
        environment.save(
            _NAME.value or ("scores_alone" if _ALONE.value else "scores"),
            {**sizes, **settings, "programs": programs, "ratios": ratios},
        )
    )


if __name__ == "__main__":
    app.run(main)
