"""A data set of your own in one npz file.

    train__image   [N, H, W, C], or [N, H, W] for one channel; uint8 or floating
    train__label   [N] integers in 0..K-1
    train__index   optional [N], a permutation of 0..N-1: the original index of each row; rows are put back into the
                   original order, so that position = index
    test__image, test__label, test__index   likewise
    __num_classes  optional whole number K; largest label + 1 where missing
    __data_scale   optional number that images are divided by; 1 where missing
    __class_names  optional [K] texts; "0".."K-1" where missing

Floating images are held as float32, rounded where they were float64. Images of a file that was written uncompressed
and needs neither reordering nor rounding stay on disk as a memory map.
"""

import pathlib

import numpy as np

from heldout.datasets import dataset
from zoo import errors, files, npz

_SPLITS = ("train", "test")
_NUM_CLASSES = "__num_classes"
_DATA_SCALE = "__data_scale"
_CLASS_NAMES = "__class_names"
_VERSION_DIGITS = 16
_BLOCK_BYTES = 1 << 24
# A bound on what one number in a file can make us allocate.
_LARGEST_NUM_CLASSES = 1_000_000


def identify(path: files.PathLike) -> tuple[str, str]:
    """Name and version of the data set in a file: npz:<file name>, and the start of the file's SHA-256.

    Raises:
        MissingFileError: there is no such file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.MissingFileError(f"{path}: no such file")
    return f"npz:{path.name}", files.sha256_of_file(path)[:_VERSION_DIGITS]


def load(path: files.PathLike) -> dataset.Dataset:
    """Reads and checks the file.

    Args:
        path: an npz file with the members listed above.

    Returns:
        The data set, named npz:<file name>; its version is the start of the file's SHA-256.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is not such a file: a member is missing, of another shape or type, an index is not a
            permutation, a label lies outside 0..K-1, or an image holds NaN or infinity.
    """
    path = pathlib.Path(path)
    images = [f"{split}__image" for split in _SPLITS]
    optional = [f"{split}__index" for split in _SPLITS] + [_NUM_CLASSES, _DATA_SCALE, _CLASS_NAMES]
    arrays = npz.read(path, images + [f"{split}__label" for split in _SPLITS], optional, memory_map=images)
    name, version = identify(path)
    try:
        splits = {split: _split(arrays, split) for split in _SPLITS}
        return dataset.Dataset(
            name=name,
            version=version,
            train=splits["train"],
            test=splits["test"],
            class_names=_class_names(arrays, splits),
            scale=_scale(arrays),
        )
    except errors.InvalidValueError as error:
        raise errors.DamagedFileError(f"{path}: {error}. Write the file again.") from error


def _split(arrays: dict[str, np.ndarray], split: str) -> dataset.Split:
    label = _integers(arrays[f"{split}__label"], f"{split}__label")
    images = _images(arrays[f"{split}__image"], f"{split}__image")
    index_name = f"{split}__index"
    if index_name in arrays:
        order = _inverse_permutation(_integers(arrays[index_name], index_name), index_name)
        if not len(order) == len(label) == len(images):
            raise errors.InvalidValueError(
                f"{index_name} has {len(order)} entries for {len(images)} images and {len(label)} labels, expected "
                "one entry for each"
            )
        if not np.array_equal(order, np.arange(len(order))):
            images, label = images[order], label[order]
    return dataset.Split(images, label)


def _integers(values: np.ndarray, name: str) -> np.ndarray:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise errors.InvalidValueError(
            f"{name}: found shape {values.shape} and dtype {values.dtype}, expected one axis of integers"
        )
    if values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise errors.InvalidValueError(f"{name}: holds {int(values.max())}, too large for a label or an index")
    return values.astype(np.int64)


def _images(images: np.ndarray, name: str) -> np.ndarray:
    if images.ndim not in (3, 4) or not (images.dtype == np.uint8 or images.dtype.kind == "f"):
        raise errors.InvalidValueError(
            f"{name}: found shape {images.shape} and dtype {images.dtype}, expected [n, H, W, C] or [n, H, W] of "
            "uint8 or floating numbers"
        )
    images = images[..., np.newaxis] if images.ndim == 3 else images
    if images.dtype == np.uint8:
        return images
    with np.errstate(over="ignore"):  # what overflows float32 is reported below
        images = images.astype(np.float32, copy=False)
    # In blocks, because a memory-mapped array may be larger than memory.
    rows = max(1, _BLOCK_BYTES // max(1, images[:1].nbytes))
    for start in range(0, len(images), rows):
        finite = np.isfinite(images[start : start + rows]).reshape(len(images[start : start + rows]), -1).all(axis=1)
        if not finite.all():
            raise errors.InvalidValueError(
                f"{name}: image {start + int(np.argmin(finite))} holds NaN, infinity or a number beyond float32, "
                "expected finite numbers only"
            )
    return images


def _inverse_permutation(index: np.ndarray, name: str) -> np.ndarray:
    order = np.argsort(index, kind="stable")
    wrong = np.flatnonzero(index[order] != np.arange(len(index)))
    if len(wrong):
        raise errors.InvalidValueError(
            f"{name}: expected each of 0..{len(index) - 1} exactly once; in sorted order, place {wrong[0]} holds "
            f"{index[order[wrong[0]]]}"
        )
    return order


def _scalar(values: np.ndarray, name: str, kinds: str, expected: str) -> float:
    if values.size != 1 or values.dtype.kind not in kinds:
        raise errors.InvalidValueError(
            f"{name}: found shape {values.shape} and dtype {values.dtype}, expected {expected}"
        )
    return values.item()


def _scale(arrays: dict[str, np.ndarray]) -> float:
    if _DATA_SCALE not in arrays:
        return 1.0
    return float(_scalar(arrays[_DATA_SCALE], _DATA_SCALE, "iuf", "one number above 0"))


def _class_names(arrays: dict[str, np.ndarray], splits: dict[str, dataset.Split]) -> tuple[str, ...]:
    num_classes = 1 + max(int(split.label.max()) for split in splits.values())
    if _NUM_CLASSES in arrays:
        found = int(_scalar(arrays[_NUM_CLASSES], _NUM_CLASSES, "iu", "one whole number"))
        if found < num_classes:
            raise errors.InvalidValueError(
                f"{_NUM_CLASSES} is {found}, expected {num_classes} or more, as the largest label is {num_classes - 1}"
            )
        num_classes = found
    if num_classes > _LARGEST_NUM_CLASSES:
        raise errors.InvalidValueError(f"found {num_classes} classes, expected at most {_LARGEST_NUM_CLASSES}")
    if _CLASS_NAMES not in arrays:
        return tuple(str(number) for number in range(num_classes))
    names = arrays[_CLASS_NAMES]
    if names.shape != (num_classes,) or names.dtype.kind != "U":
        raise errors.InvalidValueError(
            f"{_CLASS_NAMES}: found shape {names.shape} and dtype {names.dtype}, expected {num_classes} texts"
        )
    return tuple(names.tolist())
