"""The picture of sensitivity beside memorization and consistency."""

from collections.abc import Sequence
import io
import pathlib
from typing import Any

import numpy as np

from heldout.report import drawing
from scripts.jacobian_stats import aggregation, sensitivity
from zoo import files

_INCHES = (8.6, 4.3)
_DOTS_PER_INCH = 160
_STYLES = {
    sensitivity.IN: {"color": drawing.PALETTE["accent"], "marker": "o"},
    sensitivity.HELDOUT: {"color": drawing.PALETTE["harm"], "marker": "s"},
}
_NUM_BINS, _LEAST = 10, 10
_X_LABELS = {
    sensitivity.MEMORIZATION: "memorization: accuracy in minus held out",
    sensitivity.CONSISTENCY: "consistency: accuracy held out",
}


def write(
    path: pathlib.Path,
    found: sensitivity.Joined,
    correlations: Sequence[sensitivity.Correlation],
    *,
    title: str,
    label: str,
) -> None:
    """Draws each example twice in two panels: by runs that trained on it, and by runs that held it out.

    Lines are medians of bins of the score with at least 10 examples, bars their quartiles.

    Args:
        path: of the PNG file.
        found: the numbers.
        correlations: of them.
        title: what is shown.
        label: of the vertical axis, with its unit.
    """
    import matplotlib  # heavy, and not needed by those who only ask for help
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(drawing.STYLE):
        figure = Figure(figsize=_INCHES, layout="constrained")
        backend_agg.FigureCanvasAgg(figure)
        panels = figure.subplots(1, 2, sharey=True)
        for panel, score in zip(panels, sensitivity.SCORES, strict=True):
            _panel(panel, found, correlations, score)
        panels[0].set_ylabel(label)
        figure.suptitle(
            f"{title}\npoints: examples, means over runs; lines: medians of bins with quartiles",
            fontsize=9,
            x=0.01,
            ha="left",
        )
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
    with files.write_whole(path) as temporary:
        temporary.write_bytes(picture.getvalue())


def _panel(axes: Any, found: sensitivity.Joined, correlations: Sequence[sensitivity.Correlation], score: str) -> None:
    x = found.scores[score]
    for side, style in _STYLES.items():
        y = found.mean[side]
        axes.plot(x, y, ".", color=style["color"], markersize=2.5, alpha=0.25, zorder=1, rasterized=True)
    for side, style in _STYLES.items():
        places, quartiles = bins(x, found.mean[side])
        middle = quartiles[:, 1]
        bars = np.abs(quartiles[:, [0, 2]] - middle[:, None]).T
        one = sensitivity.of(correlations, aggregation.ALL, side, score)
        name = f"{sensitivity.SIDE_TEXTS[side]}: rank correlation {one.value:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
        look = {"markersize": 4.5, "linewidth": 1.6, "elinewidth": 1, "capsize": 2, "markeredgecolor": "white"}
        axes.errorbar(places, middle, bars, label=name, zorder=3, **look, **style)
    axes.set_xlabel(_X_LABELS[score])
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=8)


def bins(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean x, quartiles of y [bins, 3]) of bins of equal width with at least 10 examples."""
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if not x.size:
        return np.zeros(0), np.zeros((0, 3))
    edges = np.linspace(x.min(), x.max(), _NUM_BINS + 1)
    at = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, _NUM_BINS - 1)
    kept = [number for number in range(_NUM_BINS) if np.sum(at == number) >= _LEAST]
    places = np.array([x[at == number].mean() for number in kept])
    return places, np.array([np.quantile(y[at == number], (0.25, 0.5, 0.75)) for number in kept]).reshape(-1, 3)
