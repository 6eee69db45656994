"""Pictures of detection: ROC curves, and how scores of changed and clean labels are spread."""

from collections.abc import Sequence
import math
import pathlib
from typing import Any

import numpy as np

from heldout.report import drawing
from scripts.unique_information import mislabeled, result_tables

ROC_NAME, SPREAD_NAME = "roc.png", "scores.png"
_PANEL_INCHES = (3.3, 2.7)
_MOST_COLUMNS = 3
_NUM_BINS = 40
_LINES = ("-", "--", ":", "-.")
_COLOURS = ("accent", "harm", "ink", "muted", "accent-soft")


def write(folder: pathlib.Path, found: Sequence[mislabeled.Detection]) -> list[pathlib.Path]:
    """Draws both; returns where. Columns without a score of either kind of examples are left out.

    Args:
        folder: where to.
        found: columns of scores.
    """
    shown = [one for one in found if len(one.changed) and len(one.clean)]
    return [_roc(folder / ROC_NAME, shown), _spread(folder / SPREAD_NAME, shown)] if shown else []


def _roc(path: pathlib.Path, found: Sequence[mislabeled.Detection]) -> pathlib.Path:
    import matplotlib  # heavy, and not needed by those who only ask for help
    from matplotlib.figure import Figure

    with matplotlib.rc_context(drawing.STYLE):
        figure = Figure(figsize=(4.2, 4.4 + 0.18 * len(found)), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=drawing.PALETTE["grid"], linewidth=1.2)
        for number, one in enumerate(found):
            style: dict[str, Any] = {
                "color": drawing.PALETTE[_COLOURS[number % len(_COLOURS)]],
                "linestyle": _LINES[number // len(_COLOURS) % len(_LINES)],
            }
            axes.plot(*_curve(one), label=f"{_name(one, found)}: {one.auroc.value:.3f}", linewidth=1.5, **style)
        axes.set_aspect("equal")
        axes.set_xlabel("share of clean labels at or above the threshold")
        axes.set_ylabel("share of changed labels")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        title = "area under the curve (0.5 by chance)"
        style = {"fontsize": 8, "title": title, "title_fontsize": 8, "alignment": "left"}
        figure.legend(loc="outside upper left", frameon=False, **style)
    return result_tables.write_figure(path, figure)


def _curve(one: mislabeled.Detection) -> tuple[np.ndarray, np.ndarray]:
    """Shares of clean and of changed labels at or above each threshold, from none to all."""
    threshold = np.unique(np.concatenate([one.changed, one.clean]))[::-1]
    shares = [1 - np.searchsorted(np.sort(of), threshold) / len(of) for of in (one.clean, one.changed)]
    clean, changed = (np.concatenate([[0], share]) for share in shares)
    return clean, changed


def _name(one: mislabeled.Detection, found: Sequence[mislabeled.Detection]) -> str:
    return one.column if len({other.source for other in found}) == 1 else f"{one.source}: {one.column}"


def _spread(path: pathlib.Path, found: Sequence[mislabeled.Detection]) -> pathlib.Path:
    import matplotlib  # heavy, as above
    from matplotlib.figure import Figure

    across = min(_MOST_COLUMNS, len(found))
    down = math.ceil(len(found) / across)
    with matplotlib.rc_context(drawing.STYLE):
        size = (max(_PANEL_INCHES[0] * across, 4.2), _PANEL_INCHES[1] * down + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes, one in zip(panels, found, strict=False):
            _panel(axes, one, _name(one, found))
        for axes in panels[len(found) :]:
            axes.set_axis_off()
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
    return result_tables.write_figure(path, figure)


def _panel(axes: Any, one: mislabeled.Detection, name: str) -> None:
    values = np.concatenate([one.changed, one.clean])
    is_log = result_tables.spans_magnitudes(values)
    low, high = (float(np.log10(end) if is_log else end) for end in (values.min(), values.max()))
    half = 0.5 if low == high else 0.0
    edges = np.linspace(low - half, high + half, _NUM_BINS + 1)
    edges = 10**edges if is_log else edges
    for of, label, colour in ((one.clean, "clean labels", "accent-soft"), (one.changed, "changed labels", "harm")):
        weight = np.full(len(of), 1 / len(of))
        color = drawing.PALETTE[colour]
        axes.hist(of, edges, weights=weight, color=color, alpha=0.75, label=f"{label} ({len(of)})")
    if is_log:
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=5)
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3), useMathText=True)
    axes.set_title(name, fontsize=8.5, loc="left")
    axes.set_ylabel("share of each")
