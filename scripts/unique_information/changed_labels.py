"""Which training examples have a label that was changed on purpose: the truth that detection is held against."""

import dataclasses
import pathlib

import numpy as np

from heldout.training import leave_out_data, leave_out_files
from scripts.unique_information import score_columns
from zoo import errors, npz

_MEMBERS = ("train_index", "is_changed", "train_label", "clean_train_label")


@dataclasses.dataclass(frozen=True, eq=False)
class ChangedLabels:
    """What is known of the labels of n training examples.

    Attributes:
        path: where from.
        train_index: int64 [n], positions in the training split, ascending.
        is_changed: bool [n].
        train_label: int64 [n], as trained with; None where the file does not say.
        clean_train_label: int64 [n]; likewise.
    """

    path: pathlib.Path
    train_index: np.ndarray
    is_changed: np.ndarray
    train_label: np.ndarray | None = None
    clean_train_label: np.ndarray | None = None


def of_data(data: leave_out_data.LeaveOutData) -> ChangedLabels:
    """The labels of data that an experiment has drawn."""
    changed = data.train_label != data.clean_train_label
    where = pathlib.Path(str(data.dataset_fingerprint.get("name")))
    return ChangedLabels(where, data.train_index, changed, data.train_label, data.clean_train_label)


def of_experiment(folder: str) -> ChangedLabels:
    """The labels of an experiment.

    Args:
        folder: that `ground_truth_effects` has written.

    Raises:
        MissingFileError: it holds no full_run.npz.
        DamagedFileError: that is unsound.
    """
    path = pathlib.Path(folder) / leave_out_files.FULL_RUN_NAME
    if not path.is_file():
        raise errors.MissingFileError(f"{path}: no such file; expected a folder that ground_truth_effects has written")
    return of_file(path)


def of_file(path: pathlib.Path) -> ChangedLabels:
    """The labels of an npz file.

    Args:
        path: has `is_changed`, or `train_label` and `clean_train_label`, and beside them `train_index`; without
            train_index, as in the labels.npz of an experiment of a zoo, they are of all training examples in order.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it cannot be read.
        InvalidValueError: it does not say which labels were changed, or its members are of different examples.
    """
    stored = npz.read(path, [], _MEMBERS)
    trained, clean = stored.get("train_label"), stored.get("clean_train_label")
    changed = stored.get("is_changed")
    if changed is None and trained is not None and clean is not None and trained.shape == clean.shape:
        changed = trained != clean
    if changed is None or changed.ndim != 1 or changed.dtype.kind != "b":
        raise errors.InvalidValueError(
            f"{path}: does not say which labels were changed; expected is_changed, true or false for each example, or "
            f"train_label and clean_train_label; found {', '.join(stored) or 'none of them'}"
        )
    index = stored.get("train_index", np.arange(len(changed)))
    whole = [one for one in (index, trained, clean) if one is not None]
    if any(one.shape != changed.shape or one.dtype.kind not in "iu" for one in whole):
        raise errors.InvalidValueError(
            f"{path}: {', '.join(stored)} are not of the same examples; expected a whole number of each for an example"
        )
    if len(np.unique(index)) < len(index):
        raise errors.InvalidValueError(f"{path}: train_index names an example twice; name each once")
    order = np.argsort(index)
    labels = [None if one is None else one[order].astype(np.int64) for one in (trained, clean)]
    return ChangedLabels(path, index[order].astype(np.int64), changed[order], *labels)


def check_order(known: ChangedLabels, scores: score_columns.ScoreColumns) -> bool:
    """Refuses scores whose own labels show that their examples are others.

    Classes may be numbered otherwise, and several labels may be one class here. But whatever the numbers, examples of
    one label there are of one class here, by the labels trained with or by the clean ones.

    Args:
        known: labels of the experiment.
        scores: whose labels are looked at, where it has some.

    Returns:
        Whether its labels are those before some were changed, and not those trained with.

    Raises:
        MismatchError: they are neither.
    """
    both, at, place = np.intersect1d(known.train_index, scores.train_index, return_indices=True)
    here = {"trained": known.train_label, "clean": known.clean_train_label}
    if scores.label is None or not len(both) or all(one is None for one in here.values()):
        return False
    there = scores.label[place]
    same = {name for name, one in here.items() if one is not None and _decides(there, one[at])}
    if not same:
        raise errors.MismatchError(
            f"{scores.path}: its labels are not those of {known.path}, however classes are numbered: its examples are "
            "in another order, of another data set, or had other labels changed; score the examples of this experiment"
        )
    return same == {"clean"} and known.train_label is not None


def _decides(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = np.unique(np.stack([first, second]), axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1]
