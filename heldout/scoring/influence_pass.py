"""One pass over the matrix of subset influence, in tiles of rows: its summary, and on request the matrix itself.

A tile is a range of training examples with all test examples. Whoever computes one writes its part into

    .influence-<ratio>.parts/tile-<first row>.npz    summary of these rows

and, where the matrix is wanted, its rows into `subset_influence-<ratio>.npy.part`, which exists from the start. A part
that is there is complete, and its rows are on the disk: the same call again goes on with the tiles that are missing.
When all are there they are put together, the matrix gets its name, and the parts go. Tiles, and so all bytes, follow
from N and M alone: not from the memory limit, the number of threads, or who computed what.
"""

from collections.abc import Callable, Iterator, Mapping
import concurrent.futures
import dataclasses
import io
import os
import pathlib
import shutil
import threading

import numpy as np

from heldout.scoring import influence_extremes, influence_matrix, influence_summary, joint_counts
from zoo import errors, files, npz

# Rows of a tile: few enough that a kill loses little, many enough that the lists of columns are a small part of it.
_TILE_ROWS = 16384
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


def tiles(num_train: int) -> list[range]:
    """The rows of each tile."""
    return [range(start, min(start + _TILE_ROWS, num_train)) for start in range(0, num_train, _TILE_ROWS)]


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


class Folder:
    """Where the parts of one matrix lie.

    Args:
        directory: of the score files.
        name: of the matrix, without suffix, such as subset_influence-0.7.
        shape: (N, M).
        identity: text that says what is computed; parts of another computation are not used.
        dense: whether the matrix is kept.
    """

    def __init__(
        self, directory: pathlib.Path, name: str, shape: tuple[int, int], identity: str, *, dense: bool
    ) -> None:
        self._parts = directory / f".{name}.parts"
        self.note = self._parts / "identity.txt"
        self.matrix = directory / f"{name}.npy"
        self._unfinished = directory / f".{name}.npy.part"
        self._shape = shape
        self._identity = identity
        self._dense = dense

    def prepare(self) -> None:
        """Makes place for parts, and drops those of another computation."""
        if self._parts.exists() and not self._is_ours():
            self.remove()
        if self._dense and not self._unfinished.exists() and not self._is_named():
            shutil.rmtree(self._parts, ignore_errors=True)
        self._parts.mkdir(parents=True, exist_ok=True)
        if not self.note.exists():
            files.write_text(self.note, self._identity)
        if self._dense and not self._is_named():
            self._create()

    def _is_ours(self) -> bool:
        return self.note.exists() and self.note.read_text(encoding="utf-8") == self._identity

    def _is_named(self) -> bool:
        """Whether the matrix of these parts has its name already, and only the rest was left to do."""
        return (self._parts / "named").exists()

    def _create(self) -> None:
        if self._unfinished.exists() and self._unfinished.stat().st_size == self._num_bytes():
            return
        with open(self._unfinished, "wb") as stream:
            stream.write(self._header())
            stream.truncate(self._num_bytes())

    def _header(self) -> bytes:
        header = io.BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(header, description)
        return header.getvalue()

    def _num_bytes(self) -> int:
        return len(self._header()) + 4 * self._shape[0] * self._shape[1]

    def part(self, tile: range) -> pathlib.Path:
        """File of the part of one tile."""
        return self._parts / f"tile-{tile.start:09d}.npz"

    def is_done(self, tile: range) -> bool:
        """Whether the part of this tile is there and sound."""
        try:
            npz.read(self.part(tile), ["bin_counts"])
        except (errors.MissingFileError, errors.DamagedFileError):
            return False
        return True

    def opened(self) -> "_Rows":
        """The unfinished matrix, to write rows into; nothing where it is not kept."""
        return _Rows(self._unfinished if self._dense else None, len(self._header()), self._shape[1])

    def name_matrix(self) -> None:
        """Gives the complete matrix its name."""
        if self._dense and not self._is_named():
            files.sync(self._unfinished)
            files.write_text(self._parts / "named", "")
        if self._dense and self._unfinished.exists():
            os.replace(self._unfinished, self.matrix)

    def remove(self) -> None:
        """Deletes the parts and an unfinished matrix."""
        self._unfinished.unlink(missing_ok=True)
        shutil.rmtree(self._parts, ignore_errors=True)


class _Rows:
    """Rows of an npy file, written in any order by any number of threads and processes."""

    def __init__(self, path: pathlib.Path | None, first: int, num_columns: int) -> None:
        self._file = None if path is None else os.open(path, os.O_WRONLY)
        self._first = first
        self._row_bytes = 4 * num_columns

    def write(self, start: int, values: np.ndarray) -> None:
        """Writes rows from `start` on."""
        if self._file is None:
            return
        data, offset = values.data.cast("B"), self._first + start * self._row_bytes
        while len(data):
            count = os.pwrite(self._file, data, offset)
            data, offset = data[count:], offset + count

    def close(self) -> None:
        """Makes sure that all is on the disk."""
        if self._file is not None:
            os.fsync(self._file)
            os.close(self._file)


def compute_tile(work: Work, folder: Folder, tile: range, num_threads: int, rows_per_strip: int) -> None:
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
    work_settings: Settings, folder: Folder, sides: influence_matrix.Sides
) -> influence_summary.InfluenceSummary:
    """The summary of the whole matrix from the parts of all tiles, which must be there.

    Raises:
        InvalidValueError: there are more pairs than `MAX_PAIRS`.
    """
    columns = influence_extremes.Tally(sides.num_test, work_settings.top_k, sides.support)
    bin_counts = np.zeros(influence_extremes.NUM_BINS, np.int64)
    parts: list[influence_summary.InfluenceSummary] = []
    for tile in tiles(sides.num_train):
        part = influence_summary.read(folder.part(tile), len(tile), sides.num_test)
        bin_counts += part.bin_counts
        columns.columns.merge(part.by_test.resumed(), sides.support)
        np.fmax(columns.largest, part.largest_per_test, out=columns.largest)
        parts.append(dataclasses.replace(part, by_test=part.by_test if not parts else parts[0].by_test))
        check_number(sum(len(one.pairs) for one in parts), work_settings)
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
        candidates=influence_summary.PairList.joined([part.candidates for part in parts]),
    )


def run(
    work: Work,
    folder: Folder,
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
    for tile in tiles(work.sides.num_train):
        if not folder.is_done(tile):
            compute_tile(work, folder, tile, num_threads, rows_per_strip)
        report(tile.stop, work.sides.num_train)
    finish(work, folder, path, extra)


def finish(work: Work, folder: Folder, path: pathlib.Path, extra: Mapping[str, np.ndarray]) -> None:
    """Puts all parts together, writes the summary, names the matrix, and deletes the parts; arguments as of `run`."""
    summary = put_together(work.settings, folder, work.sides)
    # An older summary never stands beside a newer matrix.
    path.unlink(missing_ok=True)
    folder.name_matrix()
    influence_summary.write(path, summary, extra)
    folder.remove()
