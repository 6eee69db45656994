"""How many runs trained on one example and are right on another: the counts behind subset influence.

For T runs with the mask A [T, N] and the test correctness C [T, M] the counts are K = A^T C, whole numbers of at most
T, which float32 holds exactly up to 2^24. They come

    from words       64 runs at a time, by AND and population count, on bits that lie by example (run_words.py)
    from products    of int8 matrices into int32 on an accelerator (device_counts.py)
    from values      of subset influence that were computed before, from which they can be recovered exactly

and counts of disjoint sets of runs add up. On two cores words are some thirty times as fast as the two products of
float32 matrices that the formula suggests, and take an eighth of a byte for each example and run
(benchmarks/benchmark_scores.py).
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from heldout import compiling
from heldout.scoring import run_words
from zoo import run_table

# Whole numbers are exact in float32 up to 2**24; the margin lets counts be recovered from rounded quotients.
MAX_RUNS = 1 << 20
# Columns of one tile of the counting loop: sums and words of four rows stay in the nearest cache.
_TILE_COLUMNS = 512
# Compiled functions find others by a name of their own module.
ones = run_words.ones


class Counter(Protocol):
    """Counts for any rows of the matrix; threads may share it."""

    def count(self, start: int, out: np.ndarray) -> None:
        """Writes the counts of the rows from `start` on, a multiple of 8, into `out`, float32 [rows, M]."""


class WordCounter:
    """Counts by words of 64 runs.

    Args:
        mask_bits: uint8 [T, ceil(N / 8)], of a run table.
        test_words: uint64 [m, W], of the columns to count; see `run_words.of_examples`.
    """

    def __init__(self, mask_bits: np.ndarray, test_words: np.ndarray) -> None:
        self._mask_bits = mask_bits
        self._columns = np.ascontiguousarray(test_words.T)

    @staticmethod
    def of_runs(runs: run_table.RunTable) -> "WordCounter":
        """Counts of runs that have one ratio. Takes T M / 8 bytes beside the table."""
        return WordCounter(runs.subset_mask_bits, run_words.of_examples(runs.test_correctness_bits, 0, runs.num_test))

    def count(self, start: int, out: np.ndarray) -> None:
        """As `Counter.count`. Cost: ceil(T / 64) M population counts a row."""
        self.count_rows(run_words.of_examples(self._mask_bits, start, start + len(out)), out)

    def count_rows(self, words: np.ndarray, out: np.ndarray) -> None:
        """Counts for examples in any order.

        Args:
            words: uint64 [rows, W], of `run_words.of_examples`.
            out: float32 [rows, m].
        """
        _count(words, self._columns, np.empty((4, _TILE_COLUMNS), np.uint64), out)


class ValueCounter:
    """Counts that subset influence was computed from, which its values hold exactly.

    With v = k / n1 - (t - k) / n0 the count k is (v + t / n0) n1 n0 / (n1 + n0), rounded: float32 values move this by
    a few 2^-24 of k + n0, which is below a half for `MAX_RUNS`.

    Args:
        values: float32 [N, M], perhaps memory-mapped, of some runs.
        num_in: int64 [N], of these runs.
        num_heldout: int64 [N], of these runs.
        num_right: float32 [M], of these runs.
    """

    def __init__(self, values: np.ndarray, num_in: np.ndarray, num_heldout: np.ndarray, num_right: np.ndarray) -> None:
        self._values = values
        self._num_in, self._num_heldout = num_in.astype(np.float64), num_heldout.astype(np.float64)
        self._num_right = num_right.astype(np.float64)

    def count(self, start: int, out: np.ndarray) -> None:
        """As `Counter.count`."""
        rows = slice(start, start + len(out))
        values = np.ascontiguousarray(self._values[rows])
        _recover(values, self._num_in[rows], self._num_heldout[rows], self._num_right, out)


class SumCounter:
    """Counts over several disjoint sets of runs together.

    Args:
        counters: one for each set.
    """

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters

    def count(self, start: int, out: np.ndarray) -> None:
        """As `Counter.count`."""
        self._counters[0].count(start, out)
        for counter in self._counters[1:]:
            more = np.empty_like(out)
            counter.count(start, more)
            out += more


@compiling.later
def _recover(values, num_in, num_heldout, num_right, out):  # type: ignore[no-untyped-def]
    """Counts behind values [R, M]; where a side has no run they are 0, or all that are right."""
    for row in range(len(values)):
        n1, n0 = num_in[row], num_heldout[row]
        line, target = values[row], out[row]
        if n1 == 0:
            target[:] = 0
        elif n0 == 0:
            for column in range(len(line)):
                target[column] = num_right[column]
        else:
            inverse, harmonic = 1 / n0, n1 * n0 / (n1 + n0)
            for column in range(len(line)):
                target[column] = np.rint((line[column] + num_right[column] * inverse) * harmonic)


@compiling.later
def _count(rows, columns, sums, out):  # type: ignore[no-untyped-def]
    """Counts the bits that rows [R, W] and columns [W, M] have in common into out [R, M]; W is a multiple of 4.

    Four rows by four words at a time: each word of a column is read once for four rows, and each sum is touched once
    for four words. The loops over columns are those that the compiler turns into vector instructions.
    """
    num_rows, num_words = rows.shape
    num_columns = columns.shape[1]
    for left in range(0, num_columns, sums.shape[1]):
        right = min(left + sums.shape[1], num_columns)
        for row in range(0, num_rows, 4):
            # What is missing in the last four is done twice.
            i, j, k = min(row + 1, num_rows - 1), min(row + 2, num_rows - 1), min(row + 3, num_rows - 1)
            first, second, third, fourth = sums[0], sums[1], sums[2], sums[3]
            sums[:] = np.uint64(0)
            for word in range(0, num_words, 4):
                a, b, c, d = _four(rows[row], word), _four(rows[i], word), _four(rows[j], word), _four(rows[k], word)
                # Not by a slice of all four lines: the loop below would not be turned into vector instructions.
                line_0, line_1 = columns[word, left:right], columns[word + 1, left:right]
                line_2, line_3 = columns[word + 2, left:right], columns[word + 3, left:right]
                for column in range(right - left):
                    x = line_0[column], line_1[column], line_2[column], line_3[column]
                    first[column] += _common(a, x)
                    second[column] += _common(b, x)
                    third[column] += _common(c, x)
                    fourth[column] += _common(d, x)
            for column in range(right - left):
                out[row, left + column] = first[column]
                out[i, left + column] = second[column]
                out[j, left + column] = third[column]
                out[k, left + column] = fourth[column]


@compiling.later
def _four(words, first):  # type: ignore[no-untyped-def]
    return words[first], words[first + 1], words[first + 2], words[first + 3]


@compiling.later
def _common(a, b):  # type: ignore[no-untyped-def]
    """Number of bits that four words have in common with four others."""
    return ones(a[0] & b[0]) + ones(a[1] & b[1]) + ones(a[2] & b[2]) + ones(a[3] & b[3])
