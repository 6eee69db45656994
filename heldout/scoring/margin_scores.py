"""Memorization and consistency measured on margins instead of right and wrong.

Where runs were trained with their margins kept (`heldout.evaluation.margins.collect`), the output y[t, i] of run t on
example i is a number, log(p / (1 - p)), and the scores are differences of its means (Feldman & Zhang 2020 with the
output of Park et al. 2023):

    memorization_margin[i] = mean of y[t, i] over runs that trained on i - mean over runs that held it out

in nats of log odds; influence on margins is in margin_influence.py. They see what right and wrong cannot: how much
surer runs become on an example that all of them get right. Their errors come from the sample variance of either side
(divisor: its runs less one).

Margins are clipped first, to -20 to 20 unless the caller says otherwise, and the plain mean is taken. Logits are
float32, whose probabilities differ from 1 by no less than 2^-24, a margin of 16.6: beyond some 20 a margin tells how
the logits are scaled, not how often a run errs; and one run that diverged, with a margin of thousands, would decide a
mean over hundreds. A trimmed mean would be as robust, but how much it cuts depends on the other runs of the same side,
so that a difference of two is no longer a difference of expectations of one bounded output, its error has no simple
form, and influence would be no matrix product. How many margins were clipped is counted. Runs without margins are left
out and counted. Blocks of examples bound the memory beside the margins themselves.
"""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from heldout.scoring import scores
from zoo import errors, run_table

DEFAULT_CLIP = 20.0
# Bytes that the float64 arrays of one block of examples may take together; their number per run and example.
_BLOCK_BYTES = 1 << 26
_BLOCK_ARRAYS = 4


@dataclasses.dataclass(frozen=True)
class MarginMemorization:
    """Memorization on margins of every training example, in nats of log odds.

    Attributes:
        values: float64 [N], in -2 clip to 2 clip; NaN where one of the two sides has no run. Positive: runs are surer
            of the example when they trained on it.
        num_in: int64 [N], runs with margins that trained on the example.
        num_heldout: int64 [N], runs with margins that held it out.
        standard_error: float64 [N], sqrt(s1^2 / num_in + s0^2 / num_heldout) with the sample variances; NaN where a
            side has fewer than two runs.
        num_clipped: int64 [N], margins of the example that lay beyond the clip.
        num_runs_without: runs of the ratio that have no margins.
        clip: bound on the absolute value of a margin.
    """

    values: np.ndarray
    num_in: np.ndarray
    num_heldout: np.ndarray
    standard_error: np.ndarray
    num_clipped: np.ndarray
    num_runs_without: int
    clip: float


@dataclasses.dataclass(frozen=True)
class MarginConsistency:
    """Mean held-out margin of every training example, per subset ratio and averaged, in nats of log odds.

    Attributes:
        subset_ratios: float64 [K], ascending.
        profile: float64 [K, N], in -clip to clip; NaN where no run with margins held the example out.
        num_heldout: int64 [K, N], runs with margins that held it out.
        standard_error: float64 [K, N], s / sqrt(num_heldout) with the sample variance; NaN below two such runs.
        score: float64 [N], mean of the profile over the ratios where it is defined; NaN if it is nowhere.
        num_ratios: int64 [N], how many these are.
        score_standard_error: float64 [N], root of the summed squares over their number; NaN where one of them has a
            single run.
        num_clipped: int64 [K, N], held-out margins that lay beyond the clip.
        num_runs_without: int64 [K], runs of each ratio that have no margins.
        clip: bound on the absolute value of a margin.
    """

    subset_ratios: np.ndarray
    profile: np.ndarray
    num_heldout: np.ndarray
    standard_error: np.ndarray
    score: np.ndarray
    num_ratios: np.ndarray
    score_standard_error: np.ndarray
    num_clipped: np.ndarray
    num_runs_without: np.ndarray
    clip: float


@dataclasses.dataclass(frozen=True)
class _Side:
    """Moments of the margins of some runs on a block of examples: arrays [width]."""

    number: np.ndarray
    mean: np.ndarray
    variance_of_mean: np.ndarray
    num_clipped: np.ndarray


def memorization_margin(
    table: run_table.RunTable, train_margin: np.ndarray, subset_ratio: float, *, clip: float = DEFAULT_CLIP
) -> MarginMemorization:
    """Mean margin of the runs that trained on an example minus that of the runs that held it out.

    Args:
        table: T runs in all, N training examples.
        train_margin: floats [T, N] in the table's order of runs, from `margins.collect`; rows of NaN for runs
            without.
        subset_ratio: which runs to use; those of different ratios are never pooled.
        clip: margins are cut to -clip..clip; positive. Infinity cuts nothing.

    Returns:
        A MarginMemorization of shape [N].

    Raises:
        InvalidValueError: there is no run of this ratio, or none with margins; the clip is not positive; a run has
            margins on some examples only.
        MismatchError: the margins have another shape than [T, N].
    """
    runs, rows, num_without = runs_with_margins(table, train_margin, "train_margin", subset_ratio, clip)
    found = []
    for start, stop in _widths(runs):
        margin, mask = train_margin[rows, start:stop].astype(np.float64), runs.subset_mask(start, stop)
        inside, outside = _side(margin, mask, clip), _side(margin, ~mask, clip)
        found.append(
            (
                inside.mean - outside.mean,
                inside.number,
                outside.number,
                np.sqrt(inside.variance_of_mean + outside.variance_of_mean),
                inside.num_clipped + outside.num_clipped,
            )
        )
    values, num_in, num_heldout, error, num_clipped = (np.concatenate(part) for part in zip(*found, strict=True))
    return MarginMemorization(values, num_in, num_heldout, error, num_clipped, num_without, clip)


def consistency_margin(
    table: run_table.RunTable,
    train_margin: np.ndarray,
    subset_ratios: Sequence[float] | None = None,
    *,
    clip: float = DEFAULT_CLIP,
) -> MarginConsistency:
    """Mean held-out margin of every training example, per ratio, and its mean over ratios.

    Args:
        table: T runs in all, N training examples.
        train_margin: as in `memorization_margin`.
        subset_ratios: the K ratios to use; None for all the table has.
        clip: as in `memorization_margin`.

    Returns:
        A MarginConsistency with K rows in ascending order of ratio.

    Raises:
        InvalidValueError: as in `memorization_margin`, or a ratio is named twice, or none is named.
        MismatchError: as in `memorization_margin`.
    """
    ratios = sorted(table.subset_ratios if subset_ratios is None else subset_ratios)
    if not ratios or len(set(ratios)) != len(ratios):
        raise errors.InvalidValueError(
            f"subset_ratios: got {ratios}, expected at least one of {list(table.subset_ratios)}, each once"
        )
    profiles = [_heldout_profile(table, train_margin, ratio, clip) for ratio in ratios]
    num_heldout, profile, variance, num_clipped = (
        np.stack([getattr(side, name) for side, _ in profiles])
        for name in ("number", "mean", "variance_of_mean", "num_clipped")
    )
    there = num_heldout > 0
    num_ratios = np.count_nonzero(there, axis=0).astype(np.int64)
    return MarginConsistency(
        subset_ratios=np.asarray(ratios, np.float64),
        profile=profile,
        num_heldout=num_heldout,
        standard_error=np.sqrt(variance),
        score=scores.rate(np.sum(np.where(there, profile, 0), axis=0), num_ratios),
        num_ratios=num_ratios,
        score_standard_error=scores.rate(np.sqrt(np.sum(np.where(there, variance, 0), axis=0)), num_ratios),
        num_clipped=num_clipped,
        num_runs_without=np.array([num_without for _, num_without in profiles], np.int64),
        clip=clip,
    )


def _heldout_profile(
    table: run_table.RunTable, train_margin: np.ndarray, subset_ratio: float, clip: float
) -> tuple[_Side, int]:
    """Held-out margins of all examples at one ratio, and the runs without margins."""
    runs, rows, num_without = runs_with_margins(table, train_margin, "train_margin", subset_ratio, clip)
    parts = [
        dataclasses.astuple(
            _side(train_margin[rows, start:stop].astype(np.float64), ~runs.subset_mask(start, stop), clip)
        )
        for start, stop in _widths(runs)
    ]
    return _Side(*(np.concatenate(part) for part in zip(*parts, strict=True))), num_without


def runs_with_margins(
    table: run_table.RunTable, margin: np.ndarray, name: str, subset_ratio: float, clip: float
) -> tuple[run_table.RunTable, np.ndarray, int]:
    """The runs of one ratio that have margins.

    Args:
        table: T runs in all.
        margin: floats [T, N] or [T, M], from `margins.collect`.
        name: "train_margin" or "test_margin", which says how many columns are expected.
        subset_ratio: which.
        clip: bound on the absolute value of a margin.

    Returns:
        Their table, their rows in the whole table, and how many of the ratio have none.

    Raises:
        InvalidValueError: there is no run of this ratio, or none with margins; the clip is not positive; a run has
            margins on some examples only.
        MismatchError: the margins have another shape.
    """
    width = table.num_train if name == "train_margin" else table.num_test
    if margin.shape != (table.num_runs, width) or margin.dtype.kind != "f":
        raise errors.MismatchError(
            f"{name} has dtype {margin.dtype} and shape {margin.shape}, expected floats of shape "
            f"{(table.num_runs, width)}: the margins of all runs in the table, as margins.collect gives them"
        )
    if not clip > 0:
        raise errors.InvalidValueError(f"clip: got {clip}, expected a positive margin such as {DEFAULT_CLIP:g}")
    there = np.flatnonzero(table.subset_ratio == subset_ratio)
    runs = table.select(subset_ratio)
    missing = np.array([np.count_nonzero(np.isnan(margin[row])) for row in there])
    partial = np.flatnonzero((missing > 0) & (missing < width))
    if len(partial):
        raise errors.InvalidValueError(
            f"{name}: run {subset_ratio:g}/{runs.run_id[partial[0]]} has margins on {width - missing[partial[0]]} of "
            f"{width} examples, expected all or none; verify its record with zoo_verify"
        )
    known = np.flatnonzero(missing == 0)
    if not len(known):
        raise errors.InvalidValueError(
            f"{name}: none of the {len(there)} runs of {table.experiment} at ratio {subset_ratio:g} has margins; train "
            "runs with --margins"
        )
    return runs.take(known), there[known], len(there) - len(known)


def _widths(runs: run_table.RunTable) -> Iterator[tuple[int, int]]:
    """Bounds of blocks of examples; there is always one, so that results of no example have their dtypes."""
    step = max(1, _BLOCK_BYTES // (8 * _BLOCK_ARRAYS * runs.num_runs))
    for start in range(0, max(runs.num_train, 1), step):
        yield start, min(start + step, runs.num_train)


def _side(margin: np.ndarray, chosen: np.ndarray, clip: float) -> _Side:
    """Moments over the chosen runs of margins [T, width]."""
    beyond = np.count_nonzero((np.abs(margin) > clip) & chosen, axis=0)
    number = np.count_nonzero(chosen, axis=0).astype(np.int64)
    kept = np.where(chosen, np.clip(margin, -clip, clip), 0)
    mean = scores.rate(kept.sum(axis=0), number)
    kept -= np.where(number > 0, mean, 0)
    kept *= kept
    squares = np.sum(kept, axis=0, where=chosen)
    variance = scores.rate(squares, np.maximum(number - 1, 0))
    return _Side(number, mean, scores.rate(variance, number), beyond.astype(np.int64))
