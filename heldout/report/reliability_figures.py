"""The charts of how reliable scores are: split-half correlation, what is found again, and accuracy with its error."""

from typing import Any

import numpy as np

from heldout.report import drawing
from heldout.scoring import pair_reliability, reliability


def heldout_accuracy(subset_ratios: np.ndarray, accuracy: np.ndarray, standard_error: np.ndarray) -> drawing.Chart:
    """Mean held-out accuracy of runs against subset ratio, with bars of two standard errors.

    Args:
        subset_ratios: [K].
        accuracy: [K], share.
        standard_error: [K], of that mean.
    """

    def draw(axes: Any) -> None:
        style = {"color": drawing.PALETTE["accent"], "linewidth": 1.6, "marker": "o", "markersize": 4, "capsize": 3}
        axes.errorbar(subset_ratios, accuracy, 2 * standard_error, **style)
        axes.set_xticks(subset_ratios, [f"{ratio:g}" for ratio in subset_ratios])
        axes.set_xlabel("subset ratio")
        axes.set_ylabel("accuracy when held out, mean of runs")

    return drawing.chart("heldout_accuracy", draw)


def split_half_reliability(
    found: reliability.Reliability,
    *,
    wanted: float | None = None,
    num_all_runs: int | None = None,
    name: str = "split_half_reliability",
) -> drawing.Chart:
    """Correlation of scores from disjoint halves against runs in each, and what the largest predicts for more.

    Lines are means over halvings, bands a standard deviation over them to either side; the dashed line is the
    prediction of Spearman and Brown, with what follows from the ends of the last band.

    Args:
        found: for growing numbers of runs.
        wanted: a correlation; its line is drawn, and the prediction goes on until it is reached.
        num_all_runs: of each ratio; the prediction goes on to all of them.
        name: of the chart.
    """

    def draw(axes: Any) -> None:
        for values, label, shade, colour in (
            (found.spearman, "ranks", "grid", "muted"),
            (found.pearson, "linear", "accent-faint", "accent"),
        ):
            if not np.isnan(values).all():
                _band(axes, found.num_runs, values, label, drawing.PALETTE[shade], drawing.PALETTE[colour])
        end = _predicted_until(found, wanted, num_all_runs)
        if end is not None:
            _prediction(axes, found, end)
        if wanted is not None:
            axes.axhline(wanted, color=drawing.PALETTE["harm"], linewidth=1, label=f"{wanted:g}")
        _runs_axis(axes, found.num_runs, None if end is None else round(end), found.num_ratios)
        values = np.concatenate([found.pearson.ravel(), found.spearman.ravel()])
        axes.set_ylim(float(values.min(initial=0.0, where=~np.isnan(values))), 1.02)
        axes.set_ylabel("split-half correlation")
        drawing.legend(axes, "upper left" if _is_low(found) else "lower right")

    return drawing.chart(name, draw)


def strongest_found_again(found: pair_reliability.Strongest, *, name: str = "strongest_found_again") -> drawing.Chart:
    """Mean influence of the strongest pairs of one half of the runs, there and in the other half.

    Args:
        found: for growing numbers of runs.
        name: of the chart.
    """

    def draw(axes: Any) -> None:
        for values, label, shade, colour in (
            (found.chosen, "in the half that chose them", "grid", "muted"),
            (found.again, "in the other half", "accent-faint", "accent"),
        ):
            if not np.isnan(values).all():
                _band(axes, found.num_runs, values, label, drawing.PALETTE[shade], drawing.PALETTE[colour])
        axes.axhline(0, color=drawing.PALETTE["muted"], linewidth=0.8)
        _runs_axis(axes, found.num_runs, None, 1)
        axes.set_ylim(top=1.02)
        axes.set_ylabel("mean subset influence")
        drawing.legend(axes, "above")

    return drawing.chart(name, draw)


def _band(axes: Any, runs: np.ndarray, values: np.ndarray, label: str, shade: str, colour: str) -> None:
    """Mean over draws [S, D] as a line, and one standard deviation to either side."""
    mean, spread = values.mean(axis=1), values.std(axis=1)
    axes.fill_between(runs, mean - spread, mean + spread, color=shade, linewidth=0)
    style = {"fmt": "o-", "linewidth": 1.6, "markersize": 4, "elinewidth": 1, "capsize": 2}
    axes.errorbar(runs, mean, spread, color=colour, label=label, **style)


def _predicted_until(found: reliability.Reliability, wanted: float | None, num_all_runs: int | None) -> float | None:
    """Runs up to which the prediction is drawn; None where it would mean nothing."""
    last = int(found.num_runs[-1])
    ends = [] if num_all_runs is None else [float(num_all_runs)]
    if wanted is not None:
        needed = reliability.runs_needed(found.pearson[-1].mean(), last, wanted)
        ends += [1.3 * needed] if last < needed < 1000 * last else []
    return max(ends) if ends and found.is_telling(-1) else None


def _prediction(axes: Any, found: reliability.Reliability, end: float) -> None:
    """What Spearman and Brown predict from the largest halves, and from the ends of their band."""
    last, mean, spread = int(found.num_runs[-1]), found.pearson[-1].mean(), found.pearson[-1].std()
    more = np.geomspace(last, end, 50)
    low, middle, high = (
        reliability.predicted(min(max(start, 1e-9), 1.0), last, more) for start in (mean - spread, mean, mean + spread)
    )
    axes.fill_between(more, low, high, color=drawing.PALETTE["accent-faint"], linewidth=0)
    style = {"color": drawing.PALETTE["accent"], "linewidth": 1, "linestyle": (0, (4, 3))}
    axes.plot(more, middle, label="predicted", **style)
    axes.plot(more[-1:], middle[-1:], color=drawing.PALETTE["accent"], marker="o", markersize=5, fillstyle="none")


def _runs_axis(axes: Any, num_runs: np.ndarray, end: int | None, num_ratios: int) -> None:
    """A log scale with a tick at every number of runs that has room for one."""
    from matplotlib import ticker  # heavy, and needed by reports only

    ticks = [int(number) for number in num_runs] + ([] if end is None else [end])
    kept = [tick for tick, after in zip(ticks, [*ticks[1:], 10 * ticks[-1]], strict=True) if after > 1.6 * tick]
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.set_xticks(kept, [drawing.short_number(tick) for tick in kept])
    axes.set_xlabel("runs behind each score" + (", of each ratio" if num_ratios > 1 else "") + " (log scale)")


def _is_low(found: reliability.Reliability) -> bool:
    """Whether the last correlations would run through a key at the lower right."""
    return not float(found.pearson[-1].mean()) > 0.5
