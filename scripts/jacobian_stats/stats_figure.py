"""The picture of a statistic against width or epoch, with test and train error below it."""

from collections.abc import Sequence
import io
import pathlib
from typing import Any

import numpy as np

from heldout.report import drawing
from scripts.jacobian_stats import aggregation, stats_curves
from zoo import files

INTERVAL, DEVIATION, NO_BARS = BARS = ("interval", "deviation", "none")
FORMATS = (".png", ".pdf", ".svg")
_BAR_TEXTS = {
    INTERVAL: "bars: 95 % intervals of the mean over seeds",
    DEVIATION: "bars: standard deviation over seeds",
    NO_BARS: "means over seeds",
}
# Apart in lightness as well, for prints without colour.
_COLOURS = ("#1f6a78", "#b0532c", "#20262c", "#7a9a3a", "#8a6fb0", "#c9a227", "#68717a", "#3f7fc1")
_MARKERS = "os^Dvp*h"
_INCHES = (5.8, 6.4)
_DOTS_PER_INCH = 160
_MOST_TICKS = 16


def write(
    path: pathlib.Path,
    points: Sequence[stats_curves.Point],
    *,
    against: str,
    title: str,
    label: str,
    bars: str,
    zero_error: float,
) -> None:
    """Draws two panels above one another: the statistic, and the errors in percent.

    Dotted lines stand at the smallest width whose mean train error is at most `zero_error`.

    Args:
        path: of the picture; its ending says the format.
        points: of all curves.
        against: "width" or "epoch".
        title: what is shown.
        label: of the axis of the statistic, with its unit.
        bars: one of `BARS`.
        zero_error: a share.
    """
    import matplotlib  # heavy, and not needed by those who only ask for help
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    curves = list(dict.fromkeys(point.curve for point in points))
    has_errors = any(
        not np.isnan(point.values[name].mean)
        for point in points
        for name in (stats_curves.TEST_ERROR, stats_curves.TRAIN_ERROR)
    )
    with matplotlib.rc_context(drawing.STYLE):
        size = _INCHES if has_errors else (_INCHES[0], _INCHES[1] * 0.6)
        figure = Figure(figsize=size, layout="constrained")
        backend_agg.FigureCanvasAgg(figure)
        panels = figure.subplots(2 if has_errors else 1, 1, sharex=True, squeeze=False)[:, 0].tolist()
        for number, curve in enumerate(curves):
            of_curve = [point for point in points if point.curve == curve]
            style: dict[str, Any] = {
                "color": _COLOURS[number % len(_COLOURS)],
                "marker": _MARKERS[number % len(_MARKERS)],
            }
            _line(panels[0], of_curve, stats_curves.STATISTIC, bars, label=curve, **style)
            if has_errors:
                _line(panels[1], of_curve, stats_curves.TEST_ERROR, bars, factor=100, **style)
                _line(
                    panels[1],
                    of_curve,
                    stats_curves.TRAIN_ERROR,
                    bars,
                    factor=100,
                    linestyle="--",
                    hollow=True,
                    **style,
                )
            width = stats_curves.interpolation(points, curve, zero_error) if against == stats_curves.WIDTH else None
            for panel in panels if width is not None else ():
                panel.axvline(width, color=style["color"], linewidth=1, linestyle=":")
        _axes(panels, points, against, label)
        _legend(figure, panels, points, against, title, bars, zero_error, has_errors)
        picture = io.BytesIO()
        kind = path.suffix.removeprefix(".")
        metadata = {"Software": None} if kind == "png" else {"CreationDate": None} if kind == "pdf" else {"Date": None}
        figure.savefig(picture, format=kind, dpi=_DOTS_PER_INCH, facecolor="white", metadata=metadata)
    with files.write_whole(path) as temporary:
        temporary.write_bytes(picture.getvalue())


def _line(
    axes: Any,
    points: Sequence[stats_curves.Point],
    quantity: str,
    bars: str,
    *,
    factor: float = 1.0,
    hollow: bool = False,
    **style: Any,
) -> None:
    known = [point for point in points if not np.isnan(point.values[quantity].mean)]
    if not known:
        return
    found = [point.values[quantity] for point in known]
    half = np.array([factor * _half(one, bars) for one in found])
    axes.errorbar(
        [point.x for point in known],
        [factor * one.mean for one in found],
        None if bars == NO_BARS else half,
        linewidth=1.5,
        markersize=4,
        markerfacecolor="white" if hollow else style["color"],
        elinewidth=0.9,
        capsize=2,
        **style,
    )


def _half(found: aggregation.Interval, bars: str) -> float:
    """Half the length of a bar; 0 where one seed has none."""
    half = found.high - found.mean if bars == INTERVAL else found.standard_deviation
    return 0.0 if np.isnan(half) else half


def _axes(panels: Sequence[Any], points: Sequence[stats_curves.Point], against: str, label: str) -> None:
    places = sorted({point.x for point in points})
    panels[0].set_ylabel(label)
    for panel in panels:
        if panel.dataLim.y0 >= 0:  # bars and all
            panel.set_ylim(bottom=0)
    if len(panels) > 1:
        panels[1].set_ylabel("error, % of the examples")
    last = panels[-1]
    if against == stats_curves.WIDTH:
        last.set_xlabel("width")
        last.set_xscale("log", base=2)
        shown = _spread(places)
        last.set_xticks(shown, labels=[str(place) for place in shown])
        last.minorticks_off()
    else:
        last.set_xlabel("epoch")


def _spread(places: Sequence[int]) -> list[int]:
    """Those that have room on a logarithmic axis."""
    length = np.log2(places[-1] / places[0]) if places[0] else 1.0
    found = [places[0]]
    for place in places[1:]:
        if np.log2(place / found[-1]) >= length / _MOST_TICKS:
            found.append(place)
    return found


def _legend(
    figure: Any,
    panels: Sequence[Any],
    points: Sequence[stats_curves.Point],
    against: str,
    title: str,
    bars: str,
    zero_error: float,
    has_errors: bool,
) -> None:
    from matplotlib.lines import Line2D  # heavy, as above

    handles, labels = panels[0].get_legend_handles_labels()
    ink = drawing.PALETTE["ink"]
    if has_errors:
        handles += [Line2D([], [], color=ink), Line2D([], [], color=ink, linestyle="--")]
        labels += [
            f"test error{stats_curves.judged_text(points, stats_curves.TEST_ERROR)}",
            f"train error, on the labels trained with{stats_curves.judged_text(points, stats_curves.TRAIN_ERROR)}",
        ]
    curves = dict.fromkeys(point.curve for point in points)
    if against == stats_curves.WIDTH and any(stats_curves.interpolation(points, c, zero_error) for c in curves):
        least = "no" if zero_error == 0 else f"at most {100 * zero_error:g} %"
        handles.append(Line2D([], [], color=ink, linestyle=":"))
        labels.append(f"smallest width with {least} train error")
    num_seeds = sorted({len(point.seeds) for point in points})
    seeds = f"{num_seeds[0]}" if len(num_seeds) == 1 else f"{num_seeds[0]} to {num_seeds[-1]}"
    plural = "" if num_seeds == [1] else "s"
    text = f"{title}\n{seeds} seed{plural}" + (f"; {_BAR_TEXTS[bars]}" if num_seeds != [1] else "")
    figure.suptitle(text, fontsize=9, x=0.01, ha="left")
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
