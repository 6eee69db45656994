"""What a report says of subset influence: its distribution, its extremes and its strongest pairs.

All of it comes from what was kept when the scores were computed (`heldout.scoring.influence_summary`), so that it takes
no longer for the billions of pairs of ImageNet than for a few. Beside the distribution of the values stands the one
that noise alone would give: the sum over all pairs of a normal distribution around 0 with the standard error that the
pair would have if both sides had the same rate of right runs. Where every run agreed about a test example (always
right, or always wrong), all its values are exactly 0; these pairs are counted apart, because they say nothing and would
bury the rest.
"""

import dataclasses
import math

import numpy as np

from heldout.report import selection
from heldout.scoring import influence_extremes, influence_summary, saved_scores, uncertainty
from zoo import errors

_HALF_BINS = influence_extremes.HALF_BINS
NUM_BINS = influence_extremes.NUM_BINS
BIN_WIDTH = 1 / _HALF_BINS
_ERROR_BINS = 400
# Expected share of chance among pairs that are called sure.
_RATE = 0.05


@dataclasses.dataclass(frozen=True)
class Pair:
    """One training and one test example with their subset influence and its standard error."""

    train_index: int
    test_index: int
    value: float
    standard_error: float


@dataclasses.dataclass(frozen=True)
class InfluenceScan:
    """What a report needs of the matrix [N, M].

    Attributes:
        bin_counts: int64 [NUM_BINS], pairs per bin; bin b is centred at (b - NUM_BINS // 2) * BIN_WIDTH.
        noise_counts: float64 [NUM_BINS], pairs expected per bin if every true influence were 0.
        num_pairs: N * M.
        num_missing: pairs that are NaN, because one side has no run.
        num_constant: pairs whose test example every run got right, or every run got wrong; not in `bin_counts`.
        num_helpful: pairs at or above the threshold, of memorized training examples.
        num_sure: of the helpful ones those with an adjusted p-value of at most `rate` (heldout/scoring/uncertainty.py).
        rate: expected share of chance among these.
        num_harmful: pairs at or below minus the threshold, of memorized training examples.
        largest_per_test: float64 [M], largest absolute value of each test example; NaN where all are missing.
        pairs: the strongest helpful and harmful pairs, by falling absolute value, then by falling support.
        typical_error: root mean square of the standard errors at common rates, of the pairs in `bin_counts`; NaN if
            there are none.
        typical_step: by how much one more right run on the side with fewer runs moves the values of the median training
            example; NaN if no example has runs on both sides.
    """

    bin_counts: np.ndarray
    noise_counts: np.ndarray
    num_pairs: int
    num_missing: int
    num_constant: int
    num_helpful: int
    num_sure: int
    rate: float
    num_harmful: int
    largest_per_test: np.ndarray
    pairs: tuple[Pair, ...]
    typical_error: float
    typical_step: float


def scan(
    scores: saved_scores.RatioScores, *, pairs_influence: float, pairs_memorization: float, max_pairs: int
) -> InfluenceScan:
    """Reads what was kept of the matrix.

    Args:
        scores: scores at one ratio.
        pairs_influence: a pair is strong if the absolute value of its subset influence is at least this.
        pairs_memorization: and if the memorization of its training example is at least this.
        max_pairs: at most so many strong pairs are returned, the strongest by absolute value.

    Raises:
        InvalidValueError: the scores were computed with higher thresholds.
    """
    summary, sides = scores.influence, scores.sides
    _check_thresholds(summary, pairs_influence, pairs_memorization)
    defined = sides.support > 0
    varied = (sides.num_right > 0) & (sides.num_right < scores.num_runs)
    num_constant = int(defined.sum()) * int((~varied).sum())
    counts = summary.bin_counts.copy()
    counts[_HALF_BINS] -= num_constant
    row_errors, column_errors = _common_errors(scores, defined, varied)
    found = summary.pairs
    strong = np.abs(found.value) >= np.float32(pairs_influence)
    strong &= scores.memorization.values[found.train_index] >= pairs_memorization
    typical = math.sqrt(np.mean(row_errors**2) * np.mean(column_errors**2)) if counts.sum() else math.nan
    return InfluenceScan(
        bin_counts=counts,
        noise_counts=_noise(_errors_seen(row_errors, column_errors)),
        num_pairs=scores.num_train * scores.num_test,
        num_missing=int((~defined).sum()) * scores.num_test,
        num_constant=num_constant,
        num_helpful=int((strong & (found.value > 0)).sum()),
        num_sure=_num_sure(scores, np.flatnonzero(strong & (found.value > 0))),
        rate=_RATE,
        num_harmful=int((strong & (found.value < 0)).sum()),
        largest_per_test=summary.largest_per_test.astype(np.float64),
        pairs=_strongest(scores, np.flatnonzero(strong), max_pairs),
        typical_error=typical,
        typical_step=1 / float(np.median(sides.support[defined])) if defined.any() else math.nan,
    )


def _check_thresholds(
    summary: influence_summary.InfluenceSummary, pairs_influence: float, pairs_memorization: float
) -> None:
    if pairs_influence < summary.least_influence or pairs_memorization < summary.least_memorization:
        raise errors.InvalidValueError(
            f"pairs_influence {pairs_influence:g} and pairs_memorization {pairs_memorization:g}: the scores hold pairs "
            f"from {summary.least_influence:g} and {summary.least_memorization:g} on; compute_scores with lower "
            "thresholds and --overwrite, or ask for higher ones here"
        )


def _common_errors(
    scores: saved_scores.RatioScores, defined: np.ndarray, varied: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the standard errors at a common rate: sqrt(1 / num_in + 1 / num_heldout) and sqrt(p (1 - p))."""
    sides = scores.sides
    rate = sides.num_right[varied].astype(np.float64) / scores.num_runs
    return np.sqrt(1 / sides.num_in[defined] + 1 / sides.num_heldout[defined]), np.sqrt(rate * (1 - rate))


def _errors_seen(row_errors: np.ndarray, column_errors: np.ndarray) -> np.ndarray:
    """How many pairs have which standard error, int64 [_ERROR_BINS + 1]; few different factors, many pairs."""
    seen = np.zeros(_ERROR_BINS + 1, np.int64)
    rows, row_counts = np.unique(row_errors, return_counts=True)
    columns, column_counts = np.unique(column_errors, return_counts=True)
    for factor, count in zip(rows, row_counts, strict=True):
        bins = np.minimum(np.rint(factor * columns * _ERROR_BINS), _ERROR_BINS).astype(np.int64)
        np.add.at(seen, bins, count * column_counts)
    return seen


def _num_sure(scores: saved_scores.RatioScores, chosen: np.ndarray) -> int:
    found = scores.influence.pairs
    pairs = (found.train_index[chosen], found.test_index[chosen], found.value[chosen])
    return int(np.count_nonzero(uncertainty.of_pairs(scores, *pairs).adjusted_p_value <= _RATE))


def _strongest(scores: saved_scores.RatioScores, chosen: np.ndarray, max_pairs: int) -> tuple[Pair, ...]:
    """Of the pairs of the summary at these positions the strongest: by absolute value, support, and index."""
    found = scores.influence.pairs
    train, test, value = found.train_index[chosen], found.test_index[chosen], found.value[chosen]
    order = np.lexsort((test, train, -scores.sides.support[train], -np.abs(value)))[:max_pairs]
    return _pairs(scores, train[order], test[order], value[order])


def _pairs(
    scores: saved_scores.RatioScores, train: np.ndarray, test: np.ndarray, value: np.ndarray
) -> tuple[Pair, ...]:
    spread = scores.influence_standard_error(train, test, value)
    columns = (one.tolist() for one in (train, test, value, spread))
    return tuple(Pair(*row) for row in zip(*columns, strict=True))


def of_train(scores: saved_scores.RatioScores, train_index: int, count: int) -> tuple[Pair, ...]:
    """The test examples that one training example influences most, helpful or harmful, the strongest first.

    Args:
        scores: scores at one ratio.
        train_index: which.
        count: at most so many, and no more than were kept.
    """
    lists = scores.influence.by_train
    test = np.concatenate([lists.helpful_index[train_index], lists.harmful_index[train_index]])
    value = np.concatenate([lists.helpful[train_index], lists.harmful[train_index]])[test >= 0]
    test = test[test >= 0]
    order = np.lexsort((test, -np.abs(value)))[:count]
    return _pairs(scores, np.full(len(order), train_index), test[order], value[order])


def of_test(scores: saved_scores.RatioScores, test_index: int, count: int) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """The training examples that help one test example most, and those that harm it most, the strongest first.

    Args:
        scores: scores at one ratio.
        test_index: which.
        count: at most so many of either, and no more than were kept.
    """
    lists = scores.influence.by_test
    sides = []
    for value, train in ((lists.helpful, lists.helpful_index), (lists.harmful, lists.harmful_index)):
        chosen = train[test_index][train[test_index] >= 0][:count]
        test = np.full(len(chosen), test_index)
        sides.append(_pairs(scores, chosen, test, value[test_index][: len(chosen)]))
    return sides[0], sides[1]


def strongest_pair(scores: saved_scores.RatioScores) -> Pair | None:
    """The pair with the largest absolute subset influence, helpful or harmful; None where all are 0 or missing.

    Of equal ones the pair whose training example has the larger support comes first, then the smaller indices.
    """
    lists = scores.influence.by_train
    largest = np.fmax(lists.helpful[:, 0], -lists.harmful[:, 0])
    best = selection.highest(largest, 1, selection.support(scores))
    return of_train(scores, int(best[0]), 1)[0] if best.size else None


def _noise(errors_seen: np.ndarray) -> np.ndarray:
    """Pairs expected per bin from a mixture of normals around 0, one for each standard error seen."""
    edges = (np.arange(NUM_BINS + 1) - _HALF_BINS - 0.5) * BIN_WIDTH
    edges[0], edges[-1] = -np.inf, np.inf
    expected = np.zeros(NUM_BINS)
    for position in np.flatnonzero(errors_seen):
        sigma = max(float(position), 0.25) / _ERROR_BINS  # the lowest bin holds errors from 0 to half a bin
        below = np.array([0.5 * (1 + math.erf(edge / (sigma * math.sqrt(2)))) for edge in edges])
        expected += errors_seen[position] * np.diff(below)
    return expected
