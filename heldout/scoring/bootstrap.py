"""How many examples are memorized, with a bootstrap interval over runs.

The number of training examples whose estimated memorization (scores.py) reaches a threshold, and an interval for the
number whose true memorization does. The T runs of one ratio are drawn T times with replacement, and the
examples are counted again in every draw (Davison & Hinkley 1997, chapter 5). With q_low and q_high the quantiles of
the redrawn counts at 2.5 and 97.5 %,

    half width = max(q_high - count, count - q_low),  interval = count - half width to count + half width.

This is the union of the percentile interval and of its mirror image at the count, the basic interval. Neither will do
alone. Noise carries examples over the threshold, in the count and once more in the redrawn counts: where that is the
main error, with few runs, the truth lies below the count and the percentile interval lies above it. Where sampling is
the main error, the basic interval misses because the count is not smooth in the rates. In simulated zoos (600
examples; 60 to 2000 runs; no, few or many examples near the threshold: `python -m benchmarks.interval_coverage`) the
percentile interval held the true number in 0 to 100 % of the zoos, the basic one in 8 to 100 %, their union in 85 to
100 %. Read it as an honest order of size, not as an exact 95 %. The ends are not clipped: a small count may have a low
end below zero.
"""

import dataclasses

import numpy as np

from heldout.scoring import scores
from zoo import errors, run_table

# Bytes that the arrays of one block of examples may take together, beside the weights of the draws.
_BLOCK_BYTES = 1 << 26
_LOW, _HIGH = 0.025, 0.975


@dataclasses.dataclass(frozen=True)
class CountInterval:
    """Number of training examples with memorization >= threshold.

    Attributes:
        threshold: memorization, in [-1, 1].
        count: number of examples.
        low: lower end of the bootstrap interval, as far below the count as `high` is above it; not clipped, so it may
            be negative.
        high: upper end.
        num_draws: redrawn sets of runs behind the interval.
        num_undefined: examples without a memorization value (never or always held out); they are not in `count`.
    """

    threshold: float
    count: int
    low: float
    high: float
    num_draws: int
    num_undefined: int = 0


def count_above(
    table: run_table.RunTable, subset_ratio: float, threshold: float, *, num_draws: int = 1000, seed: int = 0
) -> CountInterval:
    """Number of training examples with memorization >= threshold, with a bootstrap interval over runs.

    Args:
        table: N training examples.
        subset_ratio: which T runs to use.
        threshold: memorization, in [-1, 1]; 0.25 is usual.
        num_draws: D, how often the runs are redrawn.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        A CountInterval. Examples without a value, in the estimate or in a draw, are not counted there.

    Raises:
        InvalidValueError: the table has no run of this ratio, or threshold or num_draws is out of range.

    Cost: 6 D T N floating point operations; memory 12 D T bytes, or 4 D T and 64 MiB if that is more.
    """
    if not -1 <= threshold <= 1:
        raise errors.InvalidValueError(f"threshold: got {threshold}, expected a memorization between -1 and 1")
    if num_draws < 1:
        raise errors.InvalidValueError(f"num_draws: got {num_draws}, expected at least 1")
    runs = table.select(subset_ratio)
    values = scores.memorization_from_counts(scores.count_sides_of(runs)).values
    count = int(np.sum(values >= threshold))
    low, high = np.quantile(redrawn_counts(runs, threshold, num_draws, seed), [_LOW, _HIGH])
    half_width = float(max(high - count, count - low))
    return CountInterval(
        threshold=threshold,
        count=count,
        low=count - half_width,
        high=count + half_width,
        num_draws=num_draws,
        num_undefined=int(np.sum(np.isnan(values))),
    )


def draw_weights(num_runs: int, num_draws: int, seed: int) -> np.ndarray:
    """How often each run is in each redrawn set: float32 [D, T] of whole numbers, rows summing to T."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_runs, np.full(num_runs, 1 / num_runs), size=num_draws).astype(np.float32)


def redrawn_counts(runs: run_table.RunTable, threshold: float, num_draws: int, seed: int) -> np.ndarray:
    """The number of examples at or above the threshold in every redrawn set of runs, int64 [D].

    Args:
        runs: table with runs of one ratio.
        threshold: memorization.
        num_draws: D.
        seed: of `draw_weights`.
    """
    weights = draw_weights(runs.num_runs, num_draws, seed)
    counts = np.zeros(num_draws, np.int64)
    # Per example of a block: three float32 columns of runs, three of sums, and float64 rates with their temporaries.
    width = max(1, _BLOCK_BYTES // (16 * runs.num_runs + 48 * num_draws))
    for start in range(0, runs.num_train, width):
        stop = min(start + width, runs.num_train)
        mask = runs.subset_mask(start, stop)
        right = runs.train_correctness(start, stop)
        # Whole numbers below 2**24: exact in float32, which is the fast product.
        num_in = weights @ mask.astype(np.float32)
        num_right_in = weights @ (mask & right).astype(np.float32)
        num_right = weights @ right.astype(np.float32)
        p1 = scores.rate(num_right_in, num_in)
        p0 = scores.rate(num_right - num_right_in, np.float32(runs.num_runs) - num_in)
        counts += np.sum(p1 - p0 >= threshold, axis=1)
    return counts
