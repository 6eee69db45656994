"""Tests of heldout.report.formats."""

import numpy as np
import pytest

from heldout.report import formats


def test_signed():
    assert formats.signed(0.831) == "+0.83"
    assert formats.signed(-0.2) == "−0.20"
    assert formats.signed(-0.00366) == "−0.004"
    assert formats.signed(0.00012) == "+0.0001"
    assert formats.signed(-0.0) == formats.signed(-1e-9) == "0.00"
    assert formats.signed(float("nan")) == "no held-out run"


def test_error():
    assert [formats.error(value) for value in (0.0, 0.001, 0.05, float("nan"))] == ["0.00", "0.001", "0.05", "–"]


def test_count():
    assert formats.count(1234567) == "1\u202f234\u202f567"
    assert formats.count(-12.4) == "−12"
    assert formats.count(-0.2) == "0"


def test_percent():
    assert formats.percent(0.9734) == "97.3\u202f%"
    assert formats.percent(0.7, 0) == "70\u202f%"
    assert formats.percent(float("nan")) == "no data"


def test_counted():
    assert [formats.counted(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


def test_few_runs_speak_of_the_side_with_fewer():
    inside, outside = np.full(5, 54), np.array([4, 6, 6, 7, 60])
    assert formats.few_runs(60, inside, outside) == (
        "Only 60 runs: a typical example was held out 6 times; single values are mostly noise"
    )
    assert "a typical example was trained on 6 times" in formats.few_runs(60, outside, inside)
    assert formats.few_runs(1, np.ones(3), np.zeros(3)).startswith("Only 1 run: a typical example was held out 0 times")
    assert "held out 1 time;" in formats.few_runs(2, np.ones(3), np.ones(3))


def test_enough_runs_need_no_warning():
    assert formats.few_runs(60, np.full(3, 30), np.array([0, 30, 30])) == ""
    assert formats.few_runs(60, np.full(3, 30), np.array([29, 29, 30])) != ""


def test_undefined_counts_both_sides():
    assert formats.undefined(np.array([1, 2]), np.array([3, 1])) == ""
    sentence = formats.undefined(np.array([0, 2, 2]), np.array([3, 0, 0]))
    assert "2 have no held-out run and 1 was never trained on" in sentence


@pytest.mark.parametrize(
    ("value", "text"), [(0.98251, "0.983"), (-0.02, "\u22120.020"), (-0.0002, "0.000"), (1.0, "1.000")]
)
def test_correlations(value, text):
    assert formats.correlation(value) == text
