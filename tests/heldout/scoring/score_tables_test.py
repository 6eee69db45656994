"""Pairs and tables on small scores that are known."""

import numpy as np
import pytest

from heldout.scoring import score_tables
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
