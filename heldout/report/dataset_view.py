"""The data set behind a report: labels, class names and images, checked against the scores."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from heldout.datasets import dataset as dataset_lib
from heldout.report import images
from heldout.scoring import saved_scores
from zoo import errors


@dataclasses.dataclass(frozen=True)
class DatasetView:
    """What a page can show of the examples; each part is None where it is not known."""

    dataset: dataset_lib.Dataset | None
    train_label: np.ndarray | None
    test_label: np.ndarray | None
    class_names: Sequence[str] | None


def view(saved: saved_scores.SavedScores, dataset: dataset_lib.Dataset | None) -> DatasetView:
    """Joins scores and data set.

    Args:
        saved: the scores, with labels or without.
        dataset: the data set the zoo was trained on, or None.

    Raises:
        MismatchError: the data set has another size or another order than the scores.
        InvalidValueError: its images cannot be drawn.
    """
    if dataset is None:
        return DatasetView(None, saved.train_label, saved.test_label, None)
    images.check_drawable(dataset.image_shape, dataset.name)
    scores = next(iter(saved.ratios.values()))
    num_train, num_test = scores.num_train, scores.num_test
    _check("training", dataset.name, num_train, dataset.train.label, saved.train_label)
    _check("test", dataset.name, num_test, dataset.test.label, saved.test_label)
    return DatasetView(dataset, dataset.train.label, dataset.test.label, dataset.class_names)


def _check(split: str, name: str, size: int, label: np.ndarray, scored: np.ndarray | None) -> None:
    if len(label) != size:
        raise errors.MismatchError(
            f"--dataset {name}: it has {len(label)} {split} examples, the scores have {size}; "
            "pass the data set that the zoo was trained on"
        )
    if scored is None:
        return
    different = np.flatnonzero(np.asarray(label) != scored)
    if different.size:
        index = int(different[0])
        raise errors.MismatchError(
            f"--dataset {name}: label of {split} example {index} is {int(label[index])}, the scores were made with "
            f"{int(scored[index])} ({different.size} of {size} differ); pass the data set and version that the zoo "
            "was trained on, in its stored order"
        )
