"""Which ratio and which examples a report speaks about.

Rankings treat NaN (no run on one side) as absent. They break ties first by the larger support, the number of runs on
the side that has fewer: +1.00 from 100 held-out runs says more than +1.00 from 2, though both have a standard error of
0. Then the smaller original index wins, so that a report does not change from one run of the program to the next.
"""

from collections.abc import Sequence

import numpy as np

from heldout.scoring import saved_scores
from zoo import errors

# Feldman & Zhang (2020) train on 70 % of the examples; of ratios with equally many runs, the nearest to it is shown.
_CUSTOMARY_RATIO = 0.7


def ratio_scores(saved: saved_scores.SavedScores, subset_ratio: float | None = None) -> saved_scores.RatioScores:
    """The scores of one subset ratio.

    Args:
        saved: scores at one or more ratios.
        subset_ratio: the ratio asked for; None takes the one with the most runs, of equals the nearest to 0.7.

    Raises:
        InvalidValueError: the ratio asked for was not scored.
    """
    if subset_ratio is None:
        return min(
            saved.ratios.values(),
            key=lambda scores: (-scores.num_runs, abs(scores.subset_ratio - _CUSTOMARY_RATIO), scores.subset_ratio),
        )
    for scores in saved.ratios.values():
        if abs(scores.subset_ratio - subset_ratio) < 1e-9:
            return scores
    known = ", ".join(f"{ratio:g}" for ratio in sorted(saved.ratios))
    raise errors.InvalidValueError(
        f"subset_ratio {subset_ratio:g}: {saved.directory} holds scores at {known}; pass one of these, or none"
    )


def support(scores: saved_scores.RatioScores) -> np.ndarray:
    """Runs on the side that has fewer, per training example: min(num_in, num_heldout), int64 [N]."""
    return np.minimum(scores.memorization.num_in, scores.memorization.num_heldout)


def highest(values: np.ndarray, count: int, support: np.ndarray | None = None) -> np.ndarray:
    """Positions of the `count` highest values in falling order, NaN left out; int64, at most `count` long.

    Args:
        values: numbers [n].
        count: how many.
        support: [n] runs behind each value, of which the larger number breaks ties; None where all have the same.
    """
    values = np.asarray(values, dtype=np.float64)
    candidates = np.flatnonzero(~np.isnan(values))
    if candidates.size > 4 * count:  # a sort of everything is not needed; ties at the cut are all kept
        cut = np.partition(values[candidates], candidates.size - count)[candidates.size - count] if count else np.inf
        candidates = candidates[values[candidates] >= cut]
    runs = np.zeros(candidates.size, np.int64) if support is None else np.asarray(support)[candidates]
    order = np.lexsort((candidates, -runs, -values[candidates]))
    return candidates[order[:count]]


def lowest(values: np.ndarray, count: int, support: np.ndarray | None = None) -> np.ndarray:
    """Positions of the `count` lowest values in rising order; arguments and result as of `highest`."""
    return highest(-np.asarray(values, dtype=np.float64), count, support)


def class_name(label: int | None, class_names: Sequence[str] | None) -> str:
    """The name of a class; its number where there are no names, and "" where there is no label."""
    if label is None:
        return ""
    return class_names[label] if class_names and label < len(class_names) else str(label)
