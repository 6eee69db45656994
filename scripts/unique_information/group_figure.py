"""Pictures of scores by group: every example, and the quartiles."""

from collections.abc import Sequence
import pathlib
import re

import numpy as np

from heldout.report import drawing
from scripts.unique_information import group_comparison, result_tables

# Beyond so many examples of a group some are drawn, by chance.
_MOST_POINTS = 1000
_WIDTH = 0.6


def write(folder: pathlib.Path, found: Sequence[group_comparison.Comparison]) -> list[pathlib.Path]:
    """Draws each column; returns where.

    Boxes are quartiles, whiskers the 5 and 95 % quantiles, the diamond is the mean; points are examples. The dotted
    line is the median of all. Where scores span magnitudes and all are above 0, the axis is logarithmic. A column
    without any score is left out.

    Args:
        folder: where to.
        found: what is compared.
    """
    shown = [one for one in found if any(len(group.score) for group in one.groups)]
    return [_draw(folder / name_of(one), one) for one in shown]


def name_of(one: group_comparison.Comparison) -> str:
    """The file name of a comparison."""
    parts = (pathlib.Path(one.source).stem, one.column)
    return "groups_" + "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts) + ".png"


def _draw(path: pathlib.Path, one: group_comparison.Comparison) -> pathlib.Path:
    import matplotlib  # heavy, and not needed by those who only ask for help
    from matplotlib.figure import Figure

    groups = [group for group in one.groups if len(group.score)]
    everything = np.concatenate([group.score for group in groups])
    generator = np.random.default_rng(0)
    with matplotlib.rc_context(drawing.STYLE):
        figure = Figure(figsize=(1.6 + 0.75 * max(len(groups), 3), 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(float(np.median(everything)), color=drawing.PALETTE["muted"], linewidth=1, linestyle=":")
        for place, group in enumerate(groups):
            shown = group.score
            if len(shown) > _MOST_POINTS:
                shown = generator.choice(shown, _MOST_POINTS, replace=False)
            aside = generator.uniform(-_WIDTH / 2, _WIDTH / 2, len(shown))
            axes.plot(
                place + aside, shown, ".", color=drawing.PALETTE["accent-soft"], markersize=3, alpha=0.7, zorder=1
            )
        line = {"color": drawing.PALETTE["ink"], "linewidth": 1}
        axes.boxplot(
            [group.score for group in groups],
            positions=range(len(groups)),
            widths=_WIDTH,
            whis=(5, 95),
            showfliers=False,
            showmeans=True,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops={"color": drawing.PALETTE["harm"], "linewidth": 1.6},
            meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "white", "markeredgecolor": line["color"]},
        )
        axes.set_xticks(range(len(groups)), [f"{group.name}\n({len(group.score)})" for group in groups])
        if result_tables.spans_magnitudes(everything):
            axes.set_yscale("log")
        else:
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        axes.set_xlabel(f"{one.by} (examples)")
        axes.set_title(one.column, fontsize=9, loc="left", pad=14)
    return result_tables.write_figure(path, figure)
