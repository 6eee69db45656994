"""Subset influence as three kinds of files hold it, behind one set of questions.

A score folder has the whole matrix [N, M], or where that was not kept a list of pairs; the class-wise file of Feldman &
Zhang (2020) the pairs within each class; their file of high-influence pairs a list. A pair that is not in a list is
known to lie below the thresholds that the list was made with.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Protocol

import numpy as np

from heldout.scoring import published_formats
from zoo import errors

# Rows of a matrix are searched this many bytes at a time.
_SEARCH_BYTES = 1 << 25
# More pairs than this are no selection: sets of them would take gigabytes of memory.
MAX_PAIRS = 2_000_000


class InfluenceSource(Protocol):
    """Subset influence of pairs of a training and a test example; positive helps."""

    @property
    def path(self) -> pathlib.Path:
        """Where it was read from."""

    @property
    def shape(self) -> tuple[int, int] | None:
        """N and M; None for a list, which does not tell."""

    @property
    def num_pairs(self) -> int:
        """Pairs that the file has a value for."""

    def values(self, train_index: np.ndarray, test_index: np.ndarray) -> np.ndarray:
        """Influence of each of these pairs, float64, NaN where the file has none.

        Raises:
            MismatchError: an index lies outside the data set.
        """

    def covers(self, train_index: np.ndarray, test_index: np.ndarray) -> np.ndarray:
        """bool: whether the file tells if these pairs have a high influence."""

    def draw(self, number: int, generator: np.random.Generator) -> np.ndarray | None:
        """int64 [2, number], random pairs among those with a value; None for a list."""

    def high_pairs(self, least_influence: float, least_memorization: float) -> np.ndarray:
        """int64 [2, n]: train and test index of pairs that reach both thresholds; minus infinity takes all of a list.

        Influence is compared in float32, the precision of the matrix, whatever holds it.

        Raises:
            InvalidValueError: a search finds more than `MAX_PAIRS`, or a list is known to lack some.
        """


@dataclasses.dataclass(frozen=True)
class WholeMatrix:
    """The influence of a score folder at one ratio, where its matrix was kept.

    Attributes:
        path: where it was read from.
        memorization: floats [N]; NaN where a row has no values.
        matrix: floats [N, M], possibly memory-mapped.
    """

    path: pathlib.Path
    memorization: np.ndarray
    matrix: np.ndarray

    @property
    def shape(self) -> tuple[int, int] | None:
        """As in `InfluenceSource`."""
        rows, columns = self.matrix.shape
        return rows, columns

    @property
    def num_pairs(self) -> int:
        """As in `InfluenceSource`."""
        return int(np.count_nonzero(~np.isnan(self.memorization))) * self.matrix.shape[1]

    def values(self, train_index: np.ndarray, test_index: np.ndarray) -> np.ndarray:
        """As in `InfluenceSource`."""
        _check_indices(self.path, self.shape, train_index, test_index)
        return np.asarray(self.matrix[train_index, test_index], np.float64)

    def covers(self, train_index: np.ndarray, test_index: np.ndarray) -> np.ndarray:
        """As in `InfluenceSource`; not where the training example has no value."""
        _check_indices(self.path, self.shape, train_index, test_index)
        return ~np.isnan(self.memorization[train_index])

    def draw(self, number: int, generator: np.random.Generator) -> np.ndarray | None:
        """As in `InfluenceSource`."""
        if not self.num_pairs:
            return np.zeros((2, 0), np.int64)
        columns = generator.integers(self.matrix.shape[1], size=number)
        return np.stack([generator.choice(np.flatnonzero(~np.isnan(self.memorization)), number), columns])

    def high_pairs(self, least_influence: float, least_memorization: float) -> np.ndarray:
        """As in `InfluenceSource`."""
        candidates = np.flatnonzero(self.memorization >= least_memorization)
        step = max(1, _SEARCH_BYTES // (4 * max(self.matrix.shape[1], 1)))
        found = [np.zeros((2, 0), np.int64)]
        for start in range(0, len(candidates), step):
            rows = candidates[start : start + step]
            hits, columns = np.nonzero(_reaches(self.matrix[rows], least_influence))
            found.append(np.stack([rows[hits], columns]))
            _check_number(self.path, found, least_influence, least_memorization)
        return np.concatenate(found, axis=1)


class WithinClasses:
    """The influence of a class-wise file."""

    def __init__(self, path: pathlib.Path, stored: published_formats.ClassInfluence) -> None:
        self.path = path
        self._stored = stored
        # Where an example stands in the matrix of its class.
        self._row = np.zeros(len(stored.train_label), np.int64)
        self._column = np.zeros(len(stored.test_label), np.int64)
        for label, index in stored.train_index.items():
            self._row[index] = np.arange(len(index))
            self._column[stored.test_index[label]] = np.arange(len(stored.test_index[label]))

    @property
    def shape(self) -> tuple[int, int] | None:
        """As in `InfluenceSource`."""
        return len(self._row), len(self._column)

    @property
    def num_pairs(self) -> int:
        """As in `InfluenceSource`."""
        return sum(matrix.size for matrix in self._stored.subset_influence.values())

    def values(self, train_index: np.ndarray, test_index: np.ndarray) -> np.ndarray:
        """As in `InfluenceSource`; NaN between classes."""
        found = np.full(len(train_index), np.nan)
        inside = self.covers(train_index, test_index)
        for label, matrix in self._stored.subset_influence.items():
            chosen = np.flatnonzero(inside & (self._stored.train_label[train_index] == label))
            found[chosen] = matrix[self._row[train_index[chosen]], self._column[test_index[chosen]]]
        return found

    def covers(self, train_index: np.ndarray, test_index: np.ndarray) -> np.ndarray:
        """As in `InfluenceSource`: pairs of one class."""
        _check_indices(self.path, self.shape, train_index, test_index)
        return np.equal(self._stored.train_label[train_index], self._stored.test_label[test_index])

    def draw(self, number: int, generator: np.random.Generator) -> np.ndarray | None:
        """As in `InfluenceSource`, classes by their number of pairs."""
        labels = list(self._stored.subset_influence)
        sizes = np.array([self._stored.subset_influence[label].size for label in labels], np.int64)
        if not sizes.sum():
            return np.zeros((2, 0), np.int64)
        sides = (self._stored.train_index, self._stored.test_index)
        counts = generator.multinomial(number, sizes / sizes.sum())
        drawn = [
            np.stack([generator.choice(index[label], count) for index in sides])
            for label, count in zip(labels, counts, strict=True)
            if count
        ]
        return np.concatenate(drawn, axis=1)

    def high_pairs(self, least_influence: float, least_memorization: float) -> np.ndarray:
        """As in `InfluenceSource`."""
        found = [np.zeros((2, 0), np.int64)]
        for label, matrix in self._stored.subset_influence.items():
            rows = self._stored.train_index[label]
            candidates = np.flatnonzero(self._stored.memorization[rows] >= least_memorization)
            hits, columns = np.nonzero(_reaches(matrix[candidates], least_influence))
            found.append(np.stack([rows[candidates[hits]], self._stored.test_index[label][columns]]))
            _check_number(self.path, found, least_influence, least_memorization)
        return np.concatenate(found, axis=1)


@dataclasses.dataclass(frozen=True)
class ListedPairs:
    """The influence of a file of high-influence pairs, or of the pairs that a score folder lists.

    Attributes:
        path: where it was read from.
        stored: the pairs.
        least_influence: threshold that the list was made with; None where that is not known.
        least_memorization: likewise.
    """

    path: pathlib.Path
    stored: published_formats.HighInfluencePairs
    least_influence: float | None = None
    least_memorization: float | None = None

    @property
    def shape(self) -> tuple[int, int] | None:
        """As in `InfluenceSource`: not told."""
        return None

    @property
    def num_pairs(self) -> int:
        """As in `InfluenceSource`."""
        return len(self.stored.train_index)

    def values(self, train_index: np.ndarray, test_index: np.ndarray) -> np.ndarray:
        """As in `InfluenceSource`; NaN where a pair is not listed."""
        listed = zip(self.stored.train_index.tolist(), self.stored.test_index.tolist(), strict=True)
        by_pair = dict(zip(listed, self.stored.subset_influence.tolist(), strict=True))
        asked = zip(train_index.tolist(), test_index.tolist(), strict=True)
        return np.array([by_pair.get(pair, np.nan) for pair in asked], np.float64)

    def covers(self, train_index: np.ndarray, test_index: np.ndarray) -> np.ndarray:
        """As in `InfluenceSource`: what is not listed is low."""
        return np.ones(len(train_index), bool)

    def draw(self, number: int, generator: np.random.Generator) -> np.ndarray | None:
        """As in `InfluenceSource`: a list is compared whole."""
        return None

    def high_pairs(self, least_influence: float, least_memorization: float) -> np.ndarray:
        """As in `InfluenceSource`; where its thresholds are not known, lower ones find no more."""
        for name, asked, known in (
            ("pairs_influence", least_influence, self.least_influence),
            ("pairs_memorization", least_memorization, self.least_memorization),
        ):
            if known is not None and -np.inf < asked < known:
                raise errors.InvalidValueError(
                    f"{name}: got {asked:g}, but {self.path} lists pairs from {known:g} on; give --{name}={known:g} or "
                    "more, or compute its scores again with a lower one or with --matrix=yes"
                )
        high = _reaches(self.stored.subset_influence, least_influence)
        high &= self.stored.memorization >= least_memorization
        return np.stack([self.stored.train_index[high], self.stored.test_index[high]])


def _reaches(values: np.ndarray, least_influence: float) -> np.ndarray:
    return np.asarray(values.astype(np.float32, copy=False) >= np.float32(least_influence))


def _check_number(
    path: pathlib.Path, found: Sequence[np.ndarray], least_influence: float, least_memorization: float
) -> None:
    """Refuses more pairs than a selection may have."""
    if sum(part.shape[1] for part in found) > MAX_PAIRS:
        raise errors.InvalidValueError(
            f"{path}: more than {MAX_PAIRS} pairs reach pairs_influence {least_influence:g} and "
            f"pairs_memorization {least_memorization:g}; raise one of the two"
        )


def _check_indices(
    path: pathlib.Path, shape: tuple[int, int] | None, train_index: np.ndarray, test_index: np.ndarray
) -> None:
    """Refuses indices of another data set."""
    assert shape is not None
    for name, index, size in (("training", train_index, shape[0]), ("test", test_index, shape[1])):
        if index.max(initial=-1) >= size:
            raise errors.MismatchError(
                f"{path}: has {size} {name} examples, but {name} example {index.max()} is asked for: the other scores "
                "are of another data set"
            )
