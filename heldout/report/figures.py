"""The charts of memorization, subset influence and consistency in a report, and of one score against another.

Counts and means have their errors beside them: thin lines of two standard errors, or, for subset influence, what noise
alone would give.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from heldout.report import drawing, influence_scan
from heldout.scoring import reliability_files, saved_scores
from heldout.scoring import scores as scores_lib

_MAX_POINTS = 2500
_TAIL_BIN_WIDTH = 0.026
# Examples whose errors are spread over the bins at a time.
_BLOCK = 1 << 16


def memorization_histogram(scores: saved_scores.RatioScores) -> drawing.Chart:
    """Number of training examples by memorization, log scale, with the threshold marked; NaN left out."""

    def draw(axes: Any) -> None:
        known, found = ~np.isnan(scores.memorization.values), scores.memorized
        values, spread = scores.memorization.values[known], scores.memorization.standard_error[known]
        _histogram(axes, values, spread, lowest=min(0.0, float(values.min(initial=0.0))), highest=1.0)
        axes.axvline(found.threshold, color=drawing.PALETTE["harm"], linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{found.threshold:g} or more: {found.count} ({max(0.0, found.low):.0f} to {found.high:.0f})",
            (found.threshold, 1),
            xycoords=("data", "axes fraction"),
            xytext=(5, -4),
            textcoords="offset points",
            color=drawing.PALETTE["harm"],
            va="top",
            fontsize=8.5,
        )
        axes.set_xlabel("memorization")
        axes.set_ylabel("training examples (log scale)")

    return drawing.chart("memorization", draw)


def consistency_histogram(consistency: scores_lib.Consistency) -> drawing.Chart:
    """Number of training examples by consistency score, log scale; NaN left out."""

    def draw(axes: Any) -> None:
        known = ~np.isnan(consistency.score)
        values, spread = consistency.score[known], consistency.score_standard_error[known]
        _histogram(axes, values, spread, lowest=0.0, highest=1.0)
        axes.set_xlabel("consistency score")
        axes.set_ylabel("training examples (log scale)")

    return drawing.chart("consistency", draw)


def influence_bulk(scan: influence_scan.InfluenceScan) -> drawing.Chart:
    """Number of pairs by subset influence near 0, linear scale, with what noise alone would give in the same bins."""

    def draw(axes: Any) -> None:
        typical_error = scan.typical_error if scan.typical_error > 0 else 0.025
        factor = _bin_factor(scan, typical_error / 3)
        width = factor * influence_scan.BIN_WIDTH
        centres, counts = _coarser(scan.bin_counts, factor)
        _, noise = _coarser(scan.noise_counts, factor)
        shown = np.flatnonzero(np.abs(centres) <= max(4 * typical_error, 4.5 * width))
        reach = _edges(centres[shown], width)[-1]
        _bars(axes, centres[shown], counts[shown], width, drawing.PALETTE["accent-soft"], "pairs")
        _outline(axes, centres[shown], noise[shown], width)
        axes.yaxis.set_major_formatter(drawing.short_number)
        axes.set_xlabel("subset influence, near 0")
        axes.set_ylabel("pairs")
        axes.set_xlim(-reach, reach)
        drawing.legend(axes, "upper right")

    return drawing.chart("subset_influence_bulk", draw)


def influence_tails(scan: influence_scan.InfluenceScan) -> drawing.Chart:
    """Number of pairs by subset influence over the whole range, log scale: the tails beside the noise."""

    def draw(axes: Any) -> None:
        factor = _bin_factor(scan, _TAIL_BIN_WIDTH)
        centres, counts = _coarser(scan.bin_counts, factor)
        _, noise = _coarser(scan.noise_counts, factor)
        width = factor * influence_scan.BIN_WIDTH
        for side, colour, name in (
            (np.abs(centres) < width / 2, drawing.PALETTE["accent-soft"], None),  # around 0: neither helps nor harms
            (centres > width / 2, drawing.PALETTE["accent"], "helps"),
            (centres < -width / 2, drawing.PALETTE["harm"], "harms"),
        ):
            _bars(axes, centres[side], counts[side], width, colour, name)
        _outline(axes, centres, np.where(noise >= 0.5, noise, np.nan), width)
        _log_counts(axes, counts)
        filled = np.flatnonzero(counts)
        edge = (np.abs(centres[filled]).max() if filled.size else 0.5) + width / 2
        edge = min(1.0, edge) + 0.02
        axes.set_xlim(-edge, edge)
        axes.set_xlabel("subset influence, whole range")
        axes.set_ylabel("pairs (log scale)")
        drawing.legend(axes, "upper right")

    return drawing.chart("subset_influence_tails", draw)


def accuracy_scatter(scores: saved_scores.RatioScores) -> drawing.Chart:
    """Accuracy when held out against accuracy when trained on: points, or a density where they are many."""

    def draw(axes: Any) -> None:
        known = ~np.isnan(scores.memorization.values)
        inside, outside = scores.accuracy_in[known], scores.accuracy_heldout[known]
        axes.plot([0, 1], [0, 1], color=drawing.PALETTE["muted"], linewidth=0.8)
        threshold = scores.memorized.threshold
        axes.plot([threshold, 1], [0, 1 - threshold], color=drawing.PALETTE["harm"], linewidth=1, linestyle=(0, (4, 3)))
        if inside.size <= _MAX_POINTS:
            axes.scatter(inside, outside, s=9, color=drawing.PALETTE["accent"], alpha=0.55, linewidths=0)
        else:
            _density(axes, inside, outside)
        _typical_error(axes, scores)
        axes.set_xlabel("accuracy when trained on")
        axes.set_ylabel("accuracy when held out")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(True, axis="both")

    return drawing.chart("accuracy", draw)


def ratios_with_data(consistency: scores_lib.Consistency) -> np.ndarray:
    """Rows of the profile in which at least one example has a held-out run, int64."""
    return np.flatnonzero((~np.isnan(consistency.profile)).any(axis=1))


def consistency_by_ratio(
    consistency: scores_lib.Consistency, accuracy: Sequence[reliability_files.HeldoutAccuracy] = ()
) -> drawing.Chart:
    """Held-out accuracy against subset ratio: mean over examples, and the bands of 25-75 % and 10-90 %.

    Args:
        consistency: two ratios or more with held-out runs.
        accuracy: of runs, whose standard errors are drawn, twice, at the mean of their ratio; () where they are not
            known.
    """

    def draw(axes: Any) -> None:
        rows = ratios_with_data(consistency)
        ratios, profile = consistency.subset_ratios[rows], consistency.profile[rows]
        bands = np.nanquantile(profile, [0.1, 0.25, 0.75, 0.9], axis=1)
        axes.fill_between(
            ratios, bands[0], bands[3], color=drawing.PALETTE["accent-faint"], linewidth=0, label="10–90 %"
        )
        axes.fill_between(
            ratios, bands[1], bands[2], color=drawing.PALETTE["accent-soft"], linewidth=0, label="25–75 %"
        )
        mean = np.nanmean(profile, axis=1)
        axes.plot(ratios, mean, color=drawing.PALETTE["accent"], linewidth=1.6, marker="o", markersize=4, label="mean")
        known = {one.subset_ratio: 2 * one.standard_error for one in accuracy}
        spread = np.array([known.get(float(ratio), np.nan) for ratio in ratios])
        axes.errorbar(ratios, mean, spread, fmt="none", ecolor=drawing.PALETTE["ink"], elinewidth=1, capsize=3)
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("subset ratio")
        axes.set_ylabel("accuracy when held out")
        drawing.legend(axes, "lower right")

    return drawing.chart("consistency_by_ratio", draw)


def score_scatter(first: np.ndarray, second: np.ndarray, first_name: str, second_name: str) -> drawing.Chart:
    """One score of the same examples against another: points, or hexagons by their logarithm where they are many.

    Args:
        first: floats [n], on the horizontal axis; examples without either score are left out.
        second: floats [n].
        first_name: what stands at that axis.
        second_name: what stands at the other.
    """

    def draw(axes: Any) -> None:
        from matplotlib import colors  # heavy, and needed by reports only

        known = ~(np.isnan(first) | np.isnan(second))
        x, y = first[known], second[known]
        ends = [min(x.min(initial=0), y.min(initial=0)), max(x.max(initial=0), y.max(initial=0))]
        axes.plot(ends, ends, color=drawing.PALETTE["harm"], linewidth=1, linestyle=(0, (4, 3)))
        if x.size <= _MAX_POINTS:
            axes.scatter(x, y, s=9, color=drawing.PALETTE["accent"], alpha=0.55, linewidths=0)
        else:
            shades = colors.LinearSegmentedColormap.from_list(
                "accent", [drawing.PALETTE["accent-faint"], drawing.PALETTE["accent"]]
            )
            axes.hexbin(x, y, gridsize=(50, 28), bins="log", mincnt=1, cmap=shades, linewidths=0.2)
        axes.set_xlabel(first_name)
        axes.set_ylabel(second_name)
        axes.grid(True, axis="both")

    return drawing.chart("score_scatter", draw)


def _histogram(axes: Any, values: np.ndarray, spread: np.ndarray, lowest: float, highest: float) -> None:
    """Bars of width 0.05 at round numbers, counts on a log scale, with thin lines of two errors of each count."""
    width = 0.05
    first, last = int(np.floor(lowest / width + 1e-9)), int(np.ceil(highest / width - 1e-9))
    edges = np.arange(first, last + 1) * width
    # Rates such as 3/20 fall on an edge; the nudge puts them into the bar that begins there, whatever the rounding.
    positions = np.clip(np.floor(values / width + 1e-9).astype(np.int64), first, last - 1) - first
    counts = np.bincount(positions, minlength=last - first)
    centres = edges[:-1] + width / 2
    axes.bar(centres, counts, width * 0.9, color=drawing.PALETTE["accent"], linewidth=0)
    error = 2 * count_errors(values, spread, edges)
    shown = counts + error > 0.5  # a log scale begins there
    ends = np.fmax(counts - error, 0.5)[shown], (counts + error)[shown]
    axes.vlines(centres[shown], *ends, color=drawing.PALETTE["ink"], linewidth=1)
    axes.set_xlim(edges[0] - 0.02, edges[-1] + 0.02)
    _log_counts(axes, counts + error)


def count_errors(values: np.ndarray, spread: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Standard errors of the counts of a histogram whose values have errors of their own.

    Each value is taken as normal around itself, apart from the others; with p the probability that it falls into a
    bin, the variance of the count is the sum of p (1 - p). A value without error stays where it is.

    Args:
        values: float64 [n].
        spread: float64 [n], standard errors; 0 for none.
        edges: float64 [B + 1], ascending; the outer bins take what lies beyond them.

    Returns:
        float64 [B].
    """
    from scipy import special  # heavy, and needed by reports only

    moving = spread > 0
    values, spread, variance = values[moving], spread[moving], np.zeros(len(edges) - 1)
    for start in range(0, len(values), _BLOCK):
        block = slice(start, start + _BLOCK)
        below = special.ndtr((edges[1:-1] - values[block, np.newaxis]) / spread[block, np.newaxis])
        inside = np.diff(below, axis=1, prepend=0, append=1)
        variance += (inside * (1 - inside)).sum(axis=0)
    return np.sqrt(variance)


def _typical_error(axes: Any, scores: saved_scores.RatioScores) -> None:
    """A cross as wide and high as two standard errors of the median example to either side."""
    support = scores.memorization
    sides = ((scores.accuracy_in, support.num_in), (scores.accuracy_heldout, support.num_heldout))
    # One run more that is right and one that is wrong: no error is 0 because no run disagreed.
    shares = [(np.nan_to_num(share) * count + 1) / (count + 2) for share, count in sides]
    errors = [np.sqrt(share * (1 - share) / (count + 2)) for share, (_, count) in zip(shares, sides, strict=True)]
    across, along = (2 * float(np.median(error)) for error in errors)
    place = (max(0.06, across), 1 - max(0.08, along))
    style = {"fmt": "none", "ecolor": drawing.PALETTE["ink"], "elinewidth": 1}
    axes.errorbar(*place, xerr=across, yerr=along, **style)
    text = {"color": drawing.PALETTE["muted"], "fontsize": 8.5, "va": "center"}
    axes.annotate("typical error", (place[0] + across, place[1]), (6, 0), textcoords="offset points", **text)


def _edges(centres: np.ndarray, width: float) -> np.ndarray:
    """Where neighbouring bins begin, and the last one ends; influence lies in [-1, 1], whatever the width of a bin."""
    return np.clip(np.append(centres - width / 2, centres[-1] + width / 2), -1, 1)


def _bars(axes: Any, centres: np.ndarray, counts: np.ndarray, width: float, colour: str, label: str | None) -> None:
    """One bar for each of some neighbouring bins, over no value that influence cannot take."""
    if centres.size:
        edges = _edges(centres, width)
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colour, linewidth=0, label=label)


def _outline(axes: Any, centres: np.ndarray, noise: np.ndarray, width: float) -> None:
    """What noise alone would give, as steps over the same bins as the bars; nothing where it is NaN."""
    axes.stairs(
        noise, _edges(centres, width), baseline=None, color=drawing.PALETTE["ink"], linewidth=1.1, label="noise alone"
    )


def _log_counts(axes: Any, counts: np.ndarray) -> None:
    """A log scale from half a count, so that bars of one example are seen, with plain numbers at its ticks."""
    from matplotlib import ticker  # heavy, and needed by reports only

    if not counts.any():
        return
    axes.set_yscale("log")
    axes.set_ylim(0.5, max(2.0, float(counts.max(initial=1))) * 2)
    axes.yaxis.set_major_locator(ticker.LogLocator(base=10, numticks=7))
    axes.yaxis.set_major_formatter(drawing.short_number)
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def _bin_factor(scan: influence_scan.InfluenceScan, least_width: float) -> int:
    """Fine bins in a coarse one: at least `least_width` together, and two steps of the values.

    A test example on which one run is wrong has values one step to the one side of 0 and less to the other, and none
    at 0 itself; a bin of two steps around 0 holds both, where finer bins would show a hole that is no finding.
    """
    step = 0.0 if np.isnan(scan.typical_step) else scan.typical_step
    return _odd(max(least_width, 2 * step) / influence_scan.BIN_WIDTH - 1e-9)


def _odd(value: float) -> int:
    """The odd number at or above a value, at least 1: with it a coarse bin stays centred at 0."""
    whole = max(1, int(np.ceil(value)))
    return whole + 1 - whole % 2


def _coarser(counts: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums `factor` (odd) neighbouring bins into one, with one bin centred at 0; returns centres and counts."""
    half = influence_scan.NUM_BINS // 2
    reach = -(-(half - factor // 2) // factor)  # coarse bins on either side of the middle one
    padding = reach * factor + factor // 2 - half
    sums = np.pad(counts, padding).reshape(2 * reach + 1, factor).sum(axis=1)
    return np.arange(-reach, reach + 1) * factor * influence_scan.BIN_WIDTH, sums


def _density(axes: Any, inside: np.ndarray, outside: np.ndarray) -> None:
    """Squares whose darkness grows with the logarithm of the number of examples in them."""
    from matplotlib import collections, patches  # heavy, and needed by reports only

    size = 40
    counts, _, _ = np.histogram2d(inside, outside, bins=size, range=[[0, 1], [0, 1]])
    columns, rows = np.nonzero(counts)
    strength = np.log1p(counts[columns, rows]) / np.log1p(counts.max())
    squares = [patches.Rectangle((x / size, y / size), 1 / size, 1 / size) for x, y in zip(columns, rows, strict=True)]
    axes.add_collection(
        collections.PatchCollection(
            squares,
            facecolor=[drawing.PALETTE["accent"]] * len(squares),
            alpha=list(0.12 + 0.88 * strength),
            linewidths=0,
        )
    )
