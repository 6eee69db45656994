"""The picture of retraining: accuracy and loss on test examples against the share that was dropped or kept."""

from collections.abc import Sequence
import io
import pathlib
from typing import Any

import numpy as np

from heldout.report import drawing
from scripts.attribution import retraining_plan, retraining_results
from zoo import files

FIGURE_NAME = "retraining.png"
_COLOURS = {
    retraining_plan.TOP: "accent",
    retraining_plan.BOTTOM: "harm",
    retraining_plan.EXTREME: "ink",
    retraining_plan.RANDOM: "muted",
}
_PANEL_INCHES = (4.2, 2.9)
_DOTS_PER_INCH = 160
# Between the lines of two selections, as a share of the horizontal axis.
_ASIDE = 0.012


def write(directory: pathlib.Path, points: Sequence[retraining_results.Point], action: str) -> pathlib.Path:
    """Draws a column of panels for each part of the test examples, accuracy above loss; returns where.

    Lines are means over seeds, bars their 95 % intervals, drawn side by side where they belong to one share. The dashed
    line is the reference, trained on all ranked examples.

    Args:
        directory: where to.
        points: of all selections.
        action: "drop" or "keep".
    """
    import matplotlib  # heavy, and not needed by those who only ask for help
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    parts = retraining_results.known_parts(points)
    size = (_PANEL_INCHES[0] * len(parts), _PANEL_INCHES[1] * len(retraining_results.QUANTITIES))
    with matplotlib.rc_context(drawing.STYLE):
        figure = Figure(figsize=size, layout="constrained")
        backend_agg.FigureCanvasAgg(figure)
        panels = figure.subplots(len(retraining_results.QUANTITIES), len(parts), squeeze=False, sharex=True)
        for row, quantity in enumerate(retraining_results.QUANTITIES):
            for place, part in enumerate(parts):
                _panel(panels[row, place], points, action, part, quantity)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        ncols = len(labels) if len(parts) > 1 else 2
        figure.legend(handles, labels, loc="outside upper left", ncols=ncols, frameon=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
    path = directory / FIGURE_NAME
    with files.write_whole(path) as temporary:
        temporary.write_bytes(picture.getvalue())
    return path


def _panel(axes: Any, points: Sequence[retraining_results.Point], action: str, part: str, quantity: str) -> None:
    name = retraining_results.column(part, quantity)
    there = {point.selection for point in points}
    lines = [selection for selection in _COLOURS if selection in there]
    for number, selection in enumerate(lines):
        aside = _ASIDE * (number - (len(lines) - 1) / 2) * max(100 * point.fraction for point in points)
        found = [(100 * p.fraction + aside, p.measures[name]) for p in points if p.selection == selection]
        _line(axes, found, drawing.PALETTE[_COLOURS[selection]], f"{action} {selection}")
    for reference in (p.measures[name] for p in points if p.selection == retraining_plan.NONE):
        style = {"color": drawing.PALETTE["ink"], "linewidth": 1, "linestyle": (0, (4, 3))}
        axes.axhline(reference.mean, label="all ranked examples", **style)
    axes.set_ylabel(quantity if quantity == retraining_results.ACCURACY else "loss, nats")
    if quantity == retraining_results.ACCURACY:
        axes.set_title(retraining_results.TITLES[part], fontsize=9, loc="left")
    else:
        done = "dropped" if action == retraining_plan.DROP else "kept"
        axes.set_xlabel(f"% of the ranked training examples that are {done}")


def _line(axes: Any, found: list[tuple[float, retraining_results.Interval]], colour: str, label: str) -> None:
    place = [x for x, _ in found]
    mean, high = (np.array([getattr(one, end) for _, one in found]) for end in ("mean", "high"))
    half = np.nan_to_num(high - mean)  # of a single seed there is none
    style = {"linewidth": 1.6, "marker": "o", "markersize": 4, "elinewidth": 1, "capsize": 2}
    axes.errorbar(place, mean, half, color=colour, label=label, **style)
