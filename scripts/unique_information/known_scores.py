"""Files of scores that do not name their examples by train_index, or name them several times, made to do so.

scores-<ratio>.npz                  of compute_scores: memorization and accuracies, examples by their place
consistency.npz                     of compute_scores: consistency_score
examples.parquet, .csv              of compute_scores: a row for each subset ratio and example. What varies with the
                                    ratio becomes a column for each, such as memorization:0.7
npz with tr_labels and tr_mem       as published by Feldman & Zhang (2020): memorization
npz with labels and scores          as published by Jiang et al. (2021): consistency_score
npy [60000]                         the same of MNIST
stats_*.parquet                     of compute_jacobian_stats, whose `id` is the position
"""

from collections.abc import Collection, Mapping
import pathlib
import re

import numpy as np

from heldout.scoring import published_formats
from scripts.jacobian_stats import stats_files
from zoo import errors, layout, npz

INDEX_NAME, LABEL_NAME = "train_index", "train_label"
_RATIO = "subset_ratio"
# What says how sure another column is, or how much is behind it, and scores nothing.
_ABOUT = re.compile(
    r"num_.*|.*_(standard_error|adjusted_p_value|quadrature_error|false_sign_rate|shrunk_sd)|.*__(num_paths|length__.*)"
)
_ENDS = re.compile("(.*)_(low|high)")
# By the members that tell a file: the score members and what they are called, then the member of labels.
_NPZ_FILES = {
    ("provenance", "memorization", "accuracy_heldout"): (
        {name: name for name in ("memorization", "accuracy_in", "accuracy_heldout")},
        "train_label",
    ),
    ("provenance", "profile", "score"): ({"score": "consistency_score"}, "train_label"),
    ("tr_labels", "tr_mem"): ({"tr_mem": "memorization"}, "tr_labels"),
    ("labels", "scores"): ({"scores": "consistency_score"}, "labels"),
}


def of_npz(path: pathlib.Path, names: Collection[str]) -> dict[str, np.ndarray] | None:
    """Index, labels where known, and scores of an npz file of a known kind; None for any other.

    Args:
        path: of it.
        names: of its members.

    Raises:
        DamagedFileError: the file cannot be read.
    """
    for telling, (members, label) in _NPZ_FILES.items():
        if INDEX_NAME not in names and set(telling) <= set(names):
            stored = npz.read(path, list(members), [label])
            found = {new: stored[old] for old, new in members.items()}
            found |= {LABEL_NAME: stored[label]} if label in stored else {}
            return {INDEX_NAME: np.arange(len(next(iter(found.values())))), **found}
    return None


def of_mnist(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Consistency scores of MNIST as published in an npy file.

    Raises:
        DamagedFileError: it is no such file.
    """
    score = published_formats.read_mnist_cscores(path)
    return {INDEX_NAME: np.arange(len(score)), "consistency_score": score}


def of_table(path: pathlib.Path, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns of a table with a row an example.

    Args:
        path: for messages.
        columns: as they were read.

    Raises:
        InvalidValueError: it is of test examples.
        DamagedFileError: a row of the examples of compute_scores is missing.
    """
    found = dict(columns)
    if INDEX_NAME not in found and {"id", "epoch"} <= set(found):
        _check_split(path)
        found[INDEX_NAME] = found.pop("id")
        del found["epoch"]
    if _RATIO not in found or INDEX_NAME not in found:
        return found
    ratios = np.unique(found.pop(_RATIO))
    index = found[INDEX_NAME]
    if len(index) % len(ratios) or (index.reshape(len(ratios), -1) != index[: len(index) // len(ratios)]).any():
        raise errors.DamagedFileError(
            f"{path}: has not a row for each of its {len(ratios)} subset ratios and each example; write it again with "
            "compute_scores"
        )
    return _by_ratio(found, [layout.ratio_name(float(ratio)) for ratio in ratios])


def _check_split(path: pathlib.Path) -> None:
    split = stats_files.read_description(path).split if path.suffix == ".parquet" else None
    if split == "test":
        raise errors.InvalidValueError(
            f"{path}: has statistics of test examples, expected those of training examples; compute them with another "
            "--dataset_split"
        )


def _by_ratio(columns: Mapping[str, np.ndarray], ratios: list[str]) -> dict[str, np.ndarray]:
    """One column for each ratio of what differs between them, and one of what does not."""
    found: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        if not is_score(name, columns):
            continue
        rows = column.reshape(len(ratios), -1)
        if len(ratios) == 1 or all(_equal(row, rows[0]) for row in rows):
            found[name] = rows[0]
        else:
            found |= {f"{name}:{ratio}": row for ratio, row in zip(ratios, rows, strict=True)}
    return found


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def is_score(name: str, names: Collection[str]) -> bool:
    """Whether a column scores examples, and does not say how sure another is.

    Args:
        name: of it.
        names: of all.
    """
    match = _ENDS.fullmatch(name)
    is_end = match is not None and bool({match[1], f"{match[1]}_score"} & set(names))
    return not is_end and _ABOUT.fullmatch(name) is None
