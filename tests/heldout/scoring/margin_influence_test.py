"""Influence on margins against plain loops in float64, the bound on its rounding, and the memory it takes."""

import tracemalloc

import numpy as np
import pytest

from heldout.scoring import margin_influence
from tests.heldout.scoring import margin_scores_test
from zoo import errors, run_table

case, plain_difference = margin_scores_test.case, margin_scores_test.plain_difference


def influence(table, test, ratio, **options):
    blocks = list(margin_influence.influence_margin_blocks(table, test, ratio, **options))
    assert [block.start for block in blocks] == [0, *(block.stop for block in blocks[:-1])]
    assert blocks[-1].stop == table.num_train
    return np.concatenate([block.values for block in blocks]), np.concatenate(
        [block.standard_error for block in blocks]
    )


def test_influence_equals_plain_loops():
    table, mask, _, test = case(7)
    mask[:, 0], mask[:, 1], mask[:, 2] = True, False, np.arange(len(mask)) % 40 == 5
    test[:, 4] = 1.5
    table = run_table.from_arrays("demo", table.run_id, table.subset_ratio, mask, mask, mask[:, :11])
    values, error = influence(table, test, 0.6, clip=10)
    runs = table.subset_ratio == 0.6
    for i in range(table.num_train):
        for j in range(table.num_test):
            wanted = plain_difference(mask[runs, i], test[runs, j], 10)
            np.testing.assert_allclose(values[i, j], wanted[0], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(error[i, j], wanted[1], rtol=1e-5, atol=1e-6)
    assert np.isnan(values[:2]).all()
    assert np.isnan(error[:3]).all()
    assert values.dtype == error.dtype == np.float32


def test_influence_keeps_to_its_bound_on_rounding():
    """Margins far from 0 with little spread, where sums that are not centred would lose it."""
    generator = np.random.default_rng(8)
    num_runs, num_train, num_test = 3000, 16, 12
    mask = generator.random((num_runs, num_train)) < 0.7
    test = (19 + 0.05 * generator.normal(size=(num_runs, num_test))).astype(np.float16)
    table = run_table.from_arrays("demo", np.arange(num_runs), np.full(num_runs, 0.7), mask, mask, test > 0)
    values, error = influence(table, test, 0.7)
    exact = test.astype(np.float64)
    deviation = np.abs(exact - exact.mean(axis=0)).mean(axis=0)
    unit = 2.0**-24
    for i in range(num_train):
        inside, outside = exact[mask[:, i]], exact[~mask[:, i]]
        bound = (260 + num_runs / 256) * unit * num_runs * (1 / len(inside) + 1 / len(outside)) * deviation
        assert (np.abs(values[i] - (inside.mean(axis=0) - outside.mean(axis=0))) <= bound).all()
        variance = sum(side.var(axis=0, ddof=1) / len(side) for side in (inside, outside))
        np.testing.assert_allclose(error[i], np.sqrt(variance), rtol=300 * unit)


def test_influence_memory_stays_below_the_limit():
    generator = np.random.default_rng(9)
    mask = generator.random((300, 1200)) < 0.5
    test = generator.normal(size=(300, 500)).astype(np.float16)
    table = run_table.from_arrays("demo", np.arange(300), np.full(300, 0.5), mask, mask, test > 0)
    whole = influence(table, test, 0.5)
    for limit in (4 << 20, 6 << 20):
        tracemalloc.start()
        for _block in margin_influence.influence_margin_blocks(table, test, 0.5, memory_limit_bytes=limit):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= limit
        for found, wanted in zip(influence(table, test, 0.5, memory_limit_bytes=limit), whole, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    with pytest.raises(
        errors.InvalidValueError, match=r"got 0 MiB, but .* need at least \d+ MiB; raise --memory_limit_mb"
    ):
        next(margin_influence.influence_margin_blocks(table, test, 0.5, memory_limit_bytes=1_000_000))


def test_runs_without_margins_are_left_out_and_counted():
    table, _, _, test = case(4)
    without = np.array([3, 50, 51])
    rest = np.delete(np.arange(80), without)
    test[without] = np.nan
    found = margin_influence.prepare(table, test, 0.6)
    wanted = margin_influence.prepare(table.take(rest), test[rest], 0.6)
    assert (found.num_runs_without, found.runs.num_runs, wanted.num_runs_without) == (2, 38, 0)
    np.testing.assert_array_equal(found.centred, wanted.centred)
    np.testing.assert_array_equal(found.num_in, wanted.num_in)
    blocks = zip(
        margin_influence.influence_margin_blocks(table, test, 0.6),
        margin_influence.blocks(wanted, range(table.num_train), 8),
        strict=False,
    )
    for block, other in blocks:
        np.testing.assert_allclose(block.values[:8], other.values, rtol=1e-5, atol=1e-5)


def test_what_was_clipped_is_counted():
    table, _, _, test = case(5)
    found = margin_influence.prepare(table, test, 0.4, clip=5)
    np.testing.assert_array_equal(found.num_clipped, (np.abs(test[:40].astype(float)) > 5).sum(axis=0))
    assert found.num_clipped.dtype == np.int64


def test_errors_of_chosen_pairs_are_those_of_the_matrix():
    table, mask, _, test = case(6)
    mask[:, 0], mask[:, 1], mask[:, 2] = True, False, np.arange(len(mask)) % 40 == 5
    table = run_table.from_arrays("demo", table.run_id, table.subset_ratio, mask, mask, mask[:, :11])
    _, error = influence(table, test, 0.6)
    chosen = np.random.default_rng(6).integers(-1, table.num_train, (table.num_test, 7))
    chosen[:, :3] = 0, 1, 2
    found = margin_influence.errors_by_test(margin_influence.prepare(table, test, 0.6), chosen)
    wanted = np.where(chosen < 0, np.nan, error[chosen, np.arange(table.num_test)[:, np.newaxis]])
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert np.isnan(found[:, :3]).all()
    assert np.isfinite(found).any()


def test_what_does_not_fit_is_refused():
    table, _, _, test = case(10)
    with pytest.raises(errors.MismatchError, match=r"test_margin has dtype int64"):
        next(margin_influence.influence_margin_blocks(table, test.astype(int), 0.4))
