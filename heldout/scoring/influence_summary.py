"""What is kept of a matrix of subset influence that may be too large to keep.

    influence-<ratio>.npz    its distribution, the strongest entries of every row and column, the pairs above the
                             thresholds, and the pairs that a test against no influence may find

The matrix itself, where it is wanted, lies beside it as a plain npy (influence_pass.py).
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from heldout.scoring import influence_extremes
from zoo import errors, files, npz

_STRONGEST = tuple(field.name for field in dataclasses.fields(influence_extremes.Strongest))
_PAIRS = ("train_index", "test_index", "value")
_PARTS = ("by_train", "by_test")
_LISTS = ("pairs", "candidates")


@dataclasses.dataclass(frozen=True)
class PairList:
    """Pairs by train and test index, ascending: arrays of equal length.

    Attributes:
        train_index: int32.
        test_index: int32.
        value: float32, subset influence; positive helps.
    """

    train_index: np.ndarray
    test_index: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.value)

    @staticmethod
    def joined(parts: Sequence["PairList"]) -> "PairList":
        """The pairs of several lists, ordered."""
        joined = [np.concatenate([getattr(part, name) for part in parts]) for name in _PAIRS]
        order = np.lexsort((joined[1], joined[0]))
        return PairList(*(column[order] for column in joined))


@dataclasses.dataclass(frozen=True)
class InfluenceSummary:
    """What is kept of the matrix [N, M] of one subset ratio.

    Attributes:
        bin_counts: int64 [influence_extremes.NUM_BINS], pairs per bin of values.
        largest_per_test: float32 [M], largest absolute value of each test example; NaN where all are missing.
        by_train: for each training example the test examples that it helps and harms most, [N, k].
        by_test: for each test example the training examples that help and harm it most, [M, k].
        pairs: those with an absolute value of at least `least_influence` and a training example with memorization of
            at least `least_memorization`.
        candidates: those with an absolute value of at least `least_z` times the standard error that both sides would
            have at the common rate of right runs, sqrt(p (1 - p) (1 / num_in + 1 / num_heldout)).
        least_influence: threshold of the pairs.
        least_memorization: threshold of the pairs.
        least_z: threshold of the candidates.
    """

    bin_counts: np.ndarray
    largest_per_test: np.ndarray
    by_train: influence_extremes.Strongest
    by_test: influence_extremes.Strongest
    pairs: PairList
    candidates: PairList
    least_influence: float
    least_memorization: float
    least_z: float


def members(summary: InfluenceSummary) -> dict[str, np.ndarray]:
    """The summary as members of an npz file."""
    found: dict[str, Any] = {"bin_counts": summary.bin_counts, "largest_per_test": summary.largest_per_test}
    for part in _PARTS:
        found |= {f"{part}_{name}": getattr(getattr(summary, part), name) for name in _STRONGEST}
    for part in _LISTS:
        found |= {f"{part}_{name}": getattr(getattr(summary, part), name) for name in _PAIRS}
    found |= {name: getattr(summary, name) for name in ("least_influence", "least_memorization", "least_z")}
    return {name: np.asarray(value) for name, value in found.items()}


def write(path: files.PathLike, summary: InfluenceSummary, extra: Mapping[str, np.ndarray]) -> None:
    """Writes a summary, whole or not at all.

    Args:
        path: the npz file to create or replace.
        summary: its lists finished.
        extra: further members.
    """
    npz.write(path, {**extra, **members(summary)})


def read(path: files.PathLike, num_train: int, num_test: int) -> InfluenceSummary:
    """Reads what `write` wrote.

    Args:
        path: the file.
        num_train: N, as expected.
        num_test: M, as expected.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: a member is missing, or of another shape than the rest demands.
    """
    names = [f"{part}_{name}" for part in _PARTS for name in _STRONGEST]
    names += [f"{part}_{name}" for part in _LISTS for name in _PAIRS]
    scalars = ("least_influence", "least_memorization", "least_z")
    found = npz.read(path, ["bin_counts", "largest_per_test", *names, *scalars])
    k = found["by_train_helpful"].shape[-1] if found["by_train_helpful"].ndim == 2 else 0
    sizes = {"by_train": num_train, "by_test": num_test}
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(scalars, ())
    shapes |= {"bin_counts": (influence_extremes.NUM_BINS,), "largest_per_test": (num_test,)}
    shapes |= {f"{part}_{name}": (sizes[part], k) for part in _PARTS for name in _STRONGEST}
    shapes |= {f"{part}_{name}": found[f"{part}_value"].shape for part in _LISTS for name in _PAIRS}
    for name, shape in shapes.items():
        if found[name].shape != shape or found[name].dtype.kind not in "if":
            raise errors.DamagedFileError(
                f"{path}: {name} has dtype {found[name].dtype} and shape {found[name].shape}, expected numbers of "
                f"shape {shape}; delete it and compute the scores again"
            )
    by_train, by_test = (
        influence_extremes.Strongest(*(found[f"{part}_{name}"] for name in _STRONGEST)) for part in _PARTS
    )
    pairs, candidates = (PairList(*(found[f"{part}_{name}"] for name in _PAIRS)) for part in _LISTS)
    thresholds = (float(found[name]) for name in scalars)
    return InfluenceSummary(
        found["bin_counts"], found["largest_per_test"], by_train, by_test, pairs, candidates, *thresholds
    )
