"""What came of retraining: one row for each training, and for each selection a mean with an interval over seeds.

A row has accuracy and mean loss on all test examples and, where the ranking was made for some test examples, on these
("target") and on the others ("other") apart: a selection that was made for the target examples and is judged on them
looks better than it is.

The loss of an example is log(1 + exp(-margin)) nats, the cross-entropy, from the margin that its run has recorded as
float16 (heldout/evaluation/margins.py), which is good to 1 % of the loss of each example.

Intervals are 95 %, by Student's t over the seeds. Seeds change initial values and batch orders, and of a random
selection the selected examples, too; which test examples there are, and how certain the ranking is, they leave aside.
Differences to random are taken between runs of one seed.
"""

from collections.abc import Sequence
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from heldout.experiments import subset_rankings
from heldout.scoring import score_tables
from scripts.attribution import retraining_plan
from zoo import aux_arrays, errors, files, layout

SCHEMA_VERSION = 1
RESULTS_NAME = "results.json"
TABLE_STEM = "trainings"
PARTS = ("all", "target", "other")
TITLES = {
    "all": "all test examples",
    "target": "test examples that the ranking was made for",
    "other": "all other test examples",
}
ACCURACY, LOSS = QUANTITIES = ("accuracy", "loss")
_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Row:
    """One training.

    Attributes:
        selection: "top", "bottom", "extreme", "random" or "none".
        num_selected: k, the examples that were dropped or, with "keep", kept; 0 for "none".
        fraction: k / n.
        seed: of the training.
        subset_ratio: of the run.
        run_id: of the run.
        num_train: examples that it was trained on.
        test_accuracy: share of all test examples that are right.
        test_loss: mean cross-entropy of all test examples, in nats.
        target_test_accuracy: the same of the test examples that the ranking was made for; NaN without such.
        target_test_loss: the same.
        other_test_accuracy: the same of all other test examples; NaN without such.
        other_test_loss: the same.
    """

    selection: str
    num_selected: int
    fraction: float
    seed: int
    subset_ratio: float
    run_id: int
    num_train: int
    test_accuracy: float
    test_loss: float
    target_test_accuracy: float
    target_test_loss: float
    other_test_accuracy: float
    other_test_loss: float


def column(part: str, quantity: str) -> str:
    """The column of a quantity on a part of the test examples: "test_loss", "target_test_accuracy"."""
    return f"test_{quantity}" if part == "all" else f"{part}_test_{quantity}"


def read_rows(
    zoo: files.PathLike,
    experiment: str,
    action: str,
    ranking: subset_rankings.SubsetRanking,
    test_index: np.ndarray | None,
) -> list[Row]:
    """All complete runs of an experiment that belong to a comparison, whichever call trained them.

    Args:
        zoo: folder of the experiment.
        experiment: its name.
        action: "drop" or "keep".
        ranking: that its subsets follow.
        test_index: the target test examples, int64; None where there are none.

    Returns:
        The rows by number, selection and seed.

    Raises:
        MismatchError: a run was not trained on what the ranking says.
        DamagedFileError: a record is unsound, or has no margins.
    """
    rows = []
    for run in layout.runs(zoo, experiment):
        if run.aux_arrays_path.exists():
            rows.append(_row(run, aux_arrays.read(run.aux_arrays_path), action, ranking, test_index))
    order = (retraining_plan.NONE, *retraining_plan.WHICH, retraining_plan.RANDOM)
    found = [row for row in rows if row is not None]
    return sorted(found, key=lambda row: (row.num_selected, order.index(row.selection), row.seed))


def _row(
    run: layout.Run,
    record: aux_arrays.AuxArrays,
    action: str,
    ranking: subset_rankings.SubsetRanking,
    test_index: np.ndarray | None,
) -> Row | None:
    name = (run.experiment, run.subset_ratio, run.run_id)
    expected = ranking.subset_indices(name, record.num_train)
    if not np.array_equal(np.sort(record.index_train), expected):
        raise errors.MismatchError(
            f"{run.aux_arrays_path}: was not trained on the {len(expected)} examples that the ranking says; delete "
            f"{run.directory} and run the same command again"
        )
    if record.margins is None:
        raise errors.DamagedFileError(
            f"{run.aux_arrays_path}: has no margins, which the loss follows from; delete {run.directory} and run the "
            "same command again"
        )
    found = retraining_plan.selection(action, ranking.size, run.run_id, len(expected))
    if found is None:
        return None
    selection, count = found
    is_target = np.zeros(record.num_test, bool)
    is_target[[] if test_index is None else test_index] = True
    masks = {"all": np.ones(record.num_test, bool), "target": is_target, "other": ~is_target & is_target.any()}
    measured = _measures(record.test_correctness(), record.test_margin(), masks)
    seed = subset_rankings.seed_name(name)[2]
    return Row(selection, count, count / ranking.size, seed, run.subset_ratio, run.run_id, len(expected), **measured)


def _measures(correctness: np.ndarray, margin: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, float]:
    loss = np.logaddexp(0, -margin.astype(np.float64))
    return {
        column(part, quantity): float(np.mean(values[mask])) if mask.any() else math.nan
        for part, mask in masks.items()
        for quantity, values in ((ACCURACY, correctness), (LOSS, loss))
    }


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over seeds.

    Attributes:
        mean: NaN without a value.
        low: lower end of its 95 % interval; NaN with fewer than two values.
        high: upper end.
        count: values behind it.
    """

    mean: float
    low: float
    high: float
    count: int

    def to_json(self) -> dict[str, float | int | None]:
        """A JSON object, with null for NaN."""
        return {name: None if math.isnan(value) else value for name, value in vars(self).items()}


def interval(values: Sequence[float]) -> Interval:
    """Mean and interval of numbers, by Student's t; NaN does not count."""
    from scipy import stats  # takes longer than all of a command that finds nothing to do

    there = np.asarray([value for value in values if not math.isnan(value)])
    if len(there) < 2:
        return Interval(float(there[0]) if len(there) else math.nan, math.nan, math.nan, len(there))
    mean, error = float(there.mean()), float(there.std(ddof=1) / math.sqrt(len(there)))
    half = error * float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(there) - 1))
    return Interval(mean, mean - half, mean + half, len(there))


@dataclasses.dataclass(frozen=True)
class Point:
    """All trainings of one selection and number.

    Attributes:
        selection: as of a row.
        num_selected: k.
        fraction: k / n.
        num_train: examples trained on.
        measures: an interval for each of the six measures of a row, by column.
        minus_random: the same of the differences to random selections of as many, seed by seed; none for "random" and
            "none".
    """

    selection: str
    num_selected: int
    fraction: float
    num_train: int
    measures: dict[str, Interval]
    minus_random: dict[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        texts = ("selection", "num_selected", "fraction", "num_train")
        found: dict[str, Any] = {name: getattr(self, name) for name in texts}
        found["measures"] = {name: one.to_json() for name, one in self.measures.items()}
        return found | {"minus_random": {name: one.to_json() for name, one in self.minus_random.items()}}


def summarise(rows: Sequence[Row]) -> list[Point]:
    """One point for each selection and number, in the order of the rows."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.selection, row.num_selected), []).append(row)
    return [_point(group, groups.get((retraining_plan.RANDOM, count), [])) for (_, count), group in groups.items()]


def _point(group: list[Row], baseline: list[Row]) -> Point:
    first = group[0]
    names = [column(part, quantity) for part in PARTS for quantity in QUANTITIES]
    measures = {name: interval([getattr(row, name) for row in group]) for name in names}
    minus_random = {}
    if first.selection in retraining_plan.WHICH:
        of_seed = {row.seed: row for row in baseline}
        pairs = [(row, of_seed[row.seed]) for row in group if row.seed in of_seed]
        minus_random = {name: interval([getattr(a, name) - getattr(b, name) for a, b in pairs]) for name in names}
    return Point(first.selection, first.num_selected, first.fraction, first.num_train, measures, minus_random)


def known_parts(points: Sequence[Point]) -> list[str]:
    """The parts of the test examples that something is known of; not a part that would be all of them again."""
    found = [part for part in PARTS if any(point.measures[column(part, ACCURACY)].count for point in points)]
    return found if "other" in found else [part for part in found if part != "target"]


def write(
    directory: pathlib.Path, rows: Sequence[Row], points: Sequence[Point], about: dict[str, Any], table_format: str
) -> None:
    """Writes the table of trainings and results.json.

    Args:
        directory: where to.
        rows: the trainings, at least one.
        points: their summary.
        about: what was compared, for results.json.
        table_format: "parquet" or "csv".
    """
    names = [field.name for field in dataclasses.fields(Row)]
    columns: dict[str, np.ndarray | None] = {name: np.array([getattr(row, name) for row in rows]) for name in names}
    score_tables.write(directory / f"{TABLE_STEM}.{table_format}", columns, table_format)
    stored = {"schema_version": SCHEMA_VERSION, **about, "points": [point.to_json() for point in points]}
    files.write_json(directory / RESULTS_NAME, stored)


def text(points: Sequence[Point], action: str, part: str) -> str:
    """A table of one part of the test examples for people.

    Args:
        points: of all selections.
        action: "drop" or "keep".
        part: one of `PARTS`.
    """
    accuracy, loss = (column(part, quantity) for quantity in QUANTITIES)
    cells = [[action, "trained on", "seeds", "accuracy", "minus random", "loss", "minus random"]]
    for point in points:
        what = "nothing" if action == retraining_plan.DROP else "everything"
        if point.num_selected:
            what = f"{point.selection} {100 * point.fraction:.3g} % ({point.num_selected})"
        shown = [_show(found.get(name)) for name in (accuracy, loss) for found in (point.measures, point.minus_random)]
        cells.append([what, str(point.num_train), str(point.measures[accuracy].count), *shown])
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def _show(found: Interval | None) -> str:
    if found is None or math.isnan(found.mean):
        return ""
    return f"{found.mean:.4f}" + ("" if math.isnan(found.low) else f" [{found.low:.4f}, {found.high:.4f}]")
