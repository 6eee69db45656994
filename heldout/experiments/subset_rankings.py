"""Training subsets that follow a ranking of the examples instead of chance: to keep, or drop, those at one end.

A ranking gives n of the N training examples a value; these are its pool, and no other example is trained on. A run is
trained on m = round(subset_ratio * N) examples of the pool. Its id says which ones, and its seed:

    run_id = 5 * seed_id + kind

    random      0    drawn from the pool, each subset of m examples as likely
    highest     1    the m of the highest values
    lowest      2    the m of the lowest values
    largest     3    the m of the largest absolute values
    smallest    4    the m of the smallest absolute values

To drop the k examples of the highest values is to keep the n - k of the lowest ones; both are the same run. Of equal
values the example at the lower position counts as the higher, and as the larger one.

Initial values are drawn under the name (experiment, subset_ratio, seed_id), whatever the kind: runs of one ratio and
seed begin with the same weights, and can be compared in pairs. Batch orders are drawn for each run.
"""

import dataclasses
import fractions
import hashlib
import itertools

import numpy as np

from heldout import subsets
from zoo import errors, files, npz

SCHEMA_VERSION = 1
RANDOM, HIGHEST, LOWEST, LARGEST, SMALLEST = KINDS = ("random", "highest", "lowest", "largest", "smallest")


@dataclasses.dataclass(frozen=True, eq=False)
class SubsetRanking:
    """Values of the training examples that runs choose from.

    Attributes:
        train_index: original positions of the pool, int64 [n], ascending, n at least 2.
        value: what they are ranked by, float64 [n], finite.

    Raises:
        InvalidValueError: the arrays are not like that.
    """

    train_index: np.ndarray
    value: np.ndarray

    def __post_init__(self) -> None:
        """Refuses what cannot rank."""
        index, value = self.train_index, self.value
        if index.dtype != np.int64 or index.ndim != 1 or len(index) < 2 or index[0] < 0 or (np.diff(index) <= 0).any():
            raise errors.InvalidValueError(
                f"train_index has dtype {index.dtype} and shape {index.shape}, expected at least two ascending int64 "
                "positions from 0, each once"
            )
        if value.dtype != np.float64 or value.shape != index.shape or not np.isfinite(value).all():
            raise errors.InvalidValueError(
                f"value has dtype {value.dtype} and shape {value.shape}, expected finite float64 of shape {index.shape}"
            )

    @property
    def size(self) -> int:
        """The number n of examples in the pool."""
        return len(self.train_index)

    def sha256(self) -> str:
        """Hexadecimal digest of positions and values as little-endian bytes; what a recipe carries."""
        digest = hashlib.sha256(self.train_index.astype("<i8").tobytes())
        digest.update(self.value.astype("<f8").tobytes())
        return digest.hexdigest()

    def order(self, kind: str) -> np.ndarray:
        """The pool as one kind of run prefers it, int64 [n] original positions: its first m are trained on.

        Args:
            kind: one of `KINDS`, but not "random", whose order is another in every run.
        """
        value = np.abs(self.value) if kind in (LARGEST, SMALLEST) else self.value
        falling = self.train_index[np.argsort(-value, kind="stable")]
        return falling if kind in (HIGHEST, LARGEST) else falling[::-1]

    def check(self, num_train: int) -> None:
        """Refuses a data set that lacks examples of the pool.

        Args:
            num_train: the number N of all training examples.

        Raises:
            InvalidValueError: the ranking names positions that are not there.
        """
        if self.train_index[-1] >= num_train:
            raise errors.InvalidValueError(
                f"the ranking names training example {self.train_index[-1]}, but there are {num_train}, from 0: it is "
                "of another data set; rank the examples of this one"
            )

    def subset_size(self, subset_ratio: float, num_train: int) -> int:
        """The number m of examples that a run is trained on; the whole pool at most.

        Args:
            subset_ratio: of the run.
            num_train: the number N of all training examples.

        Raises:
            InvalidValueError: the ranking names positions that are not there, or the pool cannot give as many.
        """
        self.check(num_train)
        size = round(subset_ratio * num_train)
        if not 0 < size <= self.size:
            raise errors.InvalidValueError(
                f"subset ratio {subset_ratio} of {num_train} training examples is {size}, expected 1 to {self.size}, "
                "which the ranking has values for"
            )
        return size

    def subset_indices(self, run: tuple[str, float, int], num_train: int) -> np.ndarray:
        """The original positions that a run is trained on: int64 [m], ascending.

        Args:
            run: (experiment, subset_ratio, run_id).
            num_train: the number N of all training examples.
        """
        size, kind = self.subset_size(run[1], num_train), kind_of(run[2])
        if kind == RANDOM:
            order = self.train_index[subsets.permutation(subsets.seed(seed_name(run), "subset"), self.size)]
        else:
            order = self.order(kind)
        return np.sort(order[:size])


def run_id(kind: str, seed_id: int) -> int:
    """The id of the run of one kind and seed."""
    return len(KINDS) * seed_id + KINDS.index(kind)


def kind_of(run_id: int) -> str:
    """Which examples a run keeps, one of `KINDS`."""
    return KINDS[run_id % len(KINDS)]


def seed_name(run: tuple[str, float, int]) -> tuple[str, float, int]:
    """What initial values and random subsets follow from: (experiment, subset_ratio, seed_id)."""
    experiment, subset_ratio, number = run
    return experiment, subset_ratio, number // len(KINDS)


def ratio_of(size: int, num_train: int) -> float:
    """The subset ratio of the fewest decimals that stands for m of N examples: round(ratio * N) = m.

    A zoo has ratios below 1 only. All N examples are therefore 0.9, 0.99, ..., the first that rounds to N.

    Args:
        size: m, 1 to N.
        num_train: N, at least 2.

    Raises:
        InvalidValueError: m is not from 1 to N.
    """
    if not 1 <= size <= num_train:
        raise errors.InvalidValueError(f"{size} of {num_train} examples: expected 1 to {num_train} to train on")
    share = fractions.Fraction(size, num_train)
    units = (fractions.Fraction(1, 10**decimals) for decimals in itertools.count(1))
    ratios = (float(min(round(share / unit) * unit, 1 - unit)) for unit in units)
    return next(ratio for ratio in ratios if ratio > 0 and round(ratio * num_train) == size)


def write(path: files.PathLike, ranking: SubsetRanking) -> None:
    """Writes the ranking of an experiment beside the recipe that carries its digest."""
    members = {"train_index": ranking.train_index, "value": ranking.value}
    npz.write(path, {"schema_version": np.asarray(SCHEMA_VERSION), **members})


def read(path: files.PathLike, sha256: str) -> SubsetRanking:
    """Reads the ranking of an experiment.

    Args:
        path: subset_ranking.npz.
        sha256: its digest, from the recipe.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it cannot be read, or does not rank.
        MismatchError: it is another than the recipe's.
    """
    stored = npz.read(path, ["train_index", "value"])
    try:
        ranking = SubsetRanking(stored["train_index"], stored["value"])
    except errors.InvalidValueError as error:
        raise errors.DamagedFileError(f"{path}: {error}; run the training that wrote it again") from error
    if ranking.sha256() != sha256:
        raise errors.MismatchError(
            f"{path}: its digest is {ranking.sha256()}, but the recipe beside it was begun with {sha256}; run the "
            "training that wrote it again"
        )
    return ranking
