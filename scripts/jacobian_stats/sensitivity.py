"""Whether networks are more sensitive at the examples that they memorize: statistics of a zoo joined with its scores.

For T runs of one subset ratio and N training examples, s [T, N] is a statistic of the input Jacobian of a run at an
example. Its mean over all runs, over those that trained on the example and over those that held it out stand beside
memorization and consistency by original index; Spearman's correlations have percentile intervals over examples
(heldout/scoring/agreement.py), which say nothing about other runs. Needs no TensorFlow.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
from typing import Any

import numpy as np

from heldout.scoring import agreement, saved_scores
from scripts.jacobian_stats import aggregation, stats_config
from zoo import errors

ALL, IN, HELDOUT, DIFFERENCE = SIDES = ("all", "in", "heldout", "difference")
MEMORIZATION, CONSISTENCY = SCORES = ("memorization", "consistency")
# Of Kendall's correlation, which is not looked at.
_FEW = 100
SIDE_TEXTS = {
    ALL: "all runs",
    IN: "runs trained on it",
    HELDOUT: "runs that held it out",
    DIFFERENCE: "difference of the two",
}


@dataclasses.dataclass(frozen=True)
class SensitivityConfig:
    """What is measured at which runs and examples of a zoo.

    Attributes:
        zoo, experiment: where the runs are.
        scores: folder of the scores.
        subset_ratio: of the runs.
        run_ids: of the runs, ascending.
        outdir: folder of the results.
        stats: what is measured; one metric, at the examples themselves.
        num_examples: training examples, drawn by `seed`; None for all.
        seed: of that draw, and of the bootstrap.
        num_draws: of the bootstrap.
        dataset, data_dir, architecture: where no recipe tells.
    """

    zoo: str
    experiment: str
    scores: str
    subset_ratio: float
    run_ids: tuple[int, ...]
    outdir: str
    stats: stats_config.StatsConfig
    num_examples: int | None = None
    seed: int = 0
    num_draws: int = 1000
    dataset: str | None = None
    data_dir: str | None = None
    architecture: str | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        for name, least in (("num_examples", 2), ("seed", 0), ("num_draws", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise errors.InvalidValueError(f"--{name}={value}: must be at least {least}")
        if len(self.run_ids) < 2:
            raise errors.InvalidValueError("--run_ids: name two runs at least")

    def positions(self, num_train: int) -> np.ndarray:
        """Original indices of the examples, ascending."""
        if self.num_examples is None or self.num_examples >= num_train:
            return np.arange(num_train)
        drawn = np.random.default_rng([self.seed, num_train]).choice(num_train, self.num_examples, replace=False)
        return np.sort(drawn)

    def to_json(self) -> dict[str, Any]:
        """As JSON gives it back."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "SensitivityConfig":
        """What `to_json` made."""
        members = dict(stored)
        members["stats"] = stats_config.StatsConfig.from_json(stored["stats"])
        members["run_ids"] = tuple(stored["run_ids"])
        return cls(**members)


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """Sensitivity beside scores, of n examples.

    Attributes:
        train_index: int64 [n], original indices.
        label, clean_label: int64 [n], as trained with, and before some were changed.
        mean: float64 [n] by `SIDES`, mean over the runs of that side; NaN without a run, "difference" is in - heldout.
        standard_error: float64 [n] by `SIDES`, over runs; NaN with fewer than two.
        num_in, num_heldout: int64 [n], runs.
        scores: float64 [n] by `SCORES`.
    """

    train_index: np.ndarray
    label: np.ndarray
    clean_label: np.ndarray
    mean: Mapping[str, np.ndarray]
    standard_error: Mapping[str, np.ndarray]
    num_in: np.ndarray
    num_heldout: np.ndarray
    scores: Mapping[str, np.ndarray]

    def columns(self) -> dict[str, np.ndarray | None]:
        """As a table."""
        found: dict[str, np.ndarray | None] = {
            "train_index": self.train_index,
            "label": self.label,
            "clean_label": self.clean_label,
        }
        for side in SIDES:
            found |= {f"sensitivity_{side}": self.mean[side]}
            found |= {f"sensitivity_{side}_standard_error": self.standard_error[side]}
        return found | {"num_in": self.num_in, "num_heldout": self.num_heldout, **self.scores}


def join(
    values: np.ndarray,
    masks: np.ndarray,
    positions: np.ndarray,
    found: saved_scores.SavedScores,
    subset_ratio: float,
    label: np.ndarray,
) -> Joined:
    """Means over runs beside scores.

    Args:
        values: float64 [T, n], statistics of the runs.
        masks: bool [T, n], whether the run trained on the example.
        positions: int64 [n], original indices.
        found: scores of the same experiment.
        subset_ratio: of the runs.
        label: int64 [N], labels that the runs were trained with.

    Raises:
        MismatchError: the scores are of other labels, or not of this ratio.
    """
    ratio = found.ratios.get(subset_ratio)
    if ratio is None:
        raise errors.MismatchError(
            f"{found.directory}: has no scores of ratio {subset_ratio:g}, only of "
            f"{', '.join(f'{one:g}' for one in found.ratios)}; compute them, or name another --subset_ratio"
        )
    if ratio.num_train != len(label) or (
        found.train_label is not None and not np.array_equal(found.train_label, label)
    ):
        raise errors.MismatchError(
            f"{found.directory}: scores are of other training labels than the runs; compute them again"
        )
    clean = label if found.clean_train_label is None else found.clean_train_label
    sides = {ALL: np.ones_like(masks), IN: masks, HELDOUT: ~masks}
    measured = {side: _mean(values, mask) for side, mask in sides.items()}
    mean = {side: one for side, (one, _) in measured.items()}
    error = {side: one for side, (_, one) in measured.items()}
    mean[DIFFERENCE] = mean[IN] - mean[HELDOUT]
    error[DIFFERENCE] = np.hypot(error[IN], error[HELDOUT])
    return Joined(
        positions,
        label[positions],
        clean[positions],
        mean,
        error,
        masks.sum(axis=0),
        (~masks).sum(axis=0),
        {
            MEMORIZATION: ratio.memorization.values[positions].astype(np.float64),
            CONSISTENCY: found.consistency.score[positions].astype(np.float64),
        },
    )


def _mean(values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(means, standard errors) [n] over the runs of a mask."""
    num = mask.sum(axis=0)
    mean = np.where(mask, values, 0).sum(axis=0) / np.where(num > 0, num, np.nan)
    squares = np.where(mask, np.square(values - mean), 0).sum(axis=0)
    return mean, np.sqrt(squares / np.where(num > 1, num - 1, np.nan) / np.where(num > 0, num, np.nan))


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Spearman's correlation of sensitivity with a score.

    Attributes:
        subset: of the examples: "all", "clean" or "changed".
        side: one of `SIDES`.
        score: one of `SCORES`.
        value, low, high: with its 95 % interval over examples.
        num_examples: with both.
    """

    subset: str
    side: str
    score: str
    value: float
    low: float
    high: float
    num_examples: int


def correlations(found: Joined, num_draws: int, seed: int) -> list[Correlation]:
    """Of every side with every score, over all examples, and apart where some labels were changed."""
    masks = aggregation.subsets(found.label, found.clean_label)
    made = []
    for subset in (aggregation.ALL, aggregation.CLEAN, aggregation.CHANGED):
        for side in SIDES if subset in masks else ():
            for score in SCORES:
                mask = masks[subset]
                both = found.mean[side][mask], found.scores[score][mask]
                one = agreement.agreement(*both, num_draws=num_draws, max_kendall=_FEW, seed=seed)
                rank = one.spearman
                made.append(Correlation(subset, side, score, rank.value, rank.low, rank.high, one.num_examples))
    return made


def of(found: Sequence[Correlation], subset: str, side: str, score: str) -> Correlation:
    """One of them."""
    return next(one for one in found if (one.subset, one.side, one.score) == (subset, side, score))
