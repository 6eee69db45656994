"""Selections and the runs that they are."""

import numpy as np
import pytest

from heldout.experiments import subset_rankings
from scripts.attribution import retraining_plan
from zoo import errors

# From the highest value: 3, 1, 0, 2; by absolute value: 2, 3, 1, 0.
_RANKING = subset_rankings.SubsetRanking(np.arange(4), np.array([0.0, 1.0, -5.0, 2.0]))
_SELECTED = {"top": {3}, "bottom": {2}, "extreme": {2}}


def plan(action="drop", **options):
    defaults = {"which": ("top", "bottom"), "counts": (1, 2), "num_seeds": 3, "pool_size": 4, "num_train": 10}
    return retraining_plan.Plan(action, **(defaults | options))


@pytest.mark.parametrize("which", retraining_plan.WHICH)
@pytest.mark.parametrize("action", retraining_plan.ACTIONS)
def test_runs_are_trained_without_what_is_dropped_and_on_what_is_kept(action, which):
    wanted = plan(action, which=(which,), counts=(1,))
    (ratio,) = wanted.ratios
    kinds = {}
    for run_id in wanted.run_ids:
        kinds.setdefault(subset_rankings.kind_of(run_id), []).append(run_id)
    assert [len(ids) for ids in kinds.values()] == [3, 3]
    (ids,) = (ids for kind, ids in kinds.items() if kind != "random")
    trained_on = set(_RANKING.subset_indices(("e", ratio, ids[0]), 10).tolist())
    assert trained_on == (_SELECTED[which] if action == "keep" else set(range(4)) - _SELECTED[which])
    for run_id in ids:
        assert retraining_plan.selection(action, 4, run_id, len(trained_on)) == (which, 1)
    for run_id in kinds["random"]:
        assert retraining_plan.selection(action, 4, run_id, len(trained_on)) == ("random", 1)


@pytest.mark.parametrize("action", retraining_plan.ACTIONS)
def test_the_reference_is_the_whole_pool_once_for_each_seed(action):
    wanted = plan(action)
    assert wanted.reference_ratio == 0.4
    assert len(wanted.reference_run_ids) == 3
    for run_id in wanted.reference_run_ids:
        np.testing.assert_array_equal(_RANKING.subset_indices(("e", 0.4, run_id), 10), np.arange(4))
        assert retraining_plan.selection(action, 4, run_id, 4) == ("none", 0)
    highest = subset_rankings.run_id("highest", 0)
    assert retraining_plan.selection(action, 4, highest, 4) is None


def test_runs_of_the_other_action_alone_are_none_of_this_one():
    assert retraining_plan.selection("drop", 4, subset_rankings.run_id("largest", 0), 1) is None
    assert retraining_plan.selection("keep", 4, subset_rankings.run_id("smallest", 0), 1) is None


def test_runs_are_counted():
    assert plan().num_runs == 3 * 3 * 2 + 3
    assert (plan().ratios, plan("keep").ratios) == ((0.3, 0.2), (0.1, 0.2))


def test_shares_and_counts():
    assert retraining_plan.counts(["0.25", " 3", "0.1"], 20) == (2, 3, 5)
    assert retraining_plan.counts(["1e-1"], 20) == (2,)


@pytest.mark.parametrize("text", ["0", "20", "1.0", "0.0", "0.001", "0.999", "-1", "a", "nan", "1.5", ""])
def test_selections_that_cannot_be_are_refused(text):
    with pytest.raises(errors.InvalidValueError, match=r"--fractions=0\.1,.*expected shares .* 1 to 19 of the 20"):
        retraining_plan.counts(["0.1", text], 20)


def test_a_selection_is_named_once():
    with pytest.raises(errors.InvalidValueError, match=r"0\.1 and 2 both select 2 of 20"):
        retraining_plan.counts(["0.1", "2"], 20)
    with pytest.raises(errors.InvalidValueError, match="names no selection"):
        retraining_plan.counts([], 20)
