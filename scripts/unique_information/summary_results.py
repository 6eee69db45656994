"""What came of training without dropped examples: one row a training, and for each way and ratio a mean over seeds.

Accuracy is that of validation examples, f > 1/2 for a single output and the largest output else; the loss is the mean
of 1/2 |f - y|^2 over them. A row has Jeffreys' interval of the accuracy over examples; a point has Student's interval
over seeds, which change the initialisation and, of random selections, the examples; and the differences to random
selections of as many under the same seed.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from heldout.scoring import intervals
from heldout.training import leave_out_files
from scripts.attribution import retraining_results
from scripts.unique_information import dropping_orders, result_tables
from zoo import errors, files

RESULTS_NAME, ROWS_NAME, POINTS_NAME = "results.json", "trainings.csv", "summary.csv"
QUANTITIES = ("val_accuracy", "val_loss")


@dataclasses.dataclass(frozen=True)
class Row:
    """One training.

    Attributes:
        way: one of `dropping_orders.WAYS`.
        num_dropped: examples that were dropped.
        num_kept: examples that were left.
        share_kept: num_kept / n.
        seed: of the initialisation.
        val_accuracy: share of validation examples that are right.
        val_accuracy_low: lower end of its interval over examples.
        val_accuracy_high: upper end.
        val_loss: mean of 1/2 |f - y|^2.
    """

    way: str
    num_dropped: int
    num_kept: int
    share_kept: float
    seed: int
    val_accuracy: float
    val_accuracy_low: float
    val_accuracy_high: float
    val_loss: float


@dataclasses.dataclass(frozen=True)
class Point:
    """All trainings of one way and number.

    Attributes:
        way: as of a row.
        num_dropped: likewise.
        num_kept: likewise.
        share_kept: likewise.
        measures: by quantity.
        minus_random: the same of differences to random selections, seed by seed; none for these.
    """

    way: str
    num_dropped: int
    num_kept: int
    share_kept: float
    measures: dict[str, retraining_results.Interval]
    minus_random: dict[str, retraining_results.Interval]

    def row(self) -> dict[str, Any]:
        """For a table."""
        row: dict[str, Any] = {
            name: getattr(self, name) for name in ("way", "num_dropped", "num_kept", "share_kept")
        } | {"num_seeds": self.measures[QUANTITIES[0]].count}
        for name in QUANTITIES:
            for key, one in ((name, self.measures[name]), (f"{name}_minus_random", self.minus_random[name])):
                row |= {key: one.mean, f"{key}_low": one.low, f"{key}_high": one.high}
        return row


def read_rows(
    folder: pathlib.Path,
    config_sha256: str,
    seed: int,
    dropped: Mapping[tuple[str, int], leave_out_files.Group],
) -> list[Row]:
    """The trainings of one seed.

    Args:
        folder: of its networks.
        config_sha256: of their experiment.
        seed: of the initialisation.
        dropped: what each way drops, by way and number.

    Raises:
        MissingFileError: a training is not there.
        DamagedFileError: a file is unsound.
    """
    full_run = leave_out_files.read_full_run(folder, config_sha256)
    if full_run is None:
        raise errors.MissingFileError(f"{folder}: has no full network yet; run summarize_dataset again")
    base, label = full_run["val_prediction"].astype(np.float64), full_run["val_label"]
    wanted = {group for group in dropped.values() if group}
    predictions: dict[leave_out_files.Group, np.ndarray] = {(): base}
    for block in leave_out_files.read_blocks(folder, config_sha256):
        for group, change in zip(block.groups, block.prediction_change, strict=True):
            if group in wanted:
                predictions[group] = base + change
    missing = wanted - set(predictions)
    if missing:
        raise errors.MissingFileError(
            f"{folder}: lacks {files.count_text(len(missing), 'training')}; run summarize_dataset again"
        )
    num_train = len(full_run["train_index"])
    return [_row(way, count, num_train, seed, predictions[group], label) for (way, count), group in dropped.items()]


def _row(way: str, num_dropped: int, num_train: int, seed: int, prediction: np.ndarray, label: np.ndarray) -> Row:
    num_outputs = prediction.shape[1]
    if num_outputs == 1:
        found, target = (prediction[:, 0] > 0.5).astype(np.int64), label[:, None]
    else:
        found, target = prediction.argmax(axis=1), np.eye(num_outputs)[label]
    num_right = int(np.sum(found == label))
    ends = intervals.proportion(np.array(num_right), np.array(len(label)))
    return Row(
        way=way,
        num_dropped=num_dropped,
        num_kept=num_train - num_dropped,
        share_kept=1 - num_dropped / num_train,
        seed=seed,
        val_accuracy=num_right / len(label),
        val_accuracy_low=float(ends.low),
        val_accuracy_high=float(ends.high),
        val_loss=float(np.mean(np.sum((prediction - target) ** 2, axis=1)) / 2),
    )


def summarise(rows: Sequence[Row]) -> list[Point]:
    """A point for each way and number, by way and rising number."""
    parts: dict[tuple[str, int], list[Row]] = {}
    for row in sorted(rows, key=lambda one: (dropping_orders.WAYS.index(one.way), one.num_dropped, one.seed)):
        parts.setdefault((row.way, row.num_dropped), []).append(row)
    return [_point(part, parts.get((dropping_orders.RANDOM, count), [])) for (_, count), part in parts.items()]


def _point(rows: list[Row], random: list[Row]) -> Point:
    first, of_seed = rows[0], {row.seed: row for row in random}
    pairs = [(row, of_seed[row.seed]) for row in rows if row.seed in of_seed and row.way != dropping_orders.RANDOM]
    interval = retraining_results.interval
    return Point(
        way=first.way,
        num_dropped=first.num_dropped,
        num_kept=first.num_kept,
        share_kept=first.share_kept,
        measures={name: interval([getattr(row, name) for row in rows]) for name in QUANTITIES},
        minus_random={name: interval([getattr(a, name) - getattr(b, name) for a, b in pairs]) for name in QUANTITIES},
    )


def write(
    folder: pathlib.Path, settings: Mapping[str, Any], rows: Sequence[Row], points: Sequence[Point]
) -> list[pathlib.Path]:
    """Writes the trainings and points as CSV and JSON; returns their paths."""
    tables = {"points": [point.row() for point in points], "trainings": [dataclasses.asdict(row) for row in rows]}
    result_tables.write_csv(folder / ROWS_NAME, tables["trainings"])
    result_tables.write_csv(folder / POINTS_NAME, tables["points"])
    result_tables.write(folder / RESULTS_NAME, settings, tables)
    return [folder / RESULTS_NAME, folder / ROWS_NAME, folder / POINTS_NAME]


def lines(points: Sequence[Point]) -> list[str]:
    """A table of accuracies for people: a line a ratio, a column a way."""
    ways = list(dict.fromkeys(point.way for point in points))
    found = {(point.num_dropped, point.way): point for point in points}
    cells = [["dropped", "kept", *ways]]
    for count in sorted({point.num_dropped for point in points}):
        there = [found.get((count, way)) for way in ways]
        kept = next(point for point in there if point is not None)
        shown = ["" if point is None else _text(point.measures[QUANTITIES[0]]) for point in there]
        cells.append([f"{1 - kept.share_kept:.0%} ({count})", str(kept.num_kept), *shown])
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _text(one: retraining_results.Interval) -> str:
    return f"{one.mean:.4f}" + ("" if one.count < 2 else f" [{one.low:.4f}, {one.high:.4f}]")
