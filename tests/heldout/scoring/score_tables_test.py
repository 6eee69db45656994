"""Pairs and tables on small scores that are known."""

import dataclasses

import numpy as np
import pytest

from heldout.scoring import score_tables
from tests.heldout.report import simulated
from zoo import errors


@pytest.fixture(scope="module")
def scores():
    return simulated.saved().ratios[0.8]


def test_pairs_are_those_above_both_thresholds(scores):
    found = score_tables.find_pairs(scores, 0.2, 0.1)
    high = (scores.subset_influence >= 0.2) & (scores.memorization.values >= 0.1)[:, None]
    assert {*zip(found.train_index, found.test_index, strict=True)} == {*zip(*np.nonzero(high), strict=True)}
    assert (np.diff(found.subset_influence) <= 0).all()


def test_too_many_pairs_are_refused_before_they_are_held(scores, monkeypatch):
    everything = len(score_tables.find_pairs(scores, -1, -1).train_index)
    monkeypatch.setattr(score_tables, "MAX_PAIRS", everything)
    assert len(score_tables.find_pairs(scores, -1, -1).train_index) == everything
    monkeypatch.setattr(score_tables, "MAX_PAIRS", everything - 1)
    message = (
        rf"more than {everything - 1} pairs at subset ratio 0\.8 reach pairs_influence -1 and pairs_memorization -1"
    )
    with pytest.raises(errors.InvalidValueError, match=f"{message}: raise one"):
        score_tables.find_pairs(scores, -1, -1)


def test_the_search_ends_as_soon_as_there_are_too_many(scores, monkeypatch):
    class Counted:
        """A matrix that counts the rows that are read from it."""

        shape, rows = scores.subset_influence.shape, 0

        def __getitem__(self, rows):
            Counted.rows += len(rows)
            return scores.subset_influence[rows]

    monkeypatch.setattr(score_tables, "MAX_PAIRS", 5)
    monkeypatch.setattr(score_tables, "_SEARCH_BYTES", 4 * simulated.NUM_TEST)
    with pytest.raises(errors.InvalidValueError, match="more than 5 pairs"):
        score_tables.find_pairs(dataclasses.replace(scores, subset_influence=Counted()), -1, -1)
    assert Counted.rows == 1


def test_the_largest_number_of_pairs_is_ten_million():
    assert score_tables.MAX_PAIRS == 10_000_000
