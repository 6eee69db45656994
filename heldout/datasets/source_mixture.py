"""Two data sets of the same classes in one: the second rare in training, and as frequent as the first in tests.

So one can see whether the few examples of a rare source are informative.

Images of the second are brought to the form of the first: values to its scale, colours to their mean where it is grey
(and grey to three equal channels where it is not), sizes by cutting the middle out, or by a border of zeros. With
`reversed_second` light and dark change places. Where both are the same data, the first gives the examples at even
positions and the second those at odd ones, so that no example is there twice.
"""

import dataclasses
import hashlib
from typing import Any

import numpy as np

from heldout.datasets import dataset as dataset_lib
from zoo import errors, files, npz

SOURCE_NAMES = ("first", "second")
_SCHEME = "heldout-mixture-1"


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """A data set with the source of each example.

    Attributes:
        train: training split.
        test: test split.
        train_source: texts [N], one of two names.
        test_source: texts [M].
        class_names: of the first data set.
        scale: of the first data set.
    """

    train: dataset_lib.Split
    test: dataset_lib.Split
    train_source: np.ndarray
    test_source: np.ndarray
    class_names: tuple[str, ...]
    scale: float

    def counts(self, split_name: str) -> dict[str, int]:
        """Examples of each source."""
        names, number = np.unique(getattr(self, f"{split_name}_source"), return_counts=True)
        return dict(zip(names.tolist(), number.tolist(), strict=True))


def mix(
    first: dataset_lib.Dataset,
    second: dataset_lib.Dataset,
    share: float,
    seed: int,
    *,
    reversed_second: bool = False,
    names: tuple[str, str] = SOURCE_NAMES,
) -> Mixture:
    """Mixes two data sets, in an order by the seed.

    Args:
        first: whose form the images have.
        second: of as many classes.
        share: of the training examples that are of the second, between 0 and 1. As many examples are taken as give it.
        seed: of what is taken and of the order.
        reversed_second: whether light and dark of the second change places.
        names: of the sources.

    Raises:
        InvalidValueError: the share is none, or the data sets differ in their classes.
    """
    if not 0 < share < 1:
        raise errors.InvalidValueError(f"--share={share}: expected a number between 0 and 1, such as 0.1")
    if first.num_classes != second.num_classes:
        raise errors.InvalidValueError(
            f"--second: {second.name} has {second.num_classes} classes, {first.name} {first.num_classes}; expected the "
            "same"
        )
    is_same = first.fingerprint() == second.fingerprint()
    splits = {}
    for split_name, wanted in (("train", share), ("test", 0.5)):
        pools = [np.arange(len(data.split(split_name))) for data in (first, second)]
        if is_same:
            pools = [pools[0][0::2], pools[1][1::2]]
        rows = _rows([len(pool) for pool in pools], wanted, f"{seed}/{split_name}")
        parts = [
            _in_form_of(first, data, data.split(split_name).images[pool[chosen]], reversed_second and place == 1)
            for place, (data, pool, chosen) in enumerate(zip((first, second), pools, rows.chosen, strict=True))
        ]
        label = [
            data.split(split_name).label[pool[chosen]]
            for data, pool, chosen in zip((first, second), pools, rows.chosen, strict=True)
        ]
        source = np.repeat(names, [len(part) for part in parts])
        split = dataset_lib.Split(np.concatenate(parts)[rows.order], np.concatenate(label)[rows.order])
        splits[split_name] = split, source[rows.order]
    (train, train_source), (test, test_source) = splits["train"], splits["test"]
    return Mixture(train, test, train_source, test_source, first.class_names, first.scale)


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """Which examples of two pools, and the order of both together."""

    chosen: tuple[np.ndarray, np.ndarray]
    order: np.ndarray


def _rows(sizes: list[int], share: float, purpose: str) -> _Rows:
    """The most examples of which the second pool gives a share."""
    total = int(min(sizes[0] / (1 - share), sizes[1] / share))
    num_second = min(sizes[1], max(1, round(share * total)))
    counts = (min(sizes[0], max(1, total - num_second)), num_second)
    chosen = tuple(
        np.sort(_permutation(f"{purpose}/{place}", size)[:count])
        for place, (size, count) in enumerate(zip(sizes, counts, strict=True))
    )
    return _Rows((chosen[0], chosen[1]), _permutation(f"{purpose}/order", sum(counts)))


def _permutation(purpose: str, count: int) -> np.ndarray:
    key = int.from_bytes(hashlib.sha256(f"{_SCHEME}/{purpose}".encode()).digest()[:16], "little")
    return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable")


def _in_form_of(
    first: dataset_lib.Dataset, data: dataset_lib.Dataset, images: np.ndarray, is_reversed: bool
) -> np.ndarray:
    """Images of a data set as if they were of the first; unchanged where they are."""
    forms = [(one.image_shape, one.scale, one.train.images.dtype) for one in (first, data)]
    if not is_reversed and forms[0] == forms[1]:
        return images
    values = images.astype(np.float32) / data.scale
    height, width, channels = first.image_shape
    if values.shape[3] != channels:
        values = np.repeat(values.mean(axis=3, keepdims=True), channels, axis=3)
    values = _resized(_resized(values, 1, height), 2, width)
    values = (1 - values if is_reversed else values) * first.scale
    dtype = first.train.images.dtype
    return np.round(np.clip(values, 0, first.scale)).astype(dtype) if dtype == np.uint8 else values.astype(dtype)


def _resized(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The middle of an axis, or the axis within zeros."""
    surplus = values.shape[axis] - size
    before = abs(surplus) // 2
    if surplus >= 0:
        return values.take(range(before, before + size), axis=axis)
    border = [(0, 0)] * values.ndim
    border[axis] = (before, -surplus - before)
    return np.pad(values, border)


def write(path: files.PathLike, mixture: Mixture) -> None:
    """Writes a file that `--dataset=npz:PATH` names, whole or not at all.

    Args:
        path: of the npz file.
        mixture: what is written; the sources are members train__source and test__source.
    """
    members: dict[str, Any] = {}
    for name, split in (("train", mixture.train), ("test", mixture.test)):
        source = getattr(mixture, f"{name}_source")
        members |= {f"{name}__image": split.images, f"{name}__label": split.label, f"{name}__source": source}
    npz.write(
        path,
        members
        | {
            "__num_classes": np.asarray(len(mixture.class_names)),
            "__data_scale": np.asarray(mixture.scale),
            "__class_names": np.array(mixture.class_names),
        },
    )
