"""Tests of heldout.report.selection."""

import dataclasses

import numpy as np
import pytest

from heldout.report import selection
from tests.heldout.report import simulated
from zoo import errors


def test_highest_leaves_out_nan_and_breaks_ties_by_support_then_index():
    values = np.array([0.5, np.nan, 0.9, 0.5, 0.5])
    runs = np.array([20, 90, 10, 30, 20])
    assert selection.highest(values, 4, runs).tolist() == [2, 3, 0, 4]
    assert selection.highest(values, 9).tolist() == [2, 0, 3, 4]
    assert selection.highest(np.full(3, np.nan), 2).size == 0


def test_one_from_many_runs_comes_before_one_from_two():
    values, runs = np.array([1.0, 1.0, 0.99]), np.array([2, 100, 500])
    assert selection.highest(values, 3, runs).tolist() == [1, 0, 2]
    assert selection.lowest(-values, 3, runs).tolist() == [1, 0, 2]


def test_support_is_the_smaller_side():
    scores = simulated.saved().ratios[0.8]
    counts = zip(scores.memorization.num_in, scores.memorization.num_heldout, strict=True)
    assert selection.support(scores).tolist() == [min(pair) for pair in counts]


def test_lowest_rises():
    assert selection.lowest(np.array([0.3, -0.2, np.nan, 0.0]), 2).tolist() == [1, 3]


def test_highest_of_many_equals_a_full_sort():
    values = np.random.default_rng(0).integers(0, 50, 1000).astype(float)  # many ties at the cut
    truth = sorted(range(1000), key=lambda index: (-values[index], index))[:37]
    assert selection.highest(values, 37).tolist() == truth


def test_ratio_defaults_to_most_runs_then_nearest_to_the_customary_one():
    saved = simulated.saved()
    assert selection.ratio_scores(saved).subset_ratio == 0.5  # 40 runs against 30
    equal = {ratio: dataclasses.replace(scores, num_runs=9) for ratio, scores in saved.ratios.items()}
    assert selection.ratio_scores(dataclasses.replace(saved, ratios=equal)).subset_ratio == 0.8
    assert selection.ratio_scores(saved, 0.8).subset_ratio == 0.8


def test_unknown_ratio_names_those_there_are():
    with pytest.raises(errors.InvalidValueError, match=r"0\.3.*scores at 0\.5, 0\.8"):
        selection.ratio_scores(simulated.saved(), 0.3)


def test_class_name_falls_back_to_the_number():
    assert selection.class_name(1, ("cat", "dog")) == "dog"
    assert selection.class_name(5, ("cat", "dog")) == "5"
    assert selection.class_name(1, None) == "1"
    assert selection.class_name(None, ("cat",)) == ""
