"""Which examples a report shows, and what it says about each.

Per class the most and the least memorized training examples; and for the test examples with the largest single
subset influence, helpful or harmful, the training examples that help each most and those that harm it most.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from heldout.report import influence_scan, selection
from heldout.scoring import saved_scores

# A page with more embedded images than this grows slow on a phone; with many classes each one shows fewer.
MAX_GALLERY_CARDS = 1200


@dataclasses.dataclass(frozen=True)
class Memorized:
    """One training example of a gallery with its memorization and the runs behind it."""

    train_index: int
    label: int | None
    memorization: float
    standard_error: float
    num_in: int
    num_heldout: int


@dataclasses.dataclass(frozen=True)
class Gallery:
    """The extremes of one class; `label` None stands for all classes together.

    `num_undefined` examples of the class have no memorization: no run trained on `num_never_in` of them, and none held
    `num_never_heldout` out. `num_zero` have a memorization of exactly 0.
    """

    label: int | None
    num_examples: int
    num_undefined: int
    num_never_in: int
    num_never_heldout: int
    num_zero: int
    most: tuple[Memorized, ...]
    least: tuple[Memorized, ...]


@dataclasses.dataclass(frozen=True)
class TrainEffect:
    """One training example and its subset influence on a test example."""

    train_index: int
    label: int | None
    value: float
    standard_error: float
    memorization: float


@dataclasses.dataclass(frozen=True)
class Story:
    """One test example with the training examples that help it most and those that harm it most."""

    test_index: int
    label: int | None
    accuracy: float
    helpful: tuple[TrainEffect, ...]
    harmful: tuple[TrainEffect, ...]


def cards_per_side(num_classes: int, asked: int) -> int:
    """How many examples a gallery shows on either side, given that all galleries together stay drawable; >= 1."""
    return max(1, min(asked, MAX_GALLERY_CARDS // (2 * (num_classes + 1))))


def memorization_galleries(
    scores: saved_scores.RatioScores, train_label: np.ndarray | None, per_side: int
) -> list[Gallery]:
    """One gallery over all examples, and one for each class where there are labels.

    Args:
        scores: scores at one ratio.
        train_label: int64 [N], or None.
        per_side: at most so many examples among the most memorized, and among the least.
    """
    everything = np.arange(scores.memorization.values.size)
    galleries = [_gallery(scores, train_label, None, everything, per_side)]
    if train_label is not None:
        galleries += [
            _gallery(scores, train_label, int(label), np.flatnonzero(train_label == label), per_side)
            for label in np.unique(train_label)
        ]
    return galleries


def _gallery(
    scores: saved_scores.RatioScores,
    train_label: np.ndarray | None,
    label: int | None,
    members: np.ndarray,
    per_side: int,
) -> Gallery:
    values = scores.memorization.values[members]
    support = selection.support(scores)[members]
    undefined = int(np.isnan(values).sum())
    # The two ends never share an example, also where a class is small.
    per_side = min(per_side, (members.size - undefined + 1) // 2)
    most = members[selection.highest(values, per_side, support)]
    least = members[selection.lowest(values, min(per_side, members.size - undefined - per_side), support)]
    return Gallery(
        label,
        members.size,
        undefined,
        int((scores.memorization.num_in[members] == 0).sum()),
        int((scores.memorization.num_heldout[members] == 0).sum()),
        int((values == 0).sum()),
        tuple(_memorized(scores, train_label, index) for index in most),
        tuple(_memorized(scores, train_label, index) for index in least),
    )


def _memorized(scores: saved_scores.RatioScores, train_label: np.ndarray | None, index: int) -> Memorized:
    support = scores.memorization
    return Memorized(
        int(index),
        _label(train_label, index),
        float(support.values[index]),
        float(support.standard_error[index]),
        int(support.num_in[index]),
        int(support.num_heldout[index]),
    )


def stories_of_tests(
    scores: saved_scores.RatioScores,
    scan: influence_scan.InfluenceScan,
    labels: tuple[np.ndarray | None, np.ndarray | None],
    num_tests: int,
    per_side: int,
) -> list[Story]:
    """The test examples with the largest absolute value of a single influence, the largest first.

    Args:
        scores: scores at one ratio.
        scan: of the same scores.
        labels: of the training and of the test examples, each int64 or None.
        num_tests: at most so many test examples.
        per_side: at most so many training examples that help, and as many that harm.
    """
    chosen = selection.highest(scan.largest_per_test, num_tests)
    chosen = chosen[scan.largest_per_test[chosen] > 0]
    return [_story(scores, int(test), labels, per_side) for test in chosen]


def _story(
    scores: saved_scores.RatioScores,
    test_index: int,
    labels: tuple[np.ndarray | None, np.ndarray | None],
    per_side: int,
) -> Story:
    train_label, test_label = labels

    def effects(pairs: Sequence[influence_scan.Pair]) -> tuple[TrainEffect, ...]:
        return tuple(
            TrainEffect(
                pair.train_index,
                _label(train_label, pair.train_index),
                pair.value,
                pair.standard_error,
                float(scores.memorization.values[pair.train_index]),
            )
            for pair in pairs
        )

    helpful, harmful = influence_scan.of_test(scores, test_index, per_side)
    return Story(
        test_index,
        _label(test_label, test_index),
        float(scores.test_accuracy[test_index]),
        effects(helpful),
        effects(harmful),
    )


def _label(labels: np.ndarray | None, index: int) -> int | None:
    return None if labels is None else int(labels[index])
