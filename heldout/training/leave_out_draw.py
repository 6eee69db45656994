"""A seeded draw of training and validation examples from some classes of a data set.

The examples of the classes are the pool of a split, by ascending position. Of the pool of the training split,
`data_split.draw` takes the training examples; those that validate are taken from what is left of it, or from the pool
of the test split. All positions are those in the data set's own split.
"""

from collections.abc import Sequence
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
        classes: the classes, in the order that numbers them.
        pool: int64 [P], ascending positions of all training examples of these classes.
        train_index: int64 [n], ascending positions in the training split.
        val_index: int64 [m], ascending positions in `val_split`.
        val_split: "train" or "test".
    """

    classes: tuple[int, ...]
    pool: np.ndarray
    train_index: np.ndarray
    val_index: np.ndarray
    val_split: str

    def numbered(self, label: np.ndarray) -> np.ndarray:
        """Labels of the data set as places in `classes`, int64; -1 for those of other classes."""
        place = np.full(max([*self.classes, int(label.max(initial=0))]) + 1, -1, np.int64)
        place[list(self.classes)] = np.arange(len(self.classes))
        return place[label]


def draw(
    dataset: dataset_lib.Dataset, classes: Sequence[int], num_train: int, num_val: int, seed: int, val_split: str
) -> ClassDraw:
    """Draws examples of some classes.

    Args:
        dataset: in its stored order.
        classes: labels to keep, each once, at least two; empty for all.
        num_train: n, at least 2.
        num_val: m, at least 1.
        seed: of the draw, 0 or more; nothing else draws from it.
        val_split: "train" for validation examples beside the training examples, "test" for the test split.

    Raises:
        InvalidValueError: a class is not there or named twice, or a split has too few examples of the classes.
    """
    kept = tuple(classes) or tuple(range(dataset.num_classes))
    if len(kept) < 2 or len(set(kept)) < len(kept) or min(kept) < 0 or max(kept) >= dataset.num_classes:
        raise errors.InvalidValueError(
            f"--classes={','.join(map(str, kept))}: expected at least two of the classes 0 to "
            f"{dataset.num_classes - 1}, each once"
        )
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
    if val_split == "test":
        _, val = data_split.draw(seed, 0, num_val, len(pools["test"]))
    return ClassDraw(kept, pools["train"], pools["train"][train], pools[val_split][val], val_split)
