"""How far two sets of scores of the same examples agree: correlations and overlaps, each with a 95 % interval.

The two may come from two zoos, two architectures, or a zoo and a published file. Examples are what is random in every
interval here: it says how far the figure would move with other examples of the same kind, not with other runs.

Pearson's r is the linear correlation, Spearman's rho that of the ranks (ties have their mean rank), Kendall's tau-b
the share of concordant less that of discordant pairs, with its correction for ties. Intervals for a correlation r of n
examples:

- bootstrap: the 2.5 and 97.5 % quantiles of r over examples redrawn with replacement, ranked anew in every draw;
- fisher: tanh(atanh r +- 1.96 s) with s^2 = 1 / (n - 3) for Pearson, (1 + r^2 / 2) / (n - 3) for Spearman (Bonett &
  Wright 2000), 0.437 / (n - 4) for Kendall (Fieller, Hartley & Pearson 1957).

The bootstrap is the default, settled by simulation (400 trials for each figure of 50, 300 and 1000 examples;
`python -m tests.heldout.scoring.agreement_coverage_test`). For normal scores both hold the truth in 93 to 96 % of the
trials. Scores of zoos are not normal. With the ties and the bulk at one end that consistency and memorization have, the
bootstrap held it in 90 to 95 %, fisher in 56 to 73 % for Pearson, 84 to 90 % for Spearman, 72 to 74 % for Kendall.
Where one example in fifty is far from the rest and those decide Pearson's r, fisher held it in 20 to 32 %, bootstrap
in 46 % with 50 examples, 88 % with 300 and 93 % with 1000: with a handful of such examples no interval for r is to be
trusted, while those of ranks held in 94 to 97 %. Fisher takes no time; it is for scores that are near normal.

Two noisy scores correlate less than what they measure. Spearman (1904): r / sqrt(r1 r2), where r1 and r2 are the
reliabilities of the two, is what scores without noise would give; `heldout.scoring.reliability` measures them.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

from zoo import errors

METHODS = ("bootstrap", "fisher")
DEFAULT_NUM_DRAWS = 500
# Kendall's tau sorts; beyond so many examples a draw of them does.
MAX_KENDALL = 20_000
_KENDALL_DRAWS = 200
_LEVEL = 0.95
_LEAST_EXAMPLES = 5


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its interval: `value`, `low` and `high`, and the examples behind it; NaN where it is undefined."""

    value: float
    low: float
    high: float
    num_examples: int


@dataclasses.dataclass(frozen=True)
class Overlap:
    """How far two selections of examples are the same.

    Attributes:
        num_first: examples in the first selection.
        num_second: examples in the second.
        num_both: examples in both.
        num_examples: examples that could be selected.
        jaccard: those in both among those in either, in [0, 1], with Wilson's interval: given that an example is in
            either, whether it is in both. NaN where neither selects any.
        expected_jaccard: its expectation if the selections had these sizes and nothing to do with one another.
        num_tied_first: of the first selection, examples that had to be chosen at random among equals; 0 for
            thresholds.
        num_tied_second: of the second.
    """

    num_first: int
    num_second: int
    num_both: int
    num_examples: int
    jaccard: Estimate
    expected_jaccard: float
    num_tied_first: int = 0
    num_tied_second: int = 0


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Correlations of two scores over the examples that have both.

    Attributes:
        num_examples: examples with both scores.
        num_first_only: examples that have the first score alone; they are left out.
        num_second_only: examples that have the second alone.
        pearson: linear correlation.
        spearman: correlation of ranks.
        kendall: tau-b, of a draw of the examples where they are many.
        method: of the intervals.
    """

    num_examples: int
    num_first_only: int
    num_second_only: int
    pearson: Estimate
    spearman: Estimate
    kendall: Estimate
    method: str


def agreement(
    first: np.ndarray,
    second: np.ndarray,
    *,
    method: str = "bootstrap",
    num_draws: int = DEFAULT_NUM_DRAWS,
    max_kendall: int = MAX_KENDALL,
    seed: int = 0,
) -> Agreement:
    """Pearson's, Spearman's and Kendall's correlation of two scores, with intervals.

    Args:
        first: floats [N], NaN where an example has no score.
        second: floats [N], of the same examples in the same order.
        method: of the intervals, "bootstrap" or "fisher"; the module says which is good for what.
        num_draws: D, bootstrap draws of Pearson and Spearman; Kendall takes at most 200 of them.
        max_kendall: examples that Kendall's tau is computed from, at most; drawn by the seed where there are more.
        seed: of the draws.

    Returns:
        An Agreement. Correlations are NaN where fewer than two examples have both scores or one score is the same for
        all; intervals are NaN below five examples too.

    Raises:
        MismatchError: the two have different shapes, or are no vectors.
        InvalidValueError: the method is not known, or a number is below 1.

    Cost: D N for the bootstrap, after sorting: about 5 s for 50,000 examples.
    """
    from scipy import stats  # heavy, and not needed by programs that only answer --help

    known = _both_known(first, second)
    if method not in METHODS:
        raise errors.InvalidValueError(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
    for name, number in (("num_draws", num_draws), ("max_kendall", max_kendall)):
        if number < 1:
            raise errors.InvalidValueError(f"{name}: got {number}, expected at least 1")
    x, y = np.asarray(first[known], np.float64), np.asarray(second[known], np.float64)
    generator = np.random.default_rng(seed)
    pearson, spearman = _pearson(x, y), _pearson(stats.rankdata(x), stats.rankdata(y))
    kendall_x, kendall_y = x, y
    if len(x) > max_kendall:
        drawn = np.sort(generator.choice(len(x), max_kendall, replace=False))
        kendall_x, kendall_y = x[drawn], y[drawn]
    kendall = _kendall(kendall_x, kendall_y)
    if method == "fisher":
        intervals = (
            _fisher(pearson, len(x), 1 / max(len(x) - 3, 1)),
            _fisher(spearman, len(x), (1 + spearman**2 / 2) / max(len(x) - 3, 1)),
            _fisher(kendall, len(kendall_x), 0.437 / max(len(kendall_x) - 4, 1)),
        )
    else:
        intervals = (
            *_bootstrap_both(x, y, num_draws, generator),
            _bootstrap_kendall(kendall_x, kendall_y, min(num_draws, _KENDALL_DRAWS), generator),
        )
    return Agreement(
        num_examples=len(x),
        num_first_only=int(np.count_nonzero(~np.isnan(first) & ~known)),
        num_second_only=int(np.count_nonzero(~np.isnan(second) & ~known)),
        pearson=Estimate(pearson, *intervals[0], len(x)),
        spearman=Estimate(spearman, *intervals[1], len(x)),
        kendall=Estimate(kendall, *intervals[2], len(kendall_x)),
        method=method,
    )


def attenuation_corrected(found: Estimate, first_reliability: float, second_reliability: float) -> Estimate:
    """A correlation as it would be without noise in either score: divided by sqrt(r1 r2) (Spearman 1904).

    The ends of the interval are divided alike: they take the reliabilities for exact. Values beyond 1 are not cut;
    they say that a reliability is too low, or that the two scores share their noise.

    Args:
        found: a correlation.
        first_reliability: r1, correlation of the first score with a repetition from as many other runs; in (0, 1].
        second_reliability: r2.

    Raises:
        InvalidValueError: a reliability is outside (0, 1].
    """
    for name, value in (("first_reliability", first_reliability), ("second_reliability", second_reliability)):
        if not 0 < value <= 1:
            raise errors.InvalidValueError(f"{name}: got {value}, expected a correlation above 0, at most 1")
    factor = 1 / np.sqrt(first_reliability * second_reliability)
    return Estimate(
        float(found.value * factor), float(found.low * factor), float(found.high * factor), found.num_examples
    )


def overlap_of_top(first: np.ndarray, second: np.ndarray, number: int, *, seed: int = 0) -> Overlap:
    """Overlap of the k examples with the largest values of either score, among those that have both.

    Where the k-th value is shared by more examples than there is room for, some of them are chosen at random, for
    each score apart: any fixed rule, such as the smaller index, would make unrelated scores agree.

    Args:
        first: floats [N].
        second: floats [N], of the same examples.
        number: k. For the smallest values, negate both.
        seed: of the choice among equals.

    Returns:
        An Overlap; the selections have k examples, or as many as there are. Wilson's interval takes the selections as
        given, though the k-th value depends on the examples: for small k it is an order of size.

    Raises:
        MismatchError: as in `agreement`.
        InvalidValueError: k is below 1.
    """
    known = _both_known(first, second)
    if number < 1:
        raise errors.InvalidValueError(f"number: got {number}, expected at least 1")
    generator = np.random.default_rng(seed)
    chosen = [_top(values[known], number, generator) for values in (first, second)]
    return _overlap(chosen[0][0], chosen[1][0], chosen[0][1], chosen[1][1])


def overlap_above(
    first: np.ndarray, second: np.ndarray, first_threshold: float, second_threshold: float | None = None
) -> Overlap:
    """Overlap of the examples at or above a threshold in either score, among those that have both.

    Args:
        first: floats [N].
        second: floats [N], of the same examples.
        first_threshold: least value in the first selection.
        second_threshold: least value in the second; None for the same.

    Raises:
        MismatchError: as in `agreement`.
    """
    known = _both_known(first, second)
    other = first_threshold if second_threshold is None else second_threshold
    return _overlap(first[known] >= first_threshold, second[known] >= other)


def overlap_of_counts(num_first: int, num_second: int, num_both: int, num_examples: int) -> Overlap:
    """The Overlap of two selections whose sizes are known.

    Args:
        num_first: size of the first selection.
        num_second: size of the second.
        num_both: examples in both.
        num_examples: examples that could be selected, at least as many as either holds; 0 for unknown, which leaves
            the expectation NaN.
    """
    either = num_first + num_second - num_both
    low, high = _wilson(num_both, either)
    jaccard = Estimate(num_both / either if either else float("nan"), low, high, either)
    expected = _expected_jaccard(num_first, num_second, num_examples)
    return Overlap(num_first, num_second, num_both, num_examples, jaccard, expected)


def _both_known(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which examples have both scores."""
    if first.shape != second.shape or first.ndim != 1:
        raise errors.MismatchError(
            f"scores have shapes {first.shape} and {second.shape}, expected two vectors of one length: they are of "
            "different data sets"
        )
    return ~(np.isnan(first) | np.isnan(second))


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def _kendall(x: np.ndarray, y: np.ndarray) -> float:
    from scipy import stats  # heavy, as above

    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    if len(x) == 2:
        # One pair, without a tie; scipy would divide by zero for the p-value.
        return float(np.sign(x[1] - x[0]) * np.sign(y[1] - y[0]))
    # Its p-value is not used; the asymptotic one costs nothing.
    return float(stats.kendalltau(x, y, method="asymptotic")[0])


def _fisher(value: float, number: int, variance: float) -> tuple[float, float]:
    """The interval on the scale of atanh, turned back; a correlation of 1 has no width there."""
    from scipy import stats  # heavy, as above

    if number < _LEAST_EXAMPLES or np.isnan(value):
        return float("nan"), float("nan")
    with np.errstate(divide="ignore"):
        centre = np.arctanh(value)
    half = stats.norm.ppf((1 + _LEVEL) / 2) * np.sqrt(variance)
    return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def _bootstrap_both(
    x: np.ndarray, y: np.ndarray, num_draws: int, generator: np.random.Generator
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Percentile intervals of Pearson and Spearman from the same draws."""
    if len(x) < _LEAST_EXAMPLES:
        return (float("nan"), float("nan")), (float("nan"), float("nan"))
    ranked = _Ranks(x), _Ranks(y)
    centred = x - x.mean(), y - y.mean()
    found = np.empty((num_draws, 2))
    for draw in range(num_draws):
        weights = np.bincount(generator.integers(len(x), size=len(x)), minlength=len(x)).astype(np.float64)
        found[draw, 0] = _weighted_pearson(*centred, weights)
        found[draw, 1] = _weighted_pearson(ranked[0].of(weights), ranked[1].of(weights), weights)
    return _quantiles(found[:, 0]), _quantiles(found[:, 1])


class _Ranks:
    """Mean ranks of values that are there as often as weights say, without sorting again."""

    def __init__(self, values: np.ndarray) -> None:
        _, self._group = np.unique(values, return_inverse=True)

    def of(self, weights: np.ndarray) -> np.ndarray:
        """Rank of each value, less a constant; those of weight 0 have some rank too."""
        counts = np.bincount(self._group, weights)
        ranks: np.ndarray = np.cumsum(counts) - counts / 2
        return ranks[self._group] - len(weights) / 2


def _weighted_pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    total = weights.sum()
    wx, wy = weights * x, weights * y
    mx, my = wx.sum() / total, wy.sum() / total
    # Sums, not products of the linear algebra library: its threads take longer to meet than such a vector takes.
    xx, yy, xy = np.sum(wx * x) / total - mx * mx, np.sum(wy * y) / total - my * my, np.sum(wx * y) / total - mx * my
    return float(xy / np.sqrt(xx * yy)) if xx > 0 and yy > 0 else float("nan")


def _bootstrap_kendall(
    x: np.ndarray, y: np.ndarray, num_draws: int, generator: np.random.Generator
) -> tuple[float, float]:
    if len(x) < _LEAST_EXAMPLES:
        return float("nan"), float("nan")
    draws = (generator.integers(len(x), size=len(x)) for _ in range(num_draws))
    return _quantiles(np.array([_kendall(x[drawn], y[drawn]) for drawn in draws]))


def _quantiles(found: np.ndarray) -> tuple[float, float]:
    """The ends of the percentile interval; NaN where a draw in ten has no correlation."""
    known = found[~np.isnan(found)]
    if len(known) < 0.9 * len(found):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _top(values: np.ndarray, number: int, generator: np.random.Generator) -> tuple[np.ndarray, int]:
    """Which examples are among the k largest, and how many of them were chosen among equals."""
    chosen = np.zeros(len(values), bool)
    order = np.lexsort((generator.permutation(len(values)), -values))[:number]
    chosen[order] = True
    if not len(order):
        return chosen, 0
    tied = values == values[order[-1]]
    num_inside = np.count_nonzero(tied & chosen)
    return chosen, int(num_inside) if num_inside < np.count_nonzero(tied) else 0


def _overlap(first: np.ndarray, second: np.ndarray, num_tied_first: int = 0, num_tied_second: int = 0) -> Overlap:
    num_first, num_second, num_both = (int(np.count_nonzero(chosen)) for chosen in (first, second, first & second))
    found = overlap_of_counts(num_first, num_second, num_both, len(first))
    return dataclasses.replace(found, num_tied_first=num_tied_first, num_tied_second=num_tied_second)


def _wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's (1927) interval of a share; NaN of none."""
    from scipy import stats  # heavy, as above

    if not total:
        return float("nan"), float("nan")
    z, share = float(stats.norm.ppf((1 + _LEVEL) / 2)), count / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * np.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2) / (1 + z * z / total)
    # At counts of 0 and all, the ends are 0 and 1 up to rounding.
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _expected_jaccard(num_first: int, num_second: int, num_examples: int) -> float:
    """Expectation of both / either where both is hypergeometric."""
    from scipy import stats  # heavy, as above

    if not num_examples or not num_first + num_second:
        return float("nan")
    law: Callable[..., np.ndarray] = stats.hypergeom.pmf
    both = np.arange(max(0, num_first + num_second - num_examples), min(num_first, num_second) + 1)
    share = both / (num_first + num_second - both)
    return float(np.sum(share * law(both, num_examples, num_first, num_second)))
