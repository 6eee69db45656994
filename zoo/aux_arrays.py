"""What one run got right, on which examples: the file aux_arrays.npz of the published zoos.

The published keys are `correctness_<split>` and `index_<split>` for the splits train, removed and test, and
`subsample_idx`. Train and removed together are the whole original training set, in any order; the index gives each
entry's position in the original data. "Removed" examples are those the run was not trained on; everywhere in this
project they are called held out, and the published name is translated in this module only.

A record may hold margins too, under keys that the published zoos do not have: `margin_<split>`, in the order of the
index arrays. Readers of the published format do not know these keys and pass them by.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from zoo import errors, files, npz

_PUBLISHED_KEYS = {
    "correctness_train": "correctness_train",
    "correctness_heldout": "correctness_removed",
    "correctness_test": "correctness_test",
    "index_train": "index_train",
    "index_heldout": "index_removed",
    "index_test": "index_test",
    "subsample_idx": "subsample_idx",
}
_MARGIN_KEYS = {"train": "margin_train", "heldout": "margin_removed", "test": "margin_test"}
# ImageNet's arrays take 22 MB; a hundred times that is no longer a run's record.
MAX_BYTES = 1 << 31


@dataclasses.dataclass(frozen=True, eq=False)
class Margins:
    """Logit of the label minus the log-sum-exp of the other logits, for each example of a record; finite.

    Attributes:
        train: [m] float16, in the order of `index_train`.
        heldout: [N - m] float16, in the order of `index_heldout`.
        test: [M] float16, in the order of `index_test`.
    """

    train: np.ndarray
    heldout: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class AuxArrays:
    """Correctness of one finished run on every training and test example.

    The training set of N examples is split into m trained on and N - m held out; the test set has M.

    Attributes:
        correctness_train: [m] bool, right on `index_train`.
        correctness_heldout: [N - m] bool, right on `index_heldout`.
        correctness_test: [M] bool, right on `index_test`.
        index_train: [m] int64, original positions of the examples trained on.
        index_heldout: [N - m] int64, original positions of the examples held out.
        index_test: [M] int64, original positions of the test examples, a permutation of 0..M-1.
        subsample_idx: [m] int64, the positions trained on, in the order they were drawn: `index_train` as a set.
        margins: how sure the run was; None where the record does not tell, as in the published zoos.
    """

    correctness_train: np.ndarray
    correctness_heldout: np.ndarray
    correctness_test: np.ndarray
    index_train: np.ndarray
    index_heldout: np.ndarray
    index_test: np.ndarray
    subsample_idx: np.ndarray
    margins: Margins | None = None

    @property
    def num_train(self) -> int:
        """Size N of the whole training set, held-out examples included."""
        return len(self.index_train) + len(self.index_heldout)

    @property
    def num_test(self) -> int:
        """Size M of the test set."""
        return len(self.index_test)

    def subset_mask(self) -> np.ndarray:
        """[N] bool by original index; True where the run was trained on the example."""
        mask = np.zeros(self.num_train, bool)
        mask[self.index_train] = True
        return mask

    def train_correctness(self) -> np.ndarray:
        """[N] bool by original index; True where the run is right, on trained and held-out examples alike."""
        correctness = np.empty(self.num_train, bool)
        correctness[self.index_train] = self.correctness_train
        correctness[self.index_heldout] = self.correctness_heldout
        return correctness

    def test_correctness(self) -> np.ndarray:
        """[M] bool by original index; True where the run is right."""
        correctness = np.empty(self.num_test, bool)
        correctness[self.index_test] = self.correctness_test
        return correctness

    def train_margin(self) -> np.ndarray:
        """[N] float16 by original index; NaN where the record holds no margins."""
        margin = np.full(self.num_train, np.nan, np.float16)
        if self.margins is not None:
            margin[self.index_train] = self.margins.train
            margin[self.index_heldout] = self.margins.heldout
        return margin

    def test_margin(self) -> np.ndarray:
        """[M] float16 by original index; NaN where the record holds no margins."""
        margin = np.full(self.num_test, np.nan, np.float16)
        if self.margins is not None:
            margin[self.index_test] = self.margins.test
        return margin


def from_masks(
    subset_mask: np.ndarray,
    train_correctness: np.ndarray,
    test_correctness: np.ndarray,
    margins: tuple[np.ndarray, np.ndarray] | None = None,
) -> AuxArrays:
    """The record of a run whose arrays are in original order.

    Args:
        subset_mask: [N] bool, True where the run was trained on the example.
        train_correctness: [N] bool.
        test_correctness: [M] bool.
        margins: float16 [N] and [M], finite; None for a record without.

    Returns:
        The record, with ascending indices.

    Raises:
        InvalidValueError: an array is not one-dimensional and boolean, the first two differ in length, or N or M is 0.
    """
    arguments = {
        "subset_mask": subset_mask,
        "train_correctness": train_correctness,
        "test_correctness": test_correctness,
    }
    for name, array in arguments.items():
        if array.dtype != bool or array.ndim != 1 or not array.size:
            raise errors.InvalidValueError(
                f"{name} has dtype {array.dtype} and shape {array.shape}, expected bool and one dimension, not empty"
            )
    if subset_mask.shape != train_correctness.shape:
        raise errors.InvalidValueError(
            f"subset_mask has {len(subset_mask)} entries and train_correctness {len(train_correctness)}"
        )
    index_train, index_heldout = np.flatnonzero(subset_mask), np.flatnonzero(~subset_mask)
    return AuxArrays(
        correctness_train=train_correctness[index_train],
        correctness_heldout=train_correctness[index_heldout],
        correctness_test=test_correctness.copy(),
        index_train=index_train.astype(np.int64),
        index_heldout=index_heldout.astype(np.int64),
        index_test=np.arange(len(test_correctness), dtype=np.int64),
        subsample_idx=index_train.astype(np.int64),
        margins=None if margins is None else Margins(margins[0][index_train], margins[0][index_heldout], margins[1]),
    )


def read(path: files.PathLike, content: bytes | None = None, *, max_bytes: int = MAX_BYTES) -> AuxArrays:
    """Reads and validates one run's record.

    Args:
        path: an aux_arrays.npz. Correctness may be stored as booleans, or as integers or floats that are all 0 or 1;
            indices as any integer type.
        content: the bytes of the file where they have been read already; `path` then only names them in messages.
        max_bytes: upper limit on the bytes of the arrays together.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is larger, not a sound npz file, or breaks a rule of `validate`.
    """
    keys, margin_keys = list(_PUBLISHED_KEYS.values()), list(_MARGIN_KEYS.values())
    stored = npz.read(path, keys, margin_keys, max_bytes=max_bytes, content=content)
    arrays: dict[str, Any] = {"margins": _margins(stored, str(path))}
    for field, key in _PUBLISHED_KEYS.items():
        convert = _to_bool if field.startswith("correctness") else _to_int64
        arrays[field] = convert(stored[key], f"{path}: {key}")
    aux = AuxArrays(**arrays)
    validate(aux, str(path))
    return aux


def write(path: files.PathLike, aux: AuxArrays) -> None:
    """Writes one run's record with the published keys, uncompressed, whole or not at all.

    Raises:
        DamagedFileError: the record breaks a rule of `validate`; nothing is written.
    """
    validate(aux, f"record for {path}")
    arrays = {key: getattr(aux, field) for field, key in _PUBLISHED_KEYS.items()}
    if aux.margins is not None:
        arrays |= {key: getattr(aux.margins, split) for split, key in _MARGIN_KEYS.items()}
    npz.write(path, arrays)


def validate(aux: AuxArrays, where: str) -> None:
    """Checks that a record tells of every example exactly once.

    Args:
        aux: the record.
        where: what the messages begin with, usually the path.

    Raises:
        DamagedFileError: an array has the wrong dtype or is not one-dimensional; a split has more entries of
            correctness or margin than indices, or fewer; a margin is not finite; train and held-out indices are not
            together a permutation of 0..N-1, or the test indices of 0..M-1; the subsample differs from the training
            indices as a set; N or M is 0.
    """
    for field, key in _PUBLISHED_KEYS.items():
        expected = np.dtype(bool if field.startswith("correctness") else np.int64)
        array = getattr(aux, field)
        if array.ndim != 1 or array.dtype != expected:
            raise errors.DamagedFileError(
                f"{where}: {key} has dtype {array.dtype} and shape {array.shape}, expected {expected} and one dimension"
            )
    for split in ("train", "heldout", "test"):
        num_correctness = len(getattr(aux, f"correctness_{split}"))
        num_index = len(getattr(aux, f"index_{split}"))
        if num_correctness != num_index:
            key = _PUBLISHED_KEYS[f"index_{split}"]
            raise errors.DamagedFileError(f"{where}: {key} has {num_index} entries, its correctness {num_correctness}")
    _check_margins(aux, where)
    _check_permutation(np.concatenate([aux.index_train, aux.index_heldout]), f"{where}: index_train and index_removed")
    _check_permutation(aux.index_test, f"{where}: index_test")
    if not np.array_equal(np.sort(aux.subsample_idx), np.sort(aux.index_train)):
        raise errors.DamagedFileError(
            f"{where}: subsample_idx ({len(aux.subsample_idx)} entries) and index_train ({len(aux.index_train)}) "
            "do not hold the same examples"
        )


def _check_margins(aux: AuxArrays, where: str) -> None:
    for split, key in _MARGIN_KEYS.items() if aux.margins is not None else ():
        margin, size = getattr(aux.margins, split), len(getattr(aux, f"index_{split}"))
        if margin.dtype != np.float16 or margin.shape != (size,):
            raise errors.DamagedFileError(
                f"{where}: {key} has dtype {margin.dtype} and shape {margin.shape}, expected float16 and ({size},)"
            )
        if not np.isfinite(margin).all():
            raise errors.DamagedFileError(f"{where}: {key} holds {margin[~np.isfinite(margin)][0]}, expected numbers")


def _check_permutation(index: np.ndarray, what: str) -> None:
    size = len(index)
    if not size:
        raise errors.DamagedFileError(f"{what}: no example at all")
    if index.min() < 0 or index.max() >= size:
        raise errors.DamagedFileError(
            f"{what}: values from {index.min()} to {index.max()}, expected each of 0..{size - 1} once"
        )
    counts = np.bincount(index, minlength=size)
    if counts.max() > 1:
        raise errors.DamagedFileError(f"{what}: {counts.argmax()} occurs {counts.max()} times, expected once")


def _margins(stored: Mapping[str, np.ndarray], where: str) -> Margins | None:
    """The margins of a file, or None where it holds none; all three or none belong there."""
    missing = [key for key in _MARGIN_KEYS.values() if key not in stored]
    if len(missing) == len(_MARGIN_KEYS):
        return None
    if missing:
        raise errors.DamagedFileError(
            f"{where}: {', '.join(missing)} missing, expected all of {', '.join(_MARGIN_KEYS.values())} or none"
        )
    return Margins(**{split: stored[key] for split, key in _MARGIN_KEYS.items()})


def _to_bool(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf" or not np.isin(array, (0, 1)).all():
        raise errors.DamagedFileError(f"{what} has dtype {array.dtype}, expected only 0 and 1, or booleans")
    return array.astype(bool)


def _to_int64(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype.kind not in "iu":
        raise errors.DamagedFileError(f"{what} has dtype {array.dtype}, expected integers")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise errors.DamagedFileError(f"{what} holds {array.max()}, too large for an index")
    return array.astype(np.int64)
