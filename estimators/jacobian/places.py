"""Where statistics are measured around an example: points in several directions, and along each direction on a path.

    points = places.Shifts((1, 2, 3, 4), num_directions=4).points(images, ids)
    points.inputs       # [B, M, A, H, W, C]: M directions, A points along each, the example itself not among them
    points.lengths      # [B, M, A]: from each point to the one before it, from the first to the example

Whatever is random belongs to (seed, example id, direction), see `keys`: batches, order and shards change nothing.
Distances are Euclidean, in the units of the inputs.
"""

import abc
import dataclasses
import itertools
from typing import Protocol

import numpy as np

from estimators import errors
from estimators.jacobian import keys


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """Points around B examples.

    Attributes:
        inputs: [B, M, A, ...], in the dtype of the examples.
        lengths: [B, M, A] float64, distance to the point before.
        distances: [B, M, A] float64, distance to the example.
    """

    inputs: np.ndarray
    lengths: np.ndarray
    distances: np.ndarray


class Place(Protocol):
    """A way of choosing points.

    Attributes:
        num_directions: M.
        num_anchors: A.
        is_random: whether directions are draws of one distribution, over which standard errors mean something.
    """

    @property
    def num_directions(self) -> int: ...  # noqa: D102

    @property
    def num_anchors(self) -> int: ...  # noqa: D102

    @property
    def is_random(self) -> bool: ...  # noqa: D102

    def points(self, inputs: np.ndarray, ids: np.ndarray) -> Points:
        """The points around inputs [B, ...] of these ids [B]."""
        ...


@dataclasses.dataclass(frozen=True)
class Shifts:
    """Images moved by some pixels, what comes in repeating the edge.

    Direction m points at the angle 2 pi m / M from the right, counter-clockwise; a shift of s pixels moves by s along
    the longer of its two axes, so that diagonals move by (s, s).

    Attributes:
        pixels: shifts along one direction, growing.
        num_directions: M, up to 8 times the smallest shift, beyond which two directions would be the same.
    """

    pixels: tuple[int, ...] = (1, 2, 3, 4)
    num_directions: int = 4
    is_random = False

    def __post_init__(self) -> None:
        _check_growing("pixels", self.pixels)
        if not 1 <= self.num_directions <= 8 * self.pixels[0]:
            raise errors.InvalidArgumentError(
                f"num_directions {self.num_directions}: a shift of {self.pixels[0]} pixels has from 1 to "
                f"{8 * self.pixels[0]} directions"
            )

    @property
    def num_anchors(self) -> int:
        """A."""
        return len(self.pixels)

    def offset(self, direction: int, pixels: int) -> tuple[int, int]:
        """(rows down, columns right) of a shift."""
        angle = 2 * np.pi * direction / self.num_directions
        down, right = -np.sin(angle), np.cos(angle)
        scale = pixels / max(abs(down), abs(right))
        return round(float(down * scale)), round(float(right * scale))

    def points(self, inputs: np.ndarray, ids: np.ndarray) -> Points:
        """The shifted images.

        Raises:
            InvalidArgumentError: inputs are no images [B, H, W, C], or smaller than a shift.
        """
        del ids
        inputs = _images(inputs)
        if max(self.pixels) >= min(inputs.shape[1:3]):
            raise errors.InvalidArgumentError(
                f"pixels {self.pixels}: images of {inputs.shape[1]} x {inputs.shape[2]} can be shifted by "
                f"{min(inputs.shape[1:3]) - 1} at most"
            )
        rows = [
            np.stack([_shifted(inputs, *self.offset(m, pixels)) for pixels in self.pixels], axis=1)
            for m in range(self.num_directions)
        ]
        return _measured(inputs, np.stack(rows, axis=1))


@dataclasses.dataclass(frozen=True)
class SvdWindows:
    """Images with a window of singular values set to 0 in each channel.

    Direction k removes, for each size s, the s singular values that end k above the smallest: of n in descending order
    those at n - k - s to n - k - 1. Along a direction windows grow.

    Attributes:
        sizes: s, growing.
        num_directions: M; k = 0 to M - 1.
    """

    sizes: tuple[int, ...] = (5, 10, 15, 20, 22, 25)
    num_directions: int = 4
    is_random = False

    def __post_init__(self) -> None:
        _check_growing("sizes", self.sizes)
        _check_count("num_directions", self.num_directions)

    @property
    def num_anchors(self) -> int:
        """A."""
        return len(self.sizes)

    def points(self, inputs: np.ndarray, ids: np.ndarray) -> Points:
        """The images without their windows.

        Raises:
            InvalidArgumentError: inputs are no images [B, H, W, C], or a window passes the largest singular value.
        """
        del ids
        inputs = _images(inputs)
        num = min(inputs.shape[1:3])
        if self.sizes[-1] + self.num_directions - 1 > num:
            raise errors.InvalidArgumentError(
                f"sizes up to {self.sizes[-1]} in {self.num_directions} directions: images of {inputs.shape[1]} x "
                f"{inputs.shape[2]} have {num} singular values; use smaller windows or fewer directions"
            )
        left, values, right = np.linalg.svd(np.moveaxis(inputs, 3, 1).astype(np.float64), full_matrices=False)

        def without(direction: int, size: int) -> np.ndarray:
            window = slice(num - direction - size, num - direction)
            removed = (left[..., window] * values[..., None, window]) @ right[..., window, :]
            return (inputs - np.moveaxis(removed, 1, 3)).astype(inputs.dtype)

        rows = [np.stack([without(k, size) for size in self.sizes], axis=1) for k in range(self.num_directions)]
        return _measured(inputs, np.stack(rows, axis=1))


class _Draws(abc.ABC):
    """Random points, one along each direction; what draws one is all that its kinds differ in."""

    is_random = True
    num_anchors = 1
    num_samples: int
    seed: int

    @property
    def num_directions(self) -> int:
        """M."""
        return self.num_samples

    def points(self, inputs: np.ndarray, ids: np.ndarray) -> Points:
        """The draws, each from a generator of its kind, the seed, the example's id and its own number."""
        found = np.empty((len(inputs), self.num_samples, 1, *inputs.shape[1:]), inputs.dtype)
        for row, key in enumerate(ids):
            for sample in range(self.num_samples):
                generator = keys.generator(self.seed, type(self).__name__, key, sample)
                found[row, sample, 0] = self._draw(generator, inputs[row], key)
        return _measured(inputs, found)

    @abc.abstractmethod
    def _draw(self, generator: np.random.Generator, example: np.ndarray, key: int) -> np.ndarray:
        """One point around an example of this id."""

    def _check(self, size: str) -> None:
        value = getattr(self, size)
        if not (np.isfinite(value) and value > 0):
            raise errors.InvalidArgumentError(f"{size} {value}: must be a number above 0")
        _check_count("num_samples", self.num_samples)


@dataclasses.dataclass(frozen=True)
class Gaussian(_Draws):
    """x + standard_deviation times independent normal numbers.

    Attributes:
        standard_deviation: of each element.
        num_samples: M.
        seed: of the draws.
    """

    standard_deviation: float
    num_samples: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        self._check("standard_deviation")

    def _draw(self, generator: np.random.Generator, example: np.ndarray, key: int) -> np.ndarray:
        return example + self.standard_deviation * generator.normal(size=example.shape)


@dataclasses.dataclass(frozen=True)
class Sphere(_Draws):
    """Points at one distance from the example, uniformly over directions.

    Attributes:
        radius: the distance.
        num_samples: M.
        seed: of the draws.
    """

    radius: float
    num_samples: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        self._check("radius")

    def _draw(self, generator: np.random.Generator, example: np.ndarray, key: int) -> np.ndarray:
        return example + self.radius * _direction(generator, example.shape)


@dataclasses.dataclass(frozen=True)
class Ball(_Draws):
    """Points within a distance of the example, uniformly over the volume.

    Attributes:
        radius: the distance at most.
        num_samples: M.
        seed: of the draws.
    """

    radius: float
    num_samples: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        self._check("radius")

    def _draw(self, generator: np.random.Generator, example: np.ndarray, key: int) -> np.ndarray:
        direction = _direction(generator, example.shape)
        # The share of the volume within a radius grows with its D-th power.
        return example + self.radius * generator.uniform() ** (1.0 / example.size) * direction


@dataclasses.dataclass(frozen=True, eq=False)
class MixUp(_Draws):
    """w x + (1 - w) x_j with another example x_j, drawn uniformly (Zhang et al., 2018, arXiv:1710.09412).

    Attributes:
        partners: [P, ...], the examples to mix with.
        partner_ids: [P] int64; an example is not mixed with itself.
        alpha: w is drawn from Beta(alpha, alpha); 1 is uniform.
        num_samples: M.
        seed: of the draws.
    """

    partners: np.ndarray
    partner_ids: np.ndarray
    alpha: float = 1.0
    num_samples: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        self._check("alpha")
        if len(self.partners) != len(self.partner_ids) or len(set(map(int, self.partner_ids))) < 2:
            raise errors.InvalidArgumentError(
                f"{len(self.partners)} partners with {len(self.partner_ids)} ids: expected one id for each, and at "
                "least two different ones"
            )

    def _draw(self, generator: np.random.Generator, example: np.ndarray, key: int) -> np.ndarray:
        weight, partner = generator.beta(self.alpha, self.alpha), generator.integers(len(self.partner_ids))
        while self.partner_ids[partner] == key:
            partner = generator.integers(len(self.partner_ids))
        return weight * example + (1 - weight) * np.asarray(self.partners[partner])


@dataclasses.dataclass(frozen=True)
class Refined:
    """Another place with further points on the straight lines between its points, for smaller quadrature errors.

    Attributes:
        place: the other.
        num_parts: equal parts of each line, from 2 up.
    """

    place: Place
    num_parts: int = 2

    def __post_init__(self) -> None:
        if self.num_parts < 2:
            raise errors.InvalidArgumentError(f"num_parts {self.num_parts}: must be at least 2; 1 changes nothing")

    @property
    def num_directions(self) -> int:
        """M."""
        return self.place.num_directions

    @property
    def num_anchors(self) -> int:
        """A."""
        return self.place.num_anchors * self.num_parts

    @property
    def is_random(self) -> bool:
        """As of the other."""
        return self.place.is_random

    def points(self, inputs: np.ndarray, ids: np.ndarray) -> Points:
        """The other's points and those between."""
        ends = self.place.points(inputs, ids).inputs
        starts = np.concatenate([np.broadcast_to(inputs[:, None, None], ends[:, :, :1].shape), ends[:, :, :-1]], axis=2)
        shares = (1 + np.arange(self.num_parts)) / self.num_parts
        between = np.stack([starts + share * (ends - starts) for share in shares], axis=3)
        found = between.reshape([*ends.shape[:2], self.num_anchors, *inputs.shape[1:]])
        return _measured(inputs, found.astype(ends.dtype))


def _direction(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    normal = generator.normal(size=shape)
    return normal / np.linalg.norm(normal)


def _shifted(images: np.ndarray, down: int, right: int) -> np.ndarray:
    rows = np.clip(np.arange(images.shape[1]) - down, 0, images.shape[1] - 1)
    columns = np.clip(np.arange(images.shape[2]) - right, 0, images.shape[2] - 1)
    return images[:, rows][:, :, columns]


def _measured(inputs: np.ndarray, points: np.ndarray) -> Points:
    before = np.concatenate(
        [np.broadcast_to(inputs[:, None, None], (*points.shape[:2], 1, *inputs.shape[1:])), points], axis=2
    )
    return Points(points, _lengths(points - before[:, :, :-1]), _lengths(points - inputs[:, None, None]))


def _lengths(steps: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(steps.astype(np.float64)).sum(axis=tuple(range(3, steps.ndim))))


def _images(inputs: np.ndarray) -> np.ndarray:
    if np.ndim(inputs) != 4:
        raise errors.InvalidArgumentError(f"inputs of shape {np.shape(inputs)}: expected images [B, H, W, C]")
    return np.asarray(inputs)


def _check_growing(name: str, values: tuple[int, ...]) -> None:
    if not values or values[0] < 1 or any(b <= a for a, b in itertools.pairwise(values)):
        raise errors.InvalidArgumentError(f"{name} {values}: expected whole numbers from 1 up, each above the last")


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise errors.InvalidArgumentError(f"{name} {value}: must be at least 1")
