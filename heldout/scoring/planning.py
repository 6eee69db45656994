"""How many runs a wanted standard error takes, from the runs that are there or from assumed rates.

With T runs at subset ratio r, a share r of them trains on an example. With p1 and p0 the rates of being right when
trained on and when held out, the squared standard errors are

    memorization, subset influence    (p1 (1 - p1) / r + p0 (1 - p0) / (1 - r)) / T
    consistency at one ratio          p0 (1 - p0) / (1 - r) / T
    consistency score of K ratios     sum_k p0k (1 - p0k) / (1 - r_k) / K^2 / T, T runs at each ratio

and the numerators, the variances of one run, tell the T for any standard error. In a zoo p (1 - p) is the posterior
mean of shrinkage.py, so that it is not 0 where the few runs at hand agree. The formulas take r T and (1 - r) T for the
numbers of runs on the two sides; those of an example vary around them, which adds some 2 % to the variance with a
hundred runs, and less with more.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import special

from heldout.scoring import discoveries, scores, shrinkage
from zoo import errors, run_table

QUANTILES = {"median": 0.5, "90 %": 0.9, "worst": 1.0}
# Pairs whose rates stand for those of all: this many training by this many test examples, drawn at random.
_PAIRS_TRAIN, _PAIRS_TEST = 100, 100
_RATIO_WITHOUT_RUNS = 0.7


@dataclasses.dataclass(frozen=True)
class PlanConfig:
    """What is to be reached, and what is assumed where no run tells.

    Attributes:
        standard_error: the wanted one, above 0.
        subset_ratios: which ratios to plan; None for all that have runs, or 0.7 without any.
        influence: subset influence of a pair that is to be found among all pairs.
        rate: false discovery rate of that list, which is cut as the tables are, after Benjamini & Yekutieli.
        power: wanted probability that the pair is in it.
        rate_in: p1 of a typical example, where there are no runs.
        rate_heldout: p0 of a typical example, and the rate of a typical test example, where there are no runs.
        num_train: N, where there are no runs.
        num_test: M, where there are no runs.
    """

    standard_error: float = 0.02
    subset_ratios: tuple[float, ...] | None = None
    influence: float = 0.15
    rate: float = 0.05
    power: float = 0.8
    rate_in: float = 0.95
    rate_heldout: float = 0.8
    num_train: int = 50_000
    num_test: int = 10_000


@dataclasses.dataclass(frozen=True)
class PlanRow:
    """What one statistic needs.

    Attributes:
        statistic: "memorization", "subset_influence", "consistency" (at one ratio) or "consistency_score".
        subset_ratio: of the runs; None for the consistency score, which takes runs of all ratios.
        case: for which examples: "median" has half of them at most so uncertain, "90 %" nine tenths, "worst" all; or
            which rates were assumed.
        num_runs: runs that there are; at each ratio for the consistency score, of the ratio that has fewest.
        standard_error: with these, NaN without any.
        runs_needed: in all, at each ratio for the consistency score.
        more_runs: how many are missing, at all ratios together.
    """

    statistic: str
    subset_ratio: float | None
    case: str
    num_runs: int
    standard_error: float
    runs_needed: int
    more_runs: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object; NaN becomes null."""
        members = dataclasses.asdict(self)
        return members | {"standard_error": None if math.isnan(self.standard_error) else self.standard_error}


@dataclasses.dataclass(frozen=True)
class RatioPlan:
    """What the runs of one ratio say.

    Attributes:
        rows: of memorization, subset influence and consistency.
        best_ratio: subset ratio at which the mean variance of memorization would be least, if the rates stayed.
        variance_factor: mean variance of memorization at that ratio over that at the present one, at most 1.
        spread_heldout: float64 [N], expected p0 (1 - p0); NaN where no run trained on the example or held it out.
        num_pairs: pairs that the rows of subset influence stand on.
    """

    rows: tuple[PlanRow, ...]
    best_ratio: float
    variance_factor: float
    spread_heldout: np.ndarray
    num_pairs: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a zoo needs.

    Attributes:
        rows: by ratio and statistic; the consistency score last.
        best_ratios: by ratio with runs, the one at which memorization would have the least mean variance, and the
            factor that this would change it by.
        runs_to_separate: by ratio, runs at which a pair of the wanted influence is found among all pairs.
        num_tests: N M, the number of pairs.
    """

    rows: tuple[PlanRow, ...]
    best_ratios: dict[float, tuple[float, float]]
    runs_to_separate: dict[float, int]
    num_tests: int


def plan(config: PlanConfig, table: run_table.RunTable | None) -> Plan:
    """What memorization, subset influence and consistency need, by ratio.

    Args:
        config: what is to be reached.
        table: a zoo's runs; None where there are none, and rates are assumed.

    Raises:
        InvalidValueError: the config is out of range, a ratio has no run or is named twice, or no example has runs on
            both sides.
    """
    ratios = config.subset_ratios or ((_RATIO_WITHOUT_RUNS,) if table is None else table.subset_ratios)
    if len(set(ratios)) != len(ratios):
        raise errors.InvalidValueError(f"subset_ratio: got {list(ratios)}, expected each once")
    num_train, num_test = (config.num_train, config.num_test) if table is None else (table.num_train, table.num_test)
    num_tests = num_train * num_test
    separate = {
        ratio: runs_to_separate(config.influence, ratio, num_tests, rate=config.rate, power=config.power)
        for ratio in ratios
    }
    if table is None:
        typical = {"rate_in": config.rate_in, "rate_heldout": config.rate_heldout}
        rows = [row for ratio in ratios for row in assumed_rows(ratio, config.standard_error, **typical)]
        return Plan(tuple(rows), {}, separate, num_tests)
    plans = {ratio: plan_ratio(table, ratio, config.standard_error) for ratio in ratios}
    rows = [row for one in plans.values() for row in one.rows]
    if len(plans) > 1:
        rows += plan_score(table, plans, config.standard_error)
    best = {ratio: (one.best_ratio, one.variance_factor) for ratio, one in plans.items()}
    return Plan(tuple(rows), best, separate, num_tests)


def run_variance(spread_in: float | np.ndarray, spread_heldout: float | np.ndarray, subset_ratio: float) -> np.ndarray:
    """Variance of memorization or subset influence times the number of runs.

    Args:
        spread_in: p1 (1 - p1), float64 of any shape, in [0, 1/4].
        spread_heldout: p0 (1 - p0), likewise.
        subset_ratio: r, in (0, 1).

    Raises:
        InvalidValueError: the ratio is out of range.
    """
    _check_share("subset_ratio", subset_ratio)
    return np.asarray(np.divide(spread_in, subset_ratio) + np.divide(spread_heldout, 1 - subset_ratio))


def runs_needed(variance: float, standard_error: float) -> int:
    """The least number of runs T with sqrt(variance / T) <= standard_error.

    Args:
        variance: of one run, 0 or more.
        standard_error: above 0.

    Raises:
        InvalidValueError: the standard error is not above 0.
    """
    if not standard_error > 0:
        raise errors.InvalidValueError(f"standard_error is {standard_error}, expected a number above 0, such as 0.02")
    # Rounding must not turn 1250 runs into 1251.
    return max(1, math.ceil(variance / standard_error**2 * (1 - 1e-12)))


def best_ratio(spread_in: np.ndarray, spread_heldout: np.ndarray) -> float:
    """The subset ratio r that minimises the mean of `run_variance` over examples, in (0, 1).

    With the means s1 and s0 of the two spreads, r = sqrt(s1) / (sqrt(s1) + sqrt(s0)): the side that varies more gets
    more runs. Rates and memorization itself change with the ratio, which this leaves out of account.

    Args:
        spread_in: p1 (1 - p1), float64 of any shape.
        spread_heldout: p0 (1 - p0), likewise.

    Raises:
        InvalidValueError: both are 0 everywhere, so that every ratio is as good.
    """
    deviation_in, deviation_heldout = (float(np.sqrt(np.mean(spread))) for spread in (spread_in, spread_heldout))
    if not deviation_in + deviation_heldout > 0:
        raise errors.InvalidValueError(
            "spread_in, spread_heldout: got 0 everywhere, expected rates other than 0 and 1; assume such rates"
        )
    return deviation_in / (deviation_in + deviation_heldout)


def runs_to_separate(
    difference: float,
    subset_ratio: float,
    num_tests: int,
    *,
    mean_rate: float = 0.5,
    rate: float = 0.05,
    num_discoveries: int = 1,
    power: float = 0.8,
    method: str = discoveries.OF_PAIRS,
) -> int:
    """Runs at which a pair (or an example) of some influence (or memorization) is found among many.

    T = ((z_a sqrt(V0) + z_b sqrt(V1)) / difference)^2, the normal approximation of a one-sided comparison of two rates:
    V0 and V1 are the variances of one run without and with the difference, z_a and z_b the normal quantiles of the
    p-value that is needed, a = rate * num_discoveries / (num_tests c), and of the power. c is that of the method, as in
    `discoveries.false_discovery`.

    Args:
        difference: p1 - p0, above 0.
        subset_ratio: r, in (0, 1).
        num_tests: size of the family, N M for all pairs.
        mean_rate: r p1 + (1 - r) p0, the share of all runs that are right. 1/2 is about the worst.
        rate: false discovery rate of the list.
        num_discoveries: entries in the list, which make its next entry easier; 1 takes the whole burden.
        power: wanted probability that it is in the list.
        method: how the list is cut, one of `discoveries.METHODS`. The default is that of pairs; lists of examples take
            "benjamini_hochberg".

    Raises:
        InvalidValueError: a share is not between 0 and 1; there is no such difference at this mean rate; the numbers of
            tests and discoveries contradict each other; or the method is none there is.
    """
    for name, value in (("subset_ratio", subset_ratio), ("mean_rate", mean_rate), ("rate", rate), ("power", power)):
        _check_share(name, value)
    if not 1 <= num_discoveries <= num_tests:
        raise errors.InvalidValueError(
            f"num_discoveries: got {num_discoveries}, expected a number from 1 to that of all tests, {num_tests}"
        )
    p1, p0 = mean_rate + (1 - subset_ratio) * difference, mean_rate - subset_ratio * difference
    if not (difference > 0 and p1 <= 1 and p0 >= 0):
        raise errors.InvalidValueError(
            f"difference: got {difference} at a mean rate of {mean_rate}, hence rates of {p1:.3g} and {p0:.3g}; "
            "expected a difference above 0 with rates from 0 to 1"
        )
    spread = mean_rate * (1 - mean_rate)
    without = run_variance(spread, spread, subset_ratio)
    with_it = run_variance(p1 * (1 - p1), p0 * (1 - p0), subset_ratio)
    level = rate * num_discoveries / (num_tests * discoveries.weight(num_tests, method))
    z_test, z_power = -special.ndtri(level), special.ndtri(power)
    root = (z_test * math.sqrt(without) + z_power * math.sqrt(with_it)) / difference
    return max(1, math.ceil(max(root, 0) ** 2))


def pair_counts(runs: run_table.RunTable, train_index: np.ndarray, test_index: np.ndarray) -> scores.SideCounts:
    """Counts behind the subset influence of some training on some test examples.

    Args:
        runs: table whose runs all have one ratio.
        train_index: [n] int64.
        test_index: [m] int64.

    Returns:
        SideCounts of n m pairs, the test examples of the first training example first. "Right" is on the test example.
    """
    mask, right = (
        np.concatenate([take(int(i), int(i) + 1) for i in index], axis=1).astype(np.float64)
        for take, index in ((runs.subset_mask, train_index), (runs.test_correctness, test_index))
    )
    right_in = mask.T @ right
    num_in = np.repeat(np.sum(mask, axis=0), len(test_index))
    right_all = np.tile(np.sum(right, axis=0), len(train_index))
    whole = (num_in, runs.num_runs - num_in, right_in.reshape(-1), right_all - right_in.reshape(-1))
    return scores.SideCounts(*(np.rint(array).astype(np.int64) for array in whole))


def plan_ratio(table: run_table.RunTable, subset_ratio: float, standard_error: float, *, seed: int = 0) -> RatioPlan:
    """What memorization, subset influence and consistency at one ratio need, from the runs at hand.

    Args:
        table: a zoo's runs.
        subset_ratio: which of them to use.
        standard_error: the wanted one, above 0.
        seed: of the draw of pairs that stand for all of them.

    Raises:
        InvalidValueError: the table has no run of this ratio; the standard error is not above 0; or no example has
            runs on both sides.
    """
    runs = table.select(subset_ratio)
    inside, outside = shrinkage.expected_spreads(scores.count_sides_of(runs))
    generator = np.random.default_rng(seed)
    train_index, test_index = (
        np.sort(generator.choice(number, min(number, most), replace=False))
        for number, most in ((runs.num_train, _PAIRS_TRAIN), (runs.num_test, _PAIRS_TEST))
    )
    pairs = shrinkage.expected_spreads(pair_counts(runs, train_index, test_index))
    variances = {
        "memorization": run_variance(inside, outside, subset_ratio),
        "subset_influence": run_variance(*pairs, subset_ratio),
        "consistency": outside / (1 - subset_ratio),
    }
    rows = [
        row
        for statistic, variance in variances.items()
        for row in _rows(statistic, subset_ratio, variance, runs.num_runs, standard_error)
    ]
    there = np.isfinite(inside)
    best = best_ratio(inside[there], outside[there])
    at_best = run_variance(inside, outside, best)
    factor = float(np.nanmean(at_best) / np.nanmean(variances["memorization"]))
    num_pairs = int(np.sum(np.isfinite(pairs[0])))
    return RatioPlan(tuple(rows), best, factor, outside, num_pairs)


def _rows(
    statistic: str, subset_ratio: float | None, variance: np.ndarray, num_runs: int, standard_error: float
) -> list[PlanRow]:
    found = np.nanquantile(variance, list(QUANTILES.values()))
    rows = []
    for case, one in zip(QUANTILES, found, strict=True):
        needed = runs_needed(float(one), standard_error)
        error = math.sqrt(one / num_runs)
        rows.append(PlanRow(statistic, subset_ratio, case, num_runs, error, needed, max(0, needed - num_runs)))
    return rows


def plan_score(table: run_table.RunTable, plans: dict[float, RatioPlan], standard_error: float) -> list[PlanRow]:
    """What the consistency score, the mean over several ratios, needs.

    Args:
        table: a zoo's runs.
        plans: by ratio, of the K ratios that the score is to average.
        standard_error: the wanted one, above 0.

    Returns:
        Rows over the examples that have runs on both sides at all these ratios.

    Raises:
        InvalidValueError: the standard error is not above 0, or no example has runs on both sides at all ratios.
    """
    parts = np.stack([plan.spread_heldout / (1 - ratio) for ratio, plan in plans.items()])
    num_runs = [int(np.sum(table.subset_ratio == ratio)) for ratio in plans]
    parts = parts[:, np.all(np.isfinite(parts), axis=0)] / len(plans) ** 2
    if not parts.shape[1]:
        raise errors.InvalidValueError(
            f"subset_ratio: no example has runs on both sides at all of {list(plans)}; train more runs or name fewer"
        )
    now = np.sqrt(np.quantile(np.sum(parts / np.array(num_runs)[:, None], axis=0), list(QUANTILES.values())))
    rows = []
    for row, error in zip(_rows("consistency_score", None, np.sum(parts, axis=0), 1, standard_error), now, strict=True):
        more = sum(max(0, row.runs_needed - number) for number in num_runs)
        rows.append(dataclasses.replace(row, num_runs=min(num_runs), standard_error=float(error), more_runs=more))
    return rows


def assumed_rows(
    subset_ratio: float, standard_error: float, *, rate_in: float = 0.95, rate_heldout: float = 0.8
) -> list[PlanRow]:
    """What memorization, subset influence and consistency need at assumed rates, where there is no zoo yet.

    Args:
        subset_ratio: r, in (0, 1).
        standard_error: the wanted one, above 0.
        rate_in: p1 of a typical example, in [0, 1].
        rate_heldout: p0 of a typical example, and the rate of a typical test example, in [0, 1].

    Returns:
        Two rows for each statistic: rates of 1/2, than which none is worse, and the typical ones.

    Raises:
        InvalidValueError: an argument is out of range.
    """
    for name, value in (("rate_in", rate_in), ("rate_heldout", rate_heldout)):
        if not 0 <= value <= 1:
            raise errors.InvalidValueError(f"{name}: got {value}, expected a share from 0 to 1")
    rows = []
    for statistic in ("memorization", "subset_influence", "consistency"):
        for case, p1, p0 in (("rates 0.5", 0.5, 0.5), ("typical", rate_in, rate_heldout)):
            p1 = {"memorization": p1, "subset_influence": p0, "consistency": 1.0}[statistic]
            variance = run_variance(p1 * (1 - p1), p0 * (1 - p0), subset_ratio)
            needed = runs_needed(float(variance), standard_error)
            rows.append(PlanRow(statistic, subset_ratio, case, 0, math.nan, needed, needed))
    return rows


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise errors.InvalidValueError(f"{name}: got {value}, expected a share between 0 and 1")
