"""What one use of a shared tensor contributes to the gradients of single examples.

For a product of rows with a kernel, a[b, t] in and a cotangent d[b, t] out at each of T places, example b contributes

    G[b] = sum_t a[b, t]^T d[b, t]

(dense layers have T = 1, convolutions one place for each pixel). Whoever needs inner products or curvature can often do
with `factors` (a, d) and never form G. Scales and offsets have no such form and few elements: theirs is formed.
"""

import dataclasses
import math
from typing import Protocol

import tensorflow as tf

from estimators.derivatives import layouts


class Contribution(Protocol):
    """The part of the per-example gradients that goes through one use."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the shared tensor."""

    def gradients(self) -> tf.Tensor:
        """[B, *shape]: the gradient with respect to the shared tensor, by example."""


@dataclasses.dataclass(frozen=True, eq=False)
class Formed:
    """A gradient that is there already.

    Attributes:
        values: [B, *shape].
    """

    values: tf.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the shared tensor."""
        return tuple(self.values.shape[1:])

    def gradients(self) -> tf.Tensor:
        """See `Contribution`."""
        return self.values


@dataclasses.dataclass(frozen=True, eq=False)
class Product:
    """A product of rows with G matrices.

    Attributes:
        layout: how the kernel is made of matrices.
        rows: a [B, G, T, I].
        cotangents: d [B, G, T, O].
    """

    layout: layouts.Layout
    rows: tf.Tensor
    cotangents: tf.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kernel."""
        return self.layout.shape

    @property
    def num_places(self) -> int:
        """T."""
        return self.rows.shape[2]

    def factors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """(a [B, G, T, I], d [B, G, T, O])."""
        return self.rows, self.cotangents

    def gradients(self) -> tf.Tensor:
        """See `Contribution`."""
        if self.num_places == 1:  # an outer product, for which a batched matrix product is slow
            outer = tf.expand_dims(self.rows[:, :, 0], 3) * tf.expand_dims(self.cotangents[:, :, 0], 2)
            return self.layout.kernels(outer)
        return self.layout.kernels(tf.matmul(self.rows, self.cotangents, transpose_a=True))


@dataclasses.dataclass(frozen=True)
class Window:
    """How a convolution moves over images, axis by axis.

    Attributes:
        sizes: the kernel's extent.
        strides, dilations: steps between places and between taps.
        before, after: rows of zeros added on either side.
        places: number of places, the extent of the output.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    places: tuple[int, ...]

    def with_axis(self, extent: int) -> "Window":
        """The same for images with one more axis in front, along which nothing is mixed."""
        return Window(
            (1, *self.sizes),
            (1, *self.strides),
            (1, *self.dilations),
            (0, *self.before),
            (0, *self.after),
            (extent, *self.places),
        )

    def taps(self, images: tf.Tensor) -> list[tf.Tensor]:
        """What each element of the window sees: images [B, *space, C] -> window size times [B, T, C]."""
        channels = images.shape[-1]
        num_axes = len(self.sizes)
        padding = [[0, 0], *([b, a] for b, a in zip(self.before, self.after, strict=True)), [0, 0]]
        padded = tf.pad(images, padding) if any(self.before) or any(self.after) else images
        seen = []
        for tap in range(math.prod(self.sizes)):
            begin, rest = [0] * num_axes, tap
            for axis in reversed(range(num_axes)):
                rest, offset = divmod(rest, self.sizes[axis])
                begin[axis] = offset * self.dilations[axis]
            ends = [b + (p - 1) * s + 1 for b, p, s in zip(begin, self.places, self.strides, strict=True)]
            cut = tf.strided_slice(
                padded,
                [0, *begin, 0],
                [images.shape[0], *ends, channels],
                [1, *self.strides, 1],
            )
            seen.append(tf.reshape(cut, [images.shape[0], math.prod(self.places), channels]))
        return seen


# Patches of so few numbers, as of the first layer, are held: a product for each element of the window is slower.
_SMALL_PATCH = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution, channels last, which forms no large patches unless it is asked for factors.

    Attributes:
        layout: how the kernel [*window, I, O] is made of matrices.
        window: how it moves.
        images: [B, *space, channels] that it looks at.
        cotangents: [B, *places, channels] of what it gives.
    """

    layout: layouts.Layout
    window: Window
    images: tf.Tensor
    cotangents: tf.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kernel."""
        return self.layout.shape

    @property
    def num_places(self) -> int:
        """T."""
        return math.prod(self.window.places)

    def factors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """(patches [B, G, T, I], d [B, G, T, O])."""
        num_groups, num_inputs, _ = self.layout.sizes
        num_taps = math.prod(self.window.sizes)
        grouped = [self._grouped(tap) for tap in self.window.taps(self.images)]  # [B, G, T, I / taps] each
        patches = tf.stack(grouped, axis=3)
        rows = tf.reshape(patches, [-1, num_groups, self.num_places, num_taps * (num_inputs // num_taps)])
        return rows, self._grouped(self._flat_cotangents())

    def gradients(self) -> tf.Tensor:
        """See `Contribution`. One matrix product for each element of the window: no large patches are held."""
        if self.layout.sizes[0] == 1 and self.layout.sizes[1] <= _SMALL_PATCH:
            return self.layout.kernels(_sum_over_places(*self.factors()))
        cotangents = self._grouped(self._flat_cotangents())
        taps = [_sum_over_places(self._grouped(tap), cotangents) for tap in self.window.taps(self.images)]
        num_groups, num_inputs, num_outputs = self.layout.sizes
        stacked = tf.stack(taps, axis=2)  # [B, G, taps, I / taps, O]
        return self.layout.kernels(tf.reshape(stacked, [-1, num_groups, num_inputs, num_outputs]))

    def _flat_cotangents(self) -> tf.Tensor:
        batch, channels = self.cotangents.shape[0], self.cotangents.shape[-1]
        return tf.reshape(self.cotangents, [batch, self.num_places, channels])

    def _grouped(self, rows: tf.Tensor) -> tf.Tensor:
        """[B, T, G C] -> [B, G, T, C]."""
        num_groups = self.layout.sizes[0]
        if num_groups == 1:
            return tf.expand_dims(rows, 1)
        batch, places, channels = rows.shape
        split = tf.reshape(rows, [batch, places, num_groups, channels // num_groups])
        return tf.transpose(split, [0, 2, 1, 3])


def _sum_over_places(rows: tf.Tensor, cotangents: tf.Tensor) -> tf.Tensor:
    """[B, G, T, I], [B, G, T, O] -> [B, G, I, O]."""
    if rows.shape[-1] == 1:  # depthwise: matrices of one row, which a batched product is not made for
        return tf.reduce_sum(rows * cotangents, axis=2, keepdims=True)
    return tf.matmul(rows, cotangents, transpose_a=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Lookup:
    """Rows looked up in a table, as embeddings are.

    Attributes:
        num_rows: V of the table [V, D].
        keys: [B, T] integers in [0, V).
        cotangents: [B, T, D] of the rows that were found.
    """

    num_rows: int
    keys: tf.Tensor
    cotangents: tf.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """(V, D) of the table."""
        return self.num_rows, self.cotangents.shape[-1]

    def gradients(self) -> tf.Tensor:
        """See `Contribution`; V D elements an example, nearly all of them 0."""
        batch, (size, width) = self.keys.shape[0], self.shape
        places = tf.cast(self.keys, tf.int64) + size * tf.range(batch, dtype=tf.int64)[:, None]
        flat = tf.reshape(self.cotangents, [-1, width])
        sums = tf.math.unsorted_segment_sum(flat, tf.reshape(places, [-1]), batch * size)
        return tf.reshape(sums, [batch, size, width])


# Contributions that need not be formed.
Factored = Product | Convolution


def ghost_is_cheaper(first: Factored, second: Factored, num_first: int, num_second: int) -> bool:
    """Whether inner products by places take fewer operations than forming gradients and multiplying them."""
    groups, ins, outs = first.layout.sizes
    places = first.num_places * second.num_places
    ghost = num_first * num_second * places * groups * (ins + outs)
    forming = (num_first * first.num_places + num_second * second.num_places) * groups * ins * outs
    return ghost < forming + num_first * num_second * groups * ins * outs


def ghost_dot_products(first: Factored, second: Factored) -> tf.Tensor:
    """[B, C], <G_b, G_c> = sum over groups and places t, s of (a_bt . a_cs)(d_bt . d_cs)."""
    (rows, cotangents), (second_rows, second_cotangents) = first.factors(), second.factors()
    if first.num_places == second.num_places == first.layout.sizes[0] == 1:  # dense: nothing to move or to sum
        return _dense_pairs(rows, second_rows) * _dense_pairs(cotangents, second_cotangents)
    return tf.reduce_sum(_pairs(rows, second_rows) * _pairs(cotangents, second_cotangents), axis=[0, 2, 4])


def _dense_pairs(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """[B, 1, 1, I], [C, 1, 1, I] -> [B, C], inner products of rows."""
    flat = [tf.reshape(t, [t.shape[0], t.shape[3]]) for t in (first, second)]
    return tf.matmul(flat[0], flat[1], transpose_b=True)


def _pairs(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """[B, G, T, I], [C, G, S, I] -> [G, B, T, C, S], inner products of rows."""
    flat = [tf.reshape(tf.transpose(t, [1, 0, 2, 3]), [t.shape[1], -1, t.shape[3]]) for t in (first, second)]
    products = tf.matmul(flat[0], flat[1], transpose_b=True)
    return tf.reshape(products, [first.shape[1], first.shape[0], first.shape[2], second.shape[0], second.shape[2]])


def ghost_squared_norms(part: Factored) -> tf.Tensor:
    """[B], |G_b|^2 = sum over groups and places t, s of (a_bt . a_bs)(d_bt . d_bs)."""
    rows, cotangents = part.factors()
    if part.num_places == 1:
        return tf.reduce_sum(
            tf.reduce_sum(tf.square(rows), axis=[2, 3]) * tf.reduce_sum(tf.square(cotangents), axis=[2, 3]), axis=1
        )
    inner = [tf.matmul(t, t, transpose_b=True) for t in (rows, cotangents)]  # [B, G, T, T]
    return tf.reduce_sum(inner[0] * inner[1], axis=[1, 2, 3])
