"""Tests of heldout.report.formats."""

import numpy as np

from heldout.report import formats


def test_signed():
    assert formats.signed(0.831) == "+0.83"
    assert formats.signed(-0.2) == "−0.20"
    assert formats.signed(-0.001) == "0.00"
    assert formats.signed(float("nan")) == "no held-out run"


def test_error():
    assert [formats.error(value) for value in (0.0, 0.001, 0.05, float("nan"))] == ["0.00", "<0.01", "0.05", "–"]


def test_count():
    assert formats.count(1234567) == "1\u202f234\u202f567"
    assert formats.count(-12.4) == "−12"
    assert formats.count(-0.2) == "0"


def test_percent():
    assert formats.percent(0.9734) == "97.3\u202f%"
    assert formats.percent(0.7, 0) == "70\u202f%"
    assert formats.percent(float("nan")) == "no data"


def test_undefined_counts_both_sides():
    assert formats.undefined(np.array([1, 2]), np.array([3, 1])) == ""
    sentence = formats.undefined(np.array([0, 2, 2]), np.array([3, 0, 0]))
    assert "2 have no held-out run and 1 were never trained on" in sentence
