"""Influence of chosen pairs against plain code, and what is found again of the strongest against simulated truth."""

import numpy as np
import pytest

from heldout.scoring import pair_reliability, reliability
from tests.reference import scores as reference
from zoo import errors, run_table

NUM_TRAIN, NUM_TEST = 50, 30


def a_table(num_runs=200, strength=0.0, seed=0, num_pairs=10):
    """Test example j is right with chance 1/2, moved by half the strength either way by training example j."""
    generator = np.random.default_rng(seed)
    mask = generator.random((num_runs, NUM_TRAIN)) < 0.5
    chance = np.full((num_runs, NUM_TEST), 0.5)
    chance[:, :num_pairs] += strength * (mask[:, :num_pairs] - 0.5)
    right = mask | (generator.random(mask.shape) < 0.5)
    # What test examples hang on is memorized; the rest is right half the time.
    right[:, num_pairs:] = generator.random((num_runs, NUM_TRAIN - num_pairs)) < 0.5
    test = generator.random(chance.shape) < chance
    return run_table.from_arrays("e", np.arange(num_runs), np.full(num_runs, 0.5), mask, right, test)


@pytest.mark.parametrize("num_runs", [1, 3, 64, 300])
def test_influence_of_pairs_is_that_of_the_plain_formula(num_runs, monkeypatch):
    monkeypatch.setattr(pair_reliability, "_BLOCK", 7)
    table = a_table(num_runs, strength=0.8)
    rows, columns = np.random.default_rng(1).integers(0, 30, (2, 40))
    found = pair_reliability.influence_of_pairs(table, rows, columns)
    expected, _ = reference.subset_influence(table.subset_mask(), table.test_correctness())
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected[rows, columns], atol=1e-12)
    if num_runs == 1:
        assert np.isnan(found).all()


def test_strong_pairs_are_found_again_and_noise_is_not():
    strong = pair_reliability.strongest_found_again(
        a_table(400, strength=0.6), [200], num_draws=6, num_pairs=10, num_candidates=10
    )
    assert strong.num_pairs.tolist() == [[10] * 6]
    # Standard error of one pair from 200 runs: 2 sqrt(1 / (4 * 200)) = 0.07; of the mean of 10 pairs 0.022.
    assert abs(strong.again.mean() - 0.6) < 3 * 0.022
    assert abs(strong.chosen.mean() - 0.6) < 3 * 0.022  # all strong ones were chosen, so nothing was selected by noise
    assert strong.found_again.min() > 0.8
    noise = pair_reliability.strongest_found_again(a_table(400), [20, 200], num_draws=6, num_pairs=10)
    assert (noise.chosen > 0.1).all()  # the winners look strong in the half that chose them
    assert (noise.chosen[0] > noise.chosen[1]).all()
    assert abs(noise.again[1].mean()) < 0.03  # and are nothing in the other, in 60 pairs with an error of 0.07 each
    assert abs(noise.found_again[1].mean()) < 0.15


def test_the_strongest_pairs_are_those_of_the_whole_matrix():
    table = a_table(80, strength=0.5)
    train, test, values = pair_reliability._strongest(table, 12, NUM_TRAIN, NUM_TEST)
    matrix, _ = reference.subset_influence(table.subset_mask(), table.test_correctness())
    np.testing.assert_allclose(values, matrix[train, test], atol=1e-6)
    np.testing.assert_allclose(np.sort(values), np.sort(matrix.ravel())[-12:], atol=1e-6)


def test_pairs_without_a_value_are_not_strong():
    table = a_table(80, strength=0.5)
    mask = table.subset_mask()
    mask[:, 3] = True  # nobody held it out
    table = run_table.from_arrays(
        "e", table.run_id, table.subset_ratio, mask, table.train_correctness(), table.test_correctness()
    )
    train, _, values = pair_reliability._strongest(table, NUM_TRAIN * NUM_TEST, NUM_TRAIN, NUM_TEST)
    matrix, _ = reference.subset_influence(mask, table.test_correctness())
    assert 3 not in train
    assert len(values) == int((matrix > 1e-9).sum())
    assert (values > 0).all()


def test_candidates_are_the_most_memorized_and_tests_the_first():
    table = a_table(120, strength=0.5)
    train, test, _ = pair_reliability._strongest(table, 1000, 6, 8)
    rates = [reference.memorization(table.subset_mask(), table.train_correctness())[0]]
    best = np.argsort(-rates[0])[:6]
    assert set(train) <= set(best)
    assert test.max() < 8


def test_without_any_pair_there_is_nothing_to_find():
    table = a_table(4)
    silent = run_table.from_arrays(
        "e", table.run_id, table.subset_ratio, table.subset_mask(), table.train_correctness(), np.ones((4, 5), bool)
    )
    found = pair_reliability.strongest_found_again(silent, num_draws=2)
    assert found.num_runs.tolist() == [1, 2]
    assert found.num_pairs.tolist() == [[0, 0], [0, 0]]
    assert np.isnan(found.found_again).all()


def test_halves_are_those_of_split_half():
    table, seen = a_table(30), []

    def score(half):
        seen.append(half.run_id.tolist())
        return np.arange(4.0)

    reliability.split_half(table, score, [3], num_draws=2, seed=5)
    again = [half.run_id.tolist() for draw in reliability.halves(table, [3], 2, 5) for pair in draw for half in pair]
    assert again == seen


def test_too_few_runs_are_refused():
    with pytest.raises(errors.InvalidValueError, match=r"has 1 run; .*train more runs"):
        pair_reliability.strongest_found_again(a_table(1))
