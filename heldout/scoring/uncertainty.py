"""How sure the scores of one ratio are: intervals and adjusted p-values for examples and for pairs.

Intervals are those of intervals.py at 95 %, each for an example or pair that was named beforehand: of those that are
chosen because their estimates are high, fewer hold the truth (benchmarks/pair_discoveries.py). P-values are Fisher's,
against no effect in the positive direction (discoveries.py), adjusted within the family of all examples (Benjamini &
Hochberg) or of all pairs (Benjamini & Yekutieli, whatever the dependence): of all with an adjusted p-value of at most
q, an expected share of at most q has no effect.
"""

import dataclasses

import numpy as np

from heldout.scoring import discoveries, influence_matrix, influence_summary, intervals, saved_scores, scores

# Pairs whose p-values are computed at a time.
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Of estimates in [-1, 1]; arrays of equal shape.

    Attributes:
        low: float64, lower end of the interval; NaN where a side has no run.
        high: float64, upper end.
        adjusted_p_value: float64 in [0, 1], the least false discovery rate of a list with this entry; NaN where a side
            has no run.
    """

    low: np.ndarray
    high: np.ndarray
    adjusted_p_value: np.ndarray


def side_counts(ratio: saved_scores.RatioScores) -> scores.SideCounts:
    """The counts behind the memorization of each example, which its rates hold."""
    support = ratio.memorization
    rights = (
        np.rint(np.nan_to_num(rate) * number).astype(np.int64)
        for rate, number in ((ratio.accuracy_in, support.num_in), (ratio.accuracy_heldout, support.num_heldout))
    )
    return scores.SideCounts(support.num_in, support.num_heldout, *rights)


def of_examples(counts: scores.SideCounts) -> Uncertainty:
    """Of the memorization of N examples, arrays [N].

    Args:
        counts: at one subset ratio.
    """
    given = (counts.num_right_in, counts.num_in, counts.num_right_heldout, counts.num_heldout)
    interval = intervals.difference(*given)
    adjusted = discoveries.adjusted_p_values(discoveries.no_effect_p_values(*given))
    return Uncertainty(interval.low, interval.high, adjusted)


def of_consistency(consistency: scores.Consistency) -> intervals.Interval:
    """Intervals of the consistency scores, [N]."""
    count = np.rint(np.nan_to_num(consistency.profile) * consistency.num_heldout)
    return intervals.mean_of_proportions(count, consistency.num_heldout)


def of_pairs(
    ratio: saved_scores.RatioScores, train_index: np.ndarray, test_index: np.ndarray, values: np.ndarray
) -> Uncertainty:
    """Of the subset influence of chosen pairs; what counts is that it is above 0.

    Args:
        ratio: scores of one subset ratio.
        train_index: integers [n].
        test_index: integers [n].
        values: float32 [n], subset influence of these pairs.

    Returns:
        Arrays [n]. The family is that of all pairs with runs on both sides. Pairs that are no candidates of the summary
        count as 1, which can only raise the others.
    """
    counts = _pair_counts(ratio, train_index, test_index, values)
    interval = intervals.difference(*counts)
    candidates = ratio.influence.candidates
    p_values = _p_values(ratio, candidates)
    num_tests = int(np.count_nonzero(ratio.sides.support)) * ratio.num_test
    adjusted = discoveries.adjusted_p_values(p_values, discoveries.OF_PAIRS, num_tests=num_tests)
    # Both ascend by train index, then test index, as one number each.
    known = candidates.train_index.astype(np.int64) * ratio.num_test + candidates.test_index
    asked = np.asarray(train_index, np.int64) * ratio.num_test + test_index
    place = np.minimum(np.searchsorted(known, asked), max(len(known) - 1, 0))
    found = known[place] == asked if len(known) else np.zeros(len(asked), bool)
    out = np.where(ratio.sides.support[train_index] > 0, 1.0, np.nan)
    out[found] = adjusted[place[found]]
    return Uncertainty(interval.low, interval.high, out)


def _pair_counts(
    ratio: saved_scores.RatioScores, train_index: np.ndarray, test_index: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Right runs and runs of either side of each pair."""
    sides = ratio.sides
    num_in, num_heldout = sides.num_in[train_index], sides.num_heldout[train_index]
    num_right = sides.num_right[test_index].astype(np.float64)
    right_in = np.nan_to_num(influence_matrix.counts_from_values(values, num_in, num_heldout, num_right))
    return right_in, num_in, np.where(num_heldout > 0, num_right - right_in, 0.0), num_heldout


def _p_values(ratio: saved_scores.RatioScores, pairs: influence_summary.PairList) -> np.ndarray:
    """Fisher's p-values of pairs, a block at a time; 1 where the influence is not positive."""
    out = np.ones(len(pairs))
    positive = np.flatnonzero(pairs.value > 0)
    for start in range(0, len(positive), _BLOCK):
        chosen = positive[start : start + _BLOCK]
        counts = _pair_counts(ratio, pairs.train_index[chosen], pairs.test_index[chosen], pairs.value[chosen])
        out[chosen] = discoveries.no_effect_p_values(*counts)
    return out
