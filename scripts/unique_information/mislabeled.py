"""How well scores tell examples whose labels were changed from the others; needs no TensorFlow.

A high score is taken to say "changed" in all figures. Where a score says it by low values, its AUROC lies below 0.5 and
`direction` is "low"; nothing is turned round in silence.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from heldout.scoring import agreement
from scripts.unique_information import changed_labels, score_columns, separation
from zoo import errors

RESULTS_NAME, TABLE_NAME = "mislabeled.json", "mislabeled.csv"


@dataclasses.dataclass(frozen=True)
class MislabeledConfig:
    """What is compared.

    Attributes:
        scores: files of scores.
        experiment: folder of `ground_truth_effects`; None where labels are given.
        labels: npz file that says which labels were changed; None where an experiment is given.
        outdir: folder of the results.
        columns: of the scores; empty for all.
        top: shares of the examples with the highest scores.
        method: of the intervals, one of `separation.METHODS`.
        num_draws: of the bootstrap.
        seed: of its draws.

    Raises:
        InvalidValueError: a value lies outside what is allowed.
    """

    scores: tuple[str, ...]
    experiment: str | None
    labels: str | None
    outdir: str
    columns: tuple[str, ...] = ()
    top: tuple[float, ...] = (0.05, 0.1, 0.2)
    method: str = separation.METHODS[0]
    num_draws: int = separation.DEFAULT_NUM_DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be before anything is read."""
        if (self.experiment is None) == (self.labels is None):
            raise errors.InvalidValueError(
                "--experiment and --labels: expected one of them, which says which labels were changed"
            )
        if any(not 0 < share <= 1 for share in self.top):
            raise errors.InvalidValueError(
                f"--top={','.join(map(str, self.top))}: expected shares above 0, at most 1, such as 0.05,0.1"
            )
        if len(set(self.scores)) < len(self.scores):
            raise errors.InvalidValueError(f"--scores={','.join(self.scores)}: names a file twice; name each once")


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """One column of scores.

    Attributes:
        source: file name of the scores.
        column: of the scores.
        same_order: further columns that order the examples alike, so that all that is said holds for them, too.
        changed: float64, scores of the examples with a changed label.
        clean: float64, scores of the others.
        num_without_score: examples that have none, of either kind.
        auroc: with its interval.
        average_precision: with its interval.
        top: examples with the highest scores, by share.
        has_clean_labels: the labels beside the scores are those before some were changed.
    """

    source: str
    column: str
    same_order: tuple[str, ...]
    changed: np.ndarray
    clean: np.ndarray
    num_without_score: int
    auroc: agreement.Estimate
    average_precision: agreement.Estimate
    top: dict[float, separation.Top]
    has_clean_labels: bool = False

    @property
    def is_defined(self) -> bool:
        """Whether examples of either kind have a score, without which no figure is a number."""
        return bool(len(self.changed) and len(self.clean))

    @property
    def direction(self) -> str:
        """Which scores say that a label was changed: "high", "low", or "none" where the interval holds 0.5."""
        if self.auroc.low > 0.5:
            return "high"
        return "low" if self.auroc.high < 0.5 else "none"

    @property
    def share_changed(self) -> float:
        """Share of the examples with a score whose label was changed; NaN where none has one."""
        number = len(self.changed) + len(self.clean)
        return len(self.changed) / number if number else math.nan

    def row(self) -> dict[str, Any]:
        """For a table."""
        row: dict[str, Any] = {
            "source": self.source,
            "column": self.column,
            "same_order": ";".join(self.same_order),
            "num_changed": len(self.changed),
            "num_clean": len(self.clean),
            "num_without_score": self.num_without_score,
            "direction": self.direction,
            "has_clean_labels": self.has_clean_labels,
        }
        for name in ("auroc", "average_precision"):
            one = getattr(self, name)
            row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        row["share_changed"] = self.share_changed
        for share, top in self.top.items():
            row |= {f"top_{share:g}_{name}": getattr(top, name) for name in ("number", "precision", "recall")}
        return row


def detect(config: MislabeledConfig) -> list[Detection]:
    """Each column of each file.

    Raises:
        MissingFileError, DamagedFileError: of a file.
        MismatchError: the labels of a file of scores show that its examples are others.
        InvalidValueError: a file has none of the columns asked for, or no example that is known to be changed, or none
            that is not; or a column that is asked for, or every column, has no score of one of the two.
    """
    if config.experiment is not None:
        known = changed_labels.of_experiment(config.experiment)
    else:
        known = changed_labels.of_file(pathlib.Path(str(config.labels)))
    found = []
    for path in config.scores:
        scores = score_columns.read(path)
        has_clean_labels = changed_labels.check_order(known, scores)
        is_scored = np.isin(known.train_index, scores.train_index)
        if not (is_scored & known.is_changed).any() or not (is_scored & ~known.is_changed).any():
            raise errors.InvalidValueError(
                f"{path}: scores {np.sum(is_scored & known.is_changed)} examples whose label was changed, of "
                f"{known.is_changed.sum()} in {known.path}, and {np.sum(is_scored & ~known.is_changed)} of the others; "
                "expected some of both"
            )
        columns = scores.at(known.train_index)
        names = [name for name in columns if not config.columns or name in config.columns]
        chosen = _one_of_each_order({name: columns[name] for name in names})
        found += [
            dataclasses.replace(
                _detect(config, pathlib.Path(path).name, name, same, columns[name], known.is_changed),
                has_clean_labels=has_clean_labels,
            )
            for name, same in chosen.items()
        ]
    missing = set(config.columns) - {name for one in found for name in (one.column, *one.same_order)}
    if missing:
        raise errors.InvalidValueError(
            f"--column={','.join(config.columns)}: no file of --scores has {', '.join(sorted(missing))}; they have "
            f"{', '.join(dict.fromkeys(name for path in config.scores for name in score_columns.read(path).columns))}"
        )
    _check_defined(config, found)
    return found


def _check_defined(config: MislabeledConfig, found: Sequence[Detection]) -> None:
    """Refuses columns without a figure, if they were asked for or there is none with one."""
    empty = [one for one in found if not one.is_defined]
    if empty and (config.columns or len(empty) == len(found)):
        one = empty[0]
        raise errors.InvalidValueError(
            f"{one.source}: column {one.column} is finite for {len(one.changed)} examples whose label was changed and "
            f"{len(one.clean)} of the others, and {one.num_without_score} have no score; expected some of both"
        )


def _one_of_each_order(columns: Mapping[str, np.ndarray]) -> dict[str, tuple[str, ...]]:
    """The first column of each order of the examples, with the others that have it: as nats and squared norms do."""
    from scipy import stats  # heavy, and not needed by those who only ask for help

    found: dict[bytes, list[str]] = {}
    for name, column in columns.items():
        found.setdefault(stats.rankdata(column, nan_policy="omit").tobytes(), []).append(name)
    return {names[0]: tuple(names[1:]) for names in found.values()}


def _detect(
    config: MislabeledConfig,
    source: str,
    column: str,
    same_order: tuple[str, ...],
    score: np.ndarray,
    is_changed: np.ndarray,
) -> Detection:
    known = np.isfinite(score)
    changed, clean = score[known & is_changed], score[known & ~is_changed]
    draws = {"num_draws": config.num_draws, "seed": config.seed}
    return Detection(
        source=source,
        column=column,
        same_order=same_order,
        changed=changed,
        clean=clean,
        num_without_score=int(np.sum(~known)),
        auroc=separation.auroc(changed, clean, method=config.method, **draws),
        average_precision=separation.average_precision(changed, clean, **draws),
        top={share: separation.top(changed, clean, share) for share in config.top},
    )


def lines(found: Sequence[Detection]) -> list[str]:
    """The table for people."""
    width = max(len(f"{one.source}: {one.column}") for one in found)
    texts = []
    for one in found:
        top = ", ".join(
            f"{of.num_first:.3g} of the top {share:.0%} ({of.number})" for share, of in list(one.top.items())[:2]
        )
        ends = f"[{one.auroc.low:.3f}, {one.auroc.high:.3f}]"
        texts.append(
            f"{f'{one.source}: {one.column}':{width}}  AUROC {one.auroc.value:.3f} {ends}  average precision "
            f"{one.average_precision.value:.3f} (by chance {one.share_changed:.3f})  changed: {top}{_remarks(one)}"
        )
    for source in dict.fromkeys(one.source for one in found if one.has_clean_labels):
        texts.append(
            f"note: {source}: its labels are those before some were changed; scores that were made with these never "
            "saw a changed label"
        )
    return texts


def _remarks(one: Detection) -> str:
    remarks = [_DIRECTIONS[one.direction]] if one.direction in _DIRECTIONS else []
    remarks += [f"{one.num_without_score} without a score"] if one.num_without_score else []
    remarks += [f"the same order: {', '.join(one.same_order)}"] if one.same_order else []
    return "".join(f"; {remark}" for remark in remarks)


_DIRECTIONS = {"low": "LOW scores say changed", "none": "says nothing"}
