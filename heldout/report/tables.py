"""The two tables of a report, as column-wise JSON that the page sorts, filters and shows in portions.

A column is a list with one entry per row; a value that does not exist is null, and the page says why.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from heldout.report import influence_scan, selection
from heldout.scoring import saved_scores, uncertainty
from heldout.scoring import scores as scores_lib

ROWS_PER_PAGE = 50
# More than are shown, so that nothing is rounded twice to another digit.
_DIGITS = 7


def examples(
    scores: saved_scores.RatioScores,
    consistency: scores_lib.Consistency,
    train_label: np.ndarray | None,
    max_rows: int,
    clean_label: np.ndarray | None = None,
) -> dict[str, list[Any]]:
    """Columns of the table of training examples, by original index; the most memorized ones where it must be cut.

    Args:
        scores: scores at one ratio.
        consistency: its score and the number of ratios behind it.
        train_label: int64 [N], or None: then there is no column `label`.
        max_rows: at most so many rows.
        clean_label: int64 [N], labels before some were changed on purpose, which the column `clean_label` shows where
            they differ; None where none were: then there is no such column.
    """
    support = scores.memorization
    rows = np.arange(support.values.size)
    if rows.size > max_rows:
        rows = np.sort(selection.highest(support.values, max_rows, selection.support(scores)))
    columns: dict[str, list[Any]] = {"index": rows.tolist()}
    if train_label is not None:
        columns["label"] = train_label[rows].tolist()
        if clean_label is not None:
            before = zip(clean_label[rows].tolist(), columns["label"], strict=True)
            columns["clean_label"] = [clean if clean != label else None for clean, label in before]
    columns |= {
        "memorization": _numbers(support.values[rows]),
        "standard_error": _numbers(support.standard_error[rows]),
        "accuracy_in": _numbers(scores.accuracy_in[rows]),
        "accuracy_heldout": _numbers(scores.accuracy_heldout[rows]),
        "num_in": support.num_in[rows].tolist(),
        "num_heldout": support.num_heldout[rows].tolist(),
        "consistency": _numbers(consistency.score[rows]),
        "num_ratios": consistency.num_ratios[rows].tolist(),
    }
    return columns


def pairs(
    found: Sequence[influence_scan.Pair],
    scores: saved_scores.RatioScores,
    labels: tuple[np.ndarray | None, np.ndarray | None],
) -> dict[str, list[Any]]:
    """Columns of the table of pairs, the strongest first.

    Args:
        found: pairs of the scan.
        scores: the same scores, for memorization [N] and test accuracy [M].
        labels: of the training and of the test examples, each int64 or None: then the column is missing.
    """
    train = np.array([pair.train_index for pair in found], dtype=np.int64)
    test = np.array([pair.test_index for pair in found], dtype=np.int64)
    columns: dict[str, list[Any]] = {"train_index": train.tolist(), "test_index": test.tolist()}
    for name, indices, known in (("train_label", train, labels[0]), ("test_label", test, labels[1])):
        if known is not None:
            columns[name] = known[indices].tolist()
    value = np.array([pair.value for pair in found], np.float32)
    sure = uncertainty.of_pairs(scores, train, test, value)
    columns |= {
        "value": _numbers(value),
        "standard_error": _numbers(np.array([pair.standard_error for pair in found])),
        "low": _numbers(sure.low),
        "high": _numbers(sure.high),
        # Of help alone: pairs that harm were not asked about.
        "adjusted_p_value": [
            float(f"{p:.2g}") if helps else None for p, helps in zip(sure.adjusted_p_value, value > 0, strict=True)
        ],
        "memorization": _numbers(scores.memorization.values[train]),
        "test_accuracy": _numbers(scores.test_accuracy[test]),
    }
    return columns


def payload(
    columns_of: Mapping[str, Mapping[str, list[Any]]], class_names: Sequence[str] | None, images: Mapping[str, str]
) -> dict[str, Any]:
    """All that the page's script needs, ready for JSON.

    Args:
        columns_of: table name -> columns.
        class_names: names of the classes, or None.
        images: "train-5" or "test-7" -> CSS class of the image, for those that are embedded.
    """
    return {
        "rowsPerPage": ROWS_PER_PAGE,
        "tables": {name: dict(columns) for name, columns in columns_of.items()},
        "classNames": list(class_names) if class_names else [],
        "images": dict(images),
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in np.round(values.astype(np.float64), _DIGITS).tolist()]
