"""Pictures of scores of training examples: their distribution by class, and the examples at either end."""

from collections.abc import Sequence
import io
import math
import pathlib
from typing import Any

import numpy as np

from heldout.report import drawing, images
from scripts.unique_information import information_files, linearised_scores
from zoo import files

HISTOGRAM_NAME, MOST_NAME, LEAST_NAME = "histogram.png", "most_informative.png", "least_informative.png"
NAMES = (HISTOGRAM_NAME, MOST_NAME, LEAST_NAME)
_DOTS_PER_INCH = 160
_PANEL_INCHES = (4.2, 2.6)
_CARD_INCHES = (0.95, 1.25)
_MOST_CLASSES, _MOST_BINS, _CARDS_PER_ROW = 10, 40, 8
# From this ratio of the largest to the smallest on, values are counted on a logarithmic axis.
_LOGARITHMIC_FROM = 30


def write(
    folder: pathlib.Path,
    names: Sequence[str],
    found: linearised_scores.Scores,
    labels: information_files.Labels,
    inputs: Any,
    num_shown: int,
) -> list[pathlib.Path]:
    """Draws all pictures that there are data for; returns where.

    Args:
        folder: where to.
        names: columns to draw, the galleries being of the first.
        found: the scores.
        labels: of the examples.
        inputs: of the examples; galleries are drawn where they are images.
        num_shown: examples in a gallery.
    """
    paths = []
    if names:
        paths.append(_save(folder / HISTOGRAM_NAME, _histograms(names, found, labels.train_label)))
    shape: tuple[int, ...] = getattr(inputs, "shape", ())
    known = np.flatnonzero(~np.isnan(found.columns[names[0]])) if names else np.zeros(0, np.int64)
    if len(known) and len(shape) == 4 and shape[3] in (1, 3):
        values = found.columns[names[0]]
        order = known[np.argsort(-values[known], kind="stable")]
        for name, places in ((MOST_NAME, order[:num_shown]), (LEAST_NAME, order[::-1][:num_shown])):
            pictures = np.asarray(inputs[np.asarray(places)], np.float64)
            end = "highest" if name == MOST_NAME else "lowest"
            title = f"{len(places)} of {len(values)} examples, those of the {end} {names[0]}"
            paths.append(_save(folder / name, _gallery(pictures, values, labels, places, title)))
    return paths


def _save(path: pathlib.Path, figure: Any) -> pathlib.Path:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
    with files.write_whole(path) as temporary:
        temporary.write_bytes(picture.getvalue())
    return path


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends import backend_agg  # heavy, and not needed by those who only ask for help
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    backend_agg.FigureCanvasAgg(figure)
    return figure


def _histograms(names: Sequence[str], found: linearised_scores.Scores, label: np.ndarray) -> Any:
    import matplotlib  # as above

    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    with matplotlib.rc_context(drawing.STYLE):
        figure = _figure(max(5.0, _PANEL_INCHES[0] * columns), _PANEL_INCHES[1] * rows + 0.3)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for name, axes in zip(names, panels, strict=False):
            _histogram(axes, name, found.columns[name], label)
            axes.set_xlabel("nats" if found.described[name].startswith("nats") else "")
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        if len(_classes(label)) > 1:
            handles, texts = panels[0].get_legend_handles_labels()
            figure.legend(handles, texts, loc="outside right upper", fontsize=8, frameon=False, title="class")
    return figure


def _classes(label: np.ndarray) -> list[Any]:
    """The classes to tell apart; one nameless one where labels are no classes, or too many."""
    found = np.unique(label) if label.ndim == 1 else np.zeros(0)
    return list(found) if 1 < len(found) <= _MOST_CLASSES else [None]


def _histogram(axes: Any, name: str, values: np.ndarray, label: np.ndarray) -> None:
    from matplotlib import colormaps, ticker  # as above

    positive = values[values > 0]
    is_log = len(positive) > 0.5 * len(values) and positive.max() > _LOGARITHMIC_FROM * positive.min()
    shown = values > 0 if is_log else ~np.isnan(values)
    if not shown.any():
        axes.set_title(f"{name}: no values", fontsize=8.5, loc="left")
        return
    low, high = values[shown].min(), values[shown].max()
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    spaced = np.geomspace if is_log else np.linspace
    edges = spaced(low, high, min(_MOST_BINS, 1 + 2 * math.isqrt(len(values))) + 1)
    classes = _classes(label)
    parts = [values[shown & ((label == one) if one is not None else True)] for one in classes]
    colours = [colormaps["tab10"](place) for place in range(len(classes))]
    texts = [str(one) for one in classes]
    axes.hist(parts, bins=edges, stacked=True, color=colours, label=texts)
    if is_log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3), useMathText=True)
    left_out = int(len(values) - shown.sum())
    note = f", {left_out} of 0 not shown" if is_log and left_out else ""
    axes.set_title(f"{name}{note}", fontsize=8.5, loc="left")
    axes.set_ylabel("examples")
    axes.yaxis.set_major_locator(ticker.MaxNLocator(nbins="auto", integer=True))


def _gallery(
    pictures: np.ndarray, values: np.ndarray, labels: information_files.Labels, places: np.ndarray, title: str
) -> Any:
    import matplotlib  # as above

    rows = math.ceil(len(places) / _CARDS_PER_ROW)
    scale = 1.0 if pictures.max() <= 1 else 255.0
    with matplotlib.rc_context(drawing.STYLE):
        figure = _figure(_CARD_INCHES[0] * _CARDS_PER_ROW, _CARD_INCHES[1] * rows + 0.35)
        figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        cards = figure.subplots(rows, _CARDS_PER_ROW, squeeze=False).ravel()
        for axes in cards:
            axes.set_axis_off()
        for axes, place, picture in zip(cards, places, pictures, strict=False):
            pixels = images.to_bytes(picture, scale)[0]
            axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
            axes.set_title(_caption(labels, place, values[place]), fontsize=6.5, pad=2)
    return figure


def _caption(labels: information_files.Labels, place: int, value: float) -> str:
    label, clean = labels.train_label[place], labels.clean_train_label
    changed = "" if clean is None or clean[place] == label else f" (was {clean[place]})"
    return f"{labels.train_index[place]}: {label}{changed}\n{value:.3g}"
