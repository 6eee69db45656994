"""What a sweep found: a row for each network, and the width from which on networks fit their training labels."""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import pathlib
import re
from typing import Any

import numpy as np

from heldout.training import model_files, model_settings
from zoo import files

COLUMNS = (
    *("model", "width", "noise", "noise_share", "seed", "outcome", "epochs", "train_loss", "train_error"),
    *("train_clean_error", "val_loss", "val_error", "test_loss", "test_error", "folder"),
)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of a sweep.

    Attributes:
        base: its architecture without the width, as it was asked for.
        width: of the architecture; None for one without.
        settings: all of them.
        folder: of its files.
    """

    base: str
    width: int | None
    settings: model_settings.ModelSettings
    folder: pathlib.Path

    @property
    def noise_share(self) -> float | None:
        """Share of the training labels that are changed; None where a number was given instead."""
        noise = self.settings.noise
        return 0.0 if noise is None else noise.share


def row(network: Network, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """A row of the table; of a network without a result, the outcome is "missing" and numbers are None."""
    own = {
        "model": network.base,
        "width": network.width,
        "noise": network.settings.noise_text(),
        "noise_share": network.noise_share,
        "seed": network.settings.seed,
        "outcome": "missing" if result is None else result["outcome"],
        "epochs": None if result is None else result["epoch"],
        "folder": str(network.folder),
    }
    return {name: own[name] if name in own else (result or {}).get(name) for name in COLUMNS}


def rows(networks: Sequence[Network]) -> list[dict[str, Any]]:
    """The table as it stands in the folders.

    Raises:
        DamagedFileError: a result is unsound.
    """
    return [row(network, model_files.read_result(network.folder)) for network in networks]


def write(path: files.PathLike, table: Sequence[Mapping[str, Any]]) -> None:
    """Writes the table as CSV; a cell without a value is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    files.write_text(path, text.getvalue())


def means(table: Sequence[Mapping[str, Any]], column: str) -> dict[tuple[str, str], dict[int, np.ndarray]]:
    """Values of the networks that ended well and have one, by (model, noise), then by width: float64 [seeds].

    Args:
        table: as `rows` gives it.
        column: a measure.
    """
    found: dict[tuple[str, str], dict[int, list[float]]] = {}
    for line in table:
        if line["width"] is not None and line["outcome"] in (model_files.FINISHED, model_files.STOPPED):
            of_width = found.setdefault((line["model"], line["noise"]), {}).setdefault(line["width"], [])
            of_width += [] if line[column] is None else [line[column]]
    return {
        key: {width: np.array(values) for width, values in sorted(of_key.items()) if values}
        for key, of_key in found.items()
    }


def interpolation_width(train_errors: Mapping[int, np.ndarray]) -> int | None:
    """The smallest width at which all networks fit all labels that they were trained with; None where none does.

    Args:
        train_errors: by width, float64 [seeds].
    """
    return next(
        (width for width in sorted(train_errors) if len(train_errors[width]) and not train_errors[width].any()), None
    )


def summary(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines for people: of each model and noise, where training errors vanish and where test errors are largest."""
    lines = []
    test = means(table, "test_error")
    for key, train_errors in means(table, "train_error").items():
        width = interpolation_width(train_errors)
        fit = f"all labels are fit from width {width} on" if width else "no width fits all labels"
        best = min(test[key], key=lambda width: float(test[key][width].mean()), default=None)
        lowest = "" if best is None else f", lowest mean test error {test[key][best].mean():.4f} at width {best}"
        lines.append(f"{key[0]}, noise {key[1]}: {fit}{lowest}")
    return lines


def split_name(model: str) -> tuple[str, int | None]:
    """Architecture and width of a name like "conv5_16"; the whole name and None where no width stands behind it."""
    match = re.fullmatch(r"(.+)_([1-9][0-9]{0,8})", model)
    return (match[1], int(match[2])) if match and ":" not in model else (model, None)
