"""Split-half reliability against what probability theory says of it."""

import dataclasses

import numpy as np
import pytest

from heldout.scoring import reliability, scores
from zoo import errors, run_table

NUM_TRAIN = 4000


def a_table(num_runs=40, ratios=(0.3, 0.7), spread=True, seed=0):
    """Runs that are right on held-out example i with a probability of its own, or all with the same."""
    generator = np.random.default_rng(seed)
    chance = generator.uniform(size=NUM_TRAIN) if spread else np.full(NUM_TRAIN, 0.5)
    rows = [(ratio, run_id) for ratio in ratios for run_id in range(num_runs)]
    masks = np.stack([generator.random(NUM_TRAIN) < ratio for ratio, _ in rows])
    right = (generator.random(masks.shape) < chance) | masks
    return run_table.from_arrays(
        "e",
        np.array([run_id for _, run_id in rows]),
        np.array([ratio for ratio, _ in rows]),
        masks,
        right,
        np.zeros((len(rows), 5), bool),
    )


def consistency(table):
    return scores.consistency(table).score


def test_reliability_is_the_share_of_variance_that_belongs_to_the_examples():
    table = a_table(ratios=(0.3,))
    found = reliability.split_half(table, consistency, [4, 20], num_draws=8)
    assert found.pearson.shape == found.spearman.shape == (2, 8)
    for size, values in zip((4, 20), found.pearson, strict=True):
        # A uniform chance has the variance 1/12; n draws of it add E[p (1 - p)] / n = 1 / (6 n), with n held-out runs.
        mean_of_inverse = np.mean([1 / n for n in np.random.default_rng(1).binomial(size, 0.7, 100_000) if n])
        expected = (1 / 12) / (1 / 12 + mean_of_inverse / 6)
        # A correlation of 4000 pairs has a standard error below 0.016; halves of 40 runs overlap between draws.
        assert abs(values.mean() - expected) < 0.03
    assert (found.num_examples[1] >= found.num_examples[0]).all()


def test_examples_that_are_all_alike_have_no_reliability():
    found = reliability.split_half(a_table(spread=False), consistency, [10], num_draws=4)
    assert np.abs(found.pearson).max() < 0.07
    assert np.abs(found.spearman).max() < 0.07


def test_sizes_double_up_to_half_of_the_runs():
    found = reliability.split_half(a_table(num_runs=13), consistency, num_draws=1)
    assert found.num_runs.tolist() == [1, 2, 4, 6]
    assert (np.diff(found.pearson[:, 0]) > 0).all()


def test_it_follows_from_the_seed():
    table = a_table(num_runs=8)
    first = reliability.split_half(table, consistency, num_draws=2, seed=3)
    again = reliability.split_half(table, consistency, num_draws=2, seed=3)
    other = reliability.split_half(table, consistency, num_draws=2, seed=4)
    np.testing.assert_array_equal(first.spearman, again.spearman)
    assert not np.array_equal(first.spearman, other.spearman)


def test_the_two_halves_share_no_run():
    seen = []

    def score(half):
        seen.append({*zip(half.subset_ratio.tolist(), half.run_id.tolist(), strict=True)})
        return np.arange(float(NUM_TRAIN))

    reliability.split_half(a_table(num_runs=7), score, [3], num_draws=5)
    assert len(seen) == 10
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        assert len(first) == len(second) == 6  # three of each ratio
        assert not first & second


@pytest.mark.parametrize("num_runs", [[0], [21], []])
def test_more_runs_than_there_are_cannot_be_halved(num_runs):
    with pytest.raises(errors.InvalidValueError, match="expected numbers from 1 to 20"):
        reliability.split_half(a_table(), consistency, num_runs)


def test_a_single_run_has_no_halves():
    message = "^ratio 0.3 has 1 run, ratio 0.7 has 1 run; the reliability of scores takes two of each ratio; train more"
    with pytest.raises(errors.InvalidValueError, match=message):
        reliability.split_half(a_table(num_runs=1), consistency)


def test_ratios_with_too_few_runs_are_named():
    ratios = np.array([0.3, 0.9])
    assert reliability.too_few_runs(ratios, np.array([2, 3])) == ""
    only = "ratio 0.9 has 1 run; the reliability of scores takes two of each ratio"
    assert reliability.too_few_runs(ratios, np.array([2, 1])) == only


@pytest.mark.parametrize(
    ("num_runs", "ratios", "spread", "expected"),
    [
        (2, (0.5,), True, False),  # one run against another
        (6, (0.5,), True, False),  # three
        (8, (0.5,), True, True),
        (2, (0.2, 0.4, 0.6, 0.8), True, True),  # one of each of four ratios
        (40, (0.3, 0.7), False, False),  # many, which do not agree
    ],
)
def test_what_few_runs_or_noise_give_tells_nothing(num_runs, ratios, spread, expected):
    found = reliability.split_half(a_table(num_runs, ratios, spread), consistency)
    assert found.num_ratios == len(ratios)
    assert found.is_telling(-1) == expected
    # Of N examples without a correlation the standard error is 1 / sqrt(N).
    assert found.spread(-1) >= 0.99 / np.sqrt(NUM_TRAIN)
    nothing = dataclasses.replace(found, pearson=np.full_like(found.pearson, np.nan))
    assert not nothing.is_telling(-1)


def test_scores_without_variance_have_no_correlation():
    found = reliability.split_half(a_table(num_runs=4), lambda _: np.ones(NUM_TRAIN), [2], num_draws=1)
    assert np.isnan(found.pearson).all()
    assert np.isnan(found.spearman).all()


def test_ties_have_their_mean_rank():
    # Ranks 1.5 1.5 3 4 and 3 1.5 1.5 4: deviations from 2.5 with products of sum 2.25 and squares of sum 4.5 each.
    halves = iter([np.array([1.0, 1, 2, 3]), np.array([2.0, 1, 1, 3])])
    found = reliability.split_half(a_table(num_runs=2), lambda _: next(halves), [1], num_draws=1)
    assert found.spearman.item() == pytest.approx(0.5)


def test_spearman_and_brown_agree_with_the_law_they_come_from():
    # Variance 3 of examples, 2 / n of n runs.
    of = [3 / (3 + 2 / n) for n in (5, 20)]
    assert reliability.predicted(of[0], 5, np.array([20]))[0] == pytest.approx(of[1])
    assert reliability.runs_needed(of[0], 5, of[1]) == pytest.approx(20)
    assert reliability.runs_needed(0.0, 5, 0.9) == float("inf")
    assert reliability.runs_needed(float("nan"), 5, 0.9) == float("inf")
