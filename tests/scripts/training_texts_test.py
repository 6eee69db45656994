"""What is said of a training."""

import pathlib

import pytest

from heldout.training import failures, run_results
from scripts import training_texts
from zoo import layout


def result(ratio, run_id, failure=None, **accuracies):
    return run_results.RunResult(layout.Run(pathlib.Path("z"), "e", ratio, run_id), failure, 0.1, **accuracies)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (99, "99 s"),
        (99.6, "2 min"),
        (5900, "98 min"),
        (6000, "1.7 h"),
        (170000, "47.2 h"),
        (2e5, "2.3 days"),
    ],
)
def test_durations(seconds, text):
    assert training_texts.duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(4114.2, "4114 runs/h"), (99.7, "100 runs/h"), (0.521, "0.52 runs/h")])
def test_rates(number, text):
    assert training_texts.rate(number) == text


def test_failures_come_with_their_command():
    failed = failures.Failure(0.5, 3, "the training loss is nan", "0", None, 2, "1", "t", "train_runs --run_ids=3")
    text = training_texts.failure(failed)
    assert text == "failed after epoch 2: 0.5/3: the training loss is nan\n    again: train_runs --run_ids=3"


def test_a_tally_before_anything_has_ended():
    tally = training_texts.Tally(8, 10)
    assert tally.text() == "runs 0/8 (0 % of epochs)"
    tally.run_epochs(4, 100.0)
    # What came before the first message was start-up: there is no rate yet.
    assert tally.text() == "runs 0/8 (5 % of epochs)"


def test_rate_and_time_left_follow_from_epochs():
    tally = training_texts.Tally(8, 10)
    for step in range(6):
        tally.run_epochs(4, 100.0 + 2 * step)
    # 20 epochs in 10 s are 0.2 runs/s; of 80 epochs 56 are left.
    assert tally.text() == "runs 0/8 (30 % of epochs), 720 runs/h, 28 s left"


def test_a_run_on_all_examples_holds_none_out():
    tally = training_texts.Tally(1, 10)
    tally.result(result(0.99, 0, accuracy_in=0.9, accuracy_heldout=float("nan")))
    assert tally.text().endswith("accuracy 0.900 in, none held out at 0.99")


def test_epochs_that_were_lost_with_a_worker_are_not_done():
    tally = training_texts.Tally(2, 10)
    tally.run_epochs(4, 0.0)
    tally.run_epochs(-4, 10.0)
    assert tally.text() == "runs 0/2 (0 % of epochs)"


def test_accuracies_of_ratios_are_not_pooled_and_failures_are_counted():
    tally = training_texts.Tally(6, 10)
    tally.result(result(0.5, 0, accuracy_in=0.9, accuracy_heldout=0.5))
    tally.result(result(0.7, 0, accuracy_in=1.0, accuracy_heldout=0.8))
    tally.result(result(0.7, 1, accuracy_in=0.8, accuracy_heldout=0.6))
    tally.result(result(0.5, 1, failure="the training loss is nan"))
    tally.appeared()
    assert tally.text() == "runs 5/6 (83 % of epochs), accuracy 0.900 in, 0.700 held out at 0.7, 1 failed"
