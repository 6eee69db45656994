"""One pass over the matrix of subset influence: its distribution, its extremes and its strongest pairs.

The matrix [N, M] may be far larger than memory, so it is read in blocks of rows. Beside the distribution of the
values stands the one that noise alone would give: the sum over all pairs of a normal distribution around 0 with the
standard error of that pair. Where every run agreed about a test example (always right, or always wrong), all its
values are exactly 0 with standard error 0; these pairs are counted apart, because they say nothing and would bury
the rest.
"""

import dataclasses
import math

import numpy as np

from heldout.report import selection
from heldout.scoring import saved_scores

_BLOCK_VALUES = 1 << 22
_HALF_BINS = 500
NUM_BINS = 2 * _HALF_BINS + 1
BIN_WIDTH = 1 / _HALF_BINS
_ERROR_BINS = 400


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
        num_harmful: pairs at or below minus the threshold, of memorized training examples.
        largest_per_test: float64 [M], largest absolute value of each test example; NaN where all are missing.
        pairs: the strongest helpful and harmful pairs, by falling absolute value, then by falling support.
        typical_error: root mean square of the standard errors of the pairs in `bin_counts`; NaN if there are none.
        typical_step: by how much one more right run on the side with fewer runs moves the values of the median training
            example; NaN if no example has runs on both sides.
    """

    bin_counts: np.ndarray
    noise_counts: np.ndarray
    num_pairs: int
    num_missing: int
    num_constant: int
    num_helpful: int
    num_harmful: int
    largest_per_test: np.ndarray
    pairs: tuple[Pair, ...]
    typical_error: float
    typical_step: float


def scan(
    scores: saved_scores.RatioScores, *, pairs_influence: float, pairs_memorization: float, max_pairs: int
) -> InfluenceScan:
    """Reads the whole matrix once.

    Args:
        scores: scores at one ratio; the matrices [N, M] may be memory-mapped.
        pairs_influence: a pair is strong if the absolute value of its subset influence is at least this.
        pairs_memorization: and if the memorization of its training example is at least this.
        max_pairs: at most so many strong pairs are kept, the strongest by absolute value.

    Returns:
        The distribution, the extremes and the strong pairs. Cost: one read of both matrices.
    """
    num_train, num_test = scores.subset_influence.shape
    rows = max(1, _BLOCK_VALUES // max(1, num_test))
    counts = np.zeros(NUM_BINS, dtype=np.int64)
    errors_seen = np.zeros(_ERROR_BINS + 1, dtype=np.int64)
    missing = constant = helpful = harmful = 0
    square_sum = 0.0
    largest = np.full(num_test, np.nan)
    kept: list[np.ndarray] = []
    memorized = scores.memorization.values >= pairs_memorization
    support = selection.support(scores)
    for start in range(0, num_train, rows):
        values = np.asarray(scores.subset_influence[start : start + rows], dtype=np.float32)
        spread = np.asarray(scores.influence_standard_error[start : start + rows], dtype=np.float32)
        absent = np.isnan(values)
        same = (values == 0) & (spread == 0)
        varied = ~absent & ~same
        missing += int(absent.sum())
        constant += int(same.sum())
        counts += np.bincount(_bins(values[varied]), minlength=NUM_BINS)
        errors_seen += np.bincount(_error_bins(spread[varied]), minlength=_ERROR_BINS + 1)
        square_sum += float(np.square(spread[varied], dtype=np.float64).sum())
        largest = np.fmax(largest, np.fmax.reduce(np.abs(values), axis=0))
        strong = (np.abs(values) >= pairs_influence) & memorized[start : start + rows, None]
        helpful += int((strong & (values > 0)).sum())
        harmful += int((strong & (values < 0)).sum())
        kept = [_strongest(kept, _found(values, spread, strong, start, support), max_pairs)]
    total = int(counts.sum())
    return InfluenceScan(
        bin_counts=counts,
        noise_counts=_noise(errors_seen),
        num_pairs=num_train * num_test,
        num_missing=missing,
        num_constant=constant,
        num_helpful=helpful,
        num_harmful=harmful,
        largest_per_test=largest,
        pairs=tuple(Pair(int(i), int(j), float(v), float(s)) for i, j, v, s, _ in (kept[0] if kept else ())),
        typical_error=math.sqrt(square_sum / total) if total else math.nan,
        typical_step=1 / float(np.median(support[support > 0])) if support.any() else math.nan,
    )


def strongest_pair(scores: saved_scores.RatioScores) -> Pair | None:
    """The pair with the largest absolute subset influence, helpful or harmful; None where all are 0 or missing.

    Of equal ones the pair whose training example has the larger support comes first, then the smaller indices. Cost:
    one read of the matrix of values.
    """
    num_train, num_test = scores.subset_influence.shape
    rows = max(1, _BLOCK_VALUES // max(1, num_test))
    largest = np.full(num_train, np.nan)
    for start in range(0, num_train, rows):
        values = np.asarray(scores.subset_influence[start : start + rows], dtype=np.float32)
        largest[start : start + rows] = np.fmax.reduce(np.abs(values), axis=1, initial=np.nan)
    best = selection.highest(largest, 1, selection.support(scores))
    if not best.size or largest[best[0]] == 0:
        return None
    train = int(best[0])
    row = np.asarray(scores.subset_influence[train], dtype=np.float64)
    test = int(np.nanargmax(np.abs(row)))
    return Pair(train, test, float(row[test]), float(scores.influence_standard_error[train, test]))


def _bins(values: np.ndarray) -> np.ndarray:
    return np.rint(values * _HALF_BINS).astype(np.int64) + _HALF_BINS


def _error_bins(spread: np.ndarray) -> np.ndarray:
    # The largest possible error is sqrt(1/4 + 1/4) < 1, with one run on either side.
    return np.rint(spread * _ERROR_BINS).astype(np.int64)


def _found(values: np.ndarray, spread: np.ndarray, strong: np.ndarray, start: int, support: np.ndarray) -> np.ndarray:
    """The strong pairs of a block of rows; float64 [P, 5]: train, test, value, error, support."""
    rows, columns = np.nonzero(strong)
    train = rows + start
    found = [train, columns, values[rows, columns], spread[rows, columns], support[train]]
    return np.column_stack(found).astype(np.float64)


def _strongest(kept: list[np.ndarray], found: np.ndarray, max_pairs: int) -> np.ndarray:
    """The kept pairs and those found, cut to the strongest; [P, 5] as of `_found`."""
    together = np.concatenate([*kept, found])
    order = np.lexsort((together[:, 1], together[:, 0], -together[:, 4], -np.abs(together[:, 2])))
    return together[order[:max_pairs]]


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
