"""Subset influence of one ratio, from the run table to the files of the score folder."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import shutil

import numpy as np
from scipy import special

from heldout import devices
from heldout.running import retries, runners, workers
from heldout.scoring import (
    device_counts,
    influence_matrix,
    influence_parts,
    influence_pass,
    influence_summary,
    joint_counts,
    run_words,
    saved_scores,
    score_config,
    scores,
)
from zoo import errors, files, layout, npz, run_table

# Candidates that noise alone may let through, of all pairs, and the least share of pairs.
_EXPECTED_CANDIDATES = 1e5
_LARGEST_SHARE = 1e-3
_CLASS_ROWS = 1024
_RUN_DIGEST = "run_digest"
# The runs, in the folder that workers read while they start.
TABLE_NAME = "table.npz"
_DIGEST_BYTES = 16


def candidate_z(num_train: int, num_test: int) -> float:
    """Standard errors from which a pair may be found by a test: noise alone lets some 10^5 pairs through."""
    share = min(_LARGEST_SHARE, _EXPECTED_CANDIDATES / max(1, num_train * num_test))
    return float(-special.ndtri(share / 2))


def settings_of(config: score_config.ScoreConfig, num_train: int, num_test: int) -> influence_pass.Settings:
    """What is to be kept."""
    return influence_pass.Settings(
        top_k=min(config.top_k, max(1, num_train, num_test)),
        least_influence=config.pairs_influence,
        least_memorization=config.pairs_memorization,
        least_z=candidate_z(num_train, num_test),
        dense=config.keeps_matrix(num_train, num_test),
    )


def is_current(
    config: score_config.ScoreConfig, subset_ratio: float, provenance: Mapping[str, object], shape: tuple[int, int]
) -> bool:
    """Whether the influence files of one ratio are there, of this computation and with these settings."""
    path = config.directory / saved_scores.influence_name(subset_ratio)
    settings = settings_of(config, *shape)
    if not saved_scores.is_current(path, provenance):
        return False
    if settings.dense and not (config.directory / f"{saved_scores.matrix_name(subset_ratio)}.npy").exists():
        return False
    try:
        kept = influence_summary.read(path, *shape)
    except errors.DamagedFileError:
        return False
    found = (kept.least_influence, kept.least_memorization, kept.by_test.helpful.shape[1])
    # Its bound may be higher, where there were too many candidates.
    wanted = (settings.least_influence, settings.least_memorization, settings.top_k)
    return found == wanted and kept.least_z >= settings.least_z


def folder_of(
    directory: pathlib.Path,
    subset_ratio: float,
    shape: tuple[int, int],
    provenance: Mapping[str, object],
    settings: influence_pass.Settings,
) -> influence_parts.Folder:
    """Where the parts of one ratio's matrix lie."""
    ratio, text = layout.ratio_name(subset_ratio), saved_scores.provenance_text(provenance)
    identity = f"{saved_scores.SCHEMA_VERSION} {ratio} {settings} {text}"
    return influence_parts.Folder(
        directory, saved_scores.matrix_name(subset_ratio), shape, identity, dense=settings.dense
    )


def check_means(config: score_config.ScoreConfig, runs: run_table.RunTable) -> None:
    """Refuses a memory limit under which the influence of these runs cannot be computed, or a device that is not there.

    Raises:
        InvalidValueError: the message names the least that would do, or the device.
    """
    _rows_per_strip(config, runs)
    if config.device != "cpu":
        devices.configure(config.device)


def _rows_per_strip(config: score_config.ScoreConfig, runs: run_table.RunTable) -> int:
    limit = config.memory_limit_mb << 20
    return influence_pass.strip_rows(runs.num_runs, runs.num_test, config.top_k, workers.num_cores(), limit)


def remove_leftovers(directory: pathlib.Path, ratios: Sequence[float]) -> None:
    """Deletes what killed computations of other ratios left, which nobody would go on with: a matrix can be most of a
    disk.
    """
    ours = {f".{saved_scores.matrix_name(ratio)}" for ratio in ratios}
    for path in directory.glob(f".{saved_scores.matrix_name(0.5).removesuffix('0.5')}*"):
        for suffix in (".parts", ".npy.part"):
            if path.name.endswith(suffix) and path.name.removesuffix(suffix) not in ours:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_disk(config: score_config.ScoreConfig, num_matrices: int, num_train: int, num_test: int) -> None:
    """Refuses to begin where the influence matrices will not fit, 4 N M bytes each.

    Raises:
        DiskSpaceError: the file system of the folder has less room.
    """
    if config.keeps_matrix(num_train, num_test):
        what = f"the influence matrices of {files.count_text(num_matrices, 'subset ratio')}, {num_train} by {num_test},"
        repair = ", or keep no matrix with --matrix=no"
        files.check_room(config.directory, 4 * num_matrices * num_train * num_test, what, repair)


def write(
    config: score_config.ScoreConfig,
    runs: run_table.RunTable,
    subset_ratio: float,
    provenance: Mapping[str, object],
    common: Mapping[str, np.ndarray],
    progress: Callable[[int, int], None],
) -> None:
    """Brings the influence files of one ratio up to date.

    Args:
        config: what to keep, and under which memory limit.
        runs: of this ratio.
        subset_ratio: which.
        provenance: of the computation.
        common: members that every file of the computation has.
        progress: called with rows done and rows in all.
    """
    settings = settings_of(config, runs.num_train, runs.num_test)
    shape = (runs.num_train, runs.num_test)
    folder = folder_of(config.directory, subset_ratio, shape, provenance, settings)
    folder.prepare()
    digests = run_digests(runs)
    if config.runner.name != runners.LOCAL:
        _on_cluster(config, runs, subset_ratio, provenance, settings, folder, progress)
    work = work_of(config.directory, runs, subset_ratio, settings, digests, config.device)
    path = config.directory / saved_scores.influence_name(subset_ratio)
    num_threads, rows = workers.num_cores(), _rows_per_strip(config, runs)
    influence_pass.run(
        work,
        folder,
        path,
        {**common, _RUN_DIGEST: digests},
        num_threads=num_threads,
        rows_per_strip=rows,
        progress=progress,
    )


def work_of(
    directory: pathlib.Path,
    runs: run_table.RunTable,
    subset_ratio: float,
    settings: influence_pass.Settings,
    digests: np.ndarray,
    device: str = "cpu",
) -> influence_pass.Work:
    """What there is to compute for the runs of one ratio; arguments as of `counter_of`."""
    memorization = scores.memorization_from_counts(scores.count_sides_of(runs)).values
    counter = counter_of(directory, runs, subset_ratio, digests, device)
    return influence_pass.Work(counter, influence_matrix.sides_of(runs), memorization, settings)


def _on_cluster(
    config: score_config.ScoreConfig,
    runs: run_table.RunTable,
    subset_ratio: float,
    provenance: Mapping[str, object],
    settings: influence_pass.Settings,
    folder: influence_parts.Folder,
    progress: Callable[[int, int], None],
) -> None:
    """Has workers compute the tiles that are missing; a lost one is computed again."""
    missing = [tile for tile in influence_parts.tiles(runs.num_train) if not folder.is_done(tile)]
    if not missing:
        return
    num_done = runs.num_train - sum(len(tile) for tile in missing)
    with runners.opened(config.runner, "cpu") as runner:
        num_workers = min(runner.most_workers, len(missing))
        setup = {
            "directory": str(config.directory.absolute()),
            "subset_ratio": subset_ratio,
            "provenance": saved_scores.provenance_text(provenance),
            "settings": dataclasses.asdict(settings),
            "num_threads": runner.num_threads(num_workers),
            "memory_limit_bytes": config.memory_limit_mb << 20,
        }
        messages = runner.run_tasks(
            "heldout.scoring.tile_worker",
            setup,
            [{"tile": tile.start} for tile in missing],
            num_workers=num_workers,
            supplies={"runs": functools.partial(_supply, runs)},
            recover=retries.Retries("tile", "the tile of row"),
        )
        with contextlib.closing(messages):
            for message in messages:
                if "rows" in message:
                    num_done += message["rows"]
                    progress(num_done, runs.num_train)


def _supply(runs: run_table.RunTable, folder: str) -> None:
    """Writes the runs for workers to read."""
    os.mkdir(folder)
    run_table.write(pathlib.Path(folder) / TABLE_NAME, runs)


def run_digests(runs: run_table.RunTable) -> np.ndarray:
    """A digest of what each run was trained on and got right on the test examples: uint8 [T, 16]."""
    digests = np.zeros((runs.num_runs, _DIGEST_BYTES), np.uint8)
    for row, (mask, correct) in enumerate(zip(runs.subset_mask_bits, runs.test_correctness_bits, strict=True)):
        digest = hashlib.blake2b(f"{runs.run_id[row]} ".encode(), digest_size=_DIGEST_BYTES)
        digest.update(np.ascontiguousarray(mask).data)
        digest.update(np.ascontiguousarray(correct).data)
        digests[row] = np.frombuffer(digest.digest(), np.uint8)
    return digests


def counter_of(
    directory: pathlib.Path, runs: run_table.RunTable, subset_ratio: float, digests: np.ndarray, device: str = "cpu"
) -> joint_counts.Counter:
    """Counts of all runs; where a matrix of some of them is there, only the others are counted.

    Args:
        directory: of the score files.
        runs: of one ratio.
        subset_ratio: which.
        digests: of these runs, from `run_digests`.
        device: "cpu", "gpu" or "tpu"; the counts are the same.
    """
    done = _runs_of_matrix(directory, subset_ratio, digests)
    if done is None:
        return _counter(runs, device)
    try:
        matrix = np.load(directory / f"{saved_scores.matrix_name(subset_ratio)}.npy", mmap_mode="r")
    except (ValueError, OSError, EOFError):  # damaged, so there is nothing to build upon
        return _counter(runs, device)
    if matrix.shape != (runs.num_train, runs.num_test) or matrix.dtype != np.float32:
        return _counter(runs, device)
    old, new = np.flatnonzero(done), np.flatnonzero(~done)
    sides = influence_matrix.sides_of(runs.take(old))
    known = joint_counts.ValueCounter(matrix, sides.num_in, sides.num_heldout, sides.num_right)
    return joint_counts.SumCounter([known, _counter(runs.take(new), device)]) if len(new) else known


def _counter(runs: run_table.RunTable, device: str) -> joint_counts.Counter:
    if device == "cpu":
        return joint_counts.WordCounter.of_runs(runs)
    return device_counts.DeviceCounter(runs, device)


def _runs_of_matrix(directory: pathlib.Path, subset_ratio: float, digests: np.ndarray) -> np.ndarray | None:
    """Which runs the matrix in the folder was computed from, bool [T]; None where there is none, or of other runs."""
    if not (directory / f"{saved_scores.matrix_name(subset_ratio)}.npy").exists():
        return None
    try:
        stored = npz.read(directory / saved_scores.influence_name(subset_ratio), [_RUN_DIGEST])[_RUN_DIGEST]
    except (errors.MissingFileError, errors.DamagedFileError):
        return None
    if stored.ndim != 2 or stored.shape[1] != _DIGEST_BYTES or stored.dtype != np.uint8:
        return None
    known = {row.tobytes() for row in stored}
    done = np.array([row.tobytes() in known for row in digests], bool)
    return done if done.sum() == len(known) == len(stored) else None


def within_class(runs: run_table.RunTable) -> Callable[[np.ndarray, np.ndarray], Iterator[np.ndarray]]:
    """Subset influence of chosen training examples on chosen test examples, as `published_formats.WithinClass`.

    Args:
        runs: of one ratio. Their bits are held once more, by example.
    """
    sides = influence_matrix.sides_of(runs)
    words = run_words.of_examples(runs.subset_mask_bits, 0, runs.num_train)
    test_words = run_words.of_examples(runs.test_correctness_bits, 0, runs.num_test)

    def blocks(rows: np.ndarray, columns: np.ndarray) -> Iterator[np.ndarray]:
        counter = joint_counts.WordCounter(runs.subset_mask_bits, test_words[columns])
        for start in range(0, len(rows), _CLASS_ROWS):
            chosen = rows[start : start + _CLASS_ROWS]
            values = np.empty((len(chosen), len(columns)), np.float32)
            counter.count_rows(words[chosen], values)
            some = influence_matrix.Sides(sides.num_in[chosen], sides.num_heldout[chosen], sides.num_right[columns])
            influence_matrix.fill_values(values, some, 0, values)
            yield values

    return blocks
