"""Pictures of a tangent kernel: its eigenvalues, and its entries with examples in the order of their labels."""

import pathlib
from typing import Any

import numpy as np

from estimators.linearized import spectra
from heldout.report import drawing
from scripts.unique_information import array_store, result_tables

SPECTRUM_NAME, KERNEL_NAME = "spectrum.png", "kernel.png"
NAMES = (SPECTRUM_NAME, KERNEL_NAME)
_MOST_SHOWN = 800


def write_spectrum(folder: pathlib.Path, spectrum: spectra.Spectrum, name: str) -> pathlib.Path:
    """Draws eigenvalues, the largest first, on logarithmic axes; returns where.

    Args:
        folder: where to.
        spectrum: of the kernel.
        name: of the network.
    """
    import matplotlib  # heavy, and not needed by those who only ask for help
    from matplotlib.figure import Figure

    values = spectrum.eigenvalues[::-1]
    rank = np.arange(1, len(values) + 1)
    positive = values > 0
    with matplotlib.rc_context(drawing.STYLE):
        figure = Figure(figsize=(5.0, 3.3), layout="constrained")
        axes = figure.add_subplot()
        axes.loglog(
            rank[positive], values[positive], ".-", color=drawing.PALETTE["accent"], markersize=3, linewidth=0.8
        )
        if values[positive].min() < 10 * spectrum.tolerance:
            axes.axhline(spectrum.tolerance, color=drawing.PALETTE["harm"], linewidth=0.8, linestyle="--")
            axes.annotate(
                "most that rounding of the entries can do",
                (1, spectrum.tolerance),
                xytext=(2, 3),
                textcoords="offset points",
                fontsize=8,
                color=drawing.PALETTE["harm"],
            )
        axes.set_xlabel("rank of the eigenvalue, the largest first")
        axes.set_ylabel("eigenvalue")
        axes.set_title(f"tangent kernel of {name}", fontsize=9, loc="left")
    return result_tables.write_figure(folder / SPECTRUM_NAME, figure)


def write_kernel(folder: pathlib.Path, stored: array_store.Stored, name: str, network: str) -> pathlib.Path:
    """Draws a kernel, summed over outputs, with examples in the order of their labels; returns where.

    Args:
        folder: where to.
        stored: the kernel with its labels.
        name: of its array.
        network: of whose weights it is, and of which data.
    """
    import matplotlib  # as above
    from matplotlib.figure import Figure

    facts, sides = stored.facts, []
    for side, count in (("row", facts["num_rows"]), ("column", facts["num_columns"])):
        label = np.asarray(stored.arrays.get(f"{side}_label", stored.arrays["row_label"]))
        order = np.argsort(label, kind="stable") if label.ndim == 1 else np.arange(count)
        order = order[np.unique(np.linspace(0, count - 1, min(count, _MOST_SHOWN)).astype(int))]
        sides.append((order, label))
    shown = _summed(stored.arrays[name], sides[0][0], sides[1][0], facts)
    low, high = _range(shown)
    with matplotlib.rc_context(drawing.STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(5.4, 4.6), layout="constrained")
        axes = figure.add_subplot()
        picture = axes.imshow(shown, cmap="viridis", aspect="auto", interpolation="nearest", vmin=low, vmax=high)
        figure.colorbar(picture, ax=axes, label="kernel, summed over outputs", shrink=0.9)
        for axis, (order, label) in zip((axes.yaxis, axes.xaxis), sides, strict=True):
            _mark_classes(axes, axis, order, label)
        left_out = "" if len(shown) == facts["num_rows"] else f", {len(shown)} of {facts['num_rows']} shown"
        axes.set_title(f"tangent kernel of {network}\nexamples by label{left_out}", fontsize=9, loc="left")
    return result_tables.write_figure(folder / KERNEL_NAME, figure)


def _range(values: np.ndarray) -> tuple[float | None, float | None]:
    """A few large entries do not darken the others."""
    low, high = np.quantile(values, [0.005, 0.995])
    return (float(low), float(high)) if high > low else (None, None)


def _summed(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, facts: dict[str, Any]) -> np.ndarray:
    """[rows, columns] of a kernel, over outputs."""
    num = facts["num_outputs"] if facts["kind"] == "full" else 1
    total = np.zeros((len(rows), len(columns)))
    for output in range(num):
        total += np.asarray(values)[np.ix_(rows * num + output, columns * num + output)]
    return total


def _mark_classes(axes: Any, axis: Any, order: np.ndarray, label: np.ndarray) -> None:
    """Names classes at their middle and draws lines between them; numbers where labels are no classes."""
    found = np.unique(label) if label.ndim == 1 else np.zeros(0)
    if not 1 < len(found) <= 20:
        return
    ordered = label[order]
    starts = np.searchsorted(ordered, found)
    ends = np.searchsorted(ordered, found, side="right")
    axis.set_ticks((starts + ends - 1) / 2, [str(one) for one in found])
    line = axes.axhline if axis is axes.yaxis else axes.axvline
    for start in starts[1:]:
        line(start - 0.5, color="white", linewidth=0.6)
