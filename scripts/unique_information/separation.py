"""How well a score tells one set of examples from another, with a 95 % interval.

The area under the ROC curve of m examples x and n others y is Mann and Whitney's statistic,

    AUROC = 1 / (m n) sum_ij ([x_i > y_j] + 1/2 [x_i = y_j])

the chance that an example of the first set has the higher score: 0.5 where the score says nothing, 1 where all x are
above all y, 0 where they are below. Examples of both sets are what is random in intervals:

- delong: V = var(a) / m + var(b) / n, where a_i is the share of y below x_i and b_j that of x above y_j (DeLong, DeLong
  & Clarke-Pearson 1988); a normal interval for log(A / (1 - A)). Where A is 0 or 1, V is 0, and the interval is the
  next one;
- newcombe: the A' with |A' - A| <= 1.96 sqrt(V(A')), with Hanley and McNeil's V, in which the mean of m and n stands
  for either where it matters little (Newcombe 2006, method 5): it looks at A, m and n alone;
- bootstrap: the 2.5 and 97.5 % quantiles over redrawn x and redrawn y.

The default is settled by simulation (600 trials of each of eight pairs of distributions: normal ones 0 to 3 standard
deviations apart, one of them three times as wide, mixtures of half and of nine tenths, and scores with many ties;
`python -m tests.scripts.unique_information.separation_coverage_test`). The intervals held the truth in

                 6 and 54 examples    30 and 30         100 and 900
    delong       0.84 to 0.98         0.92 to 0.98      0.92 to 0.96
    newcombe     0.82 to 0.98         0.94 to 0.99      0.82 to 0.98
    bootstrap    0.50 to 0.91         0.80 to 0.95

With a handful of examples on one side all are too short where these are not alike; newcombe is where they are.
"""

from collections.abc import Callable
import dataclasses
import math

import numpy as np

from heldout.scoring import agreement
from zoo import errors

METHODS = ("delong", "newcombe", "bootstrap")
DEFAULT_NUM_DRAWS = 500
_Z = 1.959963984540054
_LEAST = 1e-12
_ENDS = (2.5, 97.5)


def auroc(
    first: np.ndarray,
    second: np.ndarray,
    *,
    method: str = METHODS[0],
    num_draws: int = DEFAULT_NUM_DRAWS,
    seed: int = 0,
) -> agreement.Estimate:
    """The area under the ROC curve, with its interval.

    Args:
        first: floats [m], scores of the examples that a high score is to tell; finite.
        second: floats [n], scores of the others.
        method: of the interval, one of `METHODS`.
        num_draws: of the bootstrap.
        seed: of these.

    Returns:
        An estimate in [0, 1] of m + n examples; NaN where a set is empty, and its interval where it has one example.

    Raises:
        InvalidValueError: the method is not known.
    """
    if method not in METHODS:
        raise errors.InvalidValueError(f"--method={method}: expected one of {', '.join(METHODS)}")
    number = len(first) + len(second)
    if not len(first) or not len(second):
        return agreement.Estimate(math.nan, math.nan, math.nan, number)
    value = _area(first, second)
    if min(len(first), len(second)) < 2:
        return agreement.Estimate(value, math.nan, math.nan, number)
    if method == "bootstrap":
        return agreement.Estimate(value, *_redrawn(first, second, num_draws, seed, _area), number)
    ends = _delong if method == "delong" and 0 < value < 1 else _newcombe
    return agreement.Estimate(value, *ends(first, second, value), number)


def _area(first: np.ndarray, second: np.ndarray) -> float:
    return float(_placements(first, second)[0].mean())


def _placements(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each of the first the share of the second below it, of each of the second that of the first above it."""
    from scipy import stats  # heavy, and not needed by those who only ask for help

    rank = stats.rankdata(np.concatenate([first, second]))
    below = (rank[: len(first)] - stats.rankdata(first)) / len(second)
    above = 1 - (rank[len(first) :] - stats.rankdata(second)) / len(first)
    return below, above


def _delong(first: np.ndarray, second: np.ndarray, value: float) -> tuple[float, float]:
    error = math.sqrt(sum(part.var(ddof=1) / len(part) for part in _placements(first, second)))
    middle, half = math.log(value / (1 - value)), _Z * error / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (middle - half, middle + half))
    return low, high


def _newcombe(first: np.ndarray, second: np.ndarray, value: float) -> tuple[float, float]:
    from scipy import optimize  # heavy, as above

    number = (len(first) + len(second)) / 2 - 1

    def beyond(area: float) -> float:
        spread = 1 + number * (1 - area) / (2 - area) + number * area / (1 + area)
        return (area - value) ** 2 - _Z**2 * area * (1 - area) * spread / (len(first) * len(second))

    # At 0 and 1 themselves the spread is 0 for every value, which is no end.
    low = 0.0 if value == 0 else optimize.brentq(beyond, _LEAST, min(value, 1 - _LEAST))
    high = 1.0 if value == 1 else optimize.brentq(beyond, max(value, _LEAST), 1 - _LEAST)
    return float(low), float(high)


def _redrawn(
    first: np.ndarray,
    second: np.ndarray,
    num_draws: int,
    seed: int,
    measure: Callable[[np.ndarray, np.ndarray], float],
) -> tuple[float, float]:
    generator = np.random.default_rng(seed)
    drawn = [
        measure(generator.choice(first, len(first)), generator.choice(second, len(second))) for _ in range(num_draws)
    ]
    low, high = np.percentile(drawn, _ENDS)
    return float(low), float(high)


def average_precision(
    first: np.ndarray, second: np.ndarray, *, num_draws: int = DEFAULT_NUM_DRAWS, seed: int = 0
) -> agreement.Estimate:
    """Mean precision over the first set, examples by falling score: m / (m + n) where the score says nothing.

    Args:
        first: floats [m], scores of the examples that a high score is to tell; finite.
        second: floats [n], scores of the others.
        num_draws: of the bootstrap that gives the interval.
        seed: of these.

    Returns:
        An estimate in [0, 1]; examples of equal scores come at once. NaN where a set is empty.
    """
    number = len(first) + len(second)
    if not len(first) or not len(second):
        return agreement.Estimate(math.nan, math.nan, math.nan, number)
    ends = _redrawn(first, second, num_draws, seed, _average_precision)
    return agreement.Estimate(_average_precision(first, second), *ends, number)


def _average_precision(first: np.ndarray, second: np.ndarray) -> float:
    from sklearn import metrics  # heavy, and not needed by those who only ask for help

    truth = np.repeat([1, 0], [len(first), len(second)])
    return float(metrics.average_precision_score(truth, np.concatenate([first, second])))


@dataclasses.dataclass(frozen=True)
class Top:
    """The examples with the highest scores.

    Attributes:
        number: k, how many.
        num_first: of the first set among them; not whole where equal scores end the list, of which each is as likely
            to be in it.
        precision: num_first / k.
        recall: num_first / m; NaN where the first set is empty.
    """

    number: int
    num_first: float
    precision: float
    recall: float


def top(first: np.ndarray, second: np.ndarray, share: float) -> Top:
    """How many of the first set are among a share of all examples with the highest scores.

    Args:
        first: floats [m], finite.
        second: floats [n].
        share: above 0, at most 1; of all m + n, at least one example where there is one.
    """
    score = np.concatenate([first, second])
    if not len(score):
        return Top(0, 0.0, math.nan, math.nan)
    number = max(1, round(share * len(score)))
    threshold = -np.partition(-score, number - 1)[number - 1]
    num_above, num_equal = int(np.sum(score > threshold)), int(np.sum(score == threshold))
    found = float(np.sum(first > threshold) + np.sum(first == threshold) * (number - num_above) / num_equal)
    return Top(number, found, found / number, found / len(first) if len(first) else math.nan)
