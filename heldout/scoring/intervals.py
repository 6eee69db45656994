"""Confidence intervals for rates, differences of rates and means of rates, from counts of runs.

Memorization and subset influence are differences of two shares of runs, consistency at one ratio is one share, and the
consistency score is a mean of shares. Their standard errors are 0 where all runs agree, and with few runs the normal
interval around an estimate is wrong; the intervals here come from counts, need no such error, and stay in the range
that the quantity has. All arrays broadcast, all results are float64.

One share k / n (Brown, Cai & DasGupta 2001):

    wilson       the rates p with |k / n - p| <= z sqrt(p (1 - p) / n); Wilson (1927)
    jeffreys     the central part of the distribution Beta(k + 1/2, n - k + 1/2), its ends moved to 0 and 1 where k is
                 0 or n

A difference p1 - p0:

    newcombe           MOVER of two Wilson intervals; Newcombe (1998), method 10
    mover_jeffreys     MOVER of two Jeffreys intervals
    agresti_caffo      the normal interval with one right and one wrong run added to each side; Agresti & Caffo (2000)
    miettinen_nurminen the differences that a score test does not reject; Miettinen & Nurminen (1985)

MOVER (Zou & Donner 2008) puts together intervals l..u of independent parts: the distance from the estimate to the end
of an interval for a sum is the root of the summed squares of the distances of its parts.

The defaults come from exact coverage, summed over all outcomes (`python -m benchmarks.interval_coverage`). The 95 %
intervals of a difference, with 3 to 100 runs on either side and 81 pairs of rates between 0 and 1, held the truth in

                          mean over rates, lowest and highest    least anywhere    mean width, 10 and 10 runs
    mover_jeffreys        0.958 to 0.981                         0.901             0.518
    agresti_caffo         0.961 to 0.994                         0.875             0.551
    newcombe              0.947 to 0.969                         0.832             0.570
    miettinen_nurminen    0.949 to 0.984                         0.857             0.564

and with 1400 and 600 runs all within 0.941 to 1, with means of 0.953 to 0.956. mover_jeffreys is the narrowest with
every number of runs that was tried, and its mean is above 0.95 with all of them. At rates between those of the grid its
least was 0.892, with few runs on one side and a rate near 0 or 1. Where that matters more than width, agresti_caffo is
the careful choice with nine runs or more on either side (least 0.904).

A single rate, in steps of 0.005 and with 3 to 600 runs: jeffreys held it in 0.950 to 0.964 of experiments on average
over rates, and at least 0.869; wilson in 0.950 to 0.956, and at least 0.831. The mean of three ratios, with 3 to 600
runs each: jeffreys 0.953 to 0.977, at least 0.891; wilson 0.955 to 0.973, at least 0.830.

In a zoo subsets are drawn at random, so the numbers of runs n1 and n0 of an example are random, too. They say nothing
of the rates; the intervals are those given n1 and n0.
"""

from collections.abc import Callable
import dataclasses

import numpy as np
from scipy import special

from zoo import errors

# Halvings of the range -1..1 in which an end is looked for: it is then known to 2^-40.
_NUM_HALVINGS = 40


@dataclasses.dataclass(frozen=True)
class Interval:
    """Ends of confidence intervals: float64 arrays of one shape, low <= high; NaN where there is no run."""

    low: np.ndarray
    high: np.ndarray


def proportion(count: np.ndarray, total: np.ndarray, *, level: float = 0.95, method: str = "jeffreys") -> Interval:
    """Interval for the rate behind `count` right runs of `total`, for instance consistency at one ratio.

    Args:
        count: k, whole numbers from 0 to `total`, any shape.
        total: n, whole numbers, 0 or more; broadcast against `count`.
        level: share of experiments whose interval is to hold the rate, in (0, 1).
        method: "wilson" or "jeffreys"; see the module for what they are and for the choice.

    Returns:
        Ends in [0, 1]; NaN where total is 0. The low end is 0 where count is 0, the high end 1 where count is total.

    Raises:
        InvalidValueError: a count lies outside 0..total or is no whole number, or level or method is none there is.
    """
    ends = _known("method", method, _PROPORTION)
    _check_level(level)
    return Interval(*ends(*checked_counts("count", count, "total", total), level))


def difference(
    count_in: np.ndarray,
    num_in: np.ndarray,
    count_heldout: np.ndarray,
    num_heldout: np.ndarray,
    *,
    level: float = 0.95,
    method: str = "mover_jeffreys",
) -> Interval:
    """Interval for p1 - p0, memorization or subset influence; positive: right more often when trained on.

    Args:
        count_in: k1, right runs among those that trained on the example, whole numbers of any shape.
        num_in: n1, runs that trained on it.
        count_heldout: k0, right runs among those that held it out.
        num_heldout: n0, runs that held it out. All four are broadcast.
        level: share of experiments whose interval is to hold the difference, in (0, 1).
        method: one of those that the module describes.

    Returns:
        Ends in [-1, 1]; NaN where num_in or num_heldout is 0.

    Raises:
        InvalidValueError: a count lies outside what there is or is no whole number, or level or method is none there
            is.

    Cost: some 100 operations an element, with "miettinen_nurminen" some 5000.
    """
    ends = _known("method", method, _DIFFERENCE)
    _check_level(level)
    k1, n1 = checked_counts("count_in", count_in, "num_in", num_in)
    k0, n0 = checked_counts("count_heldout", count_heldout, "num_heldout", num_heldout)
    k1, n1, k0, n0 = np.broadcast_arrays(k1, n1, k0, n0)
    there = (n1 > 0) & (n0 > 0)
    # One run of each side stands in where there is none, so that no method has to provide for that.
    low, high = ends(
        np.where(there, k1, 0), np.where(there, n1, 1), np.where(there, k0, 0), np.where(there, n0, 1), level
    )
    return Interval(np.where(there, low, np.nan), np.where(there, high, np.nan))


def mean_of_proportions(
    count: np.ndarray, total: np.ndarray, *, level: float = 0.95, method: str = "jeffreys"
) -> Interval:
    """Interval for the mean over subset ratios of held-out rates, the consistency score.

    With the rates p_k of the K ratios that have runs, their mean m, and intervals l_k..u_k, the ends are
    m - sqrt(sum_k (p_k - l_k)^2) / K and m + sqrt(sum_k (u_k - p_k)^2) / K.

    Args:
        count: [K, ...] right runs of those that held an example out, per ratio.
        total: [K, ...] runs that held it out.
        level: share of experiments whose interval is to hold the mean, in (0, 1).
        method: of the intervals of the parts, "wilson" or "jeffreys".

    Returns:
        Ends [...] in [0, 1]. Ratios without a run do not count; NaN where no ratio has one.

    Raises:
        InvalidValueError: as in `proportion`.
    """
    part = proportion(count, total, level=level, method=method)
    count, total = np.broadcast_arrays(np.asarray(count, np.float64), np.asarray(total, np.float64))
    there = total > 0
    num_ratios = np.sum(there, axis=0)
    rate = np.where(there, count / np.where(there, total, 1), 0)
    below = np.where(there, np.maximum(rate - part.low, 0), 0)
    above = np.where(there, np.maximum(part.high - rate, 0), 0)
    with np.errstate(invalid="ignore"):  # a mean of nothing is the NaN that is meant
        mean, below, above = (x / num_ratios for x in (np.sum(rate, axis=0), _norm(below), _norm(above)))
    return Interval(mean - below, mean + above)


def _norm(parts: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(parts**2, axis=0))


def restricted_rates(
    count_in: np.ndarray, num_in: np.ndarray, count_heldout: np.ndarray, num_heldout: np.ndarray, delta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The most likely rates p1 and p0 among those with p1 - p0 = delta.

    p0 is the root of a cubic polynomial that lies between max(0, -delta) and min(1, 1 - delta), in the closed form of
    Miettinen & Nurminen (1985, appendix I); the likelihood has no other stationary point there.

    Args:
        count_in: k1, float64, 0..n1; all arguments are broadcast.
        num_in: n1, 1 or more.
        count_heldout: k0, 0..n0.
        num_heldout: n0, 1 or more.
        delta: in [-1, 1].

    Returns:
        (p1, p0), float64.
    """
    total, right = num_in + num_heldout, count_in + count_heldout
    square = ((num_in + 2 * num_heldout) * delta - total - right) / (3 * total)
    linear = ((num_heldout * delta - total - 2 * count_heldout) * delta + right) / (3 * total)
    constant = count_heldout * delta * (1 - delta) / total
    q = square**3 - 1.5 * linear * square + constant / 2
    size = np.where(q < 0, -1, 1) * np.sqrt(np.maximum(square**2 - linear, 0))
    cosine = np.divide(q, size**3, out=np.ones(np.shape(q)), where=size != 0)
    angle = (np.pi + np.arccos(np.clip(cosine, -1, 1))) / 3
    p0 = np.clip(2 * size * np.cos(angle) - square, np.maximum(0, -delta), np.minimum(1, 1 - delta))
    return p0 + delta, p0


def score_variance(
    count_in: np.ndarray, num_in: np.ndarray, count_heldout: np.ndarray, num_heldout: np.ndarray, delta: np.ndarray
) -> np.ndarray:
    """Variance of the observed difference if the true one is delta, as score tests have it.

    (p1 (1 - p1) / n1 + p0 (1 - p0) / n0) n / (n - 1) with the `restricted_rates`, n = n1 + n0, after Miettinen &
    Nurminen (1985). Arguments as in `restricted_rates`.
    """
    p1, p0 = restricted_rates(count_in, num_in, count_heldout, num_heldout, delta)
    total = num_in + num_heldout
    variance = p1 * (1 - p1) / num_in + p0 * (1 - p0) / num_heldout
    return np.maximum(variance, 0) * total / (total - 1)


def _wilson(count: np.ndarray, total: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    z = _quantile(level)
    with np.errstate(invalid="ignore"):
        rate = count / total
        middle = (count + z**2 / 2) / (total + z**2)
        half = z * np.sqrt(total * rate * (1 - rate) + z**2 / 4) / (total + z**2)
    return _at_edges(count, total, middle - half, middle + half)


def _jeffreys(count: np.ndarray, total: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    tail = (1 - level) / 2
    low = special.betaincinv(count + 0.5, total - count + 0.5, tail)
    high = special.betaincinv(count + 0.5, total - count + 0.5, 1 - tail)
    return _at_edges(count, total, low, high)


def _at_edges(count: np.ndarray, total: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends, exact where all runs agree, and NaN without runs."""
    low, high = np.where(count == 0, 0, low), np.where(count == total, 1, high)
    return np.where(total > 0, low, np.nan), np.where(total > 0, high, np.nan)


def _mover(part: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Intervals of a difference from those of its two parts."""

    def ends(k1, n1, k0, n0, level):  # type: ignore[no-untyped-def]
        (low1, high1), (low0, high0), p1, p0 = part(k1, n1, level), part(k0, n0, level), k1 / n1, k0 / n0
        # At low levels a Jeffreys interval may leave out the estimate; a distance is then none.
        below = np.hypot(np.maximum(p1 - low1, 0), np.maximum(high0 - p0, 0))
        above = np.hypot(np.maximum(high1 - p1, 0), np.maximum(p0 - low0, 0))
        return p1 - p0 - below, p1 - p0 + above

    return ends


def _agresti_caffo(
    k1: np.ndarray, n1: np.ndarray, k0: np.ndarray, n0: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    p1, p0 = (k1 + 1) / (n1 + 2), (k0 + 1) / (n0 + 2)
    half = _quantile(level) * np.sqrt(p1 * (1 - p1) / (n1 + 2) + p0 * (1 - p0) / (n0 + 2))
    # Nothing beyond -1 and 1 is a difference of rates, so that leaving it out loses none.
    return np.maximum(p1 - p0 - half, -1), np.minimum(p1 - p0 + half, 1)


def _miettinen_nurminen(
    k1: np.ndarray, n1: np.ndarray, k0: np.ndarray, n0: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    estimate, z = k1 / n1 - k0 / n0, _quantile(level)
    ends = []
    for edge in (-1.0, 1.0):
        inside, outside = estimate.copy(), np.full(estimate.shape, edge)
        for _ in range(_NUM_HALVINGS):
            middle = (inside + outside) / 2
            accepted = (estimate - middle) ** 2 <= z**2 * score_variance(k1, n1, k0, n0, middle)
            inside, outside = np.where(accepted, middle, inside), np.where(accepted, outside, middle)
        ends.append(outside)
    return ends[0], ends[1]


_PROPORTION: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {"wilson": _wilson, "jeffreys": _jeffreys}
_DIFFERENCE: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "newcombe": _mover(_wilson),
    "mover_jeffreys": _mover(_jeffreys),
    "agresti_caffo": _agresti_caffo,
    "miettinen_nurminen": _miettinen_nurminen,
}
PROPORTION_METHODS = tuple(_PROPORTION)
DIFFERENCE_METHODS = tuple(_DIFFERENCE)


def _quantile(level: float) -> float:
    return float(special.ndtri((1 + level) / 2))


def _known(name: str, value: str, choices: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]]) -> Callable:
    if value not in choices:
        raise errors.InvalidValueError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")
    return choices[value]


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise errors.InvalidValueError(f"level: got {level}, expected a share between 0 and 1, such as 0.95")


def checked_counts(
    count_name: str, count: np.ndarray, total_name: str, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 of one shape, if they are counts."""
    count, total = np.broadcast_arrays(np.asarray(count, np.float64), np.asarray(total, np.float64))
    bad = ~((count >= 0) & (count <= total) & (count == np.floor(count)) & (total == np.floor(total)))
    if bad.any():
        raise errors.InvalidValueError(
            f"{count_name}: got {count[bad][0]:g} of {total[bad][0]:g} runs ({total_name}), expected whole numbers of "
            f"runs, and no more right ones than there are; {int(bad.sum())} elements are wrong"
        )
    return count, total
