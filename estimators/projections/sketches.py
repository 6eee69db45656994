"""Random maps R^P -> R^d that keep inner products on average: E[<S g, S h>] = <g, h>.

    signs          S = 1/sqrt(d) times independent signs (Achlioptas, 2003); B P d operations
    hadamard       S = sqrt(N/d) C H D: random signs D, orthonormal Walsh-Hadamard transform H of the gradient, padded
                   with zeros to N = 2^q, and d coordinates C without repetition (SRHT; Ailon & Chazelle, 2006);
                   B N log N operations
    sparse_signs   s = 4 signs in each column, divided by sqrt(s) (SJLT; Kane & Nelson, 2014); B P s operations
    coordinates    sqrt(P/d) times d coordinates without repetition; B d operations
    none           the gradient itself, d = P

The variance of <S g, S h> for signs, and for sparse signs if 4 divides d, is V / d with

    V = |g|^2 |h|^2 + <g, h>^2 - 2 sum_j g_j^2 h_j^2,

for hadamard V / d times (N - d) / (N - 1), and for coordinates P/d (P - d)/(P - 1) (P sum_j g_j^2 h_j^2 - <g, h>^2),
which is large where few coordinates matter. So |S g|^2 is wrong by sqrt(2/d) of itself. Measured on gradients of the
margin of a network 784-128-64-10 with random weights at 100 random images, d = 4096, five maps: the root mean square
of (<S g, S h> - <g, h>) / (|g| |h|) over pairs was .0162 (signs), .0159 (hadamard), .0154 (sparse_signs) and .0385
(coordinates), where 1/sqrt(d) = .0156, and that of |S g|^2 / |g|^2 - 1 was .024, .023, .021 and .116, where
sqrt(2/d) = .0221.

Maps are computed where they are used, from a draw: a few tensors that say which one it is, so that one compiled
function serves any number of them.
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import Protocol

import numpy as np
import scipy.linalg
import tensorflow as tf

from estimators import errors
from estimators.projections import random_signs

# Elements of a matrix of signs that are there at a time.
_BLOCK_ELEMENTS = 2**22
_NUM_NONZERO = 4
_HADAMARD_FACTOR = 64

Draw = Sequence[tf.Tensor]


class Sketch(Protocol):
    """A family of random maps.

    Attributes:
        size: P, length of what is mapped.
        dimension: d, length of what comes out.
    """

    @property
    def size(self) -> int: ...  # noqa: D102

    @property
    def dimension(self) -> int: ...  # noqa: D102

    def draw(self, seed: int, member: int = 0) -> Draw:
        """One map: other seeds and members give independent ones.

        Raises:
            InvalidArgumentError: the seed or the member is not from 0 to 2^32 - 1.
        """

    def project(self, rows: tf.Tensor, draw: Draw) -> tf.Tensor:
        """[B, P] -> [B, d] by the map of a draw; a row's result does not depend on the others."""


@dataclasses.dataclass(frozen=True)
class Signs:
    """Independent signs, made block by block: never more than 2^22 of the P d, and batches share each block.

    Attributes:
        size, dimension: P, d.
        stream: of the random bits; see `random_signs.words`.
    """

    size: int
    dimension: int
    stream: int = 0

    def draw(self, seed: int, member: int = 0) -> Draw:
        """See `Sketch`."""
        return (random_signs.key(seed, member),)

    def project(self, rows: tf.Tensor, draw: Draw) -> tf.Tensor:
        """See `Sketch`."""
        (key,) = draw
        height = min(self.size, max(1, _BLOCK_ELEMENTS // self.dimension))
        num_blocks = -(-self.size // height)
        padded = tf.pad(rows, [[0, 0], [0, num_blocks * height - self.size]])

        def step(block: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            signs = random_signs.signs(key, self.stream, block, (height, self.dimension), rows.dtype)
            part = tf.slice(padded, tf.stack([0, block * height]), [rows.shape[0], height])
            return block + 1, total + tf.matmul(part, signs)

        start = (tf.constant(0), tf.zeros([rows.shape[0], self.dimension], rows.dtype))
        _, total = tf.while_loop(lambda block, _: block < num_blocks, step, start, maximum_iterations=num_blocks)
        return total / math.sqrt(self.dimension)


@dataclasses.dataclass(frozen=True)
class Hadamard:
    """Coordinates of the Walsh-Hadamard transform after random signs; with d = N an orthogonal map of padded gradients.

    Attributes:
        size, dimension: P, d.

    Raises:
        InvalidArgumentError: d is above N.
    """

    size: int
    dimension: int

    def __post_init__(self) -> None:
        _check_at_most(self.dimension, self.padded_size, "hadamard")

    @property
    def padded_size(self) -> int:
        """N, the least power of two from P up."""
        return 1 << (self.size - 1).bit_length()

    def draw(self, seed: int, member: int = 0) -> Draw:
        """See `Sketch`."""
        return random_signs.key(seed, member), _choice(seed, member, self.padded_size, self.dimension)

    def project(self, rows: tf.Tensor, draw: Draw) -> tf.Tensor:
        """See `Sketch`."""
        key, chosen = draw
        signed = rows * random_signs.signs(key, 0, 0, (self.size,), rows.dtype)
        padded = tf.pad(signed, [[0, 0], [0, self.padded_size - self.size]])
        return tf.gather(hadamard_transform(padded), chosen, axis=1) / math.sqrt(self.dimension)


def hadamard_transform(rows: tf.Tensor) -> tf.Tensor:
    """[B, 2^q] times the matrix of Sylvester's construction, whose elements are -1 and 1.

    The matrix is a Kronecker product: a factor of up to 64 rows at a time, a matrix product each.
    """
    num_rows, size = rows.shape
    left = size
    while left > 1:
        factor = min(left, _HADAMARD_FACTOR)
        left //= factor
        matrix = tf.constant(scipy.linalg.hadamard(factor), rows.dtype)
        if left == 1:
            rows = tf.matmul(tf.reshape(rows, [-1, factor]), matrix)
        else:
            rows = tf.matmul(matrix, tf.reshape(rows, [-1, factor, left]))
    return tf.reshape(rows, [num_rows, size])


@dataclasses.dataclass(frozen=True)
class SparseSigns:
    """Every coordinate is added, with a sign, to one place in each of four parts of the result (fewer for d < 4).

    Attributes:
        size, dimension: P, d.
    """

    size: int
    dimension: int

    def draw(self, seed: int, member: int = 0) -> Draw:
        """See `Sketch`."""
        return (random_signs.key(seed, member),)

    def project(self, rows: tf.Tensor, draw: Draw) -> tf.Tensor:
        """See `Sketch`."""
        (key,) = draw
        num_parts = min(_NUM_NONZERO, self.dimension)
        columns, parts = tf.transpose(rows), []
        for part in range(num_parts):
            width = (part + 1) * self.dimension // num_parts - part * self.dimension // num_parts
            words = tf.cast(random_signs.words(key, 0, part, self.size), tf.int64)
            places = tf.bitwise.right_shift(words * width, tf.constant(32, tf.int64))
            signs = random_signs.signs(key, 1, part, (self.size, 1), rows.dtype)
            parts.append(tf.math.unsorted_segment_sum(columns * signs, tf.cast(places, tf.int32), width))
        return tf.transpose(tf.concat(parts, axis=0)) / math.sqrt(num_parts)


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Some of the coordinates.

    Attributes:
        size, dimension: P, d.

    Raises:
        InvalidArgumentError: d is above P.
    """

    size: int
    dimension: int

    def __post_init__(self) -> None:
        _check_at_most(self.dimension, self.size, "coordinates")

    def draw(self, seed: int, member: int = 0) -> Draw:
        """See `Sketch`."""
        return (_choice(seed, member, self.size, self.dimension),)

    def project(self, rows: tf.Tensor, draw: Draw) -> tf.Tensor:
        """See `Sketch`."""
        (chosen,) = draw
        return tf.gather(rows, chosen, axis=1) * math.sqrt(self.size / self.dimension)


@dataclasses.dataclass(frozen=True)
class Unprojected:
    """The gradient itself.

    Attributes:
        size, dimension: P; the dimension asked for does not count.
    """

    size: int
    dimension: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimension", self.size)

    def draw(self, seed: int, member: int = 0) -> Draw:
        """See `Sketch`."""
        random_signs.packed(seed, member)
        return ()

    def project(self, rows: tf.Tensor, draw: Draw) -> tf.Tensor:
        """See `Sketch`."""
        del draw
        return rows


def _check_at_most(dimension: int, size: int, kind: str) -> None:
    if dimension > size:
        raise errors.InvalidArgumentError(
            f"dimension {dimension}: {kind} chooses among {size}; choose a smaller one, or the projection 'none'"
        )


def _choice(seed: int, member: int, num: int, num_chosen: int) -> tf.Tensor:
    """Positions without repetition, ascending."""
    generator = np.random.Generator(np.random.Philox(key=random_signs.packed(seed, member)))
    return tf.constant(np.sort(generator.choice(num, num_chosen, replace=False, shuffle=False)), tf.int32)


SKETCHES: dict[str, type[Signs] | type[Hadamard] | type[SparseSigns] | type[Coordinates] | type[Unprojected]] = {
    "signs": Signs,
    "hadamard": Hadamard,
    "sparse_signs": SparseSigns,
    "coordinates": Coordinates,
    "none": Unprojected,
}
