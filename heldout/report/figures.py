"""The charts of a report, drawn with matplotlib's object interface (no pyplot, no display, no global figures).

Each chart is kept twice: as a PNG file for papers and slides, and as SVG for the page itself. In the SVG the colours
of the palette are replaced by CSS variables and the text stays text, so that one drawing suits a light and a dark
page and takes the page's font. All charts have the same size, which fills half a wide page and the whole of a phone.
"""

from collections.abc import Callable
import dataclasses
import io
import re
from typing import Any

import numpy as np

from heldout.report import influence_scan
from heldout.scoring import reliability, saved_scores
from heldout.scoring import scores as scores_lib

# Palette: matplotlib draws these colours; the page's style sheet gives each name a light and a dark value.
PALETTE = {
    "ink": "#20262c",
    "muted": "#68717a",
    "grid": "#e4e4de",
    "accent": "#1f6a78",
    "accent-soft": "#9cc3c6",
    "accent-faint": "#cfe0e0",
    "harm": "#b0532c",
}
_SIZE_INCHES = (5.0, 3.3)
_DOTS_PER_INCH = 200
_MAX_POINTS = 2500
_TAIL_BIN_WIDTH = 0.026
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": PALETTE["muted"],
    "axes.edgecolor": PALETTE["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": PALETTE["grid"],
    "grid.linewidth": 0.7,
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "ytick.major.size": 0,
    "text.color": PALETTE["ink"],
    "svg.fonttype": "none",
    "svg.hashsalt": "heldout",
    "axes.unicode_minus": True,
}


@dataclasses.dataclass(frozen=True)
class Chart:
    """One chart: the PNG file as bytes, and the SVG element for the page."""

    name: str
    png: bytes
    svg: str


def memorization_histogram(scores: saved_scores.RatioScores) -> Chart:
    """Number of training examples by memorization, log scale, with the threshold marked; NaN left out."""

    def draw(axes: Any) -> None:
        values = scores.memorization.values[~np.isnan(scores.memorization.values)]
        _histogram(axes, values, lowest=min(0.0, float(values.min(initial=0.0))), highest=1.0)
        axes.axvline(scores.memorized.threshold, color=PALETTE["harm"], linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"threshold {scores.memorized.threshold:g}",
            (scores.memorized.threshold, 1),
            xycoords=("data", "axes fraction"),
            xytext=(5, -4),
            textcoords="offset points",
            color=PALETTE["harm"],
            va="top",
            fontsize=8.5,
        )
        axes.set_xlabel("memorization")
        axes.set_ylabel("training examples (log scale)")

    return _chart("memorization", draw)


def consistency_histogram(score: np.ndarray) -> Chart:
    """Number of training examples by consistency score, log scale; NaN left out."""

    def draw(axes: Any) -> None:
        _histogram(axes, score[~np.isnan(score)], lowest=0.0, highest=1.0)
        axes.set_xlabel("consistency score")
        axes.set_ylabel("training examples (log scale)")

    return _chart("consistency", draw)


def influence_bulk(scan: influence_scan.InfluenceScan) -> Chart:
    """Number of pairs by subset influence near 0, linear scale, with what noise alone would give in the same bins."""

    def draw(axes: Any) -> None:
        typical_error = scan.typical_error if scan.typical_error > 0 else 0.025
        factor = _bin_factor(scan, typical_error / 3)
        width = factor * influence_scan.BIN_WIDTH
        centres, counts = _coarser(scan.bin_counts, factor)
        _, noise = _coarser(scan.noise_counts, factor)
        shown = np.flatnonzero(np.abs(centres) <= max(4 * typical_error, 4.5 * width))
        reach = _edges(centres[shown], width)[-1]
        _bars(axes, centres[shown], counts[shown], width, PALETTE["accent-soft"], "pairs")
        _outline(axes, centres[shown], noise[shown], width)
        axes.yaxis.set_major_formatter(_short_number)
        axes.set_xlabel("subset influence, near 0")
        axes.set_ylabel("pairs")
        axes.set_xlim(-reach, reach)
        axes.legend(frameon=False, fontsize=8.5, loc="upper right", labelcolor=PALETTE["muted"], handlelength=1.2)

    return _chart("subset_influence_bulk", draw)


def influence_tails(scan: influence_scan.InfluenceScan) -> Chart:
    """Number of pairs by subset influence over the whole range, log scale: the tails beside the noise."""

    def draw(axes: Any) -> None:
        factor = _bin_factor(scan, _TAIL_BIN_WIDTH)
        centres, counts = _coarser(scan.bin_counts, factor)
        _, noise = _coarser(scan.noise_counts, factor)
        width = factor * influence_scan.BIN_WIDTH
        for side, colour, name in (
            (np.abs(centres) < width / 2, PALETTE["accent-soft"], None),  # around 0: neither helps nor harms
            (centres > width / 2, PALETTE["accent"], "helps"),
            (centres < -width / 2, PALETTE["harm"], "harms"),
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
        axes.legend(frameon=False, fontsize=8.5, loc="upper right", labelcolor=PALETTE["muted"], handlelength=1.2)

    return _chart("subset_influence_tails", draw)


def accuracy_scatter(scores: saved_scores.RatioScores) -> Chart:
    """Accuracy when held out against accuracy when trained on: points, or a density where they are many."""

    def draw(axes: Any) -> None:
        known = ~np.isnan(scores.memorization.values)
        inside, outside = scores.accuracy_in[known], scores.accuracy_heldout[known]
        axes.plot([0, 1], [0, 1], color=PALETTE["muted"], linewidth=0.8)
        threshold = scores.memorized.threshold
        axes.plot([threshold, 1], [0, 1 - threshold], color=PALETTE["harm"], linewidth=1, linestyle=(0, (4, 3)))
        if inside.size <= _MAX_POINTS:
            axes.scatter(inside, outside, s=9, color=PALETTE["accent"], alpha=0.55, linewidths=0)
        else:
            _density(axes, inside, outside)
        axes.set_xlabel("accuracy when trained on")
        axes.set_ylabel("accuracy when held out")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(True, axis="both")

    return _chart("accuracy", draw)


def ratios_with_data(consistency: scores_lib.Consistency) -> np.ndarray:
    """Rows of the profile in which at least one example has a held-out run, int64."""
    return np.flatnonzero((~np.isnan(consistency.profile)).any(axis=1))


def consistency_by_ratio(consistency: scores_lib.Consistency) -> Chart:
    """Held-out accuracy against subset ratio: mean over examples, and the bands of 25-75 % and 10-90 %."""

    def draw(axes: Any) -> None:
        rows = ratios_with_data(consistency)
        ratios, profile = consistency.subset_ratios[rows], consistency.profile[rows]
        bands = np.nanquantile(profile, [0.1, 0.25, 0.75, 0.9], axis=1)
        axes.fill_between(ratios, bands[0], bands[3], color=PALETTE["accent-faint"], linewidth=0, label="10–90 %")
        axes.fill_between(ratios, bands[1], bands[2], color=PALETTE["accent-soft"], linewidth=0, label="25–75 %")
        mean = np.nanmean(profile, axis=1)
        axes.plot(ratios, mean, color=PALETTE["accent"], linewidth=1.6, marker="o", markersize=4, label="mean")
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("subset ratio")
        axes.set_ylabel("accuracy when held out")
        axes.legend(frameon=False, fontsize=8.5, loc="lower right", labelcolor=PALETTE["muted"], handlelength=1.2)

    return _chart("consistency_by_ratio", draw)


def heldout_accuracy(subset_ratios: np.ndarray, accuracy: np.ndarray, standard_error: np.ndarray) -> Chart:
    """Mean held-out accuracy of runs against subset ratio, with bars of two standard errors.

    Args:
        subset_ratios: [K].
        accuracy: [K], share.
        standard_error: [K], of that mean.
    """

    def draw(axes: Any) -> None:
        style = {"color": PALETTE["accent"], "linewidth": 1.6, "marker": "o", "markersize": 4, "capsize": 3}
        axes.errorbar(subset_ratios, accuracy, 2 * standard_error, **style)
        axes.set_xticks(subset_ratios, [f"{ratio:g}" for ratio in subset_ratios])
        axes.set_xlabel("subset ratio")
        axes.set_ylabel("accuracy when held out, mean of runs")

    return _chart("heldout_accuracy", draw)


def split_half_reliability(found: reliability.Reliability, wanted: float) -> Chart:
    """Correlation of scores from disjoint halves against runs in each, and what the largest predicts for more."""

    def draw(axes: Any) -> None:
        runs = found.num_runs
        for values, name, shade, colour in (
            (found.pearson, "linear", "accent-faint", "accent"),
            (found.spearman, "ranks", "grid", "muted"),
        ):
            mean, spread = values.mean(axis=1), values.std(axis=1)
            axes.fill_between(runs, mean - spread, mean + spread, color=PALETTE[shade], linewidth=0)
            axes.plot(runs, mean, color=PALETTE[colour], linewidth=1.6, marker="o", markersize=4, label=name)
        mean = found.pearson.mean(axis=1)
        needed = reliability.runs_needed(mean[-1], runs[-1], wanted)
        if found.is_telling(-1) and runs[-1] < needed < 1000 * runs[-1]:
            more = np.geomspace(runs[-1], 1.3 * needed, 50)
            predicted = reliability.predicted(mean[-1], runs[-1], more)
            axes.plot(more, predicted, color=PALETTE["accent"], linewidth=1, linestyle=(0, (4, 3)), label="predicted")
        axes.axhline(wanted, color=PALETTE["harm"], linewidth=1, label=f"{wanted:g}")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_short_number)
        lowest = np.fmin(found.pearson, found.spearman).min(initial=0.0, where=~np.isnan(found.pearson))
        axes.set_ylim(float(lowest), 1.02)
        axes.set_xlabel("runs of each ratio (log scale)")
        axes.set_ylabel("split-half correlation")
        axes.legend(frameon=False, fontsize=8.5, loc="lower right", labelcolor=PALETTE["muted"], handlelength=1.6)

    return _chart("split_half_reliability", draw)


def score_scatter(first: np.ndarray, second: np.ndarray, first_name: str, second_name: str) -> Chart:
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
        axes.plot(ends, ends, color=PALETTE["harm"], linewidth=1, linestyle=(0, (4, 3)))
        if x.size <= _MAX_POINTS:
            axes.scatter(x, y, s=9, color=PALETTE["accent"], alpha=0.55, linewidths=0)
        else:
            shades = colors.LinearSegmentedColormap.from_list("accent", [PALETTE["accent-faint"], PALETTE["accent"]])
            axes.hexbin(x, y, gridsize=(50, 28), bins="log", mincnt=1, cmap=shades, linewidths=0.2)
        axes.set_xlabel(first_name)
        axes.set_ylabel(second_name)
        axes.grid(True, axis="both")

    return _chart("score_scatter", draw)


def _chart(name: str, draw: Callable[[Any], None]) -> Chart:
    """Draws one chart and returns it as PNG and SVG."""
    import matplotlib  # heavy, and needed by reports only
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        backend_agg.FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        picture, drawing = io.BytesIO(), io.StringIO()
        figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Chart(name, picture.getvalue(), _for_page(drawing.getvalue(), name))


def _for_page(svg: str, name: str) -> str:
    """The <svg> element alone, with CSS variables for colours, no fixed size, and ids that no other chart has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for variable, colour in PALETTE.items():
        svg = re.sub(re.escape(colour), f"var(--{variable})", svg, flags=re.IGNORECASE)
    return svg.strip()


def _histogram(axes: Any, values: np.ndarray, lowest: float, highest: float) -> None:
    """Bars of width 0.05 at round numbers, counts on a log scale."""
    width = 0.05
    first, last = int(np.floor(lowest / width + 1e-9)), int(np.ceil(highest / width - 1e-9))
    edges = np.arange(first, last + 1) * width
    # Rates such as 3/20 fall on an edge; the nudge puts them into the bar that begins there, whatever the rounding.
    positions = np.clip(np.floor(values / width + 1e-9).astype(np.int64), first, last - 1) - first
    counts = np.bincount(positions, minlength=last - first)
    axes.bar(edges[:-1] + width / 2, counts, width * 0.9, color=PALETTE["accent"], linewidth=0)
    axes.set_xlim(edges[0] - 0.02, edges[-1] + 0.02)
    _log_counts(axes, counts)


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
    axes.stairs(noise, _edges(centres, width), baseline=None, color=PALETTE["ink"], linewidth=1.1, label="noise alone")


def _log_counts(axes: Any, counts: np.ndarray) -> None:
    """A log scale from half a count, so that bars of one example are seen, with plain numbers at its ticks."""
    from matplotlib import ticker  # heavy, and needed by reports only

    if not counts.any():
        return
    axes.set_yscale("log")
    axes.set_ylim(0.5, max(2.0, float(counts.max(initial=1))) * 2)
    axes.yaxis.set_major_locator(ticker.LogLocator(base=10, numticks=7))
    axes.yaxis.set_major_formatter(_short_number)
    axes.yaxis.set_minor_locator(ticker.NullLocator())


def _short_number(value: float, _position: int | None = None) -> str:
    """1000 -> "1k", 2500000 -> "2.5M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


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
            squares, facecolor=[PALETTE["accent"]] * len(squares), alpha=list(0.12 + 0.88 * strength), linewidths=0
        )
    )
