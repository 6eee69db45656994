"""Scatter plots of scores beside the truth of training without each example."""

from collections.abc import Sequence
import pathlib
import re
from typing import Any

import numpy as np

from heldout.report import drawing
from scripts.unique_information import result_tables, truth_agreement

_INCHES = (7.6, 3.6)
_LABELS = {
    "squared_weight_change": "|Δw|², retrained",
    "squared_prediction_change": "mean |Δf|² on validation, retrained",
    "squared_train_prediction_change": "mean |Δf|² on training, retrained",
    "squared_self_effect": "|Δf|² of itself, retrained",
}


def write(folder: pathlib.Path, found: Sequence[truth_agreement.Comparison]) -> list[pathlib.Path]:
    """Draws each comparison twice side by side, on linear and on logarithmic axes; returns where.

    A comparison without any example is left out.

    The logarithmic panel leaves out values of 0 and below, and says how many.

    Args:
        folder: where to.
        found: what is compared.
    """
    import matplotlib  # heavy, and not needed by those who only ask for help
    from matplotlib.figure import Figure

    paths = []
    for one in (one for one in found if one.found.num_examples):
        with matplotlib.rc_context(drawing.STYLE):
            figure = Figure(figsize=_INCHES, layout="constrained")
            linear, logarithmic = figure.subplots(1, 2)
            _panel(linear, one, is_log=False)
            _panel(logarithmic, one, is_log=True)
            title = (
                f"{one.column} of {one.source}: Pearson {one.found.pearson.value:.3f}, Spearman "
                f"{one.found.spearman.value:.3f}, {one.found.num_examples} examples"
            )
            figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        paths.append(result_tables.write_figure(folder / name_of(one), figure))
    return paths


def name_of(one: truth_agreement.Comparison) -> str:
    """The file name of a comparison."""
    parts = (pathlib.Path(one.source).stem, one.column, one.quantity)
    return "scatter_" + "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts) + ".png"


def _panel(axes: Any, one: truth_agreement.Comparison, *, is_log: bool) -> None:
    known = ~(np.isnan(one.truth) | np.isnan(one.score))
    shown = known & (one.truth > 0) & (one.score > 0) if is_log else known
    look = {"color": drawing.PALETTE["accent"], "markersize": 4, "alpha": 0.6, "rasterized": True}
    axes.plot(one.score[shown], one.truth[shown], ".", **look)
    left_out = int(known.sum() - shown.sum())
    note = f"logarithmic{f', without {left_out} values of 0 or below' if left_out else ''}" if is_log else "linear"
    axes.set_title(note, fontsize=8.5, loc="left", color=drawing.PALETTE["muted"])
    if is_log and shown.any():
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlabel(one.column)
    if not is_log:
        axes.ticklabel_format(style="sci", scilimits=(-2, 3), useMathText=True)
        axes.locator_params(nbins=5)
        axes.set_ylabel(_LABELS[one.quantity])
