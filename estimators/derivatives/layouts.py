"""How a kernel is written as matrices: [groups G, inputs I, outputs O], whatever the order of its axes.

Each kind of layer that multiplies, dense, convolution, grouped or depthwise convolution, einsum, is a product of
rows with G matrices [I, O]. A `Layout` says where the elements of its kernel lie in them.
"""

import dataclasses
import math

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Layout:
    """A rearrangement of a kernel's elements into [G, I, O].

    Attributes:
        shape: shape of the kernel.
        split: the kernel reshaped so that each of its axes belongs to G, to I or to O.
        groups, inputs, outputs: axes of `split` that make up G, I and O, in this order.
    """

    shape: tuple[int, ...]
    split: tuple[int, ...]
    groups: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(G, I, O)."""
        parts = (self.groups, self.inputs, self.outputs)
        num_groups, num_inputs, num_outputs = (math.prod(self.split[axis] for axis in axes) for axes in parts)
        return num_groups, num_inputs, num_outputs

    @property
    def _order(self) -> tuple[int, ...]:
        return (*self.groups, *self.inputs, *self.outputs)

    def matrices(self, kernels: tf.Tensor) -> tf.Tensor:
        """[N, *shape] -> [N, G, I, O]."""
        split = tf.reshape(kernels, [-1, *self.split])
        return tf.reshape(tf.transpose(split, [0, *(1 + axis for axis in self._order)]), [-1, *self.sizes])

    def kernels(self, matrices: tf.Tensor) -> tf.Tensor:
        """[N, G, I, O] -> [N, *shape], the inverse of `matrices`."""
        order = self._order
        ordered = tf.reshape(matrices, [-1, *(self.split[axis] for axis in order)])
        back = [0, *(1 + order.index(axis) for axis in range(len(order)))]
        return tf.reshape(tf.transpose(ordered, back), [-1, *self.shape])


def dense(num_inputs: int, num_outputs: int, *, transposed: bool = False) -> Layout:
    """A kernel [I, O], or [O, I] if transposed."""
    if transposed:
        return Layout((num_outputs, num_inputs), (num_outputs, num_inputs), (), (1,), (0,))
    return Layout((num_inputs, num_outputs), (num_inputs, num_outputs), (), (0,), (1,))


def convolution(shape: tuple[int, ...], num_groups: int) -> Layout:
    """A kernel [*window, I, G O]: rows run over the window and, within it, over channels."""
    window, (num_inputs, num_outputs) = math.prod(shape[:-2]), shape[-2:]
    return Layout(shape, (window, num_inputs, num_groups, num_outputs // num_groups), (2,), (0, 1), (3,))


def depthwise(shape: tuple[int, ...]) -> Layout:
    """A kernel [*window, G, O] that gives each channel O channels of its own."""
    return Layout(shape, (math.prod(shape[:-2]), *shape[-2:]), (1,), (0,), (2,))


def multiplied(rows: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """[N, G, T, I] times [G, I, O] -> [N, G, T, O], the matrices being the same for all N.

    Never by a matrix product that repeats its right side: of float32 in compiled functions on the CPU TensorFlow 2.21
    makes wrong numbers of [N, 1, T, I] times [1, I, O], and writes beyond its memory.
    """
    num, num_groups, places, size = rows.shape
    if num_groups == 1:
        return tf.reshape(tf.matmul(tf.reshape(rows, [-1, size]), matrices[0]), [num, 1, places, matrices.shape[-1]])
    flat = tf.reshape(tf.transpose(rows, [1, 0, 2, 3]), [num_groups, -1, size])
    products = tf.reshape(tf.matmul(flat, matrices), [num_groups, num, places, matrices.shape[-1]])
    return tf.transpose(products, [1, 0, 2, 3])
