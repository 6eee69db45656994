"""A classification data set held in memory or memory-mapped, in the order in which it is stored.

The position of an example in its split is its original index, the name under which masks, correctness and scores
refer to it; nothing here ever reorders. Because labels travel with the scores, `label_sha256` is enough to prove that
two programs saw the same examples in the same order (up to exchanges within a class).

Shapes: images [n, H, W, C] as stored (uint8 or float32), labels int64 [n]. `Dataset.normalise` turns stored values
into network inputs: x / scale, then (x - mean) / std per channel.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import hashlib
import math
import os
import pathlib
import shutil
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from zoo import errors, files

if TYPE_CHECKING:
    import tensorflow as tf

_SCHEMA_VERSION = 1
_DESCRIPTION = "dataset.json"
_STORED_DTYPES = (np.dtype(np.uint8), np.dtype(np.float32))


def label_sha256(labels: np.ndarray) -> str:
    """Hexadecimal SHA-256 of labels [n] written as little-endian int64: changes with any label and with their order."""
    return hashlib.sha256(np.ascontiguousarray(labels, dtype="<i8").tobytes()).hexdigest()


class _StoredOrder:
    """Examples whose original index is their position."""

    label: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @property
    def index(self) -> np.ndarray:
        """Original index of each example, int64 [n]: its position."""
        return np.arange(len(self), dtype=np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledSplit(_StoredOrder):
    """What is known of a split without its images.

    Attributes:
        label: int64 [n] by original index.
    """

    label: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Split(_StoredOrder):
    """One split in stored order.

    Attributes:
        images: [n, H, W, C] uint8 or float32, n >= 1; may be a read-only memory map.
        label: int64 [n].

    Raises:
        InvalidValueError: a shape or dtype differs from these.
    """

    images: np.ndarray
    label: np.ndarray

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or 0 in self.images.shape or self.images.dtype not in _STORED_DTYPES:
            raise errors.InvalidValueError(
                f"images: found shape {self.images.shape} and dtype {self.images.dtype}, "
                "expected [n, H, W, C] without an empty axis, uint8 or float32; reshape or convert them first"
            )
        if self.label.shape != self.images.shape[:1] or self.label.dtype != np.int64:
            raise errors.InvalidValueError(
                f"label: found shape {self.label.shape} and dtype {self.label.dtype}, "
                f"expected ({len(self.images)},) and int64; give one label per image"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test split of one data set, with what is needed to turn images into network inputs.

    Attributes:
        name: as given to `heldout.datasets.registry.load`, without folders.
        version: changes whenever content or order change.
        train: N examples.
        test: M examples.
        class_names: one per class; their number is the number of classes.
        scale: stored values are divided by it (255 for bytes), > 0.
        mean: per channel, subtracted after scaling; None for no such step.
        std: per channel, divided by after the subtraction; None for no such step.

    Raises:
        InvalidValueError: the splits differ in image shape or dtype, a label lies outside 0..K-1, or scale, mean or
            std are not usable.
    """

    name: str
    version: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    scale: float
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_splits(self)
        _check_normaliser(self)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    def split(self, split_name: str) -> Split:
        """The split called "train" or "test".

        Raises:
            InvalidValueError: for any other name.
        """
        if split_name not in ("train", "test"):
            raise errors.InvalidValueError(f"split {split_name!r} is unknown; use 'train' or 'test'")
        return self.train if split_name == "train" else self.test

    def normalise(self, images: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
        """Network inputs: images / scale, then (x - mean) / std per channel where given.

        All arithmetic is done in `dtype`: NumPy would otherwise promote float32 images to float64, which the fused
        batch normalisation of TensorFlow refuses.

        Args:
            images: [..., H, W, C] stored values.
            dtype: a floating dtype.

        Returns:
            A new array of the same shape, of exactly `dtype`.

        Raises:
            InvalidValueError: `dtype` is not a floating dtype.
        """
        dtype = np.dtype(dtype)
        if not np.issubdtype(dtype, np.floating):
            raise errors.InvalidValueError(f"dtype {dtype}: images are normalised to floating dtypes; use float32")
        inputs = np.array(images, dtype=dtype)
        inputs /= dtype.type(self.scale)
        if self.mean is not None:
            inputs -= np.asarray(self.mean, dtype)
        if self.std is not None:
            inputs /= np.asarray(self.std, dtype)
        return inputs

    def fingerprint(self) -> dict[str, Any]:
        """What identifies content and order, as JSON-able values: two equal fingerprints mean comparable scores."""
        return {
            "name": self.name,
            "version": self.version,
            "num_train": len(self.train),
            "num_test": len(self.test),
            "num_classes": self.num_classes,
            "image_shape": list(self.image_shape),
            "train_label_sha256": label_sha256(self.train.label),
            "test_label_sha256": label_sha256(self.test.label),
        }

    def to_tf_data(self, split_name: str, batch_size: int) -> "tf.data.Dataset":
        """Batches (index int64 [B], image float32 [B, H, W, C] normalised, label int64 [B]) in stored order.

        Every example comes exactly once; the last batch may be smaller. Memory: a few batches.

        Raises:
            InvalidValueError: the split name is unknown or batch_size < 1.
        """
        import tensorflow as tf  # seconds; programs that only read labels or arrays do without

        split = self.split(split_name)
        if batch_size < 1:
            raise errors.InvalidValueError(f"batch_size {batch_size}: must be at least 1")

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
            for start in range(0, len(split), batch_size):
                rows = slice(start, min(start + batch_size, len(split)))
                index = np.arange(rows.start, rows.stop, dtype=np.int64)
                yield index, self.normalise(split.images[rows]), split.label[rows]

        signature = (
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None, *self.image_shape], tf.float32),
            tf.TensorSpec([None], tf.int64),
        )
        return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)

    def with_train_label(self, label: np.ndarray) -> Self:
        """The same images to be trained with other labels, int64 [N]."""
        return dataclasses.replace(self, train=Split(self.train.images, label))

    def save(self, directory: files.PathLike) -> None:
        """Writes a folder that `open` memory-maps, whole or not at all.

        Args:
            directory: must not exist yet.

        Raises:
            InvalidValueError: it exists.
        """
        directory = pathlib.Path(directory)
        if directory.exists():
            raise errors.InvalidValueError(f"{directory}: exists already; delete it or save to another folder")
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = files.temporary_beside(directory)
        temporary.mkdir()
        try:
            for name in ("train", "test"):
                split = self.split(name)
                np.save(_array_path(temporary, name, "images"), split.images, allow_pickle=False)
                np.save(_array_path(temporary, name, "label"), split.label, allow_pickle=False)
            files.write_json(temporary / _DESCRIPTION, _description(self))
            for path in temporary.iterdir():
                files.sync(path)
            os.rename(temporary, directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    @classmethod
    def open(cls, directory: files.PathLike) -> "Dataset":
        """Opens what `save` wrote; images are read-only memory maps, so opening takes milliseconds.

        Raises:
            MissingFileError: the folder or one of its files does not exist.
            DamagedFileError: a file is not what `save` writes, or the labels differ from the recorded digest.
        """
        directory = pathlib.Path(directory)
        description = files.read_json(directory / _DESCRIPTION)
        try:
            dataset = cls(
                name=_text(description["name"]),
                version=_text(description["version"]),
                train=_open_split(directory, "train"),
                test=_open_split(directory, "test"),
                class_names=tuple(_text(name) for name in description["class_names"]),
                scale=float(description["scale"]),
                mean=_floats(description["mean"]),
                std=_floats(description["std"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, errors.DamagedFileError):
                raise
            raise errors.DamagedFileError(f"{directory}: not a saved data set ({error}); save it again") from error
        if _description(dataset) != description:
            raise errors.DamagedFileError(
                f"{directory}: the arrays do not agree with {_DESCRIPTION} (schema version {_SCHEMA_VERSION} and "
                "digests of labels were expected as recorded); save it again"
            )
        return dataset


def check_label_order(where: str, label: np.ndarray, expected_sha256: str) -> None:
    """Proves that labels are the known ones in the known order.

    Raises:
        MismatchError: their `label_sha256` differs from the expected digest.
    """
    found = label_sha256(label)
    if found != expected_sha256:
        raise errors.MismatchError(
            f"{where}: the labels are not the known ones in the known order (sha256 of labels {found}, expected "
            f"{expected_sha256}). Scores refer to examples by position, so another order would silently mix them up; "
            "prepare the data set again from its original source"
        )


def _check_splits(dataset: Dataset) -> None:
    train, test = dataset.train.images, dataset.test.images
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise errors.InvalidValueError(
            f"{dataset.name}: train images are {train.shape[1:]} {train.dtype}, test images {test.shape[1:]} "
            f"{test.dtype}; both splits must agree"
        )
    for split_name in ("train", "test"):
        label = dataset.split(split_name).label
        low, high = int(label.min()), int(label.max())
        if low < 0 or high >= dataset.num_classes:
            raise errors.InvalidValueError(
                f"{dataset.name}: {split_name} labels span {low}..{high}, expected 0..{dataset.num_classes - 1} for "
                f"{dataset.num_classes} classes; correct the labels or the number of classes"
            )


def _check_normaliser(dataset: Dataset) -> None:
    if not (math.isfinite(dataset.scale) and dataset.scale > 0):
        raise errors.InvalidValueError(f"{dataset.name}: scale {dataset.scale} must be finite and above 0")
    num_channels = dataset.image_shape[2]
    for name, values in (("mean", dataset.mean), ("std", dataset.std)):
        if values is None:
            continue
        usable = all(math.isfinite(value) and (name == "mean" or value > 0) for value in values)
        if len(values) != num_channels or not usable:
            raise errors.InvalidValueError(
                f"{dataset.name}: {name} {values} must hold {num_channels} finite values, one per channel"
                + (", all above 0" if name == "std" else "")
            )


def _description(dataset: Dataset) -> dict[str, Any]:
    return {
        "schema_version": _SCHEMA_VERSION,
        **dataset.fingerprint(),
        "class_names": list(dataset.class_names),
        "scale": float(dataset.scale),
        "mean": None if dataset.mean is None else [float(value) for value in dataset.mean],
        "std": None if dataset.std is None else [float(value) for value in dataset.std],
    }


def _array_path(directory: pathlib.Path, split_name: str, array_name: str) -> pathlib.Path:
    return directory / f"{split_name}_{array_name}.npy"


def _open_split(directory: pathlib.Path, split_name: str) -> Split:
    arrays: Mapping[str, np.ndarray] = {
        name: _open_array(_array_path(directory, split_name, name)) for name in ("images", "label")
    }
    return Split(arrays["images"], np.array(arrays["label"]))


def _open_array(path: pathlib.Path) -> np.ndarray:
    if not path.is_file():
        raise errors.MissingFileError(f"{path}: no such file; save the data set again")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # damaged headers surface as many unrelated exceptions
        raise errors.DamagedFileError(f"{path}: not a readable npy array ({error}); save the data set again") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _floats(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)
