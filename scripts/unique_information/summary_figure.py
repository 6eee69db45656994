"""The picture of data summarisation: accuracy and loss on validation examples against the share that is kept."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from heldout.report import drawing
from scripts.unique_information import dropping_orders, result_tables, summary_results

FIGURE_NAME = "summary.png"
_LOOKS = {
    dropping_orders.RANDOM: ("muted", "-", "random"),
    dropping_orders.TOP: ("harm", "-", "highest scores dropped"),
    dropping_orders.BOTTOM: ("accent", "-", "lowest scores dropped"),
    dropping_orders.ITERATIVE_TOP: ("harm", "--", "highest dropped, scored again"),
    dropping_orders.ITERATIVE_BOTTOM: ("accent", "--", "lowest dropped, scored again"),
}
_LABELS = {"val_accuracy": "validation accuracy", "val_loss": "validation loss, mean of ½ |f − y|²"}


def write(folder: pathlib.Path, points: Sequence[summary_results.Point], title: str) -> pathlib.Path:
    """Draws both beside one another; returns where.

    Lines are means over seeds, bands their 95 % intervals.

    Args:
        folder: where to.
        points: of all ways.
        title: what examples were scored by.
    """
    import matplotlib  # heavy, and not needed by those who only ask for help
    from matplotlib.figure import Figure

    with matplotlib.rc_context(drawing.STYLE):
        figure = Figure(figsize=(8.6, 3.9), layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, quantity in zip(panels, summary_results.QUANTITIES, strict=True):
            _panel(axes, points, quantity)
        handles, labels = panels[0].get_legend_handles_labels()
        style = {"fontsize": 8.5, "title": title, "title_fontsize": 9, "alignment": "left", "handlelength": 2.4}
        figure.legend(handles, labels, loc="outside upper left", ncols=3, frameon=False, **style)
    return result_tables.write_figure(folder / FIGURE_NAME, figure)


def _panel(axes: Any, points: Sequence[summary_results.Point], quantity: str) -> None:
    for way, (colour, style, label) in _LOOKS.items():
        found = sorted((one for one in points if one.way == way), key=lambda one: one.share_kept)
        if not found:
            continue
        kept = [100 * one.share_kept for one in found]
        mean, low, high = ([getattr(one.measures[quantity], end) for one in found] for end in ("mean", "low", "high"))
        color = drawing.PALETTE[colour]
        axes.plot(kept, mean, color=color, linestyle=style, linewidth=1.6, marker="o", markersize=2.5, label=label)
        if not np.isnan(low).all():
            axes.fill_between(kept, low, high, color=color, alpha=0.13, linewidth=0)
    axes.set_xlim(102, 0)
    low, high = axes.get_ylim()
    # Intervals of few seeds go beyond what an accuracy or a loss can be.
    axes.set_ylim(max(low, 0), min(high, 1.01) if quantity == summary_results.QUANTITIES[0] else high)
    axes.set_xlabel("% of the training examples that are kept")
    axes.set_title(_LABELS[quantity], fontsize=9, loc="left")
