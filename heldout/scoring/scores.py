"""Memorization and consistency of every training example, from the packed run table.

Memorization after Feldman & Zhang (2020, eq. 1), estimated from the runs of one subset ratio:

    memorization[i] = P(run is right on i | i in its subset) - P(run is right on i | i held out)

Consistency after Jiang et al. (2021, "C-scores"): held-out accuracy of every example per subset ratio, a profile of
shape [K, N], and its mean over the ratios, the score of shape [N]; or its integral over the ratios.

All counts are exact integers, taken from the packed bits; rates and errors are float64. Runs of different subset
ratios are never pooled: memorization is asked for one ratio, consistency keeps one row per ratio.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from zoo import errors, run_table

# Rows summed at a time: 255 ones still fit in the uint8 that one pass over unpacked bits accumulates in.
_ROWS_PER_PASS = 255


@dataclasses.dataclass(frozen=True)
class Scores:
    """One score per training example with its support.

    Attributes:
        values: float64 [N], NaN where one of the two sides has no run.
        num_in: int64 [N], runs that trained on the example.
        num_heldout: int64 [N], runs that held it out.
        standard_error: float64 [N], sqrt(p1 (1 - p1) / num_in + p0 (1 - p0) / num_heldout) with the observed rates;
            NaN where the value is. It is 0 where both rates are 0 or 1, which means "no disagreement seen among these
            runs", not "known exactly".
    """

    values: np.ndarray
    num_in: np.ndarray
    num_heldout: np.ndarray
    standard_error: np.ndarray


@dataclasses.dataclass(frozen=True)
class Consistency:
    """Held-out accuracy of every training example, per subset ratio and averaged.

    Attributes:
        subset_ratios: float64 [K], ascending.
        profile: float64 [K, N] in [0, 1], the share of held-out runs that are right; NaN where no run held it out.
        num_heldout: int64 [K, N].
        standard_error: float64 [K, N], sqrt(p (1 - p) / num_heldout); NaN where the profile is, 0 at rates of 0 and 1.
        score: float64 [N] in [0, 1], the mean of the profile over the ratios that have held-out runs of the example;
            NaN if none has. Accuracy rises with the ratio, so scores of examples with different `num_ratios` do not
            compare exactly.
        num_ratios: int64 [N] in 0..K, how many ratios have a held-out run behind the score; where it is below K, the
            score averages over fewer ratios than those of other examples.
        score_standard_error: float64 [N], of that mean: the root of the summed squares over the number of ratios.
    """

    subset_ratios: np.ndarray
    profile: np.ndarray
    num_heldout: np.ndarray
    standard_error: np.ndarray
    score: np.ndarray
    num_ratios: np.ndarray
    score_standard_error: np.ndarray


@dataclasses.dataclass(frozen=True)
class ConsistencyIntegral:
    """Held-out accuracy of every training example, integrated over the subset ratio.

    Attributes:
        values: float64 [N] in [0, 1]; NaN where fewer than two ratios have a held-out run of the example.
        standard_error: float64 [N], root of the summed squares of weight times standard error of the profile; NaN
            where the value is. As that error it is 0 where all rates are 0 or 1.
        num_ratios: int64 [N] in 0..K, the ratios between which the integral was taken, ends included.
    """

    values: np.ndarray
    standard_error: np.ndarray
    num_ratios: np.ndarray


@dataclasses.dataclass(frozen=True)
class SideCounts:
    """How many runs of one ratio saw, held out, and were right on each training example: int64 [N] each."""

    num_in: np.ndarray
    num_heldout: np.ndarray
    num_right_in: np.ndarray
    num_right_heldout: np.ndarray

    @property
    def accuracy_in(self) -> np.ndarray:
        """Share of the runs that trained on an example and are right on it, float64 [N]; NaN without such runs."""
        return rate(self.num_right_in, self.num_in)

    @property
    def accuracy_heldout(self) -> np.ndarray:
        """Share of the runs that held an example out and are right on it, float64 [N]; NaN without such runs."""
        return rate(self.num_right_heldout, self.num_heldout)


def rate(count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The quotient count / total as float64 in [0, 1]; NaN where the total is 0."""
    count = np.asarray(count, np.float64)
    return np.divide(count, total, out=np.full(count.shape, np.nan), where=np.asarray(total) > 0)


def sum_bit_columns(bits: np.ndarray, num_columns: int) -> np.ndarray:
    """Number of set bits in each of the first `num_columns` columns.

    Args:
        bits: uint8 [T, ceil(num_columns / 8)], packed with bit order "little".
        num_columns: how many of the columns are meant; the rest is padding.

    Returns:
        int64 [num_columns], exact.
    """
    sums = np.zeros(num_columns, np.int64)
    for start in range(0, len(bits), _ROWS_PER_PASS):
        rows = np.unpackbits(bits[start : start + _ROWS_PER_PASS], axis=1, count=num_columns, bitorder="little")
        sums += np.add.reduce(rows, axis=0, dtype=np.uint8)
    return sums


def count_sides(table: run_table.RunTable, subset_ratio: float) -> SideCounts:
    """Counts behind memorization and consistency at one subset ratio.

    Raises:
        InvalidValueError: the table has no run of this ratio.
    """
    return count_sides_of(table.select(subset_ratio))


def count_sides_of(runs: run_table.RunTable) -> SideCounts:
    """`count_sides` for a table whose runs all have one ratio."""
    num_in = sum_bit_columns(runs.subset_mask_bits, runs.num_train)
    num_right = sum_bit_columns(runs.train_correctness_bits, runs.num_train)
    num_right_in = sum_bit_columns(runs.subset_mask_bits & runs.train_correctness_bits, runs.num_train)
    return SideCounts(num_in, runs.num_runs - num_in, num_right_in, num_right - num_right_in)


def memorization(table: run_table.RunTable, subset_ratio: float) -> Scores:
    """Memorization of every training example at one subset ratio; positive: right more often when trained on.

    values = p1 - p0 with p1 = `accuracy_in` and p0 = `accuracy_heldout` (Feldman & Zhang 2020, eq. 1).

    Args:
        table: N training examples.
        subset_ratio: which runs to use. There is no default: runs of different ratios estimate different quantities.

    Returns:
        Scores of shape [N], values in [-1, 1], NaN where no run trained on the example or none held it out.

    Raises:
        InvalidValueError: the table has no run of this ratio.
    """
    return memorization_from_counts(count_sides(table, subset_ratio))


def memorization_from_counts(counts: SideCounts) -> Scores:
    """`memorization` for counts that are at hand."""
    p1, p0 = counts.accuracy_in, counts.accuracy_heldout
    variance = rate(p1 * (1 - p1), counts.num_in) + rate(p0 * (1 - p0), counts.num_heldout)
    return Scores(p1 - p0, counts.num_in, counts.num_heldout, np.sqrt(variance))


def consistency(table: run_table.RunTable, subset_ratios: Sequence[float] | None = None) -> Consistency:
    """Consistency profile and score of every training example.

    profile[k, i] = share of the runs at ratio k holding i out that are right on i (Jiang et al. 2021, eq. 1);
    score[i] = mean over k of profile[k, i], over those num_ratios[i] values of k where it is defined. An example that
    some ratio never held out averages over fewer ratios than the others.

    Args:
        table: N training examples.
        subset_ratios: the K ratios to use; None for all the table has.

    Returns:
        A Consistency with K rows in ascending order of ratio.

    Raises:
        InvalidValueError: a ratio is not in the table, is named twice, or none is named.
    """
    ratios = sorted(table.subset_ratios if subset_ratios is None else subset_ratios)
    if not ratios or len(set(ratios)) != len(ratios):
        raise errors.InvalidValueError(
            f"subset_ratios: got {ratios}, expected at least one of {list(table.subset_ratios)}, each once"
        )
    counts = [count_sides(table, ratio) for ratio in ratios]
    num_heldout = np.stack([one.num_heldout for one in counts])
    profile = np.stack([one.accuracy_heldout for one in counts])
    variance = rate(profile * (1 - profile), num_heldout)
    num_ratios = np.asarray(np.count_nonzero(num_heldout, axis=0), np.int64)
    return Consistency(
        subset_ratios=np.asarray(ratios, np.float64),
        profile=profile,
        num_heldout=num_heldout,
        standard_error=np.sqrt(variance),
        score=rate(np.nansum(profile, axis=0), num_ratios),
        num_ratios=num_ratios,
        score_standard_error=rate(np.sqrt(np.nansum(variance, axis=0)), num_ratios),
    )


def consistency_integral(consistency: Consistency) -> ConsistencyIntegral:
    """Held-out accuracy of every training example, its mean over subset ratios that are spread evenly.

    The profile of Jiang et al. (2021) is made a number by an expectation over a uniform ratio; here by an integral. For
    an example held out at the ratios r_1 < ... < r_k, with held-out accuracies c_1 to c_k,

        values = 1 / (r_k - r_1)  sum_j (r_(j+1) - r_j) (c_j + c_(j+1)) / 2,

    the trapezoid rule over the span of those ratios. Beside the score, which is a plain mean, ratios count by the
    room they have: it matters where ratios are spaced unevenly, as in 0.1, 0.2, 0.9. Where an example lacks a ratio
    at either end, its span is shorter than that of others, and the values do not compare exactly.

    Args:
        consistency: K ratios, ascending, N examples.

    Returns:
        A ConsistencyIntegral of shape [N].
    """
    there = ~np.isnan(consistency.profile)
    ratios = np.where(there, consistency.subset_ratios[:, np.newaxis], np.nan)
    # fmax and fmin pass NaN by: the nearest ratio with data at or below, and at or above, each row.
    below = np.fmax.accumulate(ratios, axis=0)
    above = np.fmin.accumulate(ratios[::-1], axis=0)[::-1]
    before = np.concatenate([np.full_like(ratios[:1], np.nan), below[:-1]])
    after = np.concatenate([above[1:], np.full_like(ratios[:1], np.nan)])
    width = np.where(np.isnan(after), ratios, after) - np.where(np.isnan(before), ratios, before)
    weights = rate(np.where(there, width / 2, 0), below[-1] - above[0])
    num_ratios = np.count_nonzero(there, axis=0)
    enough = num_ratios >= 2
    value = np.sum(np.where(there, weights * consistency.profile, 0), axis=0)
    variance = np.sum(np.where(there, (weights * consistency.standard_error) ** 2, 0), axis=0)
    return ConsistencyIntegral(
        values=np.where(enough, value, np.nan),
        standard_error=np.where(enough, np.sqrt(variance), np.nan),
        num_ratios=np.asarray(num_ratios, np.int64),
    )
