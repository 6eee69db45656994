"""One pass over the matrix of subset influence, in tiles of rows: its summary, and on request the matrix itself.

Threads share the rows of a tile; the parts of tiles (influence_parts.py) are put together when all are there. The same
call again goes on with the tiles that are missing.
"""

from collections.abc import Callable, Iterator, Mapping
import concurrent.futures
import dataclasses
import pathlib
import threading

import numpy as np

from heldout.scoring import (
    influence_extremes,
    influence_matrix,
    influence_parts,
    influence_summary,
    joint_counts,
)
from zoo import errors

# Rows that a thread takes at a time.
_STRIP_ROWS = 64
_STEP = 8
# More pairs than this are no selection: the tables would take gigabytes of memory.
MAX_PAIRS = 10_000_000

# Rows done, rows in all.
Progress = Callable[[int, int], None]
# Takes rows of the matrix: index of the first, values.
WriteRows = Callable[[int, np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is kept of the matrix.

    Attributes:
        top_k: entries of each list of strongest.
        least_influence: of the pairs, in absolute value.
        least_memorization: of the training examples of the pairs.
        least_z: of the candidates; see `influence_summary.InfluenceSummary`.
        dense: whether the matrix itself is kept.
    """

    top_k: int = 10
    least_influence: float = 0.15
    least_memorization: float = 0.25
    least_z: float = 5.0
    dense: bool = True


@dataclasses.dataclass(frozen=True)
class Work:
    """What a pass works on.

    Attributes:
        counter: of the counts.
        sides: runs per training example and side, right runs per test example.
        memorization: float64 [N].
        settings: what is kept.
    """

    counter: joint_counts.Counter
    sides: influence_matrix.Sides
    memorization: np.ndarray
    settings: Settings


def strip_rows(num_runs: int, num_test: int, top_k: int, num_threads: int, memory_limit_bytes: int) -> int:
    """Rows that each thread takes at a time, under a limit of memory.

    Args:
        num_runs: T.
        num_test: M.
        top_k: entries of each list.
        num_threads: threads.
        memory_limit_bytes: upper limit on what is allocated beside the run table and the part in the making.

    Raises:
        InvalidValueError: the limit is too small for eight rows; the message names the least that would do.
    """
    words = 8 * num_test * -(-num_runs // 256) * 4
    tally = num_threads * num_test * (16 * top_k + 16)
    row_bytes = 2 * 4 * num_test * num_threads
    minimum = 2 * words + tally + _STEP * row_bytes + (1 << 24)
    if memory_limit_bytes < minimum:
        raise errors.InvalidValueError(
            f"memory limit: got {memory_limit_bytes >> 20} MiB, but {num_runs} runs and {num_test} test examples on "
            f"{num_threads} threads need at least {-(-minimum >> 20)} MiB; raise --memory_limit_mb"
        )
    rows = _STEP + (memory_limit_bytes - minimum) // row_bytes
    return min(_STRIP_ROWS, rows // _STEP * _STEP)


def compute_tile(
    work: Work, folder: influence_parts.Folder, tile: range, num_threads: int, rows_per_strip: int
) -> None:
    """Computes one tile and writes its part.

    Args:
        work: what is computed.
        folder: prepared.
        tile: of `tiles`.
        num_threads: at least 1.
        rows_per_strip: from `strip_rows`.

    Raises:
        InvalidValueError: there are more pairs than `MAX_PAIRS`.
    """
    target = folder.opened()
    try:
        summary = summary_of(work, tile, target.write, num_threads, rows_per_strip)
    finally:
        target.close()
    influence_summary.write(folder.part(tile), summary, {})


def summary_of(
    work: Work, rows: range, write_rows: WriteRows, num_threads: int = 1, rows_per_strip: int = _STRIP_ROWS
) -> influence_summary.InfluenceSummary:
    """What is kept of some rows of the matrix, as if they were all.

    Args:
        work: what is computed.
        rows: which; they begin at a multiple of 8.
        write_rows: called with the first train index and the values of some rows, float32, which are lost afterwards.
        num_threads: at least 1.
        rows_per_strip: rows that each thread takes at a time, a multiple of 8.

    Raises:
        InvalidValueError: there are more pairs than `MAX_PAIRS`.
    """
    by_train = influence_extremes.Strongest.empty(len(rows), work.settings.top_k)
    strips = _Shared(range(start, min(start + rows_per_strip, rows.stop)) for start in rows[::rows_per_strip])
    with concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
        tasks = [threads.submit(_Strips(work, rows, by_train, write_rows).run, strips) for _ in range(num_threads)]
        first, *others = [task.result() for task in tasks]
    for other in others:
        first.merge(other)
    pairs = influence_summary.PairList.joined(first.pairs)
    check_number(len(pairs), work.settings)
    return influence_summary.InfluenceSummary(
        first.tally.bin_counts,
        first.tally.largest,
        by_train.finished(),
        first.tally.columns.finished(),
        pairs,
        influence_summary.PairList.joined(first.candidates),
        work.settings.least_influence,
        work.settings.least_memorization,
        work.settings.least_z,
    )


class _Shared:
    """An iterator that threads share."""

    def __init__(self, items: Iterator[range]) -> None:
        self._items = items
        self._lock = threading.Lock()

    def __iter__(self) -> "_Shared":
        return self

    def __next__(self) -> range:
        with self._lock:
            return next(self._items)


class _Strips:
    """What one thread has seen."""

    def __init__(self, work: Work, tile: range, by_train: influence_extremes.Strongest, write_rows: WriteRows) -> None:
        self._work = work
        self._tile = tile
        self._by_train = by_train
        self._write_rows = write_rows
        self.tally = influence_extremes.Tally(work.sides.num_test, work.settings.top_k, work.sides.support)
        nothing = influence_summary.PairList(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
        self.pairs, self.candidates = [nothing], [nothing]
        # Standard error of one right run more or less, where all runs are of one kind.
        rate = work.sides.num_right / work.sides.num_runs
        self._spread = np.sqrt(rate * (1 - rate))

    def run(self, strips: _Shared) -> "_Strips":
        """Takes strips as long as there are any."""
        for strip in strips:
            values = np.empty((len(strip), self._work.sides.num_test), np.float32)
            self._work.counter.count(strip.start, values)
            influence_matrix.fill_values(values, self._work.sides, strip.start, values)
            self._write_rows(strip.start, values)
            self.tally.add(values, strip.start, self._by_train, strip.start - self._tile.start)
            self._select(strip, values)
        return self

    def _select(self, strip: range, values: np.ndarray) -> None:
        """Pairs and candidates; the lists of the rows say which rows can have any."""
        settings, sides = self._work.settings, self._work.sides
        place = slice(strip.start - self._tile.start, strip.stop - self._tile.start)
        largest = np.fmax(self._by_train.helpful[place, 0], self._by_train.harmful[place, 0])
        memorized = self._work.memorization[strip.start : strip.stop] >= settings.least_memorization
        for row in np.flatnonzero(memorized & (largest >= np.float32(settings.least_influence))):
            hits = np.flatnonzero(np.abs(values[row]) >= np.float32(settings.least_influence))
            self.pairs.append(_pairs(strip.start + int(row), hits, values[row]))
        num_in, num_heldout = (side[strip.start : strip.stop] for side in (sides.num_in, sides.num_heldout))
        with np.errstate(divide="ignore"):
            scale = np.sqrt(1 / num_in + 1 / num_heldout)
        for row in np.flatnonzero(np.isfinite(scale)):
            bound = np.float32(settings.least_z * scale[row]) * self._spread
            hits = np.flatnonzero((np.abs(values[row]) >= bound) & (self._spread > 0))
            if len(hits):
                self.candidates.append(_pairs(strip.start + int(row), hits, values[row]))

    def merge(self, other: "_Strips") -> None:
        """Takes in what another thread has seen."""
        self.tally.merge(other.tally)
        self.pairs += other.pairs
        self.candidates += other.candidates


def _pairs(row: int, columns: np.ndarray, line: np.ndarray) -> influence_summary.PairList:
    return influence_summary.PairList(
        np.full(len(columns), row, np.int32), columns.astype(np.int32), line[columns].astype(np.float32)
    )


def check_number(num_pairs: int, settings: Settings) -> None:
    """Refuses more pairs than a table can have.

    Raises:
        InvalidValueError: the message says what to raise.
    """
    if num_pairs > MAX_PAIRS:
        raise errors.InvalidValueError(
            f"more than {MAX_PAIRS} pairs reach pairs_influence {settings.least_influence} and pairs_memorization "
            f"{settings.least_memorization}: raise one of the two"
        )


def put_together(
    work_settings: Settings, folder: influence_parts.Folder, sides: influence_matrix.Sides
) -> influence_summary.InfluenceSummary:
    """The summary of the whole matrix from the parts of all tiles, which must be there.

    Raises:
        InvalidValueError: there are more pairs than `MAX_PAIRS`.
    """
    columns = influence_extremes.Tally(sides.num_test, work_settings.top_k, sides.support)
    bin_counts = np.zeros(influence_extremes.NUM_BINS, np.int64)
    parts: list[influence_summary.InfluenceSummary] = []
    for tile in influence_parts.tiles(sides.num_train):
        part = influence_summary.read(folder.part(tile), len(tile), sides.num_test)
        bin_counts += part.bin_counts
        columns.columns.merge(part.by_test.resumed(), sides.support)
        np.fmax(columns.largest, part.largest_per_test, out=columns.largest)
        parts.append(dataclasses.replace(part, by_test=part.by_test if not parts else parts[0].by_test))
        check_number(sum(len(one.pairs) for one in parts), work_settings)
    candidates, least_z = _limited(
        influence_summary.PairList.joined([part.candidates for part in parts]), sides, work_settings.least_z
    )
    names = [field.name for field in dataclasses.fields(influence_extremes.Strongest)]
    by_train = influence_extremes.Strongest(
        *(np.concatenate([getattr(part.by_train, name) for part in parts]) for name in names)
    )
    return dataclasses.replace(
        parts[0],
        bin_counts=bin_counts,
        largest_per_test=columns.largest,
        by_train=by_train,
        by_test=columns.columns.finished(),
        pairs=influence_summary.PairList.joined([part.pairs for part in parts]),
        candidates=candidates,
        least_z=least_z,
    )


def _limited(
    candidates: influence_summary.PairList, sides: influence_matrix.Sides, least_z: float
) -> tuple[influence_summary.PairList, float]:
    """At most `MAX_PAIRS` candidates, those furthest from 0, and the bound that they, and no others, reach."""
    if len(candidates) <= MAX_PAIRS:
        return candidates, least_z
    rate = sides.num_right.astype(np.float64) / sides.num_runs
    scale = np.sqrt(1 / sides.num_in[candidates.train_index] + 1 / sides.num_heldout[candidates.train_index])
    spread = np.sqrt(rate * (1 - rate))[candidates.test_index]
    distance = np.abs(candidates.value) / (scale * spread)
    least_z = float(np.partition(distance, len(distance) - MAX_PAIRS)[len(distance) - MAX_PAIRS])
    chosen = distance >= least_z
    if np.count_nonzero(chosen) > MAX_PAIRS:  # few runs, few values: of equal ones none is kept rather than some
        chosen = distance > least_z
        least_z = float(np.min(distance[chosen], initial=np.inf))
    columns = (candidates.train_index, candidates.test_index, candidates.value)
    return influence_summary.PairList(*(column[chosen] for column in columns)), least_z


def run(
    work: Work,
    folder: influence_parts.Folder,
    path: pathlib.Path,
    extra: Mapping[str, np.ndarray],
    *,
    num_threads: int,
    rows_per_strip: int,
    progress: Progress | None = None,
) -> None:
    """Computes what is missing on this machine, and writes the summary.

    Args:
        work: what is computed.
        folder: of the parts, prepared.
        path: of the summary.
        extra: its further members.
        num_threads: at least 1.
        rows_per_strip: from `strip_rows`.
        progress: called after each tile with rows done and rows in all.
    """
    report = progress or (lambda done, total: None)
    for tile in influence_parts.tiles(work.sides.num_train):
        if not folder.is_done(tile):
            compute_tile(work, folder, tile, num_threads, rows_per_strip)
        report(tile.stop, work.sides.num_train)
    finish(work, folder, path, extra)


def finish(work: Work, folder: influence_parts.Folder, path: pathlib.Path, extra: Mapping[str, np.ndarray]) -> None:
    """Puts all parts together, writes the summary, names the matrix, and deletes the parts; arguments as of `run`."""
    summary = put_together(work.settings, folder, work.sides)
    # An older summary never stands beside a newer matrix.
    path.unlink(missing_ok=True)
    folder.name_matrix()
    influence_summary.write(path, summary, extra)
    folder.remove()
