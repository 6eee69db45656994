"""The file of one subset influence matrix, written block by block.

subset_influence-<ratio>.npz holds, beside the members a caller adds:

    subset_influence  float32 [N, M]   train row, test column; positive helps; NaN where a side has no run
    standard_error    float32 [N, M]   NaN where the influence is; 0 where both rates are 0 or 1
    num_in, num_heldout  int64 [N]

Both matrices are stored uncompressed, so that they can be memory-mapped. The values need the matrix product; the
standard errors follow from the values and the counts per row and column, so they are made in a second pass over what
was written, from the page cache, instead of a second product or a second file.
"""

from collections.abc import Callable, Iterator, Mapping
import io

import numpy as np

from heldout.scoring import influence_matrix
from zoo import errors, files, npz, run_table

# Rows done so far, rows in all (each row counts in either pass).
Progress = Callable[[int, int], None]

VALUES = "subset_influence"
STANDARD_ERROR = "standard_error"
# Of the second pass: bytes of one block of rows.
_PASS_BYTES = 1 << 23


def check_disk(directory: files.PathLike, num_matrices: int, num_train: int, num_test: int) -> None:
    """Refuses to begin where the files of so many influence matrices will not fit, 8 N M bytes each.

    Args:
        directory: the folder to write to; it need not exist yet.
        num_matrices: files to write.
        num_train: N.
        num_test: M.

    Raises:
        DiskSpaceError: the file system of the folder has less room.
    """
    what = f"the influence matrices of {num_matrices} subset ratios, {num_train} by {num_test} with their errors,"
    files.check_room(directory, 8 * num_matrices * num_train * num_test, what, ", or score fewer with --subset_ratio")


def _read_rows(
    path: files.PathLike, first: int, rows: int, columns: int, block_bytes: int
) -> Iterator[tuple[int, np.ndarray]]:
    """(start, rows) of a float32 [rows, columns] matrix at byte `first` of a file; each step reuses the memory."""
    buffer = np.empty((min(rows, max(1, block_bytes // (4 * columns))), columns), np.float32)
    # Plain reads, not a memory map: mapped pages would count as this process's memory.
    with io.FileIO(path) as stream:
        stream.seek(first)
        for start in range(0, rows, len(buffer)):
            block = buffer[: rows - start]
            _fill_from(stream, block)
            yield start, block


def _fill_from(stream: io.FileIO, block: np.ndarray) -> None:
    target = block.data.cast("B")
    while len(target):
        count = stream.readinto(target)
        if not count:
            raise errors.DamagedFileError(
                f"{stream.name}: truncated by another program while it was written; try again"
            )
        target = target[count:]


def write(
    path: files.PathLike,
    table: run_table.RunTable,
    subset_ratio: float,
    *,
    extra: Mapping[str, np.ndarray] | None = None,
    memory_limit_bytes: int = influence_matrix.DEFAULT_MEMORY_LIMIT_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes the subset influence matrix of one ratio, whole or not at all.

    Args:
        path: the npz file to create or replace.
        table: N training and M test examples.
        subset_ratio: which T runs to use.
        extra: further members.
        memory_limit_bytes: upper limit on what is allocated beside the table.
        progress: called with rows done and rows in all, 2 N: N of values, N of standard errors.

    Raises:
        InvalidValueError: as `influence_matrix.subset_influence_blocks`.

    Cost: 2 T N M floating point operations, 8 N M bytes of disk.
    """
    runs = table.select(subset_ratio)
    sides = influence_matrix.sides_of(runs)
    report = progress or (lambda done, total: None)
    shape = (runs.num_train, runs.num_test)
    with npz.StreamWriter(path) as writer:
        for name, array in {**(extra or {}), "num_in": sides.num_in, "num_heldout": sides.num_heldout}.items():
            writer.array(name, array)
        writer.blocks(VALUES, np.float32, shape, _values(runs, sides, memory_limit_bytes, report))
        unfinished, end = writer.written_so_far()
        first = end - 4 * runs.num_train * runs.num_test
        values = _read_rows(unfinished, first, *shape, min(_PASS_BYTES, memory_limit_bytes // 8))
        writer.blocks(STANDARD_ERROR, np.float32, shape, _standard_errors(values, sides, report))


def _values(
    runs: run_table.RunTable, sides: influence_matrix.Sides, memory_limit_bytes: int, report: Progress
) -> Iterator[np.ndarray]:
    for start, block in influence_matrix.count_blocks(runs, memory_limit_bytes, arrays_per_block=1):
        influence_matrix.fill_values(block, sides, start, block)
        yield block
        report(start + len(block), 2 * sides.num_train)


def _standard_errors(
    values: Iterator[tuple[int, np.ndarray]], sides: influence_matrix.Sides, report: Progress
) -> Iterator[np.ndarray]:
    out: np.ndarray | None = None
    for start, block in values:
        out = np.empty_like(block) if out is None else out
        rows = out[: len(block)]
        influence_matrix.counts_from_values(block, sides, start, block)
        influence_matrix.fill_standard_errors(block, sides, start, rows)
        yield rows
        report(sides.num_train + start + len(block), 2 * sides.num_train)
