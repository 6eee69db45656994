"""Results of a comparison as JSON, with what was asked for, and their rows as CSV."""

from collections.abc import Mapping, Sequence
import dataclasses
import io
import math
import pathlib
from typing import Any

import numpy as np

from heldout.report import drawing
from heldout.running import settings as settings_text
from heldout.scoring import score_tables
from zoo import errors, files

SCHEMA_VERSION = 1
_DOTS_PER_INCH = 160
_PICTURES = "pictures"


def settings(config: Any) -> dict[str, Any]:
    """The members of a frozen config, as JSON."""
    members = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in members.items()}


def check(path: pathlib.Path, config: Mapping[str, Any], *, overwrite: bool) -> None:
    """Refuses to replace results that were made with other flags.

    Args:
        path: of the JSON file.
        config: of this comparison; its member outdir does not count, for the folder itself may have been moved.
        overwrite: whether they may be replaced.

    Raises:
        MismatchError: there are others, and they may not; names the differences.
    """
    if overwrite or not path.exists():
        return
    differences = settings_text.differences(files.read_json(path).get("config", {}), config, ignored=("outdir",))
    if differences:
        raise errors.MismatchError(
            f"{path}: holds another comparison:\n{differences}\nChoose another --outdir, or replace it with --overwrite"
        )


def write(path: pathlib.Path, config: Mapping[str, Any], tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Writes tables into one JSON file; null where a number is not defined.

    Args:
        path: of the file.
        config: what was asked for.
        tables: rows by name.
    """
    stored = {name: [{key: _json(one) for key, one in row.items()} for row in rows] for name, rows in tables.items()}
    files.write_json(path, {"schema_version": SCHEMA_VERSION, "config": config, **stored})


def clear_pictures(path: pathlib.Path) -> None:
    """Deletes the pictures that a JSON file lists, if it is there: those of other flags have other names.

    Args:
        path: of the JSON file, in whose folder they lie.
    """
    stored = files.read_json(path).get(_PICTURES, []) if path.exists() else []
    for name in stored:
        # A name that leads elsewhere is not one that `list_pictures` has written.
        if pathlib.PurePath(name).name == name and name.endswith(".png"):
            (path.parent / name).unlink(missing_ok=True)


def list_pictures(path: pathlib.Path, pictures: Sequence[pathlib.Path]) -> None:
    """Lists pictures in a JSON file that `write` has written, for `clear_pictures`."""
    files.write_json(path, {**files.read_json(path), _PICTURES: [picture.name for picture in pictures]})


def write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows, at least one, as CSV; nan where a number is not defined.

    Args:
        path: of the file.
        rows: with the same names; None for a number that is not defined.
    """
    columns: dict[str, np.ndarray | None] = {
        name: np.array([math.nan if row[name] is None else row[name] for row in rows]) for name in rows[0]
    }
    score_tables.write(path, columns, "csv")


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_figure(path: pathlib.Path, figure: Any) -> pathlib.Path:
    """Writes a figure of matplotlib as PNG, whole or not at all; returns where."""
    import matplotlib  # heavy, and not needed by those who only ask for help
    from matplotlib.backends import backend_agg

    picture = io.BytesIO()
    with matplotlib.rc_context(drawing.STYLE):
        backend_agg.FigureCanvasAgg(figure)
        figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
    with files.write_whole(path) as temporary:
        temporary.write_bytes(picture.getvalue())
    return path


def spans_magnitudes(values: np.ndarray) -> bool:
    """Whether values are better seen on a logarithmic axis: all above 0, and the upper ones far above the middle."""
    known = values[np.isfinite(values)]
    if not len(known) or known.min() <= 0:
        return False
    middle, high = np.quantile(known, [0.5, 0.98])
    return bool(high > 20 * middle)
