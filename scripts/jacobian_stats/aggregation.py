"""Statistics over the examples of a table, and over networks that differ in their seeds alone.

Over examples: mean, standard error of the mean, largest value with its example (of operator norms the empirical
Lipschitz constant), quantiles; for all examples, each class, and those with clean and with changed labels apart. Over
n seeds: mean m and standard deviation s of these, with the interval m -+ t s / sqrt(n), t the 97.5 % quantile of
Student's distribution with n - 1 degrees of freedom. Needs no TensorFlow.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from typing import Any

import numpy as np
from scipy import stats

from estimators.jacobian import summaries
from scripts.jacobian_stats import stats_files, stats_tables
from zoo import errors

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MAXIMUM, MEAN = "maximum", "mean"
STATISTICS = (MEAN, MAXIMUM, *(f"quantile_{level:g}" for level in LEVELS))
ALL, CLEAN, CHANGED = "all", "clean", "changed"
_LEVEL = 0.95
_OF_WIDTH = ("width", "model", "architecture", "experiment")


@dataclasses.dataclass(frozen=True)
class Row:
    """One column of one network at one checkpoint, over some of its examples.

    Attributes:
        model, data, setting, seed: parts of the path.
        alike: the same for networks that differ in their seeds alone and were measured in the same way.
        alike_but_width: the same for those that may differ in their widths as well.
        width: of the network; None where it has none.
        label_noise: in a word, such as "symmetric 0.1".
        split: of the examples.
        examples: their positions in the split, as "0:301" with the end left out.
        epoch, step: of the checkpoint.
        column: name of the statistic.
        unit: of its values.
        subset: "all", "class 3", "clean" or "changed".
        num: examples with a number.
        num_undefined: examples without one.
        mean_standard_error: of the mean.
        argmax: id of the example with the largest value; -1 where there is none.
        values: by `STATISTICS`.
    """

    model: str
    data: str
    setting: str
    seed: str
    alike: str
    alike_but_width: str
    width: int | None
    label_noise: str
    split: str
    examples: str
    epoch: int
    step: int | None
    column: str
    unit: str
    subset: str
    num: int
    num_undefined: int
    mean_standard_error: float
    argmax: int
    values: Mapping[str, float]

    def flat(self) -> dict[str, Any]:
        """As a row of a table."""
        stored = dataclasses.asdict(self)
        del stored["alike"], stored["alike_but_width"]
        return {**{name: value for name, value in stored.items() if name != "values"}, **self.values}


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number over seeds.

    Attributes:
        mean: of them.
        low, high: 95 % interval of the mean; NaN for one seed.
        standard_deviation: between seeds; NaN for one.
        num_seeds: how many.
    """

    mean: float
    low: float
    high: float
    standard_deviation: float
    num_seeds: int


@dataclasses.dataclass(frozen=True)
class OverSeeds:
    """Rows that differ in the seed alone.

    Attributes:
        first: the first of them.
        seeds: of all.
        values: by `STATISTICS`.
    """

    first: Row
    seeds: tuple[str, ...]
    values: Mapping[str, Interval]

    def flat(self) -> list[dict[str, Any]]:
        """As rows of a table, one a statistic."""
        shared = {name: getattr(self.first, name) for name in _SHARED}
        return [
            {**shared, "statistic": statistic, **dataclasses.asdict(interval)}
            for statistic, interval in self.values.items()
        ]


_SHARED = ("model", "data", "setting", "width", "label_noise", "split", "examples", "epoch", "column", "unit", "subset")


def rows_of(found: stats_tables.Whole) -> list[Row]:
    """All rows of a table."""
    table, arrays = found.table, found.arrays
    masks = subsets(arrays["label"], arrays["clean_label"])
    rows = []
    for column in table.columns:
        for part in column.parts:
            values = arrays[part].astype(np.float64)
            rows += [_row(table, column, part, name, values[mask], arrays["id"][mask]) for name, mask in masks.items()]
    return rows


def subsets(label: np.ndarray, clean_label: np.ndarray) -> dict[str, np.ndarray]:
    """Masks by name: all; each class of the labels that are trained with; where labels were changed, both sides."""
    found = {ALL: np.ones(len(label), bool)}
    found |= {f"class {value}": label == value for value in np.unique(label)}
    if (label != clean_label).any():
        found |= {CLEAN: label == clean_label, CHANGED: label != clean_label}
    return found


def _row(
    table: stats_files.Table, column: stats_files.Column, part: str, subset: str, values: np.ndarray, ids: np.ndarray
) -> Row:
    num = int(np.sum(~np.isnan(values)))
    found, error, argmax = dict.fromkeys(STATISTICS, float("nan")), float("nan"), -1
    if num:
        summary = summaries.summarise(values, ids, LEVELS)
        found = dict(zip(STATISTICS, (summary.mean, summary.maximum, *summary.quantiles.tolist()), strict=True))
        error, argmax = summary.mean_standard_error, summary.argmax
    facts = table.source
    return Row(
        *table.group,
        table.seed,
        stats_files.digest([alike(facts), dict(table.config)]),
        stats_files.digest([alike(facts, but_width=True), dict(table.config)]),
        facts["width"],
        noise_text(facts["label_noise"]),
        table.split,
        table.examples,
        table.epoch,
        table.step,
        part,
        column.unit,
        subset,
        num,
        len(values) - num,
        error,
        argmax,
        found,
    )


def over_seeds(rows: Sequence[Row]) -> list[OverSeeds]:
    """Rows of networks that differ in their seeds alone, together, in the order of the first of each.

    Raises:
        MismatchError: one network is there twice.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row.model, row.data, row.alike, row.split, row.examples, row.epoch, row.column, row.subset)
        same = groups.setdefault(key, [])
        if any((one.setting, one.seed) == (row.setting, row.seed) for one in same):
            raise errors.MismatchError(
                f"{row.model} {row.data} {row.setting} seed {row.seed}, epoch {row.epoch}: was measured twice in "
                "the same way; give one of the folders"
            )
        same.append(row)
    return [
        OverSeeds(
            same[0],
            tuple(row.seed for row in same),
            {statistic: interval([row.values[statistic] for row in same]) for statistic in STATISTICS},
        )
        for same in groups.values()
    ]


def interval(values: Sequence[float]) -> Interval:
    """Over the numbers among some values."""
    known = np.array([value for value in values if not np.isnan(value)])
    if not known.size:
        nothing = float("nan")
        return Interval(nothing, nothing, nothing, nothing, 0)
    mean, num = float(known.mean()), len(known)
    if num == 1:
        return Interval(mean, float("nan"), float("nan"), float("nan"), 1)
    deviation = float(known.std(ddof=1))
    half = float(stats.t.ppf((1 + _LEVEL) / 2, num - 1)) * deviation / num**0.5
    return Interval(mean, mean - half, mean + half, deviation, num)


def alike(facts: Mapping[str, Any], *, but_width: bool = False) -> str:
    """The same for networks that differ in seeds alone, and in what follows from seeds.

    Args:
        facts: what is known of a network.
        but_width: whether they may differ in width as well. Other widths are other experiments of a zoo.
    """
    # Recipes of a zoo know no subset ratio, and runs without a recipe know nothing but where they lie.
    of_zoo = {name: facts[name] for name in ("experiment", "subset_ratio") if name in facts}
    return stats_files.digest(json.loads(json.dumps(_shared({**facts["settings"], **of_zoo}, but_width))))


def _shared(value: Any, but_width: bool) -> Any:
    """Settings without those in which networks may differ."""
    if not isinstance(value, Mapping):
        return value
    return {
        name: _shared(item, but_width)
        for name, item in value.items()
        if not _is_of_seed(name) and not (but_width and name in _OF_WIDTH)
    }


def _is_of_seed(name: str) -> bool:
    return name in ("seed", "fingerprint") or name.endswith(("_seed", "_sha256"))


def noise_text(noise: Mapping[str, Any] | None) -> str:
    """Such as "none", "symmetric 0.1" or "pair 300"."""
    if not noise:
        return "none"
    amount = noise.get("share") if noise.get("share") is not None else noise.get("count")
    return f"{noise.get('kind', 'noise')} {amount:g}" if amount is not None else str(noise.get("kind", "noise"))
