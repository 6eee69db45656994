"""Posteriors of memorization against sums over a fine grid of rates, and against the truth of simulated examples."""

import itertools

import numpy as np
import pytest
from scipy import stats

from heldout.scoring import scores, shrinkage
from zoo import errors

NUM_EXAMPLES = 3000


def simulated(num_runs, seed=0, num_examples=NUM_EXAMPLES):
    """Counts and true memorization: half without effect, the others nearly always right when trained on."""
    generator = np.random.default_rng(seed)
    p0 = generator.beta(2, 0.6, num_examples)
    p1 = np.where(generator.random(num_examples) < 0.5, p0, generator.beta(30, 1, num_examples))
    num_in = generator.binomial(num_runs, 0.7, num_examples)
    right = generator.binomial(num_in, p1), generator.binomial(num_runs - num_in, p0)
    return scores.SideCounts(num_in, num_runs - num_in, *right), p1 - p0


def raw(counts):
    return counts.accuracy_in - counts.accuracy_heldout


def by_grid(counts, prior, i, points_per_cell=100):
    """Mean, standard deviation, false sign rate, null probability and spreads of one example by sums over a grid."""
    edges = prior.edges
    middle = (np.arange(points_per_cell) + 0.5) / points_per_cell
    p = np.concatenate([a + (b - a) * middle for a, b in itertools.pairwise(edges)])
    cell = np.repeat(np.arange(len(edges) - 1), points_per_cell)
    like1 = stats.binom.pmf(counts.num_right_in[i], counts.num_in[i], p)
    like0 = stats.binom.pmf(counts.num_right_heldout[i], counts.num_heldout[i], p)
    joint = prior.weights[np.ix_(cell, cell)] * np.outer(like1, like0) / points_per_cell**2
    null = prior.null_weights[cell] * like1 * like0 / points_per_cell
    total = joint.sum() + null.sum()
    joint, null = joint / total, null / total
    p1, p0 = np.meshgrid(p, p, indexing="ij")
    mean = np.sum(joint * (p1 - p0))
    on_diagonal = np.sum(joint[p1 == p0]) / 2
    below, above = np.sum(joint[p1 < p0]) + on_diagonal, np.sum(joint[p1 > p0]) + on_diagonal
    return (
        mean,
        np.sqrt(np.sum(joint * (p1 - p0) ** 2) - mean**2),
        min(below, above) + null.sum(),
        null.sum(),
        np.sum(joint * p1 * (1 - p1)) + np.sum(null * p * (1 - p)),
        np.sum(joint * p0 * (1 - p0)) + np.sum(null * p * (1 - p)),
    )


def columns(shrunk):
    names = ("posterior_mean", "posterior_sd", "local_false_sign_rate", "null_probability")
    return np.stack([getattr(shrunk, name) for name in (*names, "spread_in", "spread_heldout")])


@pytest.mark.parametrize("num_runs", [10, 300])
def test_posteriors_are_those_of_a_fine_grid(num_runs):
    counts, _ = simulated(num_runs, num_examples=200)
    found = shrinkage.shrink(counts, num_cells=5, num_iterations=20)
    spreads = shrinkage.expected_spreads(counts, num_cells=5, num_iterations=20)
    np.testing.assert_array_equal(spreads, columns(found)[4:])
    for i in range(0, 200, 40):
        np.testing.assert_allclose(columns(found)[:, i], by_grid(counts, found.prior, i), atol=5e-4)


def test_the_prior_is_a_distribution_and_becomes_more_likely_with_every_step():
    counts, _ = simulated(30)
    priors = [shrinkage.shrink(counts, num_iterations=steps).prior for steps in (1, 5, 50)]
    assert np.diff([prior.log_likelihood for prior in priors]).min() > 0
    for prior in priors:
        assert prior.weights.sum() + prior.null_weights.sum() == pytest.approx(1)
        assert min(prior.weights.min(), prior.null_weights.min()) >= 0


@pytest.mark.parametrize("num_runs", [10, 40, 400])
def test_estimates_are_nearer_to_the_truth_than_raw_ones(num_runs):
    counts, truth = simulated(num_runs)
    found = shrinkage.shrink(counts).posterior_mean
    there = np.isfinite(found)
    error, raw_error = (np.mean((values - truth)[there] ** 2) for values in (found, raw(counts)))
    assert error < 0.6 * raw_error


@pytest.mark.parametrize("num_runs", [40, 200])
def test_posteriors_say_how_wrong_they_are(num_runs):
    counts, truth = simulated(num_runs)
    found = shrinkage.shrink(counts)
    # Were the prior known, this mean would be 1 with a standard error near 0.05 (the squares have heavy tails).
    assert np.nanmean(((truth - found.posterior_mean) / found.posterior_sd) ** 2) == pytest.approx(1, abs=0.25)
    listed = found.local_false_sign_rate < 0.05
    wrong = np.sign(found.posterior_mean)[listed] != np.sign(truth)[listed]
    said = found.local_false_sign_rate[listed]
    assert listed.sum() > 300
    assert np.mean(wrong) <= np.mean(said) + 3 * np.sqrt(np.mean(said) / listed.sum())


def test_values_stay_as_they_are_as_runs_grow():
    worst = []
    for num_runs in (1000, 100_000, 1_000_000):
        counts, _ = simulated(num_runs, num_examples=500)
        worst.append(np.abs(shrinkage.shrink(counts).posterior_mean - raw(counts)).max())
    assert worst[0] > worst[1] > worst[2]
    assert worst[2] < 0.005


def test_rates_of_zero_and_one_are_not_certain():
    zeros, full = np.zeros(50, int), np.full(50, 5)
    counts = scores.SideCounts(full, full, full, zeros)
    found = shrinkage.shrink(counts)
    for values in (found.posterior_sd, found.spread_in, found.spread_heldout):
        assert (values > 1e-3).all()
    assert (found.local_false_sign_rate > 0).all()


def test_cells_are_finer_towards_zero_and_one():
    counts, _ = simulated(10, num_examples=50)
    edges = shrinkage.shrink(counts, num_cells=4, num_iterations=1).prior.edges
    np.testing.assert_allclose(edges, [0, (2 - np.sqrt(2)) / 4, 0.5, (2 + np.sqrt(2)) / 4, 1], atol=1e-12)


def test_blocks_of_examples_do_not_matter(monkeypatch):
    counts, _ = simulated(10, num_examples=205)
    whole = columns(shrinkage.shrink(counts))
    monkeypatch.setattr(shrinkage, "_BLOCK", 50)
    np.testing.assert_allclose(columns(shrinkage.shrink(counts)), whole, rtol=1e-9)
    spreads = shrinkage.expected_spreads(counts, num_iterations=200)
    np.testing.assert_allclose(spreads, whole[4:], rtol=1e-9)


def test_the_prior_is_fitted_to_examples_from_everywhere(monkeypatch):
    """The data sets of this world are often sorted, by class for instance."""
    counts, truth = simulated(60, num_examples=3000)
    order = np.argsort(truth, kind="stable")
    ordered = scores.SideCounts(*(getattr(counts, name)[order] for name in vars(counts)))
    whole = shrinkage.shrink(ordered).posterior_mean
    monkeypatch.setattr(shrinkage, "_MAX_FITTED", 600)
    few = shrinkage.shrink(ordered).posterior_mean
    # A fifth of the examples says much the same; what moves is below the error of the estimates themselves.
    error = np.sqrt(np.mean((whole - truth[order]) ** 2))
    assert np.sqrt(np.mean((few - whole) ** 2)) < 0.3 * error


def test_examples_keep_their_posteriors_in_another_order_and_without_runs_have_none():
    counts, _ = simulated(6, num_examples=400)
    order = np.random.default_rng(1).permutation(400)
    there = (counts.num_in > 0) & (counts.num_heldout > 0)
    assert 0 < np.sum(~there) < 200
    other = scores.SideCounts(*(getattr(counts, name)[order] for name in vars(counts)))
    found, shuffled = columns(shrinkage.shrink(counts)), columns(shrinkage.shrink(other))
    np.testing.assert_allclose(shuffled, found[:, order], rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(np.isfinite(found), np.tile(there, (6, 1)))


def test_settings_and_counts_that_say_nothing_are_refused():
    counts, _ = simulated(6, num_examples=20)
    with pytest.raises(errors.InvalidValueError, match="num_cells: got 1, expected at least 2"):
        shrinkage.shrink(counts, num_cells=1)
    with pytest.raises(errors.InvalidValueError, match="num_iterations: got 0, expected at least 1"):
        shrinkage.shrink(counts, num_iterations=0)
    none = np.zeros(3, int)
    with pytest.raises(errors.InvalidValueError, match="no example has both runs that trained on it"):
        shrinkage.shrink(scores.SideCounts(none, none + 4, none, none))
