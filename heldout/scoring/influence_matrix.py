"""Subset influence of every training example on every test example, [N, M], in row blocks of bounded memory.

After Feldman & Zhang (2020, eq. 2), estimated from the T runs of one subset ratio:

    subset_influence[i, j] = P(run is right on test j | i in its subset) - P(run is right on test j | i held out)

Train row, test column; positive helps. With the mask A [T, N] and the test correctness C [T, M], one matrix product
K = A^T C counts the runs that trained on i and are right on j; the column sums of C minus K count those that held i
out and are right on j, so that the second product of the plain formula is not needed. The counts are whole numbers,
exact in float32; the quotients are those of the plain float32 formula, to the last bit, whatever the block size.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from heldout.scoring import scores
from zoo import errors, run_table

# Whole numbers are exact in float32 up to 2**24; the margin lets `counts_from_values` invert rounded quotients.
_MAX_RUNS = 1 << 20
# Rows of one product: more do not make it faster, fewer report progress more often.
_MAX_BLOCK_ROWS = 1024
# Arithmetic between the products runs over strips of this many bytes, which stay in the processor's cache.
_STRIP_BYTES = 1 << 18
_STRIP_ARRAYS = 4
# Columns lie eight to a byte in the packed table.
_STEP = 8
DEFAULT_MEMORY_LIMIT_BYTES = 1 << 31


@dataclasses.dataclass(frozen=True)
class InfluenceBlock:
    """Rows `start` to `stop` of the matrix.

    Attributes:
        start: first train index.
        stop: one past the last.
        values: float32 [stop - start, M] in [-1, 1], NaN where a side has no run.
        standard_error: float32 [stop - start, M], sqrt(p1 (1 - p1) / num_in + p0 (1 - p0) / num_heldout); NaN where
            the value is; 0 where both rates are 0 or 1.
    """

    start: int
    stop: int
    values: np.ndarray
    standard_error: np.ndarray


@dataclasses.dataclass(frozen=True)
class InfluenceMatrix:
    """The whole matrix: values and standard_error float32 [N, M], num_in and num_heldout int64 [N]."""

    values: np.ndarray
    standard_error: np.ndarray
    num_in: np.ndarray
    num_heldout: np.ndarray


@dataclasses.dataclass(frozen=True)
class Sides:
    """What turns counts into rates: runs per training example and side, and right runs per test example."""

    num_in: np.ndarray
    num_heldout: np.ndarray
    num_right: np.ndarray

    @property
    def num_train(self) -> int:
        """N."""
        return len(self.num_in)

    @property
    def num_test(self) -> int:
        """M."""
        return len(self.num_right)

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """num_in and num_heldout of some rows as float32 columns [rows, 1]."""
        return tuple(side[start:stop, None].astype(np.float32) for side in (self.num_in, self.num_heldout))  # type: ignore[return-value]


def sides_of(runs: run_table.RunTable) -> Sides:
    """The Sides of a table whose runs all have one ratio.

    Raises:
        InvalidValueError: the runs are too many for exact counts in float32.
    """
    if runs.num_runs > _MAX_RUNS:
        raise errors.InvalidValueError(
            f"{runs.experiment}: {runs.num_runs} runs at one ratio, expected at most {_MAX_RUNS}: "
            "their counts would not be exact in float32"
        )
    num_in = scores.sum_bit_columns(runs.subset_mask_bits, runs.num_train)
    num_right = scores.sum_bit_columns(runs.test_correctness_bits, runs.num_test)
    return Sides(num_in, runs.num_runs - num_in, num_right.astype(np.float32))


def subset_influence_blocks(
    table: run_table.RunTable, subset_ratio: float, *, memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES
) -> Iterator[InfluenceBlock]:
    """Rows of the subset influence matrix in order, a few at a time.

    Args:
        table: N training and M test examples.
        subset_ratio: which T runs to use.
        memory_limit_bytes: upper limit on what is allocated beside the table, counting the block at hand and the one
            before it, which a loop variable still holds.

    Yields:
        InfluenceBlocks that together cover all rows. The result does not depend on the limit.

    Raises:
        InvalidValueError: the table has no run of this ratio, has too many, or the limit is too small for one step.

    Cost: 2 T N M floating point operations.
    """
    runs = table.select(subset_ratio)
    sides = sides_of(runs)
    for start, counts in count_blocks(runs, memory_limit_bytes, arrays_per_block=5):
        values, standard_error = np.empty_like(counts), np.empty_like(counts)
        fill_standard_errors(counts, sides, start, standard_error)
        fill_values(counts, sides, start, values)
        yield InfluenceBlock(start, start + len(counts), values, standard_error)
        del values, standard_error


def subset_influence(table: run_table.RunTable, subset_ratio: float) -> InfluenceMatrix:
    """The whole subset influence matrix in memory: 8 N M bytes and up to 2 GiB of work space.

    Args:
        table: N training and M test examples.
        subset_ratio: which runs to use.

    Returns:
        An InfluenceMatrix; NaN rows where no run trained on the example or none held it out.

    Raises:
        InvalidValueError: the table has no run of this ratio, or too many.
    """
    runs = table.select(subset_ratio)
    sides = sides_of(runs)
    values = np.empty((runs.num_train, runs.num_test), np.float32)
    standard_error = np.empty_like(values)
    for start, counts in count_blocks(runs, DEFAULT_MEMORY_LIMIT_BYTES, arrays_per_block=1):
        rows = slice(start, start + len(counts))
        fill_standard_errors(counts, sides, start, standard_error[rows])
        fill_values(counts, sides, start, values[rows])
    return InfluenceMatrix(values, standard_error, sides.num_in, sides.num_heldout)


def count_blocks(
    runs: run_table.RunTable, memory_limit_bytes: int, *, arrays_per_block: int
) -> Iterator[tuple[int, np.ndarray]]:
    """How many runs trained on i and are right on test example j, in row blocks over i.

    Args:
        runs: table with runs of one ratio.
        memory_limit_bytes: upper limit on what is allocated here and by the caller per block.
        arrays_per_block: how many arrays of a block's size are alive at once, this one included.

    Yields:
        (start, counts): counts float32 [rows, M] of whole numbers, which the caller may overwrite. The next step
        reuses the memory.

    Raises:
        InvalidValueError: the limit is too small for a step of eight rows and eight columns.
    """
    num_rows, num_columns = _block_shape(runs, memory_limit_bytes, arrays_per_block)
    buffer = np.empty((num_rows, runs.num_test), np.float32)
    held = runs.test_correctness().astype(np.float32) if num_columns == runs.num_test else None
    for start in range(0, runs.num_train, num_rows):
        counts = buffer[: min(num_rows, runs.num_train - start)]
        _multiply(runs, start, held, num_columns, counts)
        yield start, counts


def _multiply(runs: run_table.RunTable, start: int, held: np.ndarray | None, num_columns: int, out: np.ndarray) -> None:
    """One block of counts into `out`. Its work space is gone when it returns, before the caller allocates."""
    mask = runs.subset_mask(start, start + len(out)).astype(np.float32)
    if held is not None:
        np.matmul(mask.T, held, out=out)
        return
    for left in range(0, runs.num_test, num_columns):
        right = min(left + num_columns, runs.num_test)
        np.matmul(mask.T, runs.test_correctness(left, right).astype(np.float32), out=out[:, left:right])


def check_memory_limit(runs: run_table.RunTable, memory_limit_bytes: int) -> None:
    """Refuses a limit under which the matrix of these runs, which have one ratio, cannot be written to a file.

    Raises:
        InvalidValueError: the limit is too small; the message names the least that would do.
    """
    _block_shape(runs, memory_limit_bytes, arrays_per_block=1)


def _block_shape(runs: run_table.RunTable, limit: int, arrays_per_block: int) -> tuple[int, int]:
    """Rows of a block and columns of a tile of test examples (all M of them if they fit into half of the limit)."""
    T, N, M = runs.num_runs, runs.num_train, runs.num_test
    # The chosen rows of the packed table, sums over their columns, and the strips of the arithmetic.
    packed = sum(
        bits.nbytes for bits in (runs.subset_mask_bits, runs.train_correctness_bits, runs.test_correctness_bits)
    )
    sums = 2 * 255 * max(N, M) + 32 * (N + M)
    fixed = packed + sums + _STRIP_ARRAYS * max(_STRIP_BYTES, 4 * M)
    # Unpacked as bool first, then as float32.
    row_bytes = 5 * T + 4 * M * arrays_per_block
    column_bytes = 5 * T
    minimum = fixed + _STEP * (row_bytes + column_bytes)
    if limit < minimum:
        raise errors.InvalidValueError(
            f"memory limit: got {limit} bytes, but {T} runs, {N} training and {M} test examples need at least "
            f"{minimum} ({-(-minimum >> 20)} MiB); raise the limit"
        )
    columns = M if M * column_bytes <= (limit - fixed) // 2 else _steps((limit - fixed) // 4 // column_bytes)
    rows = _steps((limit - fixed - columns * column_bytes) // row_bytes)
    return min(rows, _MAX_BLOCK_ROWS, N), columns


def _steps(number: int) -> int:
    """The largest multiple of `_STEP` up to `number`, at least one step."""
    return max(number // _STEP, 1) * _STEP


def _strips(block: np.ndarray) -> Iterator[slice]:
    """Slices of rows that stay in the processor's cache."""
    num_rows = max(1, _STRIP_BYTES // max(4 * block.shape[1], 1))
    for start in range(0, len(block), num_rows):
        yield slice(start, min(start + num_rows, len(block)))


def fill_values(counts: np.ndarray, sides: Sides, start: int, out: np.ndarray) -> None:
    """Turns counts of right runs that trained on the row's example into subset influence.

    Args:
        counts: float32 [rows, M], from `count_blocks`.
        sides: of all rows.
        start: train index of the first row.
        out: float32 [rows, M]; may be `counts` itself.
    """
    num_in, num_heldout = sides.rows(start, start + len(counts))
    # A side without runs is 0 / 0, which is the NaN that is meant.
    with np.errstate(invalid="ignore"):
        for rows in _strips(counts):
            p0 = sides.num_right - counts[rows]
            p0 /= num_heldout[rows]
            np.divide(counts[rows], num_in[rows], out=out[rows])
            out[rows] -= p0


def fill_standard_errors(counts: np.ndarray, sides: Sides, start: int, out: np.ndarray) -> None:
    """Turns the same counts into standard errors; arguments as in `fill_values`, but `out` is not `counts`."""
    num_in, num_heldout = sides.rows(start, start + len(counts))
    with np.errstate(invalid="ignore"):
        for rows in _strips(counts):
            p0 = sides.num_right - counts[rows]
            p0 /= num_heldout[rows]
            p1 = np.divide(counts[rows], num_in[rows], out=out[rows])
            for p, number in ((p0, num_heldout[rows]), (p1, num_in[rows])):
                p *= 1 - p
                p /= number
            p1 += p0
            np.sqrt(p1, out=p1)


def counts_from_values(values: np.ndarray, sides: Sides, start: int, out: np.ndarray) -> None:
    """The counts that `fill_values` made these values from, exactly; NaN where the values are.

    With v = k / n1 - (t - k) / n0, the count k is (v + t / n0) n1 n0 / (n1 + n0), rounded. Rounding in float32 moves
    this by a few 2^-24 of k + n0, which is below a half for the 2^20 runs that are allowed: the whole number is sure.

    Args:
        values: float32 [rows, M].
        sides: of all rows.
        start: train index of the first row.
        out: float32 [rows, M]; may be `values` itself.
    """
    num_in, num_heldout = sides.rows(start, start + len(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        harmonic = num_in * num_heldout / (num_in + num_heldout)
        for rows in _strips(values):
            share = sides.num_right / num_heldout[rows]
            share += values[rows]
            share *= harmonic[rows]
            np.rint(share, out=out[rows])
