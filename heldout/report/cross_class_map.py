"""A heat map of the mean influence of every training class on every test class, as a PNG file beside the scores.

Colours reach as far as the largest mean between two different classes: what a class does to itself is mostly larger,
and would leave all else grey. Pale squares lie within two standard errors of 0.
"""

import hashlib
import io
import pathlib
from typing import Any

import numpy as np

from heldout.report import drawing
from heldout.scoring import class_means
from zoo import files

_SIZE_INCHES = (5.4, 4.6)
_DOTS_PER_INCH = 200
# With more classes than this not every one is named.
_MOST_NAMED = 25
_PALE = 0.3


def file_name(subset_ratio: float) -> str:
    """File name of the heat map of one ratio."""
    return class_means.file_name(subset_ratio).replace(".npz", ".png")


def update(directory: pathlib.Path, subset_ratio: float) -> pathlib.Path:
    """Draws the heat map of one ratio, unless it is there and of the same means.

    Args:
        directory: folder of the scores, with the class means of this ratio.
        subset_ratio: which.

    Returns:
        The PNG file. It names the means it was drawn from by the SHA-256 of their file.

    Raises:
        MissingFileError: there are no class means.
        DamagedFileError: they are unsound.
    """
    source, target = (directory / name(subset_ratio) for name in (class_means.file_name, file_name))
    means = class_means.read(source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if not (target.is_file() and digest.encode() in target.read_bytes()):
        with files.write_whole(target) as temporary:
            pathlib.Path(temporary).write_bytes(draw(means, digest))
    return target


def draw(means: class_means.ClassMeans, source: str) -> bytes:
    """The heat map as PNG.

    Args:
        means: of K classes.
        source: text that the file carries.
    """
    import matplotlib  # heavy, and needed where a picture is drawn only
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 9.0, "text.color": drawing.PALETTE["ink"]}):
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        backend_agg.FigureCanvasAgg(figure)
        _fill(figure, means)
        picture = io.BytesIO()
        metadata = {"Software": None, "Source": source}
        figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata=metadata)
    return picture.getvalue()


def _fill(figure: Any, means: class_means.ClassMeans) -> None:
    from matplotlib import colors

    palette = drawing.PALETTE
    shades = colors.LinearSegmentedColormap.from_list("both", [palette["harm"], "#f4f4f0", palette["accent"]])
    axes, largest = figure.add_subplot(), bound(means)
    # Comparisons with NaN are false: what has no error is not pale.
    alpha = np.where(np.abs(means.mean) < 2 * means.standard_error, _PALE, 1.0)
    image = axes.imshow(means.mean, cmap=shades, vmin=-largest, vmax=largest, alpha=alpha, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, extend="both", shrink=0.9)
    bar.set_label("mean subset influence (pale: within 2 standard errors of 0)", color=palette["muted"])
    bar.outline.set_visible(False)
    if means.num_classes <= _MOST_NAMED:
        axes.set_xticks(range(means.num_classes))
        axes.set_yticks(range(means.num_classes))
    axes.tick_params(length=0, colors=palette["muted"])
    axes.spines[:].set_visible(False)
    axes.set_xlabel("class of the test example", color=palette["muted"])
    axes.set_ylabel("class of the training example", color=palette["muted"])


def bound(means: class_means.ClassMeans) -> float:
    """The largest absolute mean between two different classes; where that is 0, of all; 1 where all are 0 or NaN."""
    size = np.abs(np.where(np.isnan(means.mean), 0, means.mean))
    between = size[~np.eye(means.num_classes, dtype=bool)]
    return float(between.max(initial=0) or size.max(initial=0) or 1.0)
