"""Rankings from files and from scores, and what is refused."""

import dataclasses

import numpy as np
import pytest

from heldout.scoring import score_config, score_files
from scripts.attribution import influence_files, retraining_rankings
from tests.heldout.scoring import score_files_test
from zoo import errors


def write(path, **members):
    defaults = {"train_index": np.array([3, 0, 2]), "influence": np.array([0.5, -1.0, 2.0])}
    np.savez(path, **(defaults | members))
    return str(path)


def load(text, column=None, scores="nowhere"):
    return retraining_rankings.load(text, column, scores)


def test_a_file_is_read_by_position(tmp_path):
    source = load(write(tmp_path / "a.npz", train_label=np.array([7, 8, 9])))
    np.testing.assert_array_equal(source.ranking.train_index, [0, 2, 3])
    np.testing.assert_array_equal(source.ranking.value, [-1.0, 2.0, 0.5])
    np.testing.assert_array_equal(source.train_label, [8, 9, 7])
    assert (source.name, source.column, source.num_left_out) == (str(tmp_path / "a.npz"), "influence", 0)
    assert source.test_index is None


def test_a_folder_of_influences_is_read_with_its_test_examples(tmp_path):
    influence_files.write_average(tmp_path, np.array([4, 1]), np.array([5, 9]), np.array([1.0, 2.0]), {})
    source = load(str(tmp_path))
    np.testing.assert_array_equal(source.ranking.value, [2.0, 1.0])
    np.testing.assert_array_equal(source.test_index, [5, 9])
    assert source.name == str(tmp_path / "average_influence.npz")


def test_another_column_may_be_named_and_examples_without_a_value_are_counted(tmp_path):
    path = write(tmp_path / "a.npz", other=np.array([3.0, np.nan, 1.0], np.float32), train_label=np.array([7, 8, 9]))
    source = load(path, "other")
    np.testing.assert_array_equal(source.ranking.train_index, [2, 3])
    np.testing.assert_array_equal(source.train_label, [9, 7])
    assert (source.column, source.num_left_out) == ("other", 1)
    whole = load(write(tmp_path / "b.npz", rank=np.array([3, 1, 2])), "rank")
    np.testing.assert_array_equal(whole.ranking.value, [1.0, 2.0, 3.0])


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Scores at 0.3 and 0.7, and at 0.7 alone."""
    folder = tmp_path_factory.mktemp("scores")
    score_files_test.write_runs(folder / "zoo", range(30))
    dataset = score_files_test.write_dataset(folder / "data.npz")
    config = score_config.ScoreConfig(
        str(folder / "zoo"), "demo", num_draws=20, dataset=dataset, output=str(folder / "both")
    )
    score_files.compute_scores(config)
    score_files.compute_scores(dataclasses.replace(config, subset_ratios=(0.7,), output=str(folder / "one")))
    return folder


def test_scores_rank_by_name(scores):
    saved = score_files.load_scores(scores / "both")
    for text, folder in (("memorization:0.7", "both"), ("memorization", "one")):
        source = load(text, scores=scores / folder)
        np.testing.assert_array_equal(source.ranking.value, saved.ratios[0.7].memorization.values)
        np.testing.assert_array_equal(source.train_label, score_files_test.TRAIN_LABEL)
        assert (source.name, source.column) == ("memorization:0.7", "memorization")
    source = load("consistency_score", scores=scores / "both")
    np.testing.assert_array_equal(source.ranking.value, saved.consistency.score)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("memorization", None, "expected one of memorization:0.3, memorization:0.7"),
        ("memorization:0.5", None, "expected one of memorization:0.3, memorization:0.7"),
        ("consistency_score:0.3", None, "one over all ratios; give consistency_score"),
        ("memorization:0.3", "influence", "--column=influence: names a member of an npz file"),
    ],
)
def test_scores_that_are_not_there_are_refused(scores, text, column, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        load(text, column, scores / "both")


@pytest.mark.parametrize(
    ("members", "column", "message"),
    [
        ({}, "harm", "lacks harm; it holds influence, train_index"),
        ({"harm": np.zeros(2)}, "harm", "harm has dtype float64 and shape .2,., expected a number for each of the 3"),
        ({"harm": np.array(["a", "b", "c"])}, "harm", "harm has dtype <U1"),
        ({"influence": np.array([0, np.inf, np.inf])}, None, "influence is infinite for 2 examples"),
        ({"influence": np.array([0, np.nan, np.nan])}, None, "at least two ascending .* without a value do not count"),
        ({"train_index": np.array([0, 0, 1])}, None, "at least two ascending"),
        ({"train_index": np.array([0.0, 1, 2])}, None, "train_index has dtype float64"),
        ({"test_index": np.array([[0]])}, None, "test_index has dtype int64 and shape"),
        ({"train_label": np.array([1, 2])}, None, "train_label has shape .2,., expected that of train_index"),
    ],
)
def test_files_that_do_not_rank_are_refused_by_name(tmp_path, members, column, message):
    with pytest.raises((errors.InvalidValueError, errors.DamagedFileError), match=message) as caught:
        load(write(tmp_path / "a.npz", **members), column)
    assert "a.npz" in str(caught.value)


def test_the_repair_of_a_missing_column_names_the_flag(tmp_path):
    with pytest.raises(errors.DamagedFileError, match="--column=NAME"):
        load(write(tmp_path / "a.npz"), "harm")


def test_a_ranking_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"--ranking=.*: no such file; expected an npz file"):
        load(str(tmp_path / "none.npz"))
    with pytest.raises(errors.MissingFileError, match="no such file; expected"):
        load(str(tmp_path))


def test_a_ranking_of_another_data_set_is_refused(tmp_path):
    source = load(write(tmp_path / "a.npz", train_label=np.array([7, 8, 9]), test_index=np.array([4, 0])))
    label = np.array([8, 0, 9, 7])
    retraining_rankings.check(source, label, 5)
    with pytest.raises(errors.MismatchError, match="its label of training example 2 is not that"):
        retraining_rankings.check(source, np.array([8, 0, 1, 7]), 5)
    with pytest.raises(errors.InvalidValueError, match="names training example 3, but there are 3"):
        retraining_rankings.check(source, label[:3], 5)
    with pytest.raises(errors.InvalidValueError, match="names 2 test examples, expected at least one, all from 0 to 3"):
        retraining_rankings.check(source, label, 4)


@pytest.mark.parametrize(
    ("index", "message"),
    [([], "at least one"), ([-1], "from 0 to 4"), ([1, 1], "--test_ids: names a test example twice")],
)
def test_test_examples_that_cannot_be_are_refused(index, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        retraining_rankings.check_test_index("--test_ids", np.array(index, np.int64), 5)
