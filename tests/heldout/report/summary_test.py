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
    assert "1 example has no memorization: 1 was never held out\n" in text
    assert "training example 7 (class dog), memorization +1.00 +- 0.00" in text
    assert "test example 5 (class </script><b>bird): +1.00 +- 0.00" in text
    assert text.splitlines()[-1] == "(an error of 0 means that no run disagreed, not that the value is certain)"
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


def test_which_side_has_no_runs_is_said_with_counts():
    saved = simulated.saved(subset_ratios=(0.5,))
    scores = saved.ratios[0.5]
    values, num_in = np.where(np.arange(60) < 3, np.nan, scores.memorization.values), scores.memorization.num_in.copy()
    num_in[:3] = 0
    memorization = dataclasses.replace(scores.memorization, values=values, num_in=num_in)
    text = summary.text_summary(
        dataclasses.replace(saved, ratios={0.5: dataclasses.replace(scores, memorization=memorization)})
    )
    assert "4 examples have no memorization: 3 were never trained on, 1 was never held out\n" in text


def test_an_error_of_0_in_any_line_is_explained_after_all():
    saved = simulated.saved(subset_ratios=(0.5,))
    scores = saved.ratios[0.5]
    wide = dataclasses.replace(scores.memorization, standard_error=np.full(60, 0.1))
    scores = dataclasses.replace(scores, memorization=wide)
    text = summary.text_summary(dataclasses.replace(saved, ratios={0.5: scores}))
    *_, pair, hint = text.splitlines()
    assert pair.startswith("strongest pair: ")
    assert "+- 0.00" in pair
    assert hint.startswith("(an error of 0 means")
    text = summary.text_summary(_without_sure_pairs(saved))
    assert "+- 0.00" not in text
    assert "an error of 0" not in text


def _without_sure_pairs(saved):
    """The same with no memorization and no influence at all, so that no line has an error."""
    scores = saved.ratios[0.5]
    nothing = dataclasses.replace(scores.memorization, values=np.full(60, np.nan))
    scores = simulated.with_influence(
        dataclasses.replace(scores, memorization=nothing), np.full_like(scores.subset_influence, np.nan)
    )
    return dataclasses.replace(saved, ratios={0.5: scores})


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
