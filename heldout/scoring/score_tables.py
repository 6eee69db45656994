"""Score tables for other programs: one row per example, and the pairs of high influence.

examples: one row per subset ratio and training example, in that order.
high_influence_pairs: one row per subset ratio and pair of a training and a test example whose subset influence and
whose memorization reach their thresholds (Feldman & Zhang 2020 use 0.15 and 0.25), highest influence
first.

Where there is no data, floats are NaN and labels are null.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from heldout.scoring import saved_scores, scores
from zoo import errors, files, layout

TABLE_FORMATS = ("parquet", "csv")
# Rows of the influence matrix are searched this many bytes at a time.
_SEARCH_BYTES = 1 << 25
# More pairs than this are no selection: the tables would take gigabytes of memory.
MAX_PAIRS = 10_000_000


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs at one subset ratio, highest influence first: arrays of equal length.

    Attributes:
        train_index: int64.
        test_index: int64.
        subset_influence: float32; positive helps.
        standard_error: float32, of the influence.
        memorization: float64, of the training example.
    """

    train_index: np.ndarray
    test_index: np.ndarray
    subset_influence: np.ndarray
    standard_error: np.ndarray
    memorization: np.ndarray


def find_pairs(ratio: saved_scores.RatioScores, least_influence: float, least_memorization: float) -> Pairs:
    """Pairs with subset influence >= least_influence and memorization >= least_memorization.

    Args:
        ratio: scores of one subset ratio.
        least_influence: compared in float32, the precision of the matrix.
        least_memorization: compared in float64.

    Returns:
        The Pairs, ordered by falling influence, then by train and test index. NaN reaches no threshold.

    Raises:
        InvalidValueError: there are more than `MAX_PAIRS`.
    """
    candidates = np.flatnonzero(ratio.memorization.values >= least_memorization)
    step = max(1, _SEARCH_BYTES // (4 * max(ratio.subset_influence.shape[1], 1)))
    found, num_found = [np.zeros((2, 0), np.int64)], 0
    for start in range(0, len(candidates), step):
        rows = candidates[start : start + step]
        high = ratio.subset_influence[rows] >= np.float32(least_influence)
        num_found += int(np.count_nonzero(high))
        if num_found > MAX_PAIRS:
            raise errors.InvalidValueError(
                f"more than {MAX_PAIRS} pairs at subset ratio {layout.ratio_name(ratio.subset_ratio)} reach "
                f"pairs_influence {least_influence} and pairs_memorization {least_memorization}: raise one of the two. "
                "With --overwrite the matrices that are finished are kept"
            )
        hits, columns = np.nonzero(high)
        found.append(np.stack([rows[hits], columns]))
    train_index, test_index = np.concatenate(found, axis=1)
    values = np.asarray(ratio.subset_influence[train_index, test_index])
    order = np.argsort(-values, kind="stable")
    train_index, test_index = train_index[order], test_index[order]
    return Pairs(
        train_index=train_index,
        test_index=test_index,
        subset_influence=values[order],
        standard_error=np.asarray(ratio.influence_standard_error[train_index, test_index]),
        memorization=ratio.memorization.values[train_index],
    )


def example_columns(
    ratios: Sequence[saved_scores.RatioScores], consistency: scores.Consistency, train_label: np.ndarray | None
) -> dict[str, np.ndarray | None]:
    """Columns of the examples table by name; None for labels that are not known."""
    num_train = len(consistency.score)

    def tile(per_example: np.ndarray) -> np.ndarray:
        return np.tile(per_example, len(ratios))

    def join(name: str, of_memorization: bool = False) -> np.ndarray:
        return np.concatenate([getattr(ratio.memorization if of_memorization else ratio, name) for ratio in ratios])

    return {
        "train_index": tile(np.arange(num_train)),
        "label": None if train_label is None else tile(train_label),
        "subset_ratio": np.repeat([ratio.subset_ratio for ratio in ratios], num_train),
        "memorization": join("values", True),
        "memorization_standard_error": join("standard_error", True),
        "num_in": join("num_in", True),
        "num_heldout": join("num_heldout", True),
        "accuracy_in": join("accuracy_in"),
        "accuracy_heldout": join("accuracy_heldout"),
        "consistency_score": tile(consistency.score),
        "consistency_standard_error": tile(consistency.score_standard_error),
        "num_ratios": tile(consistency.num_ratios),
    }


def pair_columns(
    subset_ratios: Sequence[float],
    pairs: Sequence[Pairs],
    train_label: np.ndarray | None,
    test_label: np.ndarray | None,
) -> dict[str, np.ndarray | None]:
    """Columns of the high-influence pairs table by name; None for labels that are not known."""
    joined = {
        field.name: np.concatenate([getattr(one, field.name) for one in pairs]) for field in dataclasses.fields(Pairs)
    }
    return {
        "subset_ratio": np.repeat(np.asarray(subset_ratios, np.float64), [len(one.train_index) for one in pairs]),
        "train_index": joined["train_index"],
        "test_index": joined["test_index"],
        "train_label": None if train_label is None else train_label[joined["train_index"]],
        "test_label": None if test_label is None else test_label[joined["test_index"]],
        "subset_influence": joined["subset_influence"],
        "influence_standard_error": joined["standard_error"],
        "memorization": joined["memorization"],
    }


def write(path: files.PathLike, columns: dict[str, np.ndarray | None], table_format: str) -> None:
    """Writes a table, whole or not at all.

    Args:
        path: the file to create or replace.
        columns: arrays of equal length by name; None for a column of nulls in place of integers.
        table_format: "parquet" or "csv".

    Raises:
        InvalidValueError: the format is another.
    """
    check_format(table_format)
    # Imported here: it takes longer than all of a score computation that finds nothing to do.
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    length = max(len(column) for column in columns.values() if column is not None)
    table = pyarrow.table(
        {
            name: pyarrow.nulls(length, pyarrow.int64()) if column is None else pyarrow.array(column)
            for name, column in columns.items()
        }
    )
    with files.write_whole(path) as temporary:
        if table_format == "parquet":
            pyarrow.parquet.write_table(table, temporary)
        else:
            pyarrow.csv.write_csv(table, temporary)


def check_format(table_format: str) -> None:
    """Refuses formats that `write` does not know.

    Raises:
        InvalidValueError: it is none of `TABLE_FORMATS`.
    """
    if table_format not in TABLE_FORMATS:
        raise errors.InvalidValueError(
            f"table_format: got {table_format!r}, expected one of {', '.join(TABLE_FORMATS)}"
        )
