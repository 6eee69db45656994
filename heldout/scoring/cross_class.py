"""Influence between classes: how the training examples of one class act on the test examples of another.

From the subset influence matrix of Feldman & Zhang (2020), [N, M], train row and test column, and the labels [N] and
[M], a table [K, K] over pairs of classes: row a, column b, over all pairs of a training example of class a and a test
example of class b

    mean[a, b] = mean of subset_influence[i, j],    label of i = a, label of j = b.

Positive: examples of class a help the test examples of class b. The diagonal is the help within a class, and usually
positive; what is negative off the diagonal are classes that are taken for one another. The matrix is read once, in
row blocks, so that one of gigabytes may stay on disk. The mean alone, with a standard error, needs no matrix:
class_means.py.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from heldout.scoring import saved_scores
from zoo import errors

# Of a block: the rows as they are, and with their columns put in order of class.
DEFAULT_MEMORY_LIMIT_BYTES = 1 << 27
# Bytes at a time for each value of a block: two float32 copies, the float64 sums in the making, masks and indices.
_BYTES_PER_VALUE = 40


@dataclasses.dataclass(frozen=True)
class ExtremePairs:
    """Pairs of two classes whose influence is strongest, the strongest first: arrays of equal length.

    Attributes:
        train_index: int64.
        test_index: int64.
        subset_influence: float32, all positive or all negative.
    """

    train_index: np.ndarray
    test_index: np.ndarray
    subset_influence: np.ndarray


@dataclasses.dataclass(frozen=True)
class CrossClassInfluence:
    """Subset influence by class of the training example (row) and of the test example (column), K classes.

    Attributes:
        mean: float64 [K, K] in [-1, 1]; NaN where there is no pair.
        standard_deviation: float64 [K, K], of the pairs (divisor: their number less one); NaN below two pairs. It is
            a spread, sampling noise of every pair included, and no standard error: pairs share their runs.
        num_pairs: int64 [K, K], pairs with a value.
        num_undefined: int64 [K, K], pairs whose influence is NaN; they are left out.
        positive_sum: float64 [K, K], 0 or more: the sum of those that help.
        negative_sum: float64 [K, K], 0 or less: the sum of those that harm.
        num_rows_left_out: int64 [K], training examples of each class without any value.
        helpful: strongest positive pairs with two different classes.
        harmful: strongest negative pairs with two different classes.
    """

    mean: np.ndarray
    standard_deviation: np.ndarray
    num_pairs: np.ndarray
    num_undefined: np.ndarray
    positive_sum: np.ndarray
    negative_sum: np.ndarray
    num_rows_left_out: np.ndarray
    helpful: ExtremePairs
    harmful: ExtremePairs


def of_saved(
    saved: saved_scores.SavedScores, subset_ratio: float, *, num_classes: int | None = None, num_strongest: int = 20
) -> CrossClassInfluence:
    """`cross_class_influence` of score files.

    Args:
        saved: from `saved_scores.load`.
        subset_ratio: which matrix.
        num_classes: K; None for one more than the largest label.
        num_strongest: pairs of either sign to return.

    Raises:
        InvalidValueError: there are no scores of this ratio, they carry no labels, or their matrix was not kept.
    """
    if saved.train_label is None or saved.test_label is None:
        raise errors.InvalidValueError(
            f"{saved.directory}: the scores carry no labels, so there are no classes to compare; compute them with the "
            "data set named: compute_scores --dataset"
        )
    if subset_ratio not in saved.ratios:
        there = ", ".join(f"{ratio:g}" for ratio in saved.ratios)
        raise errors.InvalidValueError(f"subset_ratio is {subset_ratio}, but {saved.directory} has scores at {there}")
    matrix = saved.ratios[subset_ratio].subset_influence
    if matrix is None:
        raise errors.InvalidValueError(
            f"{saved.directory}: the matrix of subset influence was not kept; compute the scores with --matrix=yes"
        )
    return cross_class_influence(
        matrix, saved.train_label, saved.test_label, num_classes=num_classes, num_strongest=num_strongest
    )


def cross_class_influence(
    subset_influence: np.ndarray,
    train_label: np.ndarray,
    test_label: np.ndarray,
    *,
    num_classes: int | None = None,
    num_strongest: int = 20,
    memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
) -> CrossClassInfluence:
    """Subset influence summed up by class of the training and of the test example, in one pass.

    Args:
        subset_influence: floats [N, M], possibly memory-mapped; NaN where a training example has no value.
        train_label: integers [N] in 0..K-1.
        test_label: integers [M] in 0..K-1.
        num_classes: K; None for one more than the largest label.
        num_strongest: n, pairs of either sign to return; of equal ones those with the smaller train index, then test
            index.
        memory_limit_bytes: of the work on one block; a single row is always taken.

    Returns:
        A CrossClassInfluence. Its sums are float64; the standard deviation is exact to about 1e-8 of the largest
        value, which is far below the noise of an influence.

    Raises:
        MismatchError: the labels do not have the lengths N and M.
        InvalidValueError: a label is negative or K or more, or n is negative.

    Cost: N M values read once; memory the limit, 8 K^2 bytes for each table, and the strongest pairs.
    """
    num_classes = _checked_classes(subset_influence, train_label, test_label, num_classes)
    if num_strongest < 0:
        raise errors.InvalidValueError(f"num_strongest: got {num_strongest}, expected 0 or more")
    tally = _Tally(num_classes, test_label)
    helpful, harmful = _Strongest(num_strongest, 1), _Strongest(num_strongest, -1)
    for start, block in _blocks(subset_influence, memory_limit_bytes):
        label = train_label[start : start + len(block)]
        tally.add(label, block)
        foreign = np.where(label[:, np.newaxis] != test_label, block, np.float32(0))
        for strongest in (helpful, harmful):
            strongest.add(start, foreign)
    return tally.result(helpful.pairs(), harmful.pairs())


def _checked_classes(
    matrix: np.ndarray, train_label: np.ndarray, test_label: np.ndarray, num_classes: int | None
) -> int:
    """K, once the labels have been found to fit."""
    if (train_label.shape, test_label.shape) != ((matrix.shape[0],), (matrix.shape[1],)):
        raise errors.MismatchError(
            f"subset_influence has shape {matrix.shape}, but train_label {train_label.shape} and test_label "
            f"{test_label.shape}; expected {matrix.shape[:1]} and {matrix.shape[1:]}: labels of another data set"
        )
    labels = np.concatenate([train_label, test_label])
    least, most = int(labels.min(initial=0)), int(labels.max(initial=-1))
    num_classes = most + 1 if num_classes is None else num_classes
    if least < 0 or most >= num_classes:
        raise errors.InvalidValueError(
            f"labels: got {least} to {most}, expected 0 to {num_classes - 1}; give num_classes as the data set has it"
        )
    return num_classes


def _blocks(matrix: np.ndarray, memory_limit_bytes: int) -> Iterator[tuple[int, np.ndarray]]:
    """(start, rows) as float32 arrays in memory."""
    step = max(1, memory_limit_bytes // (_BYTES_PER_VALUE * max(matrix.shape[1], 1)))
    for start in range(0, matrix.shape[0], step):
        yield start, np.asarray(matrix[start : start + step], np.float32)


class _Tally:
    """Sums over pairs of classes, block by block."""

    def __init__(self, num_classes: int, test_label: np.ndarray) -> None:
        self._order = np.argsort(test_label, kind="stable")
        # Columns of one class lie together in this order; each class that there is begins at one of these places.
        self._classes, self._starts = np.unique(test_label[self._order], return_index=True)
        self._num_classes = num_classes
        self._num_rows = np.zeros(num_classes, np.int64)
        self._num_columns = np.bincount(test_label, minlength=num_classes)
        names = ("undefined", "sum", "squares", "positive")
        self._sums = {name: np.zeros((num_classes, num_classes)) for name in names}
        self._left_out = np.zeros(num_classes, np.int64)

    def add(self, label: np.ndarray, block: np.ndarray) -> None:
        """Adds the rows of a block whose training examples have these labels."""
        self._num_rows += np.bincount(label, minlength=self._num_classes)
        if not self._order.size:
            return
        values = block[:, self._order]
        undefined = np.isnan(values)
        values[undefined] = 0
        rows = undefined.any(axis=1)
        self._add_to("undefined", label[rows], undefined[rows])
        self._left_out += np.bincount(label[undefined.all(axis=1)], minlength=self._num_classes)
        self._add_to("sum", label, values)
        self._add_to("positive", label, np.maximum(values, 0))
        self._add_to("squares", label, np.square(values, dtype=np.float64))

    def _add_to(self, name: str, label: np.ndarray, values: np.ndarray) -> None:
        by_class = np.add.reduceat(values, self._starts, axis=1, dtype=np.float64)
        sums = np.zeros((self._num_classes, len(self._starts)))
        np.add.at(sums, label, by_class)
        self._sums[name][:, self._classes] += sums

    def result(self, helpful: ExtremePairs, harmful: ExtremePairs) -> CrossClassInfluence:
        """What was added up."""
        total, positive, undefined = (self._sums[name] for name in ("sum", "positive", "undefined"))
        number = np.multiply.outer(self._num_rows, self._num_columns) - undefined
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / number
            # Rounding can leave a spread of 0 a little below it.
            spread = np.maximum(self._sums["squares"] - number * mean**2, 0)
            deviation = np.where(number >= 2, np.sqrt(spread / (number - 1)), np.nan)
        return CrossClassInfluence(
            mean=mean,
            standard_deviation=deviation,
            num_pairs=number.astype(np.int64),
            num_undefined=undefined.astype(np.int64),
            positive_sum=positive,
            negative_sum=np.minimum(total - positive, 0),
            num_rows_left_out=self._left_out,
            helpful=helpful,
            harmful=harmful,
        )


class _Strongest:
    """The n largest values of one sign, with their places, over blocks that come in order."""

    def __init__(self, number: int, sign: int) -> None:
        self._number, self._sign = number, np.float32(sign)
        self._train = self._test = np.zeros(0, np.int64)
        self._size = np.zeros(0, np.float32)

    def add(self, start: int, block: np.ndarray) -> None:
        """Takes over what is among the strongest; zeros and NaN never are."""
        if not self._number:
            return
        full = len(self._size) == self._number
        # What equals the weakest that is kept comes later in the order of indices, so it stays out.
        rows, columns = np.nonzero(self._sign * block > (self._size[-1] if full else 0))
        size = self._sign * block[rows, columns]
        if len(size) > self._number:
            least = np.partition(size, -self._number)[-self._number]
            chosen = size >= least
            rows, columns, size = rows[chosen], columns[chosen], size[chosen]
        train, test = np.append(self._train, rows + start), np.append(self._test, columns)
        size = np.append(self._size, size)
        order = np.lexsort((test, train, -size))[: self._number]
        self._train, self._test, self._size = train[order], test[order], size[order]

    def pairs(self) -> ExtremePairs:
        """The strongest, in order."""
        return ExtremePairs(self._train, self._test, self._sign * self._size)
