"""Random images in the place of those of a data set: same sizes, labels and channel statistics, no content.

With m and s the mean and standard deviation of a channel over the pixels of the training images, every channel of a
random image is

    uniform    independent values, uniform on [m - sqrt(3) s, m + sqrt(3) s]
    normal     independent values, normal with mean m and standard deviation s
    sphere     m + s sqrt(H W) z / |z| with z normal: uniform on the sphere whose points have mean square s^2 around m
    jitter     m + (x - m + s z) / sqrt(2) with x the real image and z normal: as much noise as signal

so that mean and standard deviation over all images are again m and s; values may lie outside the range of the real
ones. Labels stay with the positions, so for all kinds but jitter they say nothing about the images.

The words of a split come from a Philox generator whose key is the first 128 bits of
SHA-256("heldout-images-1/<seed>/<kind>/<split>"), image after image; normal values are the inverse distribution
function of uniform ones.
"""

import dataclasses
import hashlib

import numpy as np

from heldout.datasets import dataset as dataset_lib
from zoo import errors

NONE = "none"
KINDS = ("uniform", "normal", "sphere", "jitter")

_SCHEME = "heldout-images-1"
# Bounds the float64 numbers that are held at a time.
_NUMBERS_AT_A_TIME = 4_000_000


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over all pixels of all images, float64 [C] each.

    Args:
        images: [n, H, W, C] as stored.
    """
    total, squares = np.zeros(images.shape[-1]), np.zeros(images.shape[-1])
    rows = _rows_at_a_time(images.shape[1:])
    for start in range(0, len(images), rows):
        values = images[start : start + rows].astype(np.float64)
        total += values.sum(axis=(0, 1, 2))
    mean = total / np.prod(images.shape[:-1])
    for start in range(0, len(images), rows):
        squares += np.square(images[start : start + rows].astype(np.float64) - mean).sum(axis=(0, 1, 2))
    return mean, np.sqrt(squares / np.prod(images.shape[:-1]))


def replaced(data: dataset_lib.Dataset, kind: str, seed: int) -> dataset_lib.Dataset:
    """The data set with random images in both splits.

    Args:
        data: whose labels, sizes and statistics are kept.
        kind: one of `KINDS`.
        seed: of the images, 0 or more; nothing else draws from it.

    Returns:
        Images float32 in the units of the stored ones.

    Raises:
        InvalidValueError: the kind is unknown.
    """
    if kind not in KINDS:
        raise errors.InvalidValueError(f"--random_data={kind}: expected one of {', '.join((NONE, *KINDS))}")
    statistics = channel_statistics(data.train.images)
    train, test = (
        dataset_lib.Split(_drawn(split.images, kind, _key(seed, kind, name), *statistics), split.label)
        for name, split in (("train", data.train), ("test", data.test))
    )
    return dataclasses.replace(data, train=train, test=test)


def _drawn(images: np.ndarray, kind: str, key: int, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    generator, drawn = np.random.Philox(key=key), np.zeros(images.shape, np.float32)
    rows = _rows_at_a_time(images.shape[1:])
    for start in range(0, len(images), rows):
        part = images[start : start + rows]
        # In the middle of each of 2^53 equal parts, so that no word gives an infinite value.
        uniform = ((generator.random_raw(part.size) >> np.uint64(11)) + 0.5) * 2.0**-53
        drawn[start : start + rows] = mean + std * _standard(uniform.reshape(part.shape), kind, part, mean, std)
    return drawn


def _standard(uniform: np.ndarray, kind: str, real: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Images [b, H, W, C] of mean 0 and standard deviation 1."""
    from scipy import special  # half a second, which programs that draw nothing save

    if kind == "uniform":
        return np.sqrt(3) * (2 * uniform - 1)
    normal = special.ndtri(uniform)
    if kind == "normal":
        return normal
    if kind == "sphere":
        return normal / np.sqrt(np.mean(np.square(normal), axis=(1, 2), keepdims=True))
    constant = std == 0  # a channel without variation has no noise to add either
    return ((real - mean) / np.where(constant, 1, std) + normal) / np.sqrt(2)


def _rows_at_a_time(shape: tuple[int, ...]) -> int:
    return max(1, _NUMBERS_AT_A_TIME // int(np.prod(shape)))


def _key(seed: int, kind: str, split: str) -> int:
    digest = hashlib.sha256(f"{_SCHEME}/{seed}/{kind}/{split}".encode()).digest()
    return int.from_bytes(digest[:16], "little")
