"""Rates of trainings whose epochs end at known times."""

import pytest

from heldout.watching import training_rate


def test_start_up_does_not_count():
    rate = training_rate.Rate(10)
    assert rate.runs_per_hour() is None
    rate.run_epochs(4, 100.0)
    assert rate.runs_per_hour() is None
    for step in range(1, 6):
        rate.run_epochs(4, 100.0 + 2 * step)
    # 20 epochs in 10 s are 0.2 runs/s.
    assert rate.runs_per_hour() == pytest.approx(720)
    assert rate.runs == pytest.approx(2.4)


def test_the_rate_is_that_of_the_last_minutes():
    rate = training_rate.Rate(1)
    for second in range(0, 2000, 2):
        rate.run_epochs(20 if second < 1000 else 2, float(second))
    assert rate.runs_per_hour() == pytest.approx(3600)
    assert len(rate._points) < 200


def test_epochs_that_were_lost_with_a_worker_are_not_done():
    rate = training_rate.Rate(10)
    rate.run_epochs(4, 0.0)
    rate.run_epochs(-4, 10.0)
    assert (rate.runs_per_hour(), rate.runs) == (0, 0)
    rate.run_epochs(4, 10.0)
    assert rate.runs_per_hour() == 0
