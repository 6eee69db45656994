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

from heldout.scoring import saved_scores, scores, uncertainty
from zoo import errors, files

TABLE_FORMATS = ("parquet", "csv")
_UNCERTAINTY = tuple(field.name for field in dataclasses.fields(uncertainty.Uncertainty))


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs at one subset ratio, highest influence first: arrays of equal length.

    Attributes:
        train_index: int64.
        test_index: int64.
        subset_influence: float32; positive helps.
        standard_error: float32, of the influence.
        uncertainty: of the influence.
        memorization: float64, of the training example.
    """

    train_index: np.ndarray
    test_index: np.ndarray
    subset_influence: np.ndarray
    standard_error: np.ndarray
    uncertainty: uncertainty.Uncertainty
    memorization: np.ndarray


def find_pairs(ratio: saved_scores.RatioScores) -> Pairs:
    """The helpful pairs of a ratio's summary, with what a table says of them.

    Args:
        ratio: scores of one subset ratio; its thresholds are those of the scores.

    Returns:
        The Pairs, ordered by falling influence, then by train and test index.
    """
    found = ratio.influence.pairs
    helpful = np.flatnonzero(found.value > 0)
    order = helpful[np.argsort(-found.value[helpful], kind="stable")]
    train_index, test_index = (side[order].astype(np.int64) for side in (found.train_index, found.test_index))
    values = found.value[order]
    return Pairs(
        train_index=train_index,
        test_index=test_index,
        subset_influence=values,
        standard_error=ratio.influence_standard_error(train_index, test_index, values),
        uncertainty=uncertainty.of_pairs(ratio, train_index, test_index, values),
        memorization=ratio.memorization.values[train_index],
    )


def example_columns(
    ratios: Sequence[saved_scores.RatioScores],
    consistency: scores.Consistency,
    train_label: np.ndarray | None,
    clean_label: np.ndarray | None = None,
) -> dict[str, np.ndarray | None]:
    """Columns of the examples table by name; None for labels that are not known, or were never changed."""
    num_train = len(consistency.score)

    def tile(per_example: np.ndarray) -> np.ndarray:
        return np.tile(per_example, len(ratios))

    def join(name: str, of_memorization: bool = False) -> np.ndarray:
        return np.concatenate([getattr(ratio.memorization if of_memorization else ratio, name) for ratio in ratios])

    sure = [uncertainty.of_examples(uncertainty.side_counts(ratio)) for ratio in ratios]
    interval, integral = uncertainty.of_consistency(consistency), scores.consistency_integral(consistency)
    return {
        "train_index": tile(np.arange(num_train)),
        "label": None if train_label is None else tile(train_label),
        "clean_label": None if clean_label is None else tile(clean_label),
        "subset_ratio": np.repeat([ratio.subset_ratio for ratio in ratios], num_train),
        "memorization": join("values", True),
        "memorization_standard_error": join("standard_error", True),
        **{f"memorization_{name}": np.concatenate([getattr(one, name) for one in sure]) for name in _UNCERTAINTY},
        "num_in": join("num_in", True),
        "num_heldout": join("num_heldout", True),
        "accuracy_in": join("accuracy_in"),
        "accuracy_heldout": join("accuracy_heldout"),
        "consistency_score": tile(consistency.score),
        "consistency_standard_error": tile(consistency.score_standard_error),
        "consistency_low": tile(interval.low),
        "consistency_high": tile(interval.high),
        "consistency_integral": tile(integral.values),
        "consistency_integral_standard_error": tile(integral.standard_error),
        "num_ratios": tile(consistency.num_ratios),
    }


def pair_columns(
    subset_ratios: Sequence[float],
    pairs: Sequence[Pairs],
    train_label: np.ndarray | None,
    test_label: np.ndarray | None,
) -> dict[str, np.ndarray | None]:
    """Columns of the high-influence pairs table by name; None for labels that are not known."""
    names = [field.name for field in dataclasses.fields(Pairs) if field.name != "uncertainty"]
    joined = {name: np.concatenate([getattr(one, name) for one in pairs]) for name in names}
    joined |= {
        f"influence_{name}": np.concatenate([getattr(one.uncertainty, name) for one in pairs]) for name in _UNCERTAINTY
    }
    return {
        "subset_ratio": np.repeat(np.asarray(subset_ratios, np.float64), [len(one.train_index) for one in pairs]),
        "train_index": joined["train_index"],
        "test_index": joined["test_index"],
        "train_label": None if train_label is None else train_label[joined["train_index"]],
        "test_label": None if test_label is None else test_label[joined["test_index"]],
        "subset_influence": joined["subset_influence"],
        "influence_standard_error": joined["standard_error"],
        **{name: joined[name] for name in joined if name.startswith("influence_")},
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
