"""The bootstrap interval of the number of memorized examples."""

import numpy as np
import pytest

from heldout.scoring import bootstrap, scores
from tests.reference import scores as reference
from zoo import errors, run_table


def make_table(mask, train, ratio=0.5):
    num_runs = len(mask)
    return run_table.from_arrays(
        "demo", np.arange(num_runs), np.full(num_runs, ratio), mask, train, np.zeros((num_runs, 1), bool)
    )


def random_arrays(seed=0, num_runs=24, num_train=19):
    generator = np.random.default_rng(seed)
    mask = generator.random((num_runs, num_train)) < 0.5
    p1, p0 = np.linspace(0.5, 1, num_train), np.linspace(0.5, 0, num_train)
    return mask, generator.random((num_runs, num_train)) < np.where(mask, p1, p0)


def test_redrawn_counts_equal_plain_loops():
    mask, train = random_arrays()
    # In some draws this example has no held-out run, and must not count.
    mask[1:, 4] = True
    weights = bootstrap.draw_weights(24, 50, seed=3)
    assert (weights.sum(axis=1) == 24).all()
    expected = reference.redrawn_counts(mask, train, 0.25, weights)
    np.testing.assert_array_equal(bootstrap.redrawn_counts(make_table(mask, train), 0.25, 50, seed=3), expected)


def test_interval_is_the_union_of_percentile_and_basic():
    mask, train = random_arrays()
    table = make_table(mask, train)
    found = bootstrap.count_above(table, 0.5, 0.25, num_draws=200, seed=5)
    counts = np.array(reference.redrawn_counts(mask, train, 0.25, bootstrap.draw_weights(24, 200, seed=5)))
    assert found.count == (scores.memorization(table, 0.5).values >= 0.25).sum()
    low, high = np.quantile(counts, [0.025, 0.975])
    assert found.low == pytest.approx(min(low, 2 * found.count - high))
    assert found.high == pytest.approx(max(high, 2 * found.count - low))
    assert (found.threshold, found.num_draws, found.num_undefined) == (0.25, 200, 0)


def test_block_size_and_seed(monkeypatch):
    table = make_table(*random_arrays(num_train=50))
    found = bootstrap.count_above(table, 0.5, 0.25, num_draws=60)
    monkeypatch.setattr(bootstrap, "_BLOCK_BYTES", 1)
    assert bootstrap.count_above(table, 0.5, 0.25, num_draws=60) == found
    one, other = (bootstrap.redrawn_counts(table, 0.25, 60, seed) for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_undefined_examples_are_counted_apart():
    mask, train = random_arrays()
    mask[:, 0], mask[:, 1] = True, False
    train[:, 0] = True
    found = bootstrap.count_above(make_table(mask, train), 0.5, -1, num_draws=20)
    assert found.num_undefined == 2
    assert found.count == 17


def test_threshold_itself_counts():
    mask = np.array([[1], [1], [1], [1], [0], [0]], bool)
    train = np.array([[1], [1], [1], [0], [1], [0]], bool)
    assert bootstrap.count_above(make_table(mask, train), 0.5, 0.25, num_draws=5).count == 1


def test_bad_values_are_refused():
    table = make_table(*random_arrays())
    for threshold in (-1.1, 1.1, float("nan")):
        with pytest.raises(errors.InvalidValueError, match="threshold"):
            bootstrap.count_above(table, 0.5, threshold)
    with pytest.raises(errors.InvalidValueError, match="num_draws"):
        bootstrap.count_above(table, 0.5, 0.25, num_draws=0)
    with pytest.raises(errors.InvalidValueError, match=r"0\.4"):
        bootstrap.count_above(table, 0.4, 0.25)


def test_interval_covers_the_true_number():
    """A third of the examples memorized to all degrees, the others easy; 50 zoos of 200 runs."""
    generator = np.random.default_rng(12)
    covered = 0
    for _ in range(50):
        degree = np.where(np.arange(300) < 100, generator.uniform(0, 1, 300), 0.02)
        mask = generator.random((200, 300)) < 0.5
        train = generator.random((200, 300)) < np.where(mask, 0.99, 0.99 - degree)
        found = bootstrap.count_above(make_table(mask, train), 0.5, 0.25, num_draws=100)
        covered += found.low <= (degree >= 0.25).sum() <= found.high
    assert covered >= 45


def test_interval_of_pure_noise_reaches_zero():
    """Nothing is memorized, but with 60 runs estimates reach the threshold."""
    generator = np.random.default_rng(12)
    mask, train = generator.random((2, 60, 500)) < 0.5
    found = bootstrap.count_above(make_table(mask, train), 0.5, 0.25, num_draws=100)
    assert found.low <= 0 < found.count <= found.high
