"""Tests of heldout.report.summary."""

import dataclasses

import numpy as np

from heldout.report import summary
from tests.heldout.report import simulated


def test_summary_names_what_matters():
    saved = simulated.saved()
    text = summary.text_summary(saved, simulated.CLASS_NAMES, num_tests=2)
    scores = saved.ratios[0.5]
    assert "simulated: 40 runs at subset ratio 0.5, 60 training and 24 test examples" in text
    assert f"{100 * scores.mean_accuracy_heldout:.1f} % held out" in text
    assert f"memorized (memorization >= 0.25): {scores.memorized.count} example, interval" in text
    assert "1 example has no memorization: no run trained on it, or none held it out" in text
    assert "training example 7 (class dog), memorization +1.00 +- 0.00" in text
    assert "test example 5 (class </script><b>bird): +1.00 +- 0.00" in text
    assert "not that the value is certain" in text
    assert text.count("its subset influence") == 2
    assert (
        "strongest pair: training example 7 (class dog) -> test example 5 (class </script><b>bird), "
        "subset influence +1.00 +- 0.00 (" in text
    )


def test_summary_warns_of_few_runs_in_its_second_line():
    saved = simulated.saved()
    support = saved.ratios[0.8].memorization.num_heldout
    line = summary.text_summary(saved, subset_ratio=0.8).splitlines()[1]
    assert line.startswith(f"Only 30 runs: a typical example was held out {int(np.median(support))} times;")
    enough = np.full(simulated.NUM_TRAIN, 30)
    memorization = dataclasses.replace(saved.ratios[0.8].memorization, num_in=enough, num_heldout=enough)
    scores = dataclasses.replace(saved.ratios[0.8], memorization=memorization)
    assert "Only" not in summary.text_summary(dataclasses.replace(saved, ratios={0.8: scores}))


def test_one_is_singular():
    saved = simulated.saved()
    one = dataclasses.replace(saved.ratios[0.8], num_runs=1)
    text = summary.text_summary(dataclasses.replace(saved, ratios={0.8: one}))
    assert text.startswith("simulated: 1 run at subset ratio 0.8")
    assert "1 runs" not in text


def test_summary_without_labels_and_names():
    text = summary.text_summary(simulated.saved(labels=False), subset_ratio=0.8)
    assert "30 runs at subset ratio 0.8" in text
    assert "class" not in text
    assert "training example 7, memorization" in text
    assert "(class 1)" in summary.text_summary(simulated.saved())


def test_summary_without_any_memorization():
    saved = simulated.saved(subset_ratios=(0.5,))
    scores = saved.ratios[0.5]
    nothing = dataclasses.replace(scores.memorization, values=np.full(60, np.nan))
    scores = dataclasses.replace(scores, memorization=nothing, mean_accuracy_heldout=float("nan"))
    text = summary.text_summary(dataclasses.replace(saved, ratios={0.5: scores}))
    assert "no data held out" in text
    assert "60 examples have no memorization" in text
    assert "most memorized" not in text
