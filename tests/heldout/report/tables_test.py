"""Tests of heldout.report.tables."""

import json

import numpy as np
import pytest

from heldout.report import influence_scan, tables
from tests.heldout.report import simulated


@pytest.fixture(scope="module")
def scores():
    return simulated.saved().ratios[0.5]


def test_every_example_has_a_row_and_missing_values_are_null(scores):
    consistency = simulated.saved().consistency
    columns = tables.examples(scores, consistency, simulated.TRAIN_LABEL, 100)
    assert columns["index"] == list(range(60))
    assert {len(column) for column in columns.values()} == {60}
    missing = [row for row in range(60) if columns["memorization"][row] is None]
    assert missing == [simulated.NEVER_HELD_OUT]
    assert columns["num_heldout"][simulated.NEVER_HELD_OUT] == 0
    assert columns["num_ratios"][simulated.NEVER_HELD_OUT] == 1
    assert columns["num_ratios"] == consistency.num_ratios.tolist()
    assert columns["memorization"][simulated.MEMORIZED] == 1.0
    assert columns["accuracy_heldout"][3] == pytest.approx(scores.accuracy_heldout[3], abs=1e-4)
    json.dumps(columns, allow_nan=False)


def test_a_table_that_is_cut_keeps_the_most_memorized(scores):
    columns = tables.examples(scores, simulated.saved().consistency, None, 5)
    values = scores.memorization.values
    assert "label" not in columns
    assert sorted(values[columns["index"]]) == sorted(np.sort(values[~np.isnan(values)])[-5:])
    assert columns["index"] == sorted(columns["index"])


def test_pairs_keep_their_order(scores):
    scan = influence_scan.scan(scores, pairs_influence=0.15, pairs_memorization=0.25, max_pairs=10)
    columns = tables.pairs(scan.pairs, scores, (simulated.TRAIN_LABEL, simulated.TEST_LABEL))
    assert columns["train_index"][0] == simulated.MEMORIZED
    assert columns["test_index"][0] == simulated.DEPENDENT_TEST
    assert columns["train_label"][0] == simulated.TRAIN_LABEL[simulated.MEMORIZED]
    assert columns["test_accuracy"][0] == pytest.approx(scores.test_accuracy[simulated.DEPENDENT_TEST], abs=1e-4)
    json.dumps(columns, allow_nan=False)


def test_p_values_are_those_of_help_and_missing_for_harm(scores):
    scan = influence_scan.scan(scores, pairs_influence=0.1, pairs_memorization=-1.0, max_pairs=5000)
    columns = tables.pairs(scan.pairs, scores, (None, None))
    harms = [value < 0 for value in columns["value"]]
    assert 0 < sum(harms) < len(harms)
    assert [p is None for p in columns["adjusted_p_value"]] == harms


def test_no_pairs(scores):
    columns = tables.pairs((), scores, (None, None))
    assert columns == {name: [] for name in columns}
    assert "train_label" not in columns
