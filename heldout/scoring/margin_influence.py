"""Subset influence measured on margins instead of right and wrong.

    influence_margin[i, j] = mean margin on test j of the runs that trained on i - that of the runs that held i out

in nats of log odds (Feldman & Zhang 2020 with the output of Park et al. 2023), [N, M], train row and test column:
positive where training example i makes runs surer of the label of j. Margins are clipped as `margin_scores` says.

Two float32 products a block give the sums and the sums of squares of one side; the column totals, in float64, give the
other. Each column is centred first, which changes no difference and keeps the squares from cancelling. Products run
over 256 runs at a time and are then added, so that with u = 2^-24, T runs and n1 + n0 = T, the rounding error of a
value is at most

    (260 + T / 256) u T (1 / n1 + 1 / n0) d_j,    d_j the mean absolute deviation of column j,

which at T = 4000 and ratio 0.7 is 8e-5 d_j, where the standard error is 0.035 standard deviations; the largest seen in
a trial of that size was 1e-6 d_j. A standard error is off by at most about half of what its variance is,
(260 + T / 256) u (1 + (m / s)^2) of itself, m the distance of a side's mean from that of all runs, s its deviation.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from heldout import compiling
from heldout.scoring import margin_scores, scores
from zoo import errors, run_table

DEFAULT_MEMORY_LIMIT_BYTES = 1 << 31
# Runs of one float32 product; sums over more runs add up such products, which keeps their rounding small.
_RUNS_PER_PRODUCT = 256
_STRIP_ROWS = 32
_STRIP_ARRAYS = 5
# Arrays of a block's size: two results of this block, two of the one before it, and one product.
_RESULT_ARRAYS = 5
_MAX_BLOCK_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class MarginInfluenceBlock:
    """Rows `start` to `stop` of the influence on margins, [N, M], in nats of log odds.

    Attributes:
        start: first train index.
        stop: one past the last.
        values: float32 [stop - start, M], in -2 clip to 2 clip; NaN where a side has no run.
        standard_error: float32 [stop - start, M], sqrt(s1^2 / num_in + s0^2 / num_heldout) with the sample variances;
            NaN where a side has fewer than two runs.
    """

    start: int
    stop: int
    values: np.ndarray
    standard_error: np.ndarray


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The margins of T runs on M test examples, ready for sums over any of the runs.

    Attributes:
        runs: those that have margins.
        centred: float32 [T, M], clipped margins less their column means.
        totals: float64 [2, M], totals of these and of their squares, as they were rounded.
        num_in: int64 [N], runs that trained on each training example.
        num_clipped: int64 [M], margins on each test example that lay beyond the clip.
        num_runs_without: runs of the ratio that have no margins, and are left out.
        clip: bound on the absolute value of a margin.
    """

    runs: run_table.RunTable
    centred: np.ndarray
    totals: np.ndarray
    num_in: np.ndarray
    num_clipped: np.ndarray
    num_runs_without: int
    clip: float


def prepare(
    table: run_table.RunTable,
    test_margin: np.ndarray,
    subset_ratio: float,
    *,
    clip: float = margin_scores.DEFAULT_CLIP,
) -> Outputs:
    """The Outputs of the runs of one ratio; arguments as of `influence_margin_blocks`.

    Raises:
        InvalidValueError: as there.
        MismatchError: as there.
    """
    runs, rows, num_without = margin_scores.runs_with_margins(table, test_margin, "test_margin", subset_ratio, clip)
    num_in = scores.sum_bit_columns(runs.subset_mask_bits, runs.num_train)
    return Outputs(
        runs, *_centred(test_margin, rows, clip), num_in, _num_clipped(test_margin, rows, clip), num_without, clip
    )


def influence_margin_blocks(
    table: run_table.RunTable,
    test_margin: np.ndarray,
    subset_ratio: float,
    *,
    clip: float = margin_scores.DEFAULT_CLIP,
    memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
) -> Iterator[MarginInfluenceBlock]:
    """Influence of every training example on the margin of every test example, rows in order, a few at a time.

    Args:
        table: T runs in all, N training and M test examples.
        test_margin: floats [T, M] in the table's order of runs, from `margins.collect`; rows of NaN for runs without.
        subset_ratio: which runs to use.
        clip: margins are cut to -clip..clip; positive. Infinity cuts nothing.
        memory_limit_bytes: upper limit on what is allocated beside table and margins, counting the block at hand and
            the one before it, which a loop variable still holds.

    Yields:
        MarginInfluenceBlocks that together cover all rows. Beyond rounding, they do not depend on the limit.

    Raises:
        InvalidValueError: as in `margin_scores.memorization_margin`, or the limit is too small for eight rows.
        MismatchError: the margins have another shape than [T, M].

    Cost: 4 T N M floating point operations.
    """
    # Before the margins are copied, which takes most of the limit; runs without margins could only take less.
    num_runs = int(np.count_nonzero(table.subset_ratio == subset_ratio))
    num_rows = rows_per_block(num_runs, table.num_train, table.num_test, memory_limit_bytes)
    outputs = prepare(table, test_margin, subset_ratio, clip=clip)
    yield from blocks(outputs, range(outputs.runs.num_train), num_rows)


def blocks(outputs: Outputs, rows: range, num_rows: int) -> Iterator[MarginInfluenceBlock]:
    """Some rows of the matrix, in order.

    Args:
        outputs: from `prepare`.
        rows: which; they begin at a multiple of 8.
        num_rows: of each block, a multiple of 8.

    Yields:
        MarginInfluenceBlocks that together cover the rows.
    """
    product = np.empty((min(num_rows, len(rows)), outputs.runs.num_test), np.float32)
    for start in rows[::num_rows]:
        stop = min(start + num_rows, rows.stop)
        values, error = _sums(outputs, start, stop, product)
        _finish(values, error, outputs.totals, outputs.num_in[start:stop], outputs.runs.num_runs)
        yield MarginInfluenceBlock(start, stop, values, error)
        del values, error


def rows_per_block(num_runs: int, num_train: int, num_test: int, memory_limit_bytes: int) -> int:
    """Rows of a block that a limit of memory allows, a multiple of 8.

    Args:
        num_runs: T, of the ratio.
        num_train: N.
        num_test: M.
        memory_limit_bytes: as of `influence_margin_blocks`.

    Raises:
        InvalidValueError: the limit is too small for eight rows; the message names the least that would do.
    """
    # The centred margins and one chunk of their squares; counts and totals; the strips and the bits of the chosen runs.
    fixed = 4 * num_test * (num_runs + min(num_runs, _RUNS_PER_PRODUCT)) + 4 * 255 * num_train
    fixed += 64 * (num_train + num_test) + 8 * _STRIP_ARRAYS * _STRIP_ROWS * num_test
    fixed += num_runs * (2 * num_train + num_test) // 4
    row_bytes = 4 * num_test * _RESULT_ARRAYS + 6 * num_runs
    if memory_limit_bytes < fixed + 8 * row_bytes:
        least = -(-(fixed + 8 * row_bytes) >> 20)
        raise errors.InvalidValueError(
            f"memory limit: got {memory_limit_bytes >> 20} MiB, but the margins of {num_runs} runs on {num_test} test "
            f"examples and {num_train} training examples need at least {least} MiB; raise --memory_limit_mb"
        )
    return min((memory_limit_bytes - fixed) // row_bytes // 8 * 8, _MAX_BLOCK_ROWS)


def _num_clipped(test_margin: np.ndarray, rows: np.ndarray, clip: float) -> np.ndarray:
    """Margins of the chosen runs beyond the clip, int64 [M], a few columns at a time."""
    counts = [
        np.count_nonzero(np.abs(test_margin[rows, left : left + _STRIP_ROWS]) > clip, axis=0)
        for left in range(0, test_margin.shape[1], _STRIP_ROWS)
    ]
    return np.concatenate([np.zeros(0, np.int64), *counts])


def _centred(test_margin: np.ndarray, rows: np.ndarray, clip: float) -> tuple[np.ndarray, np.ndarray]:
    """`centred` and `totals` of an Outputs."""
    centred = np.empty((len(rows), test_margin.shape[1]), np.float32)
    totals = np.empty((2, test_margin.shape[1]))
    for left in range(0, test_margin.shape[1], _STRIP_ROWS):
        columns = slice(left, left + _STRIP_ROWS)
        clipped = np.clip(test_margin[rows, columns].astype(np.float64), -clip, clip)
        centred[:, columns] = clipped - clipped.mean(axis=0)
        rounded = centred[:, columns].astype(np.float64)
        totals[:, columns] = rounded.sum(axis=0), np.square(rounded).sum(axis=0)
    return centred, totals


def _sums(outputs: Outputs, start: int, stop: int, product: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of centred margins and of their squares over the runs that trained on each row's example."""
    runs, shape = outputs.runs, (stop - start, outputs.runs.num_test)
    sums, squares = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    mask = runs.subset_mask(start, stop)
    product = product[: stop - start]
    for first in range(0, runs.num_runs, _RUNS_PER_PRODUCT):
        chosen = mask[first : first + _RUNS_PER_PRODUCT].T.astype(np.float32)
        part = outputs.centred[first : first + _RUNS_PER_PRODUCT]
        sums += np.matmul(chosen, part, out=product)
        squares += np.matmul(chosen, np.square(part), out=product)
    return sums, squares


def _finish(sums: np.ndarray, squares: np.ndarray, totals: np.ndarray, num_in: np.ndarray, num_runs: int) -> None:
    """Turns sums into differences of means, and squares into their standard errors, in place."""
    for first in range(0, len(sums), _STRIP_ROWS):
        rows = slice(first, first + _STRIP_ROWS)
        n1 = num_in[rows, np.newaxis].astype(np.float64)
        m1, v1 = _moments(sums[rows], squares[rows], n1)
        m0, v0 = _moments(totals[0] - sums[rows], totals[1] - squares[rows], num_runs - n1)
        sums[rows] = m1 - m0
        squares[rows] = np.sqrt(v1 + v0)


def _moments(total: np.ndarray, squares: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of a side and the variance of that mean; NaN where it has no run, or fewer than two."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(number > 0, total / number, np.nan)
        # Rounding can leave the squares about a mean of equal margins a little below 0.
        spread = np.maximum(squares - number * mean**2, 0)
        return mean, np.where(number > 1, spread / ((number - 1) * number), np.nan)


def errors_by_test(outputs: Outputs, train_index: np.ndarray) -> np.ndarray:
    """Standard errors of chosen entries of every column, from sums in float64.

    Args:
        outputs: from `prepare`.
        train_index: integers [M, k], rows chosen for each test example; negative for none.

    Returns:
        float32 [M, k], as `MarginInfluenceBlock.standard_error`; NaN for none.

    Cost: T M k look-ups, and 4 T bytes for each of a few columns.
    """
    error = np.empty(train_index.shape, np.float32)
    train_index = np.ascontiguousarray(train_index, np.int64)
    for left in range(0, len(train_index), _STRIP_ROWS):
        rows = slice(left, left + _STRIP_ROWS)
        columns, totals = (
            np.ascontiguousarray(outputs.centred[:, rows].T),
            np.ascontiguousarray(outputs.totals[:, rows].T),
        )
        bits = outputs.runs.subset_mask_bits
        _fill_errors(bits, columns, totals, train_index[rows], outputs.num_in, error[rows])
    return error


@compiling.later
def _fill_errors(bits, columns, totals, train_index, num_in, out):  # type: ignore[no-untyped-def]
    """Errors of pairs of a test example, columns [m, T] and totals [m, 2], and its chosen training examples."""
    num_runs = columns.shape[1]
    for column in range(len(train_index)):
        for place in range(train_index.shape[1]):
            row = train_index[column, place]
            if row < 0:
                out[column, place] = np.nan
                continue
            total, squares = 0.0, 0.0
            for run in range(num_runs):
                if (bits[run, row >> 3] >> (row & 7)) & 1:
                    value = np.float64(columns[column, run])
                    total += value
                    squares += value * value
            inside = _variance_of_mean(total, squares, num_in[row])
            outside = _variance_of_mean(totals[column, 0] - total, totals[column, 1] - squares, num_runs - num_in[row])
            out[column, place] = np.sqrt(inside + outside)


@compiling.later
def _variance_of_mean(total, squares, number):  # type: ignore[no-untyped-def]
    if number < 2:
        return np.nan
    return max(squares - total * total / number, 0.0) / (number * (number - 1.0))
