"""The layers of a model as blocks of the curvature, each with what a Kronecker factorisation needs of it.

A layer that multiplies (dense, convolution, grouped or depthwise) is one block with its bias, whose input is a column
of ones. A kernel that is used several times is one block over the places of all uses. All else, scales, offsets,
tables, parameters that are differentiated example by example, is a block of its own whose gradients are formed.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math

import tensorflow as tf

from estimators import parameters
from estimators.derivatives import capture, contributions, layouts, passes

Contributions = Mapping[int, Sequence[contributions.Contribution]]


@dataclasses.dataclass(frozen=True)
class KroneckerBlock:
    """A kernel and perhaps its bias: G matrices [I + bias, O].

    Attributes:
        kernel, bias: positions of the parameters; None without a bias.
        layout: how the kernel is made of matrices.
    """

    kernel: int
    bias: int | None
    layout: layouts.Layout

    @property
    def positions(self) -> tuple[int, ...]:
        """Of the parameters in the block."""
        return (self.kernel,) if self.bias is None else (self.kernel, self.bias)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(G, rows, O) of the matrices, the bias being the last row."""
        num_groups, num_inputs, num_outputs = self.layout.sizes
        return num_groups, num_inputs + (self.bias is not None), num_outputs

    def num_places(self, found: Contributions) -> int:
        """T, of all uses together."""
        return sum(part.num_places for part in found[self.kernel] if isinstance(part, contributions.Factored))

    def factors(self, found: Contributions) -> tuple[tf.Tensor, tf.Tensor]:
        """(rows [B, G, T, I + bias], cotangents [B, G, T, O]) of a batch; places of all uses one after the other."""
        parts = [part.factors() for part in found[self.kernel] if isinstance(part, contributions.Factored)]
        rows, cotangents = (tf.concat([part[side] for part in parts], axis=2) for side in (0, 1))
        if self.bias is not None:
            rows = tf.concat([rows, tf.ones_like(rows[..., :1])], axis=-1)
        return rows, cotangents

    def rotated_factors(self, found: Contributions, rotation: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """(a Q_A [B, G, T, I + bias], d Q_S [B, G, T, O]) for matrices Q_A [G, I + bias, *] and Q_S [G, O, *]."""
        rows, cotangents = self.factors(found)
        return layouts.multiplied(rows, rotation[0]), layouts.multiplied(cotangents, rotation[1])

    def rotated_gradients(self, found: Contributions, rotation: Sequence[tf.Tensor]) -> tf.Tensor:
        """[B, G, I + bias, O], Q_A^T G Q_S; places are summed before or after, whichever takes fewer operations."""
        _, num_inputs, num_outputs = self.sizes
        squares, area = num_inputs**2 + num_outputs**2, num_inputs * num_outputs
        if self.num_places(found) * squares < area * (num_inputs + num_outputs):
            rows, cotangents = self.rotated_factors(found, rotation)
            return tf.matmul(rows, cotangents, transpose_a=True)
        rows, cotangents = self.factors(found)
        half = layouts.multiplied(tf.matmul(rows, cotangents, transpose_a=True), rotation[1])
        return tf.linalg.matrix_transpose(layouts.multiplied(tf.linalg.matrix_transpose(half), rotation[0]))

    def matrices(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """[R, G, I + bias, O] of tensors [R, *shape], one for each parameter of the model."""
        kernel = self.layout.matrices(tf.reshape(tensors[self.kernel], [-1, *self.layout.shape]))
        if self.bias is None:
            return kernel
        num_groups, _, num_outputs = self.layout.sizes
        return tf.concat([kernel, tf.reshape(tensors[self.bias], [-1, num_groups, 1, num_outputs])], axis=2)

    def tensors(self, matrices: tf.Tensor, params: Sequence[parameters.Parameter]) -> dict[int, tf.Tensor]:
        """The inverse of `matrices`: [R, *shape] by position."""
        num_inputs = self.layout.sizes[1]
        kernel = self.layout.kernels(matrices[:, :, :num_inputs])
        found = {self.kernel: tf.reshape(kernel, [-1, *params[self.kernel].shape])}
        if self.bias is not None:
            found[self.bias] = tf.reshape(matrices[:, :, num_inputs:], [-1, *params[self.bias].shape])
        return found


@dataclasses.dataclass(frozen=True)
class FormedBlock:
    """A parameter whose gradients are formed.

    Attributes:
        position: of the parameter.
        size: its number of elements.
    """

    position: int
    size: int

    @property
    def positions(self) -> tuple[int, ...]:
        """Of the parameters in the block."""
        return (self.position,)


Block = KroneckerBlock | FormedBlock


def of(forward: passes.Pass, found: Contributions, weight_decay: Sequence[float]) -> list[Block]:
    """The blocks of a model, in the order of its parameters.

    Args:
        forward: a traced pass.
        found: its contributions, by position; parameters without are formed.
        weight_decay: one coefficient for each parameter; a bias joins its kernel only where they are equal.

    Returns:
        Blocks that have every parameter once.
    """
    layouts_of = {position: _layout(parts) for position, parts in found.items()}
    biases = {}
    for use in forward.uses:
        kernel = _kernel_of(use, forward.uses)
        layout = None if kernel is None else layouts_of.get(kernel)
        if kernel is None or layout is None:
            continue
        (bias,) = use.owners
        num_groups, _, num_outputs = layout.sizes
        fits = math.prod(use.shape) == use.shape[-1] == num_groups * num_outputs
        alone = len(found.get(bias, [])) == len(found[kernel]) == 1
        if fits and alone and weight_decay[bias] == weight_decay[kernel]:
            biases[kernel] = bias
    blocks: list[Block] = []
    for position, parameter in enumerate(forward.params):
        layout = layouts_of.get(position)
        if layout is not None:
            blocks.append(KroneckerBlock(position, biases.get(position), layout))
        elif position not in biases.values():
            blocks.append(FormedBlock(position, parameter.size))
    return blocks


def _layout(parts: Sequence[contributions.Contribution]) -> layouts.Layout | None:
    """The one layout of all uses of a kernel, if there is one; einsums order the axes of outputs as they like."""
    known = {part.layout for part in parts if isinstance(part, contributions.Factored)}
    all_factored = all(isinstance(part, contributions.Factored) for part in parts)
    return known.pop() if len(known) == 1 and all_factored else None


_TRANSPARENT = {"Reshape", "Squeeze", "ExpandDims", "Identity"}


def _kernel_of(use: capture.Use, uses: Sequence[capture.Use]) -> int | None:
    """Position of the kernel to whose product a use adds an offset, nothing lying between."""
    is_offset = use.operation.type in ("AddV2", "Add", "BiasAdd") and len(use.owners) == 1
    if not is_offset or list(use.owners.values()) != [capture.Kind.PLAIN]:
        return None
    operation = use.operation.inputs[1 - use.slot].op
    while operation.type in _TRANSPARENT:
        operation = operation.inputs[0].op
    for other in uses:
        plain = list(other.owners.values()) == [capture.Kind.PLAIN]
        if other.operation is operation or (plain and other.operation.name == operation.name):
            return next(iter(other.owners)) if plain and operation.type != "Einsum" else None
    return None
