"""Subset influence of every training example on every test example, [N, M], and its standard errors.

After Feldman & Zhang (2020, eq. 2), estimated from the T runs of one subset ratio:

    subset_influence[i, j] = P(run is right on test j | i in its subset) - P(run is right on test j | i held out)

Train row, test column; positive helps. With K[i, j] the number of runs that trained on i and are right on j
(joint_counts.py), the number that held i out and are right on j is the column's total less K, so that one count per
pair is enough. The counts are whole numbers, exact in float32; the quotients are those of the plain float32 formula, to
the last bit.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from heldout.scoring import joint_counts, scores
from zoo import errors, run_table

# Rows of one block, and arithmetic over strips of so many bytes, which stay in the processor's cache.
_BLOCK_ROWS = 256
_STRIP_BYTES = 1 << 18


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
    """What turns counts into rates: runs per training example and side, and right runs per test example.

    Attributes:
        num_in: int64 [N].
        num_heldout: int64 [N].
        num_right: float32 [M], whole numbers.
    """

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

    @property
    def num_runs(self) -> int:
        """T."""
        return int(self.num_in[0] + self.num_heldout[0])

    @property
    def support(self) -> np.ndarray:
        """Runs on the side that has fewer, per training example: int64 [N]."""
        return np.minimum(self.num_in, self.num_heldout)

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """num_in and num_heldout of some rows as float32 columns [rows, 1]."""
        return tuple(side[start:stop, None].astype(np.float32) for side in (self.num_in, self.num_heldout))  # type: ignore[return-value]


def sides_of(runs: run_table.RunTable) -> Sides:
    """The Sides of a table whose runs all have one ratio.

    Raises:
        InvalidValueError: the runs are too many for exact counts in float32.
    """
    if runs.num_runs > joint_counts.MAX_RUNS:
        raise errors.InvalidValueError(
            f"{runs.experiment}: {runs.num_runs} runs at one ratio, expected at most {joint_counts.MAX_RUNS}: "
            "their counts would not be exact in float32"
        )
    num_in = scores.sum_bit_columns(runs.subset_mask_bits, runs.num_train)
    num_right = scores.sum_bit_columns(runs.test_correctness_bits, runs.num_test)
    return Sides(num_in, runs.num_runs - num_in, num_right.astype(np.float32))


def subset_influence_blocks(table: run_table.RunTable, subset_ratio: float) -> Iterator[InfluenceBlock]:
    """Rows of the subset influence matrix in order, a few at a time, for work that needs no files.

    Args:
        table: N training and M test examples.
        subset_ratio: which T runs to use.

    Yields:
        InfluenceBlocks that together cover all rows, each of 256 rows at most: 2 KiB M of memory.

    Raises:
        InvalidValueError: the table has no run of this ratio, or too many.

    Cost: T N M / 64 population counts.
    """
    runs = table.select(subset_ratio)
    sides, counter = sides_of(runs), joint_counts.WordCounter.of_runs(runs)
    for start in range(0, runs.num_train, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, runs.num_train)
        values = np.empty((stop - start, runs.num_test), np.float32)
        counter.count(start, values)
        standard_error = np.empty_like(values)
        fill_standard_errors(values, sides, start, standard_error)
        fill_values(values, sides, start, values)
        yield InfluenceBlock(start, stop, values, standard_error)


def subset_influence(table: run_table.RunTable, subset_ratio: float) -> InfluenceMatrix:
    """The whole subset influence matrix in memory: 8 N M bytes.

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
    for block in subset_influence_blocks(table, subset_ratio):
        values[block.start : block.stop] = block.values
        standard_error[block.start : block.stop] = block.standard_error
    return InfluenceMatrix(values, standard_error, sides.num_in, sides.num_heldout)


def _strips(block: np.ndarray) -> Iterator[slice]:
    """Slices of rows that stay in the processor's cache."""
    num_rows = max(1, _STRIP_BYTES // max(4 * block.shape[1], 1))
    for start in range(0, len(block), num_rows):
        yield slice(start, min(start + num_rows, len(block)))


def fill_values(counts: np.ndarray, sides: Sides, start: int, out: np.ndarray) -> None:
    """Turns counts of right runs that trained on the row's example into subset influence.

    Args:
        counts: float32 [rows, M], from a `joint_counts.Counter`.
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


def counts_from_values(
    values: np.ndarray, num_in: np.ndarray, num_heldout: np.ndarray, num_right: np.ndarray
) -> np.ndarray:
    """The counts that `fill_values` made these values from, exactly; NaN where the values are.

    With v = k / n1 - (t - k) / n0, the count k is (v + t / n0) n1 n0 / (n1 + n0), rounded. Rounding in float32 moves
    this by a few 2^-24 of k + n0, which is below a half for the 2^20 runs that are allowed: the whole number is sure.

    Args:
        values: float32, any shape.
        num_in: whole numbers that broadcast against the values: runs that trained on each pair's training example.
        num_heldout: likewise, runs that held it out.
        num_right: likewise, runs that are right on each pair's test example.

    Returns:
        float64 of the common shape.
    """
    n1, n0 = np.asarray(num_in, np.float64), np.asarray(num_heldout, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.rint((num_right / n0 + values) * (n1 * n0 / (n1 + n0))))


def standard_errors(
    values: np.ndarray, num_in: np.ndarray, num_heldout: np.ndarray, num_right: np.ndarray
) -> np.ndarray:
    """Standard errors of chosen values of subset influence, from the counts that they hold.

    Args:
        values: float32, any shape.
        num_in: as for `counts_from_values`.
        num_heldout: likewise.
        num_right: likewise.

    Returns:
        float32 of the common shape, sqrt(p1 (1 - p1) / num_in + p0 (1 - p0) / num_heldout); NaN where the value is, 0
        where both rates are 0 or 1.
    """
    counts = counts_from_values(values, num_in, num_heldout, num_right)
    with np.errstate(invalid="ignore", divide="ignore"):
        p1, p0 = counts / num_in, (num_right - counts) / num_heldout
        return np.sqrt(p1 * (1 - p1) / num_in + p0 * (1 - p0) / num_heldout).astype(np.float32)
