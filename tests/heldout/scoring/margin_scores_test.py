"""Scores on margins against plain loops in float64, their intervals against known means."""

import math
import statistics

import numpy as np
import pytest

from heldout.scoring import margin_scores
from zoo import errors, run_table


def case(seed, num_runs=40, num_train=19, num_test=11, ratios=(0.4, 0.6)):
    """A table of runs at two ratios with margins; (table, mask, train margins, test margins) in its order of runs."""
    generator = np.random.default_rng(seed)
    ratio = np.repeat(ratios, num_runs)
    mask = generator.random((len(ratio), num_train)) < ratio[:, np.newaxis]
    right = np.zeros((len(ratio), num_train), bool)
    run_ids = np.tile(np.arange(num_runs), len(ratios))
    table = run_table.from_arrays("demo", run_ids, ratio, mask, right, np.zeros((len(ratio), num_test), bool))
    train = generator.normal(3, 8, mask.shape) + 4 * mask
    test = generator.normal(2, 8, (len(ratio), num_test)) + 3 * mask[:, :num_test]
    return table, mask, train.astype(np.float16), test.astype(np.float16)


def plain_difference(mask_column, margins, clip):
    """(difference of means, standard error, number in, number held out, number clipped) by loops in float64."""
    sides = [[], []]
    for inside, margin in zip(mask_column, margins, strict=True):
        sides[0 if inside else 1].append(min(max(float(margin), -clip), clip))
    means = [statistics.fmean(side) if side else math.nan for side in sides]
    errors_ = [statistics.variance(side) / len(side) if len(side) > 1 else math.nan for side in sides]
    clipped = sum(abs(float(margin)) > clip for margin in margins)
    return means[0] - means[1], math.sqrt(sum(errors_)), len(sides[0]), len(sides[1]), clipped


@pytest.mark.parametrize("clip", [5.0, 20.0, math.inf])
def test_memorization_equals_plain_loops(clip):
    table, mask, train, _ = case(0)
    found = margin_scores.memorization_margin(table, train, 0.6, clip=clip)
    runs = table.subset_ratio == 0.6
    wanted = [plain_difference(mask[runs, i], train[runs, i], clip) for i in range(table.num_train)]
    fields = ("values", "standard_error", "num_in", "num_heldout", "num_clipped")
    for name, column in zip(fields, zip(*wanted, strict=True), strict=True):
        np.testing.assert_allclose(getattr(found, name), column, rtol=1e-12, err_msg=name)
    assert (found.num_clipped.sum() > 0) == (clip < math.inf)
    assert found.num_runs_without == 0
    assert found.values.dtype == np.float64
    assert found.num_in.dtype == found.num_clipped.dtype == np.int64


def test_one_wild_run_does_not_decide():
    table, _, train, _ = case(1)
    wild = train.copy()
    wild[-1] = 65504
    calm = margin_scores.memorization_margin(table, train, 0.6)
    found = margin_scores.memorization_margin(table, wild, 0.6)
    assert np.abs(found.values - calm.values).max() < 4
    assert np.abs(margin_scores.memorization_margin(table, wild, 0.6, clip=1e6).values).min() > 500


def test_blocks_do_not_change_the_result(monkeypatch):
    table, _, train, _ = case(2)
    whole = margin_scores.memorization_margin(table, train, 0.4), margin_scores.consistency_margin(table, train)
    monkeypatch.setattr(margin_scores, "_BLOCK_BYTES", 1)
    parts = margin_scores.memorization_margin(table, train, 0.4), margin_scores.consistency_margin(table, train)
    for first, second in zip(whole, parts, strict=True):
        for name, value in vars(first).items():
            np.testing.assert_allclose(value, getattr(second, name), rtol=1e-13, err_msg=name)


def test_sides_without_runs_are_nan_with_counts():
    table, mask, train, _ = case(3)
    mask[:, 0], mask[:, 1], mask[:, 2] = True, False, np.arange(len(mask)) % 40 == 5
    table = run_table.from_arrays("demo", table.run_id, table.subset_ratio, mask, mask, mask[:, :11])
    found = margin_scores.memorization_margin(table, train, 0.4)
    assert np.isnan(found.values[:2]).all()
    assert np.isfinite(found.values[2:]).all()
    assert np.isnan(found.standard_error[:3]).all()
    assert np.isfinite(found.standard_error[3:]).all()
    assert list(zip(found.num_in[:3], found.num_heldout[:3], strict=True)) == [(40, 0), (0, 40), (1, 39)]


def test_runs_without_margins_are_left_out_and_counted():
    table, _, train, _ = case(4)
    without = np.array([3, 50, 51])
    rest = np.delete(np.arange(80), without)
    kept = table.take(rest)
    train[without] = np.nan
    found = margin_scores.memorization_margin(table, train, 0.6)
    wanted = margin_scores.memorization_margin(kept, train[rest], 0.6)
    np.testing.assert_array_equal(found.values, wanted.values)
    assert (found.num_runs_without, wanted.num_runs_without) == (2, 0)
    assert margin_scores.consistency_margin(table, train).num_runs_without.tolist() == [1, 2]


def test_consistency_equals_plain_loops():
    table, mask, train, _ = case(5)
    mask[:40, 0] = True
    mask[:, 1] = True
    mask[:40, 2] = np.arange(40) > 0
    table = run_table.from_arrays("demo", table.run_id, table.subset_ratio, mask, mask, mask[:, :11])
    found = margin_scores.consistency_margin(table, train)
    for i in range(table.num_train):
        sides = []
        for k, ratio in enumerate((0.4, 0.6)):
            chosen = (table.subset_ratio == ratio) & ~mask[:, i]
            side = np.clip(train[chosen, i].astype(float), -20, 20).tolist()
            assert found.num_heldout[k, i] == len(side)
            assert found.num_clipped[k, i] == np.count_nonzero(np.abs(train[chosen, i]) > 20)
            if side:
                assert found.profile[k, i] == pytest.approx(statistics.fmean(side))
                sides.append((statistics.fmean(side), statistics.variance(side) / len(side) if len(side) > 1 else None))
            else:
                assert np.isnan(found.profile[k, i])
        assert found.num_ratios[i] == len(sides)
        if sides and all(variance is not None for _, variance in sides):
            assert found.score[i] == pytest.approx(statistics.fmean(mean for mean, _ in sides))
            error = math.sqrt(sum(variance for _, variance in sides)) / len(sides)
            assert found.score_standard_error[i] == pytest.approx(error)
    assert found.num_ratios[:3].tolist() == [1, 0, 2]
    assert np.isnan(found.score[1])
    assert np.isnan(found.score_standard_error[[1, 2]]).all()
    np.testing.assert_array_equal(margin_scores.consistency_margin(table, train, [0.6]).profile, found.profile[1:])


def test_intervals_cover_the_true_means():
    generator = np.random.default_rng(6)
    num_train = 4000
    mask = generator.random((200, num_train)) < 0.5
    low, high = generator.uniform(-3, 3, (2, num_train))
    margins = generator.gamma(4, 1.0, mask.shape) - 4 + np.where(mask, high, low)
    table = run_table.from_arrays("demo", np.arange(200), np.full(200, 0.5), mask, mask, mask[:, :1])
    found = margin_scores.memorization_margin(table, margins, 0.5)
    covered = np.abs(found.values - (high - low)) <= 1.96 * found.standard_error
    # Standard error of a share of 0.95 among 4000: 0.0034.
    assert 0.936 <= covered.mean() <= 0.96


def test_what_does_not_fit_is_refused():
    table, _, train, _ = case(10)
    with pytest.raises(errors.MismatchError, match=r"train_margin has dtype float16 and shape \(79, 19\), expected"):
        margin_scores.memorization_margin(table, train[1:], 0.4)
    for clip in (0, -1, math.nan):
        with pytest.raises(errors.InvalidValueError, match="expected a positive margin such as 20"):
            margin_scores.memorization_margin(table, train, 0.4, clip=clip)
    with pytest.raises(errors.InvalidValueError, match=r"runs at 0\.4, 0\.6"):
        margin_scores.memorization_margin(table, train, 0.5)
    for ratios in ([], [0.4, 0.4]):
        with pytest.raises(errors.InvalidValueError, match="subset_ratios"):
            margin_scores.consistency_margin(table, train, ratios)
    train[45, 3] = np.nan
    with pytest.raises(errors.InvalidValueError, match=r"run 0\.6/5 has margins on 18 of 19 examples.*zoo_verify"):
        margin_scores.memorization_margin(table, train, 0.6)
    train[:40] = np.nan
    with pytest.raises(errors.InvalidValueError, match=r"none of the 40 runs of demo at ratio 0\.4.*--margins"):
        margin_scores.memorization_margin(table, train, 0.4)
