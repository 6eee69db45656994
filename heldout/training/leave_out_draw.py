"""A seeded draw of training and validation examples from some classes of a data set.

The examples of the classes are the pool of a split, by ascending position. Of the pool of the training split,
`data_split.draw` takes the training examples; those that validate are taken from what is left of it, or from the pool
of the test split. All positions are those in the data set's own split.

Where the number of training examples of some labels is given, the order of that draw is gone through once more behind
the validation examples: each of these labels gives its first ones, and the other labels together the first ones of
theirs. So a label, or a part of a class of several labels, can be rare in training and as frequent as ever in
validation.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from heldout.datasets import dataset as dataset_lib
from heldout.experiments import data_split
from zoo import errors

VAL_SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class ClassDraw:
    """What was drawn.

    Attributes:
        classes: labels of the data set that are kept, in order.
        pool: int64 [P], ascending positions of all training examples of these classes.
        train_index: int64 [n], ascending positions in the training split.
        val_index: int64 [m], ascending positions in `val_split`.
        val_split: "train" or "test".
        coarse_labels: labels of each class, where a class has several; empty where each label is a class.
    """

    classes: tuple[int, ...]
    pool: np.ndarray
    train_index: np.ndarray
    val_index: np.ndarray
    val_split: str
    coarse_labels: tuple[tuple[int, ...], ...] = ()

    @property
    def num_classes(self) -> int:
        """How many classes are told apart."""
        return len(self.coarse_labels or self.classes)

    def numbered(self, label: np.ndarray) -> np.ndarray:
        """Labels of the data set as numbers of classes, int64: places in `coarse_labels`, or `classes`; others -1."""
        place = np.full(max([*self.classes, int(label.max(initial=0))]) + 1, -1, np.int64)
        for number, members in enumerate(self.coarse_labels or [(one,) for one in self.classes]):
            place[list(members)] = number
        return place[label]


def draw(
    dataset: dataset_lib.Dataset,
    classes: Sequence[int],
    num_train: int,
    num_val: int,
    seed: int,
    val_split: str,
    *,
    coarse_labels: Sequence[Sequence[int]] = (),
    class_counts: Mapping[int, int] | None = None,
) -> ClassDraw:
    """Draws examples of some classes.

    Args:
        dataset: in its stored order.
        classes: labels to keep, each once, at least two; empty for all, or for those of `coarse_labels`.
        num_train: n, at least 2.
        num_val: m, at least 1.
        seed: of the draw, 0 or more; nothing else draws from it.
        val_split: "train" for validation examples beside the training examples, "test" for the test split.
        coarse_labels: labels of each class, where a class has several; in place of `classes`.
        class_counts: training examples of some labels; the other labels together give the rest of n. None for as
            many as the draw gives.

    Raises:
        InvalidValueError: a class is not there or named twice, or a split has too few examples of the classes.
    """
    kept = _kept(dataset, classes, coarse_labels)
    if val_split not in VAL_SPLITS:
        raise errors.InvalidValueError(f"--val_split={val_split}: expected one of {', '.join(VAL_SPLITS)}")
    pools = {name: np.flatnonzero(np.isin(dataset.split(name).label, kept)) for name in VAL_SPLITS}
    needed = {"train": num_train + num_val * (val_split == "train"), "test": num_val * (val_split == "test")}
    for name, number in needed.items():
        if number > len(pools[name]):
            raise errors.InvalidValueError(
                f"--num_train={num_train} with --num_val={num_val}: the {name} split has {len(pools[name])} examples "
                f"of the classes {', '.join(map(str, kept))}, expected at least {number}; ask for fewer"
            )
    from_train = num_val if val_split == "train" else 0
    train, val = data_split.draw(seed, num_train, from_train, len(pools["train"]))
    if class_counts:
        train = _counted(dataset.train.label[pools["train"]], kept, num_train, from_train, seed, class_counts)
    if val_split == "test":
        _, val = data_split.draw(seed, 0, num_val, len(pools["test"]))
    coarse = tuple(tuple(members) for members in coarse_labels)
    return ClassDraw(kept, pools["train"], pools["train"][train], pools[val_split][val], val_split, coarse)


def _kept(
    dataset: dataset_lib.Dataset, classes: Sequence[int], coarse_labels: Sequence[Sequence[int]]
) -> tuple[int, ...]:
    """The labels that are kept."""
    if coarse_labels and classes:
        raise errors.InvalidValueError(
            f"--classes={','.join(map(str, classes))} with --coarse_labels: both say which labels are kept; give one"
        )
    flat = tuple(one for members in coarse_labels for one in members)
    kept = flat or tuple(classes) or tuple(range(dataset.num_classes))
    if len(kept) < 2 or len(set(kept)) < len(kept) or min(kept) < 0 or max(kept) >= dataset.num_classes:
        flag = "coarse_labels" if coarse_labels else "classes"
        raise errors.InvalidValueError(
            f"--{flag}={','.join(map(str, kept))}: expected at least two of the classes 0 to "
            f"{dataset.num_classes - 1}, each once"
        )
    return kept


def _counted(
    label: np.ndarray, kept: Sequence[int], num_train: int, num_before: int, seed: int, counts: Mapping[int, int]
) -> np.ndarray:
    """Ascending places in the pool, so many of each label.

    Args:
        label: of the pool.
        kept: all its labels.
        num_train: n.
        num_before: examples at the beginning of the draw that validate.
        seed: of the draw.
        counts: see `draw`.
    """
    text = ",".join(f"{one}:{number}" for one, number in counts.items())
    rest = num_train - sum(counts.values())
    others = [one for one in kept if one not in counts]
    if set(counts) - set(kept) or rest < 0 or (rest and not others):
        raise errors.InvalidValueError(
            f"--class_counts={text}: expected numbers of some of the labels {', '.join(map(str, kept))}, with "
            f"--num_train={num_train} as their sum, or with labels beside them that give what is lacking"
        )
    order = data_split.order(seed, len(label))[num_before:]
    chosen = []
    for members, number in [([one], number) for one, number in counts.items()] + [(others, rest)]:
        there = order[np.isin(label[order], members)]
        if number > len(there):
            raise errors.InvalidValueError(
                f"--class_counts={text}: {len(there)} examples of {', '.join(map(str, members))} are left beside those "
                f"that validate, expected at least {number}; ask for fewer"
            )
        chosen.append(there[:number])
    return np.sort(np.concatenate(chosen))
