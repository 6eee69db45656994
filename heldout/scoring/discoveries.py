"""Lists of memorized examples and influential pairs in which the share of false entries is controlled.

A threshold on an estimate lists what noise carried over it, too, and of 5 * 10^8 pairs of CIFAR noise carries many.
Here every example or pair is a test of a null hypothesis from its counts of runs, and the list is cut where the
expected share of entries whose null hypothesis is true, the false discovery rate, stays below a bound.

Null hypotheses and their p-values, from k1 right of n1 runs that trained on the example and k0 right of n0 others:

    no effect      p1 <= p0: memorization or subset influence is not positive (or not negative). Given the margins n1,
                   n0 and k1 + k0, and p1 = p0, k1 is hypergeometric whatever the common rate is; its tail is Fisher's
                   exact p-value (1935), valid for every number of runs, and conservative as counts are discrete.
    a threshold    p1 - p0 <= d: memorization is at most d. A score test with the rates that are most likely among
                   those with p1 - p0 = d (Miettinen & Nurminen 1985; without its n / (n - 1), Farrington & Manning
                   1990). Approximate: the p-value is that of a normal distribution.

Cuts: Benjamini & Hochberg (1995) for p-values that are independent or positively dependent; Benjamini & Yekutieli
(2001) for any dependence, at the price of a factor of about log(number of tests). All examples are judged by the same
runs, some of which are better than others, but their memberships are nearly independent, and so are their p-values in
simulations; that they are positively dependent in the sense of the theorem is not proved. For pairs, of which many
share an example, Benjamini & Yekutieli is the careful choice. In simulated zoos of 2 million pairs neither had more
false entries than it may, also where test examples depend on one another in either direction: 3.1 to 4.1 % and 0.1 to
0.3 % at a rate of 5 % (`python -m benchmarks.pair_discoveries`).
"""

import dataclasses

import numpy as np
from scipy import special

from heldout.scoring import intervals, scores
from zoo import errors

ALTERNATIVES = ("greater", "less")
METHODS = ("benjamini_hochberg", "benjamini_yekutieli")
# How lists of pairs are cut, in tables, reports and plans.
OF_PAIRS = "benjamini_yekutieli"

# Elements in the making together: their arrays stay in the processor's cache.
_BLOCK = 1 << 14
# Further terms of a tail are left out when together they are below this share of it.
_NEGLIGIBLE = 1e-17


@dataclasses.dataclass(frozen=True)
class Discoveries:
    """What a false discovery rate lets into a list.

    Attributes:
        is_discovery: bool, of the shape of the p-values; False where a p-value is NaN.
        threshold: the largest p-value in the list; NaN if it is empty.
        num_tests: size of the whole family.
        rate: the false discovery rate that was asked for.
        is_whole: whether the list is surely that of the whole family. If not, p-values above the bound might have let
            more into it; the rate holds all the same.
    """

    is_discovery: np.ndarray
    threshold: float
    num_tests: int
    rate: float
    is_whole: bool


def no_effect_log_p_values(
    count_in: np.ndarray,
    num_in: np.ndarray,
    count_heldout: np.ndarray,
    num_heldout: np.ndarray,
    alternative: str = "greater",
) -> np.ndarray:
    """Natural logarithm of Fisher's exact one-sided p-value of "being trained on makes no difference".

    log P(X >= k1), or log P(X <= k1) for "less", of X hypergeometric: n1 drawn out of n1 + n0 runs of which k1 + k0
    are right. In logarithms, so that p-values below 10^-308 keep their order.

    Args:
        count_in: k1, right runs among those that trained on the example, whole numbers of any shape.
        num_in: n1, runs that trained on it.
        count_heldout: k0, right runs among those that held it out.
        num_heldout: n0. All four are broadcast.
        alternative: what is to be shown: "greater", p1 > p0 (memorized, helps), or "less", p1 < p0 (harms).

    Returns:
        float64, at most 0; NaN where num_in or num_heldout is 0. Relative error of the p-value near 10^-11.

    Raises:
        InvalidValueError: a count lies outside what there is or is no whole number, or the alternative is none there
            is.

    Cost: time grows with the root of the number of runs; a million pairs of 2000 runs take about a second on one core.
    """
    if alternative not in ALTERNATIVES:
        raise errors.InvalidValueError(f"alternative: got {alternative!r}, expected one of {', '.join(ALTERNATIVES)}")
    k1, n1 = intervals.checked_counts("count_in", count_in, "num_in", num_in)
    k0, n0 = intervals.checked_counts("count_heldout", count_heldout, "num_heldout", num_heldout)
    k1, n1, k0, n0 = np.broadcast_arrays(k1, n1, k0, n0)
    if alternative == "less":  # as many wrong runs or more
        k1, k0 = n1 - k1, n0 - k0
    out = np.empty(k1.shape)
    flat = [array.reshape(-1) for array in (k1, n1, k0, n0)]
    for start in range(0, out.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        out.reshape(-1)[part] = _log_upper_tail(*(array[part] for array in flat))
    return np.where((n1 > 0) & (n0 > 0), out, np.nan)


def no_effect_p_values(
    count_in: np.ndarray,
    num_in: np.ndarray,
    count_heldout: np.ndarray,
    num_heldout: np.ndarray,
    alternative: str = "greater",
) -> np.ndarray:
    """Fisher's exact one-sided p-values, float64 in [0, 1]; see `no_effect_log_p_values`. Below 10^-308 they are 0."""
    return np.exp(no_effect_log_p_values(count_in, num_in, count_heldout, num_heldout, alternative))


def _log_upper_tail(k: np.ndarray, n1: np.ndarray, k0: np.ndarray, n0: np.ndarray) -> np.ndarray:
    """Logarithm of P(X >= k), from the side of k that holds less: the sum of terms that fall from the first one on."""
    right, total = k + k0, n1 + n0
    mode = np.floor((n1 + 1) * (right + 1) / (total + 2))
    upper = k > mode
    # Above the mode the terms k, k + 1, ... fall; else those of the complement, k - 1, k - 2, ..., do.
    first = np.where(upper, k, k - 1)
    log_first = _log_probability(first, n1, right, total)
    with np.errstate(divide="ignore"):
        log_sum = log_first + np.log(_falling_sum(first, n1, right, total, upper))
    with np.errstate(divide="ignore", invalid="ignore"):
        complement = np.where(first >= np.maximum(0, right - n0), np.log1p(-np.exp(np.minimum(log_sum, 0))), 0.0)
    return np.minimum(np.where(upper, log_sum, complement), 0.0)


def _log_probability(k: np.ndarray, n1: np.ndarray, right: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Logarithm of P(X = k); minus infinity where k cannot be."""
    k0, n0 = right - k, total - n1
    possible = (k >= 0) & (k <= n1) & (k0 >= 0) & (k0 <= n0)
    k, k0 = np.where(possible, k, 0), np.where(possible, k0, 0)
    value = _log_choose(n1, k) + _log_choose(n0, k0) - _log_choose(total, right)
    return np.where(possible, value, -np.inf)


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)


def _falling_sum(
    first: np.ndarray, n1: np.ndarray, right: np.ndarray, total: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Sum of P(X = j) / P(X = first) over j from `first` away from the mode.

    Ratios of neighbours fall along a tail, so that what is left after a term is below term * ratio / (1 - ratio).
    """
    # Going down in X is going up in its mirror image n1 - X, in which wrong runs are counted as right ones.
    j = np.where(upper, first, n1 - first)
    right = np.where(upper, right, total - right)
    rest = total - n1 - right
    result, active = np.ones(first.shape), np.arange(len(first))
    term, sums = np.ones(first.shape), np.ones(first.shape)
    while len(active):
        ratio = np.maximum(n1 - j, 0) * np.maximum(right - j, 0) / ((j + 1) * (rest + j + 1))
        term = term * ratio
        sums = sums + term
        j = j + 1
        going = term * ratio > _NEGLIGIBLE * sums * np.maximum(1 - ratio, 1e-9)
        # Copying what still goes on pays only where much of it does not.
        if going.sum() < 0.75 * len(active):
            result[active] = sums
            active, j, n1, right, rest = (array[going] for array in (active, j, n1, right, rest))
            term, sums = term[going], sums[going]
    return result


def threshold_p_values(
    count_in: np.ndarray, num_in: np.ndarray, count_heldout: np.ndarray, num_heldout: np.ndarray, threshold: float
) -> np.ndarray:
    """Approximate one-sided p-values of "p1 - p0 is at most the threshold", by a score test.

    1 - Phi(z), z = (k1 / n1 - k0 / n0 - threshold) / sqrt(v), with v of `intervals.score_variance` (Miettinen &
    Nurminen 1985). At small counts the normal distribution is a rough guide: far out in the tails the p-values may be
    wrong by large factors. For a threshold of 0, `no_effect_p_values` is exact.

    Args:
        count_in: k1, right runs among those that trained on the example, whole numbers of any shape.
        num_in: n1, runs that trained on it.
        count_heldout: k0, right runs among those that held it out.
        num_heldout: n0. All four are broadcast.
        threshold: memorization or influence that is to be exceeded, in (-1, 1).

    Returns:
        float64 in [0, 1]; NaN where num_in or num_heldout is 0; 1 where nothing varies, as nothing then speaks against
        the null hypothesis.

    Raises:
        InvalidValueError: a count lies outside what there is or is no whole number, or the threshold is out of range.
    """
    if not -1 < threshold < 1:
        raise errors.InvalidValueError(f"threshold: got {threshold}, expected a difference of rates between -1 and 1")
    k1, n1 = intervals.checked_counts("count_in", count_in, "num_in", num_in)
    k0, n0 = intervals.checked_counts("count_heldout", count_heldout, "num_heldout", num_heldout)
    there = (n1 > 0) & (n0 > 0)
    n1, n0 = np.where(there, n1, 1), np.where(there, n0, 1)
    k1, k0 = np.where(there, k1, 0), np.where(there, k0, 0)
    excess = k1 / n1 - k0 / n0 - threshold
    variance = intervals.score_variance(k1, n1, k0, n0, np.asarray(threshold))
    varies = variance > 1e-15
    z = excess / np.sqrt(np.where(varies, variance, 1))
    return np.where(there, np.where(varies, special.ndtr(-z), 1.0), np.nan)


def weight(num_tests: int, method: str) -> float:
    """By what the false discovery rate is divided before a list is cut: c of `false_discovery`.

    Args:
        num_tests: m, the size of the whole family, 0 or more.
        method: one of `METHODS`.

    Returns:
        1 for Benjamini & Hochberg; 1 + 1/2 + ... + 1/m for Benjamini & Yekutieli, which holds for any dependence.

    Raises:
        InvalidValueError: the method is none there is.
    """
    if method not in METHODS:
        raise errors.InvalidValueError(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
    if method == "benjamini_hochberg":
        return 1.0
    return float(special.digamma(num_tests + 1) + np.euler_gamma)


def _checked_p_values(p_values: np.ndarray, num_tests: int | None, bound: float) -> tuple[np.ndarray, int]:
    p_values = np.asarray(p_values, np.float64)
    known = p_values[~np.isnan(p_values)]
    if not 0 < bound <= 1:
        raise errors.InvalidValueError(f"bound: got {bound}, expected a p-value above 0 and at most 1")
    if ((known < 0) | (known > bound)).any():
        raise errors.InvalidValueError(
            f"p_values: got values from {known.min():.3g} to {known.max():.3g}, expected values from 0 to the bound, "
            f"{bound:.3g}; give the bound that they were chosen by"
        )
    if num_tests is None and bound < 1:
        raise errors.InvalidValueError(
            f"num_tests: got none, but the p-values are only those up to {bound:.3g}; give the number of all tests"
        )
    num_tests = known.size if num_tests is None else num_tests
    if num_tests < known.size:
        raise errors.InvalidValueError(f"num_tests: got {num_tests}, expected at least the {known.size} p-values given")
    return p_values, num_tests


def false_discovery(
    p_values: np.ndarray,
    num_tests: int | None = None,
    rate: float = 0.05,
    method: str = "benjamini_hochberg",
    *,
    bound: float = 1.0,
) -> Discoveries:
    """The tests whose null hypotheses are rejected with a false discovery rate of at most `rate`.

    With m tests and p_(1) <= p_(2) <= ..., the list holds the k smallest, k the largest with p_(k) <= k rate / (m c);
    c is 1 for Benjamini & Hochberg and 1 + 1/2 + ... + 1/m for Benjamini & Yekutieli.

    Of a large family only the p-values up to a bound need to be kept. The list is then that of the same rule with
    min(k rate / (m c), bound): the rate holds (Blanchard & Roquain 2008), and nothing is listed that the whole family
    would not list. It is surely the whole list where bound >= rate / c, and said to be (`is_whole`). Where the next
    entry could lie above the bound, the bound decides instead of the rate, and that is refused.

    Args:
        p_values: float64 of any shape, in [0, bound]; NaN, where there is no run, is no test.
        num_tests: m, the size of the whole family; None for the number of p-values, if these are all.
        rate: in (0, 1).
        method: "benjamini_hochberg" or "benjamini_yekutieli".
        bound: all p-values of the family up to this are given, and none above.

    Returns:
        Discoveries.

    Raises:
        InvalidValueError: an argument is out of range; p-values lie outside 0..bound; there are more than num_tests;
            num_tests is missing beside a bound; or the bound is too low to decide.
    """
    if not 0 < rate < 1:
        raise errors.InvalidValueError(f"rate: got {rate}, expected a share between 0 and 1, such as 0.05")
    p_values, num_tests = _checked_p_values(p_values, num_tests, bound)
    share = rate / weight(num_tests, method)
    ordered = np.sort(p_values[~np.isnan(p_values)])
    if len(ordered) < num_tests and (len(ordered) + 1) * share / num_tests > bound:
        raise errors.InvalidValueError(
            f"bound: got {bound:.3g}, but with {len(ordered)} of {num_tests} p-values below it the list may reach "
            f"beyond; keep all up to {share:.3g}, which always suffices"
        )
    accepted = np.flatnonzero(ordered <= np.arange(1, len(ordered) + 1) * share / max(num_tests, 1))
    threshold = float(ordered[accepted[-1]]) if len(accepted) else float("nan")
    with np.errstate(invalid="ignore"):
        listed = p_values <= threshold
    return Discoveries(listed, threshold, num_tests, rate, len(ordered) == num_tests or bound >= share)


def adjusted_p_values(
    p_values: np.ndarray, method: str = "benjamini_hochberg", *, num_tests: int | None = None
) -> np.ndarray:
    """The least false discovery rate at which each test of a whole family is in the list.

    min over j >= k of p_(j) m c / j, at most 1; Benjamini & Hochberg (1995), Yekutieli & Benjamini (1999).

    Args:
        p_values: float64 of any shape; NaN is no test.
        method: as in `false_discovery`.
        num_tests: m, the size of the family; those that are not given count as 1. None where all are given.

    Returns:
        float64 of the same shape; NaN where the p-value is.

    Raises:
        InvalidValueError: a p-value lies outside 0..1, there are more than num_tests, or the method is none there is.
    """
    p_values, num_tests = _checked_p_values(p_values, num_tests, 1.0)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values.reshape(-1)[known], kind="stable")]
    scaled = p_values.reshape(-1)[order] * num_tests * weight(num_tests, method) / np.arange(1, len(order) + 1)
    out = np.full(p_values.size, np.nan)
    out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out.reshape(p_values.shape)


def memorized_examples(
    counts: scores.SideCounts, rate: float = 0.05, threshold: float = 0.0, method: str = "benjamini_hochberg"
) -> Discoveries:
    """The examples whose memorization is above a threshold, with a false discovery rate of at most `rate`.

    Args:
        counts: of N examples at one subset ratio.
        rate: in (0, 1).
        threshold: memorization; 0 takes the exact test, others the approximate one.
        method: as in `false_discovery`.

    Returns:
        Discoveries with is_discovery [N].

    Raises:
        InvalidValueError: rate, threshold or method is none there can be.
    """
    given = (counts.num_right_in, counts.num_in, counts.num_right_heldout, counts.num_heldout)
    p_values = threshold_p_values(*given, threshold) if threshold else no_effect_p_values(*given)
    return false_discovery(p_values, rate=rate, method=method)
