"""Files of scores of every kind that is known, as their programs write them; and what says nothing of examples."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from heldout.scoring import published_formats
from scripts.unique_information import known_scores, score_columns
from tests.scripts.jacobian_stats import tables
from zoo import errors


def write_table(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_columns_of_one_index_with_labels_and_without_what_belongs_to_others(tmp_path):
    members = {
        "train_index": np.array([5, 3, 9]),
        "train_label": np.array([1, 0, 1]),
        "weights": np.array([0.5, np.nan, 2]),
        "count": np.arange(3),
        "matrix": np.zeros((3, 2)),
        "test_index": np.arange(3),
        "weights_standard_error": np.zeros(3),
        "num_in": np.zeros(3),
        "weights_low": np.zeros(3),
        "very_low": np.zeros(3),
    }
    np.savez(tmp_path / "a.npz", **members)
    found = score_columns.read(tmp_path / "a.npz")
    assert list(found.columns) == ["weights", "count", "very_low"]
    np.testing.assert_array_equal(found.label, [1, 0, 1])
    np.testing.assert_array_equal(found.at(np.array([9, 4, 5]))["weights"], [2, np.nan, 0.5])
    assert found.column("count") is found.columns["count"]
    with pytest.raises(errors.InvalidValueError, match="has the columns weights, count, very_low; names none of them"):
        found.column(None)


def test_scores_of_a_ratio_and_consistency_are_of_examples_in_order(tmp_path):
    memorization = np.array([0.1, np.nan, -0.2])
    more = {"accuracy_in": np.ones(3), "accuracy_heldout": np.zeros(3), "num_in": np.ones(3, int), "test_accuracy": 0.0}
    label = np.array([2, 0, 1])
    np.savez(tmp_path / "scores-0.7.npz", provenance="{}", memorization=memorization, train_label=label, **more)
    found = score_columns.read(tmp_path / "scores-0.7.npz")
    assert list(found.columns) == ["memorization", "accuracy_in", "accuracy_heldout"]
    np.testing.assert_array_equal(found.columns["memorization"], memorization)
    np.testing.assert_array_equal(found.train_index, np.arange(3))
    np.testing.assert_array_equal(found.label, label)
    np.savez(tmp_path / "consistency.npz", provenance="{}", profile=np.zeros((2, 3)), score=memorization)
    found = score_columns.read(tmp_path / "consistency.npz")
    np.testing.assert_array_equal(found.columns["consistency_score"], memorization)
    assert found.label is None


def test_published_files(tmp_path):
    label = np.array([0, 1, 1])
    score = np.array([0.25, 0.5, 1])
    published_formats.write_cscores(tmp_path / "c.npz", published_formats.CScores(label, score))
    found = score_columns.read(tmp_path / "c.npz")
    np.testing.assert_array_equal(found.columns["consistency_score"], score)
    np.testing.assert_array_equal(found.label, label)
    np.savez(tmp_path / "m.npz", tr_labels=label, tt_labels=label, tr_mem=score, infl_matrix_class0=np.zeros((3, 3)))
    found = score_columns.read(tmp_path / "m.npz")
    assert list(found.columns) == ["memorization"]
    np.testing.assert_array_equal(found.label, label)
    mnist = np.linspace(0, 1, 60000)
    np.save(tmp_path / "mnist.npy", mnist)
    np.testing.assert_array_equal(score_columns.read(tmp_path / "mnist.npy").columns["consistency_score"], mnist)


def test_examples_of_several_ratios_have_a_column_for_each(tmp_path):
    columns = {
        "train_index": np.tile(np.arange(3), 2),
        "label": np.tile([4, 5, 6], 2),
        "subset_ratio": np.repeat([0.3, 0.7], 3),
        "memorization": np.arange(6.0),
        "memorization_low": np.zeros(6),
        "num_in": np.arange(6),
        "consistency_score": np.tile([0.1, np.nan, 0.3], 2),
    }
    found = score_columns.read(write_table(tmp_path / "examples.parquet", **columns))
    assert list(found.columns) == ["memorization:0.3", "memorization:0.7", "consistency_score"]
    np.testing.assert_array_equal(found.columns["memorization:0.7"], [3, 4, 5])
    np.testing.assert_array_equal(found.columns["consistency_score"], [0.1, np.nan, 0.3])
    np.testing.assert_array_equal(found.label, [4, 5, 6])
    one = {name: column[:3] for name, column in columns.items()}
    assert list(score_columns.read(write_table(tmp_path / "one.parquet", **one)).columns) == [
        *("memorization", "consistency_score")
    ]
    columns["train_index"][4] = 2
    with pytest.raises(errors.DamagedFileError, match="has not a row for each of its 2 subset ratios"):
        score_columns.read(write_table(tmp_path / "damaged.parquet", **columns))


def test_statistics_of_input_jacobians_are_of_training_examples(tmp_path):
    columns = tables.arrays([3.0, 1.0, 2.0], ids=[4, 2, 7])
    path = tables.write(tmp_path, tables.table(), columns)
    found = score_columns.read(path)
    assert list(found.columns) == ["jacobian"]
    np.testing.assert_array_equal(found.train_index, [4, 2, 7])
    np.testing.assert_array_equal(found.label, columns["label"])
    with pytest.raises(errors.InvalidValueError, match="has statistics of test examples, expected those of training"):
        score_columns.read(tables.write(tmp_path, tables.table(split="test"), columns))


def test_what_says_how_sure_another_column_is_is_no_score():
    names = ["memorization", "consistency_score"]
    for name in (
        "num_heldout",
        "memorization_low",
        "consistency_high",
        "x__num_paths",
        "x__length__1_2",
        "x_shrunk_sd",
    ):
        assert not known_scores.is_score(name, names)
    for name in ("memorization", "number", "error", "low", "frobenius__logits"):
        assert known_scores.is_score(name, names)


def test_what_is_no_file_of_scores_is_refused(tmp_path):
    with pytest.raises(errors.MissingFileError, match="expected scores as"):
        score_columns.read(tmp_path / "none.npz")
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(errors.InvalidValueError, match=r"expected the ending \.npz, \.parquet or \.csv"):
        score_columns.read(tmp_path / "a.txt")
    np.savez(tmp_path / "a.npz", weights=np.zeros(3))
    with pytest.raises(errors.InvalidValueError, match="has no column train_index of whole numbers"):
        score_columns.read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", train_index=np.zeros(3, int), weights=np.zeros(3))
    with pytest.raises(errors.InvalidValueError, match="1 columns of numbers for 1 examples in 3 rows"):
        score_columns.read(tmp_path / "b.npz")
    for name in ("c.npz", "c.parquet"):
        (tmp_path / name).write_bytes(b"PK nothing")
        with pytest.raises(errors.DamagedFileError, match="Restore it"):
            score_columns.read(tmp_path / name)
    with pytest.raises(errors.DamagedFileError, match="no table of compute_jacobian_stats"):
        score_columns.read(write_table(tmp_path / "d.parquet", id=np.arange(3), epoch=np.zeros(3, int), x=np.zeros(3)))
