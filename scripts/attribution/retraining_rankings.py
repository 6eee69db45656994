"""Where `train_on_most_influential` has its ranking from: scores of an experiment, or a column of an npz file.

A file holds `train_index`, int64 [n] original positions, and a column of n numbers beside it. The influence that
`compute_influence_functions` averages over test examples is such a file; its `test_index` says which ones they were. A
file may hold `train_label` [n], too, by which it is proved to be of the data set it is used on.
"""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from heldout.experiments import subset_rankings
from heldout.scoring import saved_scores
from scripts.attribution import influence_config
from zoo import errors, files, layout, npz

MEMORIZATION, CONSISTENCY = STATISTICS = ("memorization", "consistency_score")
_DEFAULT_COLUMN = "influence"


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A ranking and what is known of it.

    Attributes:
        ranking: values of the training examples that have one.
        name: path of its file, or "memorization:0.7".
        column: the member, or statistic, that the values are.
        num_left_out: examples whose value is NaN, and which are therefore never trained on.
        test_index: int64, the test examples that the ranking was made for; None where it was made for none.
        train_label: int64 [n], labels of the examples; None where they are not known.
    """

    ranking: subset_rankings.SubsetRanking
    name: str
    column: str
    num_left_out: int
    test_index: np.ndarray | None = None
    train_label: np.ndarray | None = None


def load(text: str, column: str | None, scores: files.PathLike) -> Source:
    """Reads a ranking.

    Args:
        text: an npz file, a folder of `compute_influence_functions`, or one of `STATISTICS`, which may be followed by
            a colon and a subset ratio.
        column: member of the file to rank by; None for `influence`.
        scores: folder of the scores of the experiment, for the statistics.

    Raises:
        MissingFileError: there is no such file, or no scores.
        DamagedFileError: a file is unsound.
        InvalidValueError: the file does not rank, or the statistic is there at several ratios.
    """
    name, _, ratio = text.partition(":")
    if name not in STATISTICS:
        return _of_file(text, column or _DEFAULT_COLUMN)
    if column is not None:
        raise errors.InvalidValueError(f"--column={column}: names a member of an npz file, not of {name}; leave it out")
    saved = saved_scores.load(scores)
    if name == CONSISTENCY:
        if ratio:
            raise errors.InvalidValueError(
                f"--ranking={text}: the consistency score is one over all ratios; give {name}"
            )
        value, shown = saved.consistency.score, name
    else:
        found = _ratio(text, ratio, saved)
        value, shown = saved.ratios[found].memorization.values, f"{name}:{layout.ratio_name(found)}"
    return _source(shown, name, np.arange(len(value)), value, train_label=saved.train_label)


def _ratio(text: str, ratio: str, saved: saved_scores.SavedScores) -> float:
    there = {layout.ratio_name(one): one for one in saved.ratios}
    if not ratio and len(there) == 1:
        return next(iter(saved.ratios))
    if ratio not in there:
        names = ", ".join(f"{MEMORIZATION}:{one}" for one in there)
        raise errors.InvalidValueError(
            f"--ranking={text}: {saved.directory} has scores at several ratios or others; expected one of {names}"
        )
    return there[ratio]


def _of_file(text: str, column: str) -> Source:
    path = pathlib.Path(text).expanduser()
    path = path / influence_config.AVERAGE_NAME if path.is_dir() else path
    if not path.exists():
        raise errors.MissingFileError(
            f"--ranking={text}: no such file; expected an npz file with train_index, a folder that "
            f"compute_influence_functions has written, or one of {', '.join(STATISTICS)}"
        )
    try:
        stored = npz.read(path, ["train_index", column], ["test_index", "train_label"])
    except errors.DamagedFileError as error:
        raise errors.DamagedFileError(
            f"{error} To rank by another member of the file, name it: --column=NAME"
        ) from error
    whole = {
        key: _integers(path, key, stored[key]) for key in ("train_index", "test_index", "train_label") if key in stored
    }
    value = stored[column]
    if value.shape != whole["train_index"].shape or value.dtype.kind not in "iuf":
        raise errors.InvalidValueError(
            f"{path}: {column} has dtype {value.dtype} and shape {value.shape}, expected a number for each of the "
            f"{len(whole['train_index'])} training examples of train_index; name another member with --column"
        )
    return _source(os.path.abspath(path), column, **whole, value=value)


def _integers(path: pathlib.Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise errors.InvalidValueError(
            f"{path}: {name} has dtype {array.dtype} and shape {array.shape}, expected integers in one dimension"
        )
    return array.astype(np.int64)


def _source(name: str, column: str, train_index: np.ndarray, value: np.ndarray, **members: Any) -> Source:
    """A ranking by ascending positions, without the examples that have no value."""
    value = value.astype(np.float64)
    if np.isinf(value).any():
        raise errors.InvalidValueError(f"{name}: {column} is infinite for {np.isinf(value).sum()} examples; mend it")
    order = np.argsort(train_index, kind="stable")
    order = order[~np.isnan(value[order])]
    if members.get("train_label") is not None:
        members["train_label"] = _labels(name, members["train_label"], train_index.shape)[order]
    try:
        ranking = subset_rankings.SubsetRanking(train_index[order], value[order])
    except errors.InvalidValueError as error:
        raise errors.InvalidValueError(f"{name}: {error}; examples without a value do not count") from error
    return Source(ranking, name, column, int(np.isnan(value).sum()), **members)


def _labels(name: str, label: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if label.shape != shape:
        raise errors.InvalidValueError(
            f"{name}: train_label has shape {label.shape}, expected that of train_index, {shape}"
        )
    return label


def check(source: Source, train_label: np.ndarray, num_test: int) -> None:
    """Refuses a ranking of another data set.

    Args:
        source: the ranking.
        train_label: labels that the experiment trains with, int64 [N].
        num_test: number of test examples.

    Raises:
        InvalidValueError: it names examples that are not there.
        MismatchError: an example has another label there.
    """
    index = source.ranking.train_index
    source.ranking.check(len(train_label))
    check_test_index(source.name, source.test_index, num_test)
    if source.train_label is not None and (source.train_label != train_label[index]).any():
        first = int(index[np.flatnonzero(source.train_label != train_label[index])[0]])
        raise errors.MismatchError(
            f"{source.name}: its label of training example {first} is not that of the data set: it is of another data "
            "set, or of other labels; rank the examples of this experiment"
        )


def check_test_index(name: str, test_index: np.ndarray | None, num_test: int) -> None:
    """Refuses test examples that are not there.

    Raises:
        InvalidValueError: one is not, or is named twice, or none is named.
    """
    if test_index is None:
        return
    if not len(test_index) or test_index.min() < 0 or test_index.max() >= num_test:
        raise errors.InvalidValueError(
            f"{name}: names {len(test_index)} test examples, expected at least one, all from 0 to {num_test - 1}"
        )
    if len(np.unique(test_index)) < len(test_index):
        raise errors.InvalidValueError(f"{name}: names a test example twice; name each once")
