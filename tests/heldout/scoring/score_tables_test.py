"""Pairs and tables on small scores that are known."""

import dataclasses

import numpy as np
import pytest

from heldout.scoring import influence_summary, score_tables, uncertainty
from heldout.scoring import scores as plain_scores
from tests.heldout.report import simulated


@pytest.fixture(scope="module")
def scores():
    return simulated.saved().ratios[0.8]


def test_pairs_are_the_helpful_ones_of_the_summary(scores):
    found = score_tables.find_pairs(scores)
    high = (scores.subset_influence >= np.float32(0.1)) & (scores.memorization.values >= -1)[:, None]
    assert {*zip(found.train_index, found.test_index, strict=True)} == {*zip(*np.nonzero(high), strict=True)}
    assert (np.diff(found.subset_influence) <= 0).all()
    place = found.train_index, found.test_index
    np.testing.assert_array_equal(found.subset_influence, scores.subset_influence[place])
    np.testing.assert_array_equal(found.memorization, scores.memorization.values[found.train_index])
    expected = scores.influence_standard_error(*place, found.subset_influence)
    np.testing.assert_array_equal(found.standard_error, expected)
    assert (found.uncertainty.low < found.subset_influence).all()


def test_equal_pairs_are_ordered_by_their_examples(scores, monkeypatch):
    monkeypatch.setattr(uncertainty, "of_pairs", lambda *_: None)  # no counts could have given these values
    index = np.repeat(np.arange(20, dtype=np.int32), 20), np.tile(np.arange(20, dtype=np.int32), 20)
    value = np.where(index[0] % 3 == 0, np.float32(0.25), np.float32(0.5))
    pairs = influence_summary.PairList(*index, value)
    same = dataclasses.replace(scores, influence=dataclasses.replace(scores.influence, pairs=pairs))
    found = score_tables.find_pairs(same)
    order = np.lexsort((found.test_index, found.train_index, -found.subset_influence))
    np.testing.assert_array_equal(order, np.arange(400))


def test_columns_of_pairs_are_what_they_are_called(scores):
    found, labels = score_tables.find_pairs(scores), (simulated.TRAIN_LABEL + 10, simulated.TEST_LABEL + 20)
    columns = score_tables.pair_columns([0.8], [found], *labels)
    expected = {
        "subset_ratio": np.full(len(found.train_index), 0.8),
        "train_index": found.train_index,
        "test_index": found.test_index,
        "train_label": found.train_index % 3 + 10,
        "test_label": found.test_index % 3 + 20,
        "subset_influence": found.subset_influence,
        "influence_standard_error": found.standard_error,
        "influence_low": found.uncertainty.low,
        "influence_high": found.uncertainty.high,
        "influence_adjusted_p_value": found.uncertainty.adjusted_p_value,
        "memorization": found.memorization,
    }
    assert list(columns) == list(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(columns[name], column, err_msg=name)
    bare = score_tables.pair_columns([0.8], [found], None, None)
    assert bare["train_label"] is bare["test_label"] is None


def test_columns_of_examples_are_what_they_are_called():
    saved = simulated.saved()
    ratios, consistency = list(saved.ratios.values()), saved.consistency
    columns = score_tables.example_columns(ratios, consistency, saved.train_label, saved.train_label + 1)
    both = slice(0, simulated.NUM_TRAIN), slice(simulated.NUM_TRAIN, 2 * simulated.NUM_TRAIN)
    interval, integral = uncertainty.of_consistency(consistency), plain_scores.consistency_integral(consistency)
    for rows, ratio in zip(both, ratios, strict=True):
        sure = uncertainty.of_examples(plain_scores.count_sides(simulated.table(), ratio.subset_ratio))
        expected = {
            "train_index": np.arange(simulated.NUM_TRAIN),
            "label": simulated.TRAIN_LABEL,
            "clean_label": simulated.TRAIN_LABEL + 1,
            "subset_ratio": np.full(simulated.NUM_TRAIN, ratio.subset_ratio),
            "memorization": ratio.memorization.values,
            "memorization_standard_error": ratio.memorization.standard_error,
            "memorization_low": sure.low,
            "memorization_high": sure.high,
            "memorization_adjusted_p_value": sure.adjusted_p_value,
            "num_in": ratio.memorization.num_in,
            "num_heldout": ratio.memorization.num_heldout,
            "accuracy_in": ratio.accuracy_in,
            "accuracy_heldout": ratio.accuracy_heldout,
            "consistency_score": consistency.score,
            "consistency_standard_error": consistency.score_standard_error,
            "consistency_low": interval.low,
            "consistency_high": interval.high,
            "consistency_integral": integral.values,
            "consistency_integral_standard_error": integral.standard_error,
            "num_ratios": consistency.num_ratios,
        }
        assert list(columns) == list(expected)
        for name, column in expected.items():
            np.testing.assert_array_equal(columns[name][rows], column, err_msg=name)
