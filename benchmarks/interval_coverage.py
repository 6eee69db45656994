"""How often intervals hold the truth: of the number of memorized examples, and of rates and their differences.

    python -m benchmarks.interval_coverage

Counts of memorized examples (--part=count). A simulated zoo has 600 examples with known rates: held out, each is right
with its own rate; trained on, with another. The true number of memorized examples counts the differences of at least
0.25. Three populations, by how many examples lie within 0.1 of that threshold: none, few (5 %), many (all memorization
uniform in [0, 0.6]). For each and for 60, 300 and 2000 runs, many zoos are drawn, and the share of those whose interval
holds the true number is printed, for the percentile interval, the basic one (its mirror image at the count), and the
union that heldout/scoring/bootstrap.py returns. Writes benchmarks/results/interval_coverage.json.

Rates (--part=rates). For each method of heldout/scoring/intervals.py, each number of runs from 3 to 1400 on either
side, and true rates from 0 to 1, the probability that the 95 % interval holds the truth, and its mean width. Both are
sums over all outcomes of the two binomials, without simulation. Coverage moves up and down with the rates, so that a
few numbers of runs are gone through once more with further rates, and single rates in steps of 0.005. The mean over
three ratios is drawn 20,000 times for each setting instead. Printed for each method and numbers of runs: mean and least
coverage over the grid of rates, the rates of the least, and the mean width. "Inner" leaves out the settings in which
all rates are 0 or 1. Takes some minutes; writes benchmarks/results/interval_coverage_rates.json.
"""

import functools
import itertools
from typing import Any

from absl import app, flags
import numpy as np
from scipy import stats

from benchmarks import environment
from heldout.scoring import bootstrap, intervals
from zoo import run_table

_NUM_ZOOS = flags.DEFINE_integer("num_zoos", 60, "Simulated zoos for each setting.")
_NUM_DRAWS = flags.DEFINE_integer("num_draws", 100, "Bootstrap draws for each zoo.")
_PART = flags.DEFINE_enum("part", "all", ["all", "count", "rates"], "Which intervals.")

_NUM_EXAMPLES, _THRESHOLD, _RATIO = 600, 0.25, 0.7
_RATES = (0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 1.0)
_FINE_RATES = tuple(i / 200 for i in range(201))
# Between those of the grid, where the least coverage is lower.
_FURTHER_RATES = tuple(
    round(rate, 4)
    for rate in (*np.arange(0, 0.1, 0.0125), *np.arange(0.1, 0.95, 0.1), *np.arange(0.9125, 1.01, 0.0125))
)
_FURTHER_RUNS = ((3, 3), (7, 3), (10, 10), (21, 9), (30, 30), (70, 30), (100, 100))
_NUM_RUNS = (3, 5, 10, 30, 100)
# An end that equals the truth but for rounding holds it.
_ROUNDING = 1e-9
_NUM_MEANS = 20_000


def memorization_of(population: str, generator: np.random.Generator) -> np.ndarray:
    """True memorization of the examples of a population, [600]."""
    if population == "many":
        return generator.uniform(0, 0.6, _NUM_EXAMPLES)
    values = np.where(generator.random(_NUM_EXAMPLES) < 0.1, 0.8, 0.02)
    if population == "few":
        near = generator.random(_NUM_EXAMPLES) < 0.05
        values[near] = generator.uniform(0.15, 0.35, near.sum())
    return values


def coverage(population: str, num_runs: int) -> dict[str, float]:
    """Share of zoos whose interval holds the true number, for each kind of interval."""
    hits = {"percentile": 0, "basic": 0, "union": 0}
    for seed in range(_NUM_ZOOS.value):
        generator = np.random.default_rng([seed, num_runs])
        memorization = memorization_of(population, generator)
        truth = int(np.sum(memorization >= _THRESHOLD))
        table = _simulate(memorization, num_runs, generator)
        found = bootstrap.count_above(table, _RATIO, _THRESHOLD, num_draws=_NUM_DRAWS.value, seed=seed)
        counts = bootstrap.redrawn_counts(table.select(_RATIO), _THRESHOLD, _NUM_DRAWS.value, seed)
        low, high = np.quantile(counts, [0.025, 0.975])
        hits["percentile"] += low <= truth <= high
        hits["basic"] += 2 * found.count - high <= truth <= 2 * found.count - low
        hits["union"] += found.low <= truth <= found.high
    return {name: count / _NUM_ZOOS.value for name, count in hits.items()}


def _simulate(memorization: np.ndarray, num_runs: int, generator: np.random.Generator) -> run_table.RunTable:
    accuracy_in = generator.uniform(0.85, 1, _NUM_EXAMPLES)
    mask = generator.random((num_runs, _NUM_EXAMPLES)) < _RATIO
    rates = np.where(mask, accuracy_in, accuracy_in - memorization)
    correct = generator.random(mask.shape) < rates
    ratios = np.full(num_runs, _RATIO)
    return run_table.from_arrays("simulated", np.arange(num_runs), ratios, mask, correct, correct[:, :1])


@functools.lru_cache(maxsize=1)
def differences(method: str, num_in: int, num_heldout: int) -> intervals.Interval:
    """The intervals of all outcomes, [num_in + 1, num_heldout + 1]."""
    k1, k0 = np.arange(num_in + 1)[:, None], np.arange(num_heldout + 1)
    return intervals.difference(k1, num_in, k0, num_heldout, method=method)


def difference_coverage(method: str, num_in: int, num_heldout: int, p1: float, p0: float) -> tuple[float, float]:
    """Exact coverage of p1 - p0 by the 95 % interval, and its mean width."""
    found = differences(method, num_in, num_heldout)
    weight1 = stats.binom.pmf(np.arange(num_in + 1), num_in, p1)
    weight0 = stats.binom.pmf(np.arange(num_heldout + 1), num_heldout, p0)
    holds = (found.low <= p1 - p0 + _ROUNDING) & (p1 - p0 - _ROUNDING <= found.high)
    return float(weight1 @ holds @ weight0), float(weight1 @ (found.high - found.low) @ weight0)


def proportion_coverage(method: str, num_runs: int, p: float) -> tuple[float, float]:
    """Exact coverage of p by the 95 % interval, and its mean width."""
    counts = np.arange(num_runs + 1)
    weight = stats.binom.pmf(counts, num_runs, p)
    found = intervals.proportion(counts, num_runs, method=method)
    holds = (found.low <= p + _ROUNDING) & (p - _ROUNDING <= found.high)
    return float(weight @ holds), float(weight @ (found.high - found.low))


def mean_coverage(method: str, num_runs: int, rates: tuple[float, ...]) -> tuple[float, float]:
    """Coverage of the mean of the rates, as drawn, and the mean width."""
    generator = np.random.default_rng([num_runs, *(int(100 * rate) for rate in rates)])
    counts = generator.binomial(num_runs, rates, (_NUM_MEANS, len(rates))).T
    found = intervals.mean_of_proportions(counts, num_runs, method=method)
    holds = (found.low <= np.mean(rates) + _ROUNDING) & (np.mean(rates) - _ROUNDING <= found.high)
    return float(np.mean(holds)), float(np.mean(found.high - found.low))


def _summary(found: dict[tuple[float, ...], tuple[float, float]]) -> dict[str, Any]:
    worst = min(found, key=lambda rates: found[rates][0])
    inner = [value for rates, value in found.items() if not set(rates) <= {0.0, 1.0}]
    return {
        "mean_coverage": round(float(np.mean([coverage for coverage, _ in found.values()])), 5),
        "mean_coverage_inner": round(float(np.mean([coverage for coverage, _ in inner])), 5),
        "least_coverage": round(found[worst][0], 5),
        "least_at_rates": list(worst),
        "mean_width_inner": round(float(np.mean([width for _, width in inner])), 5),
    }


def rates_coverage() -> dict[str, dict[str, dict[str, Any]]]:
    """Summaries by kind of quantity and method and numbers of runs."""
    figures: dict[str, dict[str, dict[str, Any]]] = {
        kind: {} for kind in ("difference", "further rates", "proportion", "mean of three")
    }
    of_common = [*itertools.product(_NUM_RUNS, repeat=2), (1400, 600)]
    for kind, rates, numbers in (("difference", _RATES, of_common), ("further rates", _FURTHER_RATES, _FURTHER_RUNS)):
        pairs = list(itertools.product(rates, repeat=2))
        for num_in, num_heldout in numbers:
            for method in intervals.DIFFERENCE_METHODS:
                found = {pair: difference_coverage(method, num_in, num_heldout, *pair) for pair in pairs}
                _note(figures, kind, f"{method}, {num_in} and {num_heldout} runs", found)
    for num_runs in (*_NUM_RUNS, 600):
        for method in intervals.PROPORTION_METHODS:
            singles = {(rate,): proportion_coverage(method, num_runs, rate) for rate in _FINE_RATES}
            _note(figures, "proportion", f"{method}, {num_runs} runs", singles)
            triples = itertools.combinations_with_replacement(_RATES, 3)
            means = {rates: mean_coverage(method, num_runs, rates) for rates in triples}
            _note(figures, "mean of three", f"{method}, {num_runs} runs", means)
    return figures


def _note(
    figures: dict[str, dict[str, Any]], kind: str, name: str, found: dict[tuple[float, ...], tuple[float, float]]
) -> None:
    figures[kind][name] = one = _summary(found)
    print(
        f"{kind}, {name + ':':<38} coverage mean {one['mean_coverage']:.4f}, inner {one['mean_coverage_inner']:.4f}, "
        f"least {one['least_coverage']:.4f} at {one['least_at_rates']}; width {one['mean_width_inner']:.4f}",
        flush=True,
    )


def count_coverage() -> dict[str, dict[str, float]]:
    """Coverage of the number of memorized examples, by setting and kind of interval."""
    figures = {}
    for population in ("none", "few", "many"):
        for num_runs in (60, 300, 2000):
            figures[f"{population} near, {num_runs} runs"] = found = coverage(population, num_runs)
            shares = "  ".join(f"{name} {100 * share:5.1f} %" for name, share in found.items())
            print(f"{population:>5} near the threshold, {num_runs:>4} runs: {shares}", flush=True)
    return figures


def main(argv: list[str]) -> None:
    """Prints and stores the coverage of every setting."""
    del argv
    if _PART.value in ("all", "count"):
        settings = {"num_zoos": _NUM_ZOOS.value, "num_draws": _NUM_DRAWS.value}
        print(environment.save("interval_coverage", {"coverage": count_coverage(), **settings}))
    if _PART.value in ("all", "rates"):
        settings = {
            "level": 0.95,
            "rates": list(_RATES),
            "rates_of_proportion": "0, 0.005, ... 1",
            "num_means": _NUM_MEANS,
        }
        print(environment.save("interval_coverage_rates", {"coverage": rates_coverage(), **settings}))


if __name__ == "__main__":
    app.run(main)
