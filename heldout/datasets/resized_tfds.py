"""Data sets of TensorFlow Datasets whose images differ in size, in memory as bytes at one size: cats_vs_dogs_224.

The number behind the name is the side S in pixels. An image is scaled so that its shorter side has S pixels (bilinear,
antialiased), its central S x S pixels are kept, and values are rounded to bytes: [n, S, S, 3]. Nothing is downloaded,
and records are read in the order in which TFDS stores them, as in tfds.py; sizes of the splits must be those known. The
order is not proved: record the fingerprint at first use and compare later.

cats_vs_dogs    2 classes; it has no test split, so an example stored at place i is a test example where i % 5 == 4, and
                a training example otherwise, both in that order
cassava         5 diseases of cassava leaves (iCassava 2019); its validation split is not used

A split is decoded whenever it is loaded, which takes about a minute for 20 000 photographs on two cores.
"""

from collections.abc import Iterator
import dataclasses
import os
import re
from typing import Any

import numpy as np

from heldout.datasets import dataset, tfds
from zoo import errors, files

LARGEST_BYTES = 4 << 30
SMALLEST_SIDE = 8
_NAME = re.compile("([a-z_]+)_([1-9][0-9]{0,4})")
_BATCH_SIZE = 64
_SCALE = 255.0
_EVERY, _TEST_PLACE = 5, 4


@dataclasses.dataclass(frozen=True)
class Pinned:
    """What is known beforehand about one data set.

    Attributes:
        version: the TFDS version that is read.
        num_examples: by the splits of TFDS that are read.
        num_classes: K.
    """

    version: str
    num_examples: dict[str, int]
    num_classes: int


PINNED: dict[str, Pinned] = {
    "cats_vs_dogs": Pinned("4.0.1", {"train": 23262}, 2),
    "cassava": Pinned("0.1.0", {"train": 5656, "test": 1885}, 5),
}


def split_name(name: str) -> tuple[str, int] | None:
    """Data set and side that a name such as "cats_vs_dogs_224" says; None for names of another kind."""
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2])) if match and match[1] in PINNED else None


def identify(name: str) -> tuple[str, str]:
    """Name and version that `load` would give.

    Args:
        name: one of which `split_name` knows the parts.
    """
    parts = split_name(name)
    assert parts is not None
    return name, PINNED[parts[0]].version


def load(name: str, data_dir: str | None = None) -> dataset.Dataset:
    """Reads a prepared data set into memory, at one size.

    Args:
        name: one of which `split_name` knows the parts.
        data_dir: see `tfds.data_directory`.

    Raises:
        InvalidValueError: the side is too small, or the images would take more than 4 GiB.
        MissingFileError: it is not prepared in the folder; the message holds the command that prepares it.
        DamagedFileError: its files cannot be read.
        MismatchError: its sizes are not those of the known data set.
    """
    parts = split_name(name)
    assert parts is not None
    base, side = parts
    pinned = PINNED[base]
    _check_side(name, side, sum(pinned.num_examples.values()))
    directory = tfds.prepared_directory(tfds.data_directory(data_dir), base, pinned.version)
    builder = _open_builder(directory, pinned)
    splits = {split: _read_split(builder, directory, split, pinned, side) for split in pinned.num_examples}
    if "test" not in splits:
        whole = splits["train"]
        is_test = whole.index % _EVERY == _TEST_PLACE
        splits = {
            split: dataset.Split(whole.images[rows], whole.label[rows])
            for split, rows in (("train", ~is_test), ("test", is_test))
        }
    class_names = tuple(builder.info.features["label"].names)
    return dataset.Dataset(name, pinned.version, splits["train"], splits["test"], class_names, _SCALE)


def _check_side(name: str, side: int, num_examples: int) -> None:
    size = num_examples * side**2 * 3
    if side < SMALLEST_SIDE or size > LARGEST_BYTES:
        largest = int((LARGEST_BYTES / (3 * num_examples)) ** 0.5)
        raise errors.InvalidValueError(
            f"dataset {name!r}: its {num_examples} images of {side} x {side} pixels take {files.size_text(size)}; "
            f"expected a side from {SMALLEST_SIDE} to {largest}, which takes {files.size_text(LARGEST_BYTES)}"
        )


def _open_builder(directory: str, pinned: Pinned) -> Any:
    import tensorflow_datasets  # brings TensorFlow, seconds; the registry is on the path of quick programs

    try:
        builder = tensorflow_datasets.builder_from_directory(directory)
        image, label = builder.info.features["image"], builder.info.features["label"]
        found = {split: builder.info.splits[split].num_examples for split in pinned.num_examples}
        if len(image.shape) != 3 or np.dtype(image.np_dtype) != np.uint8 or not label.names:
            raise ValueError(f"features {image} and {label}, expected uint8 images and class labels")
    except Exception as error:  # damaged metadata surfaces as many unrelated exceptions
        raise errors.DamagedFileError(
            f"{directory}: not a readable TFDS data set ({error}); delete the folder and prepare it again"
        ) from error
    if found != pinned.num_examples or len(label.names) != pinned.num_classes:
        raise errors.MismatchError(
            f"{directory}: found {found} examples of {len(label.names)} classes, expected {pinned.num_examples} of "
            f"{pinned.num_classes}; delete the folder and prepare it again"
        )
    return builder


def _read_split(builder: Any, directory: str, split: str, pinned: Pinned, side: int) -> dataset.Split:
    import tensorflow as tf  # see _open_builder

    num_examples = pinned.num_examples[split]
    images = np.empty((num_examples, side, side, 3), np.uint8)
    label = np.empty(num_examples, np.int64)
    start = 0
    try:
        for batch_images, batch_label in _batches(builder, split, side):
            rows = slice(start, start + len(batch_label))
            images[rows], label[rows] = batch_images, batch_label
            start = rows.stop
    except (tf.errors.OpError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise errors.DamagedFileError(
            f"{directory}: the {split} records cannot be read ({reason}); delete the folder and prepare it again"
        ) from error
    unknown = np.count_nonzero((label[:start] < 0) | (label[:start] >= pinned.num_classes))
    if start != num_examples or unknown:
        raise errors.DamagedFileError(
            f"{directory}: found {start} {split} records, {unknown} of them with an unknown label, expected "
            f"{num_examples} of the classes 0 to {pinned.num_classes - 1}; delete the folder and prepare it again"
        )
    return dataset.Split(images, label)


def _batches(builder: Any, split: str, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of one split, in stored order."""
    import tensorflow as tf  # see _open_builder

    features = {"image": tf.string, "label": tf.int64}
    specification = {name: tf.io.FixedLenFeature([], dtype) for name, dtype in features.items()}

    def decode(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_single_example(record, specification)
        image = tf.io.decode_image(parsed["image"], channels=3, expand_animations=False)
        return resized(image, side), parsed["label"]

    paths = [os.fspath(path) for path in builder.info.splits[split].filepaths]
    records = tf.data.TFRecordDataset(paths)
    decoded = records.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return decoded.batch(_BATCH_SIZE).prefetch(2).as_numpy_iterator()


def resized(image: Any, side: int) -> Any:
    """The central square of an image, uint8 [H, W, 3] -> [side, side, 3].

    Args:
        image: a tensor.
        side: in pixels.
    """
    import tensorflow as tf  # see _open_builder

    size = tf.cast(tf.shape(image)[:2], tf.float32)
    scaled = tf.cast(tf.round(size * (side / tf.reduce_min(size))), tf.int32)
    image = tf.image.resize(image, tf.maximum(scaled, side), antialias=True)
    image = tf.image.resize_with_crop_or_pad(image, side, side)
    return tf.ensure_shape(tf.cast(tf.round(tf.clip_by_value(image, 0.0, _SCALE)), tf.uint8), [side, side, 3])
