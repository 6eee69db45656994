"""Frames of a linearised network in the plane, and the animation that they make."""

import dataclasses
import io
import pathlib
from typing import Any

import numpy as np

from heldout.report import drawing
from scripts.unique_information import synthetic_frames
from zoo import files

_INCHES = (9.0, 4.5)
_DOTS_PER_INCH = 100
_FRAME_MS, _LAST_FRAME_MS = 150, 2000
# Areas of points in square points, of the least and the most informative of a frame.
_AREAS = (14.0, 240.0)
# Colours span so many orders of magnitude below the largest value of all frames.
_DECADES = 4.0
_MARKERS = ("o", "s")
_COLOURS = ("#4f7cac", "#c98a2b")
_MEASURES = {
    "predictions": "information in predictions, nats",
    "weights": "information in the weights, nats",
}


@dataclasses.dataclass(frozen=True, eq=False)
class _Look:
    """What all frames share."""

    frames: synthetic_frames.Frames
    score: np.ndarray
    measure: str
    low: float
    high: float


def draw(folder: pathlib.Path, frames: synthetic_frames.Frames, measure: str) -> list[pathlib.Path]:
    """Writes frame-000.png and so on, one for each step; returns where.

    Left the plane: points coloured by the measure on one scale for all frames, and sized by their share of the largest
    of the frame; behind them what the network predicts, with the boundary at 1/2. Right the measure of each point over
    time. Points whose label was changed are marked in both.

    Args:
        folder: where to; stale frames in it are deleted.
        frames: what is drawn.
        measure: "predictions" or "weights".
    """
    score = getattr(frames, measure)
    high = float(score.max()) or 1.0
    look = _Look(frames, score, measure, high * 10.0**-_DECADES, high)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"frame-{place:03d}.png" for place in range(len(frames.step))]
    for stale in set(folder.glob("frame-*.png")) - set(paths):
        stale.unlink()
    for place, path in enumerate(paths):
        picture = _picture(look, place)
        with files.write_whole(path) as temporary:
            temporary.write_bytes(picture)
    return paths


def animate(path: pathlib.Path, pictures: list[pathlib.Path]) -> None:
    """Joins frames into a GIF that begins anew at its end.

    Args:
        path: of the animation.
        pictures: PNG files of one size, in order.
    """
    from PIL import Image  # not needed by those who only ask for help

    images = [Image.open(picture).convert("RGB") for picture in pictures]
    # One palette for all: palettes of each frame would flicker. The last one has all colours.
    palette = images[-1].quantize(256)
    reduced = [image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for image in images]
    duration = [_FRAME_MS] * (len(reduced) - 1) + [_LAST_FRAME_MS]
    stream = io.BytesIO()
    reduced[0].save(stream, "GIF", save_all=True, append_images=reduced[1:], duration=duration, loop=0)
    with files.write_whole(path) as temporary:
        temporary.write_bytes(stream.getvalue())


def _picture(look: _Look, place: int) -> bytes:
    import matplotlib  # heavy, and not needed by those who only ask for help
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(drawing.STYLE | {"axes.grid": False}):
        figure = Figure(figsize=_INCHES, layout="constrained")
        backend_agg.FigureCanvasAgg(figure)
        plane, curves = figure.subplots(1, 2, width_ratios=(1.15, 1))
        drawn = _plane(plane, look, place)
        figure.colorbar(drawn, ax=plane, label=_MEASURES[look.measure], shrink=0.85, extend="min")
        _curves(curves, look, place)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def _plane(axes: Any, look: _Look, place: int) -> Any:
    """Draws the points; returns what the colour bar is of."""
    from matplotlib import colormaps, colors  # as above

    frames, score = look.frames, np.maximum(look.score[place], look.low)
    x, y = frames.grid
    prediction = frames.grid_prediction[place]
    soft = colors.LinearSegmentedColormap.from_list("classes", ("#c9d8e8", "#ffffff", "#f0dfc2"))
    axes.pcolormesh(x, y, prediction, cmap=soft, vmin=0, vmax=1, shading="gouraud", rasterized=True)
    if prediction.min() < 0.5 < prediction.max():
        axes.contour(x, y, prediction, levels=[0.5], colors=drawing.PALETTE["ink"], linewidths=1.3)
    norm = colors.LogNorm(look.low, look.high)
    share = look.score[place] / (look.score[place].max() or 1.0)
    area = _AREAS[0] + (_AREAS[1] - _AREAS[0]) * share
    drawn = None
    for label, marker in enumerate(_MARKERS):
        rows = frames.train_label == label
        drawn = axes.scatter(
            *frames.point[rows].T,
            s=area[rows],
            c=score[rows],
            norm=norm,
            cmap=colormaps["viridis_r"],
            marker=marker,
            edgecolors=_COLOURS[label],
            linewidths=1.2,
            label=f"class {label}",
        )
    changed = frames.train_label != frames.clean_train_label
    if changed.any():
        look_of_changed = {"marker": "o", "facecolors": "none", "edgecolors": drawing.PALETTE["harm"]}
        axes.scatter(*frames.point[changed].T, s=420, linewidths=1.6, label="label changed", **look_of_changed)
    wrong = int(np.sum((frames.train_prediction[place] > 0.5) != frames.train_label))
    title = f"step {frames.step[place]}: {wrong} of {len(frames.train_label)} points on the wrong side"
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_aspect("equal")
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    return drawn


def _curves(axes: Any, look: _Look, place: int) -> None:
    frames = look.frames
    changed = frames.train_label != frames.clean_train_label
    for row, (values, label) in enumerate(zip(look.score.T, frames.train_label, strict=True)):
        is_changed = changed[row]
        colour = drawing.PALETTE["harm"] if is_changed else _COLOURS[label]
        width, alpha = (1.8, 1.0) if is_changed else (0.8, 0.55)
        line = np.maximum(values, look.low)
        axes.plot(frames.step, line, color=colour, linewidth=width, alpha=alpha, zorder=3 if is_changed else 2)
    axes.axvline(frames.step[place], color=drawing.PALETTE["ink"], linewidth=0.9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(look.low, look.high * 1.5)
    axes.set_xlabel("steps")
    axes.set_title(f"{_MEASURES[look.measure]}, of each point", fontsize=9, loc="left")
    entries = [
        axes.plot([], [], marker, color=colour, label=f"class {label}")[0]
        for label, (marker, colour) in enumerate(zip(_MARKERS, _COLOURS, strict=True))
    ]
    if changed.any():
        entries += axes.plot([], [], color=drawing.PALETTE["harm"], label="label changed")
    axes.legend(handles=entries, fontsize=8, frameon=True, framealpha=0.9, edgecolor="none", loc="lower right")
