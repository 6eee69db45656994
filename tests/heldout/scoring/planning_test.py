"""Planned numbers of runs against the spread of simulated scores, enumeration, and searches over all ratios."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from heldout.scoring import discoveries, planning, scores, shrinkage
from tests.reference import scores as reference
from zoo import errors, run_table


def a_table(num_runs=80, ratios=(0.5, 0.7), num_train=300, num_test=40, seed=0):
    """Runs that are nearly always right on what they trained on, and else with a probability of each example."""
    generator = np.random.default_rng(seed)
    p0 = np.random.default_rng(100).uniform(0.1, 0.95, num_train)
    p_test = np.random.default_rng(101).uniform(0.1, 0.95, num_test)
    ratio = np.repeat(ratios, num_runs)
    mask = np.argsort(generator.random((len(ratio), num_train)), axis=1) < np.rint(num_train * ratio)[:, None]
    right = generator.random(mask.shape) < np.where(mask, 0.97, p0)
    on_test = generator.random((len(ratio), num_test)) < p_test
    run_id = np.tile(np.arange(num_runs), len(ratios))
    return run_table.from_arrays("e", run_id, ratio, mask, right, on_test), p0, p_test


def row_of(rows, statistic, case, ratio):
    (found,) = (row for row in rows if (row.statistic, row.case, row.subset_ratio) == (statistic, case, ratio))
    return found


def test_the_variance_of_a_run_is_that_of_simulated_memorization():
    generator = np.random.default_rng(0)
    num_runs, draws, ratio, p1, p0 = 2000, 20_000, 0.7, 0.9, 0.4
    num_in = generator.binomial(num_runs, ratio, draws)
    values = generator.binomial(num_in, p1) / num_in - generator.binomial(num_runs - num_in, p0) / (num_runs - num_in)
    planned = float(planning.run_variance(p1 * (1 - p1), p0 * (1 - p0), ratio)) / num_runs
    # A variance of 20,000 draws has a relative standard error of 1 %; random sides add 0.1 %.
    assert np.var(values) == pytest.approx(planned, rel=0.035)


def test_needed_runs_are_the_fewest_that_suffice():
    for variance, error in ((0.25, 0.02), (0.8, 0.05), (1.19, 0.003), (0.0, 0.1), (0.5, 0.02)):
        found = planning.runs_needed(variance, error)
        assert math.sqrt(variance / found) <= error * (1 + 1e-9)
        assert found == 1 or math.sqrt(variance / (found - 1)) > error
    # In whole numbers; the quotients of binary fractions are 1250 and just above 50000.
    assert planning.runs_needed(0.5, 0.02) == 1250
    assert planning.runs_needed(0.05, 0.001) == 50_000


def test_the_best_ratio_is_that_of_a_search():
    generator = np.random.default_rng(1)
    spreads = generator.uniform(0, 0.05, 50), generator.uniform(0, 0.25, 50)
    ratios = np.linspace(0.01, 0.99, 981)
    means = [np.mean(planning.run_variance(*spreads, ratio)) for ratio in ratios]
    assert planning.best_ratio(*spreads) == pytest.approx(ratios[np.argmin(means)], abs=0.001)
    assert planning.best_ratio(np.full(3, 0.2), np.full(3, 0.2)) == pytest.approx(0.5)


@pytest.mark.parametrize("method", discoveries.METHODS)
@pytest.mark.parametrize(("num_tests", "num_discoveries", "ratio"), [(10**6, 1, 0.7), (5 * 10**8, 1000, 0.5)])
def test_the_wanted_power_is_that_of_simulated_pairs(num_tests, num_discoveries, ratio, method):
    options = {"num_discoveries": num_discoveries, "power": 0.8, "method": method}
    num_runs = planning.runs_to_separate(0.15, ratio, num_tests, **options)
    generator = np.random.default_rng(2)
    num_in = generator.binomial(num_runs, ratio, 10_000)
    right_in = generator.binomial(num_in, 0.5 + (1 - ratio) * 0.15)
    right_heldout = generator.binomial(num_runs - num_in, 0.5 - ratio * 0.15)
    p_values = discoveries.no_effect_p_values(right_in, num_in, right_heldout, num_runs - num_in)
    factor = np.log(num_tests) + np.euler_gamma if method == "benjamini_yekutieli" else 1
    found = np.mean(p_values <= 0.05 * num_discoveries / num_tests / factor)
    # Standard error 0.004; the exact test is a little more careful than the normal approximation.
    assert 0.75 <= found <= 0.83


def test_the_formula_by_hand():
    # Rates of 0.9 and 0.1 about a mean of 1/2: variances of 1 without and 0.09 / 0.5 + 0.09 / 0.5 with the difference.
    root = (stats.norm.isf(0.05 * 3 / 1000) * 1 + stats.norm.ppf(0.99) * math.sqrt(0.36)) / 0.8
    found = planning.runs_to_separate(0.8, 0.5, 1000, num_discoveries=3, power=0.99, method="benjamini_hochberg")
    assert found == math.ceil(root**2) == 40
    # Uneven sides: p1 = 0.5 + 0.2 * 0.5, p0 = 0.5 - 0.8 * 0.5.
    without, with_it = 0.25 / 0.16, 0.6 * 0.4 / 0.8 + 0.1 * 0.9 / 0.2
    root = (stats.norm.isf(0.01 / (1 + 1 / 2 + 1 / 3)) * math.sqrt(without)) / 0.5 + stats.norm.ppf(0.95) * math.sqrt(
        with_it
    ) / 0.5
    assert planning.runs_to_separate(0.5, 0.8, 3, rate=0.03, power=0.95) == math.ceil(root**2)


def test_a_planned_pair_is_in_the_list_of_the_tables():
    """As many runs as planned, and a pair with just the wanted difference in them: the adjusted p-value is at the rate.

    With a power of a half the planned pair is the one that lies at its own expectation.
    """
    shape, ratio = (4000, 250), 0.5
    num_runs = planning.runs_to_separate(0.2, ratio, shape[0] * shape[1], power=0.5)
    n1 = num_runs // 2
    p_values = np.ones(shape[0] * shape[1])
    p_values[17] = discoveries.no_effect_p_values(round(0.6 * n1), n1, round(0.4 * n1), n1)
    adjusted = discoveries.adjusted_p_values(p_values, discoveries.OF_PAIRS)[17]
    assert 0.01 < adjusted < 0.15
    assert discoveries.adjusted_p_values(p_values, "benjamini_hochberg")[17] < 0.01
    of_examples = planning.runs_to_separate(0.2, ratio, p_values.size, power=0.5, method="benjamini_hochberg")
    assert of_examples < num_runs


def test_harder_tasks_need_more_runs():
    easy = planning.runs_to_separate(0.15, 0.7, 10**6)
    assert planning.runs_to_separate(0.15, 0.7, 10**9) > easy
    assert planning.runs_to_separate(0.1, 0.7, 10**6) > easy
    assert planning.runs_to_separate(0.15, 0.7, 10**6, power=0.95) > easy
    assert planning.runs_to_separate(0.15, 0.9, 10**6, mean_rate=0.6) > easy
    assert planning.runs_to_separate(0.15, 0.7, 10**6, num_discoveries=1000) < easy
    assert planning.runs_to_separate(0.15, 0.7, 10**6, mean_rate=0.9) < easy


def test_counts_of_pairs_are_those_of_plain_loops():
    table, _, _ = a_table(num_runs=9, ratios=(0.7,), num_train=20, num_test=12)
    train_index, test_index = np.array([3, 8, 19]), np.array([0, 11])
    found = planning.pair_counts(table, train_index, test_index)
    values = (found.accuracy_in - found.accuracy_heldout).reshape(3, 2)
    truth = reference.subset_influence(table.subset_mask(), table.test_correctness())[0]
    np.testing.assert_allclose(values, truth[np.ix_(train_index, test_index)], rtol=1e-12)
    np.testing.assert_array_equal(found.num_in + found.num_heldout, 9)


def test_the_present_standard_errors_are_those_of_repeated_zoos():
    table, p0, p_test = a_table()
    found = planning.plan(planning.PlanConfig(standard_error=0.05), table)
    for ratio in (0.5, 0.7):
        spread = {
            "memorization": planning.run_variance(np.full(300, 0.97 * 0.03), p0 * (1 - p0), ratio),
            "subset_influence": planning.run_variance(p_test * (1 - p_test), p_test * (1 - p_test), ratio),
            "consistency": p0 * (1 - p0) / (1 - ratio),
        }
        for statistic, variance in spread.items():
            row = row_of(found.rows, statistic, "median", ratio)
            # Spreads are known from 80 runs only, and drawn towards one another.
            assert row.standard_error == pytest.approx(math.sqrt(np.median(variance) / 80), rel=0.12)
            assert row.num_runs == 80
            assert row.runs_needed == math.ceil(80 * (row.standard_error / 0.05) ** 2 - 1e-6)
            assert row.more_runs == max(0, row.runs_needed - 80)


def test_the_consistency_score_takes_runs_of_all_ratios():
    table, p0, _ = a_table()
    table = table.take(np.arange(140))  # 80 runs at 0.5, 60 at 0.7
    found = planning.plan(planning.PlanConfig(standard_error=0.02), table)
    row = row_of(found.rows, "consistency_score", "median", None)
    now = np.sqrt(p0 * (1 - p0) * (1 / 0.5 / 80 + 1 / 0.3 / 60)) / 2
    assert row.standard_error == pytest.approx(np.median(now), rel=0.1)
    needed = np.median(p0 * (1 - p0)) * (1 / 0.5 + 1 / 0.3) / 4 / 0.02**2
    assert row.runs_needed == pytest.approx(needed, rel=0.2)
    assert row.num_runs == 60
    assert row.more_runs == 2 * row.runs_needed - 140
    # Where one ratio has more runs than it needs, they do not make up for those of the other.
    between = 0.02 * math.sqrt(row.runs_needed / 70)
    row = row_of(planning.plan(planning.PlanConfig(between), table).rows, "consistency_score", "median", None)
    assert 60 < row.runs_needed < 80
    assert row.more_runs == row.runs_needed - 60
    assert not [
        row for row in planning.plan(planning.PlanConfig(subset_ratios=(0.5,)), table).rows if row.subset_ratio is None
    ]


def test_cases_are_what_they_are_called():
    table, _, _ = a_table(ratios=(0.7,))
    rows = planning.plan_ratio(table, 0.7, 0.05).rows
    spreads = shrinkage.expected_spreads(scores.count_sides(table, 0.7))
    ordered = np.sort(np.sqrt(planning.run_variance(*spreads, 0.7) / 80))
    assert row_of(rows, "memorization", "worst", 0.7).standard_error == pytest.approx(ordered[-1])
    at_nine_tenths = row_of(rows, "memorization", "90 %", 0.7).standard_error
    assert np.mean(ordered <= at_nine_tenths) == pytest.approx(0.9, abs=0.005)


def test_examples_on_which_all_runs_agree_are_not_certain():
    mask = np.random.default_rng(0).random((10, 30)) < 0.5
    ones = np.ones((10, 30), bool)
    table = run_table.from_arrays("e", np.arange(10), np.full(10, 0.5), mask, ones, ones)
    for row in planning.plan(planning.PlanConfig(), table).rows:
        assert 0.001 < row.standard_error < 0.2
        assert row.runs_needed >= 1


def test_rarely_varying_sides_get_fewer_runs():
    table, p0, _ = a_table(ratios=(0.7,))
    best, factor = planning.plan(planning.PlanConfig(), table).best_ratios[0.7]
    inside, outside = math.sqrt(0.97 * 0.03), math.sqrt(np.mean(p0 * (1 - p0)))
    assert best == pytest.approx(inside / (inside + outside), abs=0.05)
    assert 0.3 < factor < 1


def test_plans_without_runs_follow_from_the_assumed_rates():
    config = planning.PlanConfig(0.01, (0.6,), num_train=100, num_test=10, rate_in=1.0, rate_heldout=0.9)
    found = planning.plan(config, None)
    expected = {
        ("memorization", "rates 0.5"): 0.25 / 0.6 + 0.25 / 0.4,
        ("memorization", "typical"): 0.09 / 0.4,
        ("subset_influence", "rates 0.5"): 0.25 / 0.6 + 0.25 / 0.4,
        ("subset_influence", "typical"): 0.09 / 0.6 + 0.09 / 0.4,
        ("consistency", "rates 0.5"): 0.25 / 0.4,
        ("consistency", "typical"): 0.09 / 0.4,
    }
    assert {(row.statistic, row.case): row.runs_needed for row in found.rows} == {
        name: math.ceil(variance / 0.01**2 - 1e-6) for name, variance in expected.items()
    }
    assert all(math.isnan(row.standard_error) and row.more_runs == row.runs_needed for row in found.rows)
    assert found.rows[0].to_json()["standard_error"] is None
    assert found.num_tests == 1000
    assert found.runs_to_separate == {0.6: planning.runs_to_separate(0.15, 0.6, 1000)}
    assert planning.plan(planning.PlanConfig(), None).rows[0].subset_ratio == 0.7


def test_the_same_plan_comes_again():
    table, _, _ = a_table(num_runs=20)
    assert planning.plan(planning.PlanConfig(), table) == planning.plan(planning.PlanConfig(), table)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"standard_error": 0.0}, r"standard_error is 0\.0, expected a number above 0"),
        ({"standard_error": float("nan")}, "standard_error is nan"),
        ({"subset_ratios": (0.7, 0.7)}, r"subset_ratio: got \[0\.7, 0\.7\], expected each once"),
        ({"subset_ratios": (1.0,)}, r"subset_ratio: got 1\.0, expected a share"),
        ({"influence": 0.0}, r"difference: got 0\.0 at a mean rate of 0\.5"),
        ({"influence": 0.9}, r"difference: got 0\.9 .* rates of 0\.77 and -0\.13"),
        ({"rate": 0.0}, r"rate: got 0\.0, expected a share"),
        ({"power": 1.0}, r"power: got 1\.0, expected a share"),
        ({"rate_in": 1.1}, r"rate_in: got 1\.1, expected a share from 0 to 1"),
        ({"rate_heldout": -0.1}, r"rate_heldout: got -0\.1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        planning.plan(dataclasses.replace(planning.PlanConfig(), **changes), None)


def test_single_functions_refuse_what_cannot_be():
    with pytest.raises(
        errors.InvalidValueError, match="num_discoveries: got 11, expected a number from 1 to that of all"
    ):
        planning.runs_to_separate(0.1, 0.5, 10, num_discoveries=11)
    with pytest.raises(errors.InvalidValueError, match="method: got 'holm', expected one of benjamini_hochberg"):
        planning.runs_to_separate(0.1, 0.5, 10, method="holm")
    with pytest.raises(errors.InvalidValueError, match="got 0 everywhere, expected rates other than 0 and 1"):
        planning.best_ratio(np.zeros(3), np.zeros(3))
    with pytest.raises(errors.InvalidValueError, match=r"subset_ratio is 0\.6, but e has runs at"):
        planning.plan(planning.PlanConfig(subset_ratios=(0.6,)), a_table(num_runs=3)[0])


def test_a_score_over_ratios_needs_examples_that_all_of_them_know():
    table, _, _ = a_table(num_runs=3)
    plans = {ratio: planning.plan_ratio(table, ratio, 0.1) for ratio in (0.5, 0.7)}
    apart = {
        ratio: dataclasses.replace(one, spread_heldout=np.where(np.arange(300) % 2 == k, one.spread_heldout, np.nan))
        for k, (ratio, one) in enumerate(plans.items())
    }
    with pytest.raises(errors.InvalidValueError, match=r"no example has runs on both sides at all of \[0\.5, 0\.7\]"):
        planning.plan_score(table, apart, 0.1)
