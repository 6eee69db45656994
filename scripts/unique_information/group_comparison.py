"""How scores of training examples differ between groups of them; needs no TensorFlow.

Of each group the mean with its standard error, s / sqrt(n), the median, and the share of its examples above the median
of all examples that have a score and a group. Of each pair of groups the AUROC: the chance that an example of the first
scores higher than one of the second, see separation.py. Examples are what is random in intervals; pairs are not
corrected for their number.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import math
import pathlib
from typing import Any

import numpy as np

from heldout.scoring import agreement, intervals
from scripts.unique_information import changed_labels, example_groups, score_columns, separation
from zoo import errors

RESULTS_NAME, TABLE_NAME, PAIRS_NAME = "groups.json", "groups.csv", "pairs.csv"


@dataclasses.dataclass(frozen=True)
class GroupsConfig:
    """What is compared.

    Attributes:
        scores: files of scores.
        outdir: folder of the results.
        experiment: folder of `ground_truth_effects`; None where groups are given.
        by: one of `example_groups.BY`; None likewise.
        groups: file of groups; None where an experiment is given.
        group_column: of that file; None for the only one.
        columns: of the scores; empty for all.
        method: of the intervals, one of `separation.METHODS`.
        num_draws: of the bootstrap.
        seed: of its draws.

    Raises:
        InvalidValueError: settings contradict one another.
    """

    scores: tuple[str, ...]
    outdir: str
    experiment: str | None = None
    by: str | None = None
    groups: str | None = None
    group_column: str | None = None
    columns: tuple[str, ...] = ()
    method: str = separation.METHODS[0]
    num_draws: int = separation.DEFAULT_NUM_DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be before anything is read."""
        if (self.groups is None) == (self.experiment is None) or (self.by is None) != (self.experiment is None):
            raise errors.InvalidValueError("expected either --groups, or --experiment with --by, which say the groups")
        if self.group_column is not None and self.groups is None:
            raise errors.InvalidValueError(
                f"--group_column={self.group_column}: names a column of --groups, which are not given"
            )
        if len(set(self.scores)) < len(self.scores):
            raise errors.InvalidValueError(f"--scores={','.join(self.scores)}: names a file twice; name each once")


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """The scores of one group.

    Attributes:
        name: of the group.
        score: float64 [n], of its examples that have one.
        num_without_score: examples that have none.
        num_above: how many are above the median of all groups together.
    """

    name: str
    score: np.ndarray
    num_without_score: int
    num_above: int

    def row(self) -> dict[str, Any]:
        """For a table; NaN where a number is not defined."""
        number = len(self.score)
        above = intervals.proportion(np.array(self.num_above), np.array(number))
        spread = float(self.score.std(ddof=1)) if number > 1 else math.nan
        quartiles = np.quantile(self.score, [0.25, 0.5, 0.75]) if number else [math.nan] * 3
        return {
            "group": self.name,
            "num_examples": number,
            "num_without_score": self.num_without_score,
            "mean": float(self.score.mean()) if number else math.nan,
            "standard_error": spread / math.sqrt(number) if number > 1 else math.nan,
            "standard_deviation": spread,
            **dict(zip(("lower_quartile", "median", "upper_quartile"), map(float, quartiles), strict=True)),
            "share_above_median": self.num_above / number if number else math.nan,
            "share_above_median_low": float(above.low),
            "share_above_median_high": float(above.high),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """One column of scores.

    Attributes:
        source: file name of the scores.
        column: of the scores.
        by: what groups are by.
        groups: in order.
        pairs: (first, second, AUROC) by place of the groups: the chance that the first scores higher.
    """

    source: str
    column: str
    by: str
    groups: tuple[Group, ...]
    pairs: tuple[tuple[int, int, agreement.Estimate], ...]

    def group_rows(self) -> list[dict[str, Any]]:
        """A row a group, for a table."""
        return [{"source": self.source, "column": self.column, **group.row()} for group in self.groups]

    def pair_rows(self) -> list[dict[str, Any]]:
        """A row a pair of groups, for a table."""
        return [
            {
                "source": self.source,
                "column": self.column,
                "first": self.groups[first].name,
                "second": self.groups[second].name,
                "auroc": one.value,
                "auroc_low": one.low,
                "auroc_high": one.high,
            }
            for first, second, one in self.pairs
        ]


def compare(
    config: GroupsConfig, groups: example_groups.ExampleGroups, known: changed_labels.ChangedLabels | None = None
) -> list[Comparison]:
    """Each column of each file.

    Args:
        config: what is asked.
        groups: of the examples.
        known: labels that prove the order of the examples; None where they are not known.

    Raises:
        MissingFileError, DamagedFileError: of a file.
        MismatchError: the labels of a file of scores show that its examples are others.
        InvalidValueError: a file has none of the columns asked for, or scores examples of fewer than two groups.
    """
    found, there = [], []
    for path in config.scores:
        scores = score_columns.read(path)
        if known is not None:
            changed_labels.check_order(known, scores)
        there += list(scores.columns)
        scored = set(groups.group[np.isin(groups.train_index, scores.train_index)].tolist())
        if len(scored) < 2:
            raise errors.InvalidValueError(
                f"{path}: scores examples of {len(scored)} of the {len(groups.names())} groups by {groups.name}, "
                "expected at least two; score the examples of the experiment, or give groups of these"
            )
        columns = scores.at(groups.train_index)
        names = [name for name in columns if not config.columns or name in config.columns]
        found += [_compare(config, pathlib.Path(path).name, name, columns[name], groups) for name in names]
    missing = set(config.columns) - set(there)
    if missing:
        raise errors.InvalidValueError(
            f"--column={','.join(config.columns)}: no file of --scores has {', '.join(sorted(missing))}; they have "
            f"{', '.join(dict.fromkeys(there))}"
        )
    return found


def _compare(
    config: GroupsConfig, source: str, column: str, score: np.ndarray, groups: example_groups.ExampleGroups
) -> Comparison:
    known = np.isfinite(score)
    middle = np.median(score[known]) if known.any() else math.nan
    parts = []
    for name in groups.names():
        of = groups.group == name
        value = score[of & known]
        parts.append(Group(name, value, int(np.sum(of & ~known)), int(np.sum(value > middle))))
    pairs = tuple(
        (
            first,
            second,
            separation.auroc(
                parts[first].score,
                parts[second].score,
                method=config.method,
                num_draws=config.num_draws,
                seed=config.seed,
            ),
        )
        for first, second in itertools.combinations(range(len(parts)), 2)
    )
    return Comparison(source, column, groups.name, tuple(parts), pairs)


def lines(found: Sequence[Comparison]) -> list[str]:
    """The tables for people; of many pairs those that differ the most."""
    texts = []
    for one in found:
        texts.append(f"{one.source}: {one.column}, by {one.by}")
        rows = [group.row() for group in one.groups]
        width = max(len(group.name) for group in one.groups)
        for row in rows:
            missing = f", {row['num_without_score']} without a score" if row["num_without_score"] else ""
            texts.append(
                f"  {row['group']:{width}}  mean {row['mean']:.4g} +- {row['standard_error']:.2g}  median "
                f"{row['median']:.4g}  above the median of all {row['share_above_median']:.1%}  "
                f"({row['num_examples']} examples{missing})"
            )
        known = [pair for pair in one.pairs if not math.isnan(pair[2].value)]
        for first, second, area in sorted(known, key=lambda pair: -abs(pair[2].value - 0.5))[:_MOST_PAIRS]:
            is_first = area.value >= 0.5
            higher, lower = (first, second) if is_first else (second, first)
            ends = (area.value, area.low, area.high) if is_first else (1 - area.value, 1 - area.high, 1 - area.low)
            texts.append(
                f"  {one.groups[higher].name} scores higher than {one.groups[lower].name} with probability "
                f"{ends[0]:.3f} [{ends[1]:.3f}, {ends[2]:.3f}]"
            )
    return texts


_MOST_PAIRS = 3
