"""The strongest values of every row and column of a matrix that is seen a few rows at a time, and their distribution.

    tally = influence_extremes.Tally(num_test, top_k, support)
    tally.add(values, start, strongest_of_rows, first)

Of equal values in a column the one of the row with the larger support counts as stronger (+1.00 from 100 runs says more
than +1.00 from 2), then the one with the lower index. So the result does not depend on the order in which rows were
seen, nor on how they were shared among threads.
"""

import dataclasses

import numpy as np

from heldout import compiling

# Bins of values in [-1, 1]: bin b is centred at (b - HALF_BINS) / HALF_BINS.
HALF_BINS = 500
NUM_BINS = 2 * HALF_BINS + 1
# Equal bins follow upon each other, near 0 above all; neighbours count into tables of their own.
_TABLES = 4
# No value is stronger than none, in a list that is not full.
_NONE = np.float32(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Strongest:
    """For n examples, the k others with the largest positive and the largest negative influence.

    Attributes:
        helpful: float32 [n, k], falling, above 0; NaN where there are fewer.
        helpful_index: int32 [n, k], the others; -1 where there are fewer.
        harmful: float32 [n, k], rising, below 0; NaN where there are fewer.
        harmful_index: int32 [n, k].
    """

    helpful: np.ndarray
    helpful_index: np.ndarray
    harmful: np.ndarray
    harmful_index: np.ndarray

    @staticmethod
    def empty(size: int, k: int) -> "Strongest":
        """Lists without entries yet, which hold magnitudes until `finished`."""
        values = [np.full((size, k), _NONE) for _ in range(2)]
        indices = [np.full((size, k), -1, np.int32) for _ in range(2)]
        return Strongest(values[0], indices[0], values[1], indices[1])

    def finished(self) -> "Strongest":
        """The lists as they are described above."""
        nothing = np.float32(np.nan)
        return Strongest(
            np.where(self.helpful_index < 0, nothing, self.helpful),
            self.helpful_index,
            np.where(self.harmful_index < 0, nothing, -self.harmful),
            self.harmful_index,
        )

    def resumed(self) -> "Strongest":
        """What `finished` was made of."""
        return Strongest(
            np.where(self.helpful_index < 0, _NONE, self.helpful),
            self.helpful_index.copy(),
            np.where(self.harmful_index < 0, _NONE, -self.harmful),
            self.harmful_index.copy(),
        )

    def merge(self, other: "Strongest", support: np.ndarray) -> None:
        """Takes in the entries of other lists, of other examples for the same n; both not finished."""
        _merge(self.helpful, self.helpful_index, other.helpful, other.helpful_index, support)
        _merge(self.harmful, self.harmful_index, other.harmful, other.harmful_index, support)


class Tally:
    """What has been seen of the columns so far, and how values are distributed.

    Args:
        num_columns: M.
        k: length of the lists.
        support: integers [N], of every row: of equal values that with the larger one is stronger.

    Attributes:
        columns: Strongest of the M columns, not finished.
        largest: float32 [M], largest absolute value of each column; NaN where none has been seen.
    """

    def __init__(self, num_columns: int, k: int, support: np.ndarray) -> None:
        self._support = np.ascontiguousarray(support, np.int64)
        self._no_support = np.zeros(num_columns, np.int64)
        self.columns = Strongest.empty(num_columns, k)
        self.largest = np.full(num_columns, np.nan, np.float32)
        self._bins = np.zeros((_TABLES, NUM_BINS), np.int64)
        self._scratch = np.empty(num_columns, np.int32)
        # Beyond these a value belongs into a column's lists.
        self._bars = np.stack([np.full(num_columns, _NONE), np.full(num_columns, -_NONE)])

    @property
    def bin_counts(self) -> np.ndarray:
        """Values per bin, int64 [NUM_BINS]; NaN is in none."""
        return self._bins.sum(axis=0)

    def add(self, values: np.ndarray, start: int, rows: Strongest, first: int) -> None:
        """Takes in rows of the matrix; of one Tally's rows, each must follow upon those before.

        Args:
            values: float32 [rows, M]; a row is NaN altogether or not at all.
            start: index of the first row.
            rows: lists of the rows, not finished; these rows' are filled in.
            first: where the first row stands in `rows`.
        """
        columns, last = self.columns, first + len(values)
        _add(
            values,
            start,
            (self.largest, self._bars, self._bins, self._scratch, self._support, self._no_support),
            (columns.helpful, columns.helpful_index, columns.harmful, columns.harmful_index),
            rows.helpful[first:last],
            rows.helpful_index[first:last],
            rows.harmful[first:last],
            rows.harmful_index[first:last],
        )

    def merge(self, other: "Tally") -> None:
        """Takes in what another one has seen of other rows."""
        self.columns.merge(other.columns, self._support)
        np.copyto(self._bars, [self.columns.helpful[:, -1], -self.columns.harmful[:, -1]])
        np.fmax(self.largest, other.largest, out=self.largest)
        self._bins += other._bins


@compiling.later
def _add(values, start, seen, lists, helped, helped_index, harmed, harmed_index):  # type: ignore[no-untyped-def]
    """Rows into the lists of all columns, and into their own."""
    for row in range(len(values)):
        line = values[row]
        if len(line) and not np.isnan(line[0]):
            own = helped[row], helped_index[row], harmed[row], harmed_index[row]
            _add_row(line, start + row, seen, lists, own)


@compiling.later
def _add_row(line, index, seen, lists, own):  # type: ignore[no-untyped-def]
    largest, bars, bins, scratch, support, no_support = seen
    helpful, helpers, harmful, harmers = lists
    helped, helped_index, harmed, harmed_index = own
    for column in range(len(line)):
        value = line[column]
        scratch[column] = np.int32(np.rint(value * np.float32(HALF_BINS))) + np.int32(HALF_BINS)
        size = abs(value)
        # Written so that NaN, nothing seen yet, gives way.
        largest[column] = largest[column] if largest[column] >= size else size
    last = helpful.shape[1] - 1
    least, most = -harmed[last], helped[last]
    for column in range(len(line)):
        bins[column & 3, scratch[column]] += 1
        value = line[column]
        # One branch that is nearly never taken: those on the sign alone would be taken every other time.
        if (value >= bars[0, column]) | (value <= bars[1, column]) | (value > most) | (value < least):
            if value >= bars[0, column]:
                _insert(helpful[column], helpers[column], support, value, index)
                bars[0, column] = helpful[column, last]
            if value <= bars[1, column]:
                _insert(harmful[column], harmers[column], support, -value, index)
                bars[1, column] = -harmful[column, last]
            if value > most:
                _insert(helped, helped_index, no_support, value, column)
                most = helped[last]
            if value < least:
                _insert(harmed, harmed_index, no_support, -value, column)
                least = -harmed[last]


@compiling.later
def _insert(values, indices, support, value, index):  # type: ignore[no-untyped-def]
    """Puts an entry into its place of a falling list; the last one falls out."""
    place = len(values)
    while place and _precedes(value, index, values[place - 1], indices[place - 1], support):
        place -= 1
    if place == len(values):
        return
    for at in range(len(values) - 1, place, -1):
        values[at], indices[at] = values[at - 1], indices[at - 1]
    values[place], indices[place] = value, index


@compiling.later
def _precedes(value, index, other_value, other_index, support):  # type: ignore[no-untyped-def]
    if value != other_value or other_index < 0:
        return value > other_value or other_index < 0
    if support[index] != support[other_index]:
        return support[index] > support[other_index]
    return index < other_index


@compiling.later
def _merge(values, indices, other_values, other_indices, support):  # type: ignore[no-untyped-def]
    for one in range(len(values)):
        for at in range(values.shape[1]):
            if other_indices[one, at] < 0:
                break
            _insert(values[one], indices[one], support, other_values[one, at], other_indices[one, at])
