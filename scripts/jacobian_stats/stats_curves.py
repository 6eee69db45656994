"""Curves of a statistic and of errors against width or epoch, over networks that differ in their seeds alone."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from heldout.training import model_files
from scripts.jacobian_stats import aggregation, stats_tables
from zoo import errors

WIDTH, EPOCH = AGAINST = ("width", "epoch")
STATISTIC, TEST_ERROR, TRAIN_ERROR = QUANTITIES = ("statistic", "test_error", "train_error")


@dataclasses.dataclass(frozen=True)
class Point:
    """Networks of one curve at one place.

    Attributes:
        curve: what tells the curve from others, for the legend.
        x: width or epoch.
        seeds: of the networks.
        values: by `QUANTITIES`; errors are shares of examples.
        num_judged: by names of errors that are of a part of their split alone, the smallest number of its examples.
    """

    curve: str
    x: int
    seeds: tuple[str, ...]
    values: Mapping[str, aggregation.Interval]
    num_judged: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def flat(self, against: str) -> dict[str, Any]:
        """As a row of a table."""
        row: dict[str, Any] = {"curve": self.curve, against: self.x, "num_seeds": len(self.seeds)}
        for name, found in self.values.items():
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
            row[f"{name}_standard_deviation"] = found.standard_deviation
        return row | {f"{name}_examples": self.num_judged.get(name) for name in (TEST_ERROR, TRAIN_ERROR)}


@dataclasses.dataclass(frozen=True)
class _Judged:
    """An error of a network.

    Attributes:
        error: share of examples.
        num_examples: of a part of a split; None for all of it.
    """

    error: float
    num_examples: int | None = None


def points(
    found: Sequence[stats_tables.Whole], column: str, statistic: str, against: str, split: str | None, subset: str
) -> tuple[list[Point], str]:
    """The points of all curves, sorted by curve and place, and the unit of the statistic.

    Args:
        found: tables.
        column: its name.
        statistic: one of `aggregation.STATISTICS`.
        against: "width", of the last checkpoint of each network, or "epoch".
        split: of the examples; None for the only one there is.
        subset: of the examples, as "all".

    Raises:
        InvalidValueError: there is no such column, split, subset or width, or networks would be mixed that differ in
            more than seeds, width and label noise.
    """
    judged = _from_accuracy(found)
    found = _of_split(found, split)
    rows = [row for one in found for row in aggregation.rows_of(one)]
    chosen = _chosen(rows, column, subset)
    for one in found:
        judged[_network(one)] = judged.get(_network(one), {}) | _from_history(one)
    if against == WIDTH:
        chosen = _last(chosen)
        if any(row.width is None for row in chosen):
            raise errors.InvalidValueError(
                "--against=width: some networks have none in their names or options, as conv5_16 has; use "
                "--against=epoch"
            )
    groups: dict[tuple[str, int], list[aggregation.Row]] = {}
    names = _curve_names(chosen, against)
    for row in chosen:
        x = row.width if against == WIDTH else row.epoch
        assert x is not None
        groups.setdefault((names[id(row)], x), []).append(row)
    made = []
    for (curve, x), same in sorted(groups.items(), key=lambda item: item[0]):
        values = {STATISTIC: aggregation.interval([row.values[statistic] for row in same])}
        num_judged: dict[str, int] = {}
        for name in (TEST_ERROR, TRAIN_ERROR):
            known = [judged[_key(row)][name] for row in same if name in judged.get(_key(row), {})]
            values[name] = aggregation.interval([one.error for one in known])
            parts = [one.num_examples for one in known if one.num_examples is not None]
            num_judged |= {name: min(parts)} if parts else {}
        made.append(Point(curve, x, tuple(row.seed for row in same), values, num_judged))
    return made, chosen[0].unit


def interpolation(found: Sequence[Point], curve: str, most: float) -> int | None:
    """The smallest width of a curve at which the mean train error is at most `most`; None where there is none."""
    reached = [p.x for p in found if p.curve == curve and p.values[TRAIN_ERROR].mean <= most]
    return min(reached, default=None)


def peak(found: Sequence[Point], curve: str) -> int | None:
    """Where the mean statistic of a curve is largest; None where it is nowhere a number."""
    known = [p for p in found if p.curve == curve and not np.isnan(p.values[STATISTIC].mean)]
    return max(known, key=lambda p: p.values[STATISTIC].mean).x if known else None


def judged_text(found: Sequence[Point], name: str) -> str:
    """Of how few examples an error is, where it is not of a whole split; else empty."""
    parts = [p.num_judged[name] for p in found if name in p.num_judged]
    return f", on as few as {min(parts)} examples of the split" if parts else ""


def _of_split(found: Sequence[stats_tables.Whole], split: str | None) -> list[stats_tables.Whole]:
    there = sorted({(one.table.split, one.table.examples) for one in found})
    splits = sorted({name for name, _ in there})
    if split is None and len(splits) > 1:
        raise errors.InvalidValueError(f"there are several splits; name one: --dataset_split={'|'.join(splits)}")
    if split is not None and split not in splits:
        raise errors.InvalidValueError(f"--dataset_split={split}: there is none; there are {', '.join(splits)}")
    chosen = [one for one in found if split is None or one.table.split == split]
    examples = sorted({one.table.examples for one in chosen})
    if len(examples) > 1:
        raise errors.InvalidValueError(
            f"--input: networks were measured at different examples, {' and '.join(examples)} of the split; give "
            "tables of the same"
        )
    return chosen


def _chosen(rows: Sequence[aggregation.Row], column: str, subset: str) -> list[aggregation.Row]:
    columns = list(dict.fromkeys(row.column for row in rows))
    if column not in columns:
        raise errors.InvalidValueError(f"--column={column}: there is none; there are {', '.join(columns)}")
    found = [row for row in rows if row.column == column and row.subset == subset]
    if not found:
        there = ", ".join(dict.fromkeys(row.subset for row in rows))
        raise errors.InvalidValueError(f"--subset={subset}: there is none; there are {there}")
    return found


def _last(rows: Sequence[aggregation.Row]) -> list[aggregation.Row]:
    """Of each network the row of its last checkpoint."""
    found: dict[tuple[str, ...], aggregation.Row] = {}
    for row in rows:
        key = (row.model, row.data, row.setting, row.seed)
        if key not in found or row.epoch > found[key].epoch:
            found[key] = row
    return list(found.values())


def _curve_names(rows: Sequence[aggregation.Row], against: str) -> dict[int, str]:
    """Names by row: of what the rows differ in, beside width or epoch, and seed."""
    parts = {
        id(row): (
            row.model.removesuffix(f"_{row.width}") if against == WIDTH else row.model,
            row.data,
            f"label noise {row.label_noise}",
        )
        for row in rows
    }
    differ = [len({part[i] for part in parts.values()}) > 1 for i in range(3)]
    if not any(differ):
        differ[2] = True
    names = {
        key: ", ".join(text for text, shown in zip(part, differ, strict=True) if shown) for key, part in parts.items()
    }
    _check_distinct(rows, names, against)
    return names


def _check_distinct(rows: Sequence[aggregation.Row], names: Mapping[int, str], against: str) -> None:
    """Refuses points of networks that differ in more than seeds, and curves of those that differ in more than width.

    All curves share an axis, and so have one unit.
    """
    of_places: dict[tuple[Any, ...], aggregation.Row] = {}
    of_curves: dict[str, aggregation.Row] = {}
    for row in rows:
        if row.unit != rows[0].unit:
            raise errors.InvalidValueError(
                f"--input: {rows[0].model} {rows[0].setting} was measured in {rows[0].unit}, {row.model} {row.setting} "
                f"in {row.unit}; give tables of one unit"
            )
        curve, x = names[id(row)], row.width if against == WIDTH else row.epoch
        at_place, on_curve = of_places.setdefault((curve, x), row), of_curves.setdefault(curve, row)
        fits = on_curve.alike_but_width == row.alike_but_width if against == WIDTH else on_curve.alike == row.alike
        if at_place.alike != row.alike or not fits:
            first = at_place if fits else on_curve
            raise errors.InvalidValueError(
                f"{first.model} {first.setting} and {row.model} {row.setting}: differ in more than seeds, width and "
                "label noise, and would fall on one curve; give them apart"
            )


def _network(found: stats_tables.Whole) -> tuple[Any, ...]:
    return (*found.table.group, found.table.seed, found.table.epoch)


def _key(row: aggregation.Row) -> tuple[Any, ...]:
    return (row.model, row.data, row.setting, row.seed, row.epoch)


def _from_history(found: stats_tables.Whole) -> dict[str, _Judged]:
    """Train and test error of a network at the epoch of a table, from its history; empty where there is none."""
    homes = [found.paths[0].parent.parent]
    if found.table.home is not None:
        homes.append(pathlib.Path(found.table.home))
    for home in homes:
        if (home / model_files.HISTORY_NAME).is_file():
            history = model_files.read_history(home)
            here = history[history["epoch"] == found.table.epoch]
            if len(here):
                return {name: _Judged(float(here[name][-1])) for name in (TEST_ERROR, TRAIN_ERROR)}
    return {}


def _from_accuracy(found: Sequence[stats_tables.Whole]) -> dict[tuple[Any, ...], dict[str, _Judged]]:
    """Errors by network and epoch where the accuracy was measured, for models without a history.

    Where it was measured more than once, it is that over the most examples.
    """
    errors_of: dict[tuple[Any, ...], dict[str, _Judged]] = {}
    names = {"train": TRAIN_ERROR, "test": TEST_ERROR}
    for one in sorted(found, key=lambda one: one.table.num_rows):
        if one.table.split in names and "accuracy" in one.arrays:
            error = 1.0 - float(np.mean(one.arrays["accuracy"]))
            num = one.table.num_rows if one.table.num_rows < one.table.num_split else None
            errors_of.setdefault(_network(one), {})[names[one.table.split]] = _Judged(error, num)
    return errors_of
