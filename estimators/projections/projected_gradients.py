"""Gradients of single examples, projected at random, with E[<phi_i, phi_j>] = <g_i, g_j>.

    config = projected_gradients.Config("two_sided", dimension=256)
    compute = projected_gradients.make_projected(plan, config, of="measured")
    compute(inputs, labels, projected_gradients.draw(plan, config))            # [B, d]

Beside the maps of `sketches`, which take gradients as vectors, there is one that never forms them: a layer that
multiplies, with inputs a [T, I], cotangents d [T, O] and gradient G = a^T d, is projected from both sides,

    phi = (P_I^T a^T) (d P_O),       P_I [I, k_I], P_O [O, k_O] of signs divided by sqrt(k_I), sqrt(k_O),

at T (I k_I + O k_O) + T k_I k_O operations an example (Choe et al., 2024, arXiv:2405.13954). Its errors are larger than
those of one map of the whole vector: for rank one |phi|^2 is wrong by up to sqrt((1 + 2/k_I) (1 + 2/k_O) - 1) of
itself. Measured as in `sketches`, with 3314 dimensions for the three layers together, it was wrong by .31 of itself,
and inner products by .136 of the product of the lengths.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import tensorflow as tf

from estimators import errors
from estimators.curvature import blocks
from estimators.derivatives import layouts, passes, per_example, plans
from estimators.projections import random_signs, sketches

KINDS = (*sketches.SKETCHES, "two_sided")
Compiled = Callable[[Any, tf.Tensor, sketches.Draw], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Config:
    """Which projection.

    Attributes:
        kind: one of `KINDS`.
        dimension: d; for "two_sided" the largest that one layer gets, all layers being put side by side. Does not count
            for "none".
        seed: of the random bits, from 0 to 2^32 - 1.

    Raises:
        InvalidArgumentError: a value lies outside what is allowed.
    """

    kind: str = "signs"
    dimension: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise errors.InvalidArgumentError(f"projection {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.dimension < 1:
            raise errors.InvalidArgumentError(f"dimension {self.dimension}: must be at least 1")
        random_signs.packed(self.seed, 0)


def make_projected(plan: plans.Plan, config: Config, of: str = "loss", *, jit_compile: bool | None = None) -> Compiled:
    """A function (inputs, labels, draw) -> [B, d], the projected gradient of each example's loss or measured output.

    Args:
        plan: the plan of a target.
        config: which projection.
        of: "loss" or "measured".
        jit_compile: compile by XLA, where the random bits are the same; None for what the target says.

    Returns:
        A tf.function, traced once for each size of batch: one forward and one backward pass a batch. All but
        "two_sided" form the B P numbers of the batch's gradients; random matrices are never held whole.

    Raises:
        InvalidArgumentError: `of` is neither, or the dimension is above what the projection can give.
    """
    if of not in per_example.OF:
        raise errors.InvalidArgumentError(f"of={of!r}: expected one of {', '.join(per_example.OF)}")
    if config.kind != "two_sided":
        sketch(plan, config)

    def compute(inputs: Any, labels: tf.Tensor, draw: sketches.Draw) -> tf.Tensor:
        return projected(plan, config, inputs, labels, draw, of)

    return per_example.compiled_rows(plan, compute, jit_compile)


def draw(plan: plans.Plan, config: Config, member: int = 0) -> sketches.Draw:
    """One map for a target; members of an ensemble have independent ones.

    Raises:
        InvalidArgumentError: the member is not from 0 to 2^32 - 1, or the dimension above what there is.
    """
    if config.kind == "two_sided":
        return (random_signs.key(config.seed, member),)
    return sketch(plan, config).draw(config.seed, member)


def sketch(plan: plans.Plan, config: Config) -> sketches.Sketch:
    """The family of maps of a target's whole gradients, for all kinds but "two_sided"."""
    return sketches.SKETCHES[config.kind](plan.target.num_parameters, config.dimension)


def projected(
    plan: plans.Plan, config: Config, inputs: Any, labels: tf.Tensor, draw: sketches.Draw, of: str
) -> tf.Tensor:
    """[B, d], within a function that is being traced. See `make_projected`."""
    if config.kind == "two_sided":
        return _two_sided(plan, config.dimension, inputs, labels, draw[0], of)
    found = per_example.gradients(plan, inputs, labels, of)
    rows = tf.concat([_wide(tf.reshape(g, [labels.shape[0], -1])) for g in found], axis=1)
    return sketch(plan, config).project(rows, draw)


def _wide(rows: tf.Tensor) -> tf.Tensor:
    """At least float32: sums of many terms are not made in less."""
    return tf.cast(rows, tf.float32) if rows.dtype.size < 4 else rows


def _two_sided(plan: plans.Plan, dimension: int, inputs: Any, labels: tf.Tensor, key: tf.Tensor, of: str) -> tf.Tensor:
    target = plan.target
    forward = plan.forward(inputs)
    values = (target.loss.values if of == "loss" else target.measured)(forward.outputs, labels)
    found = plan.contributions(forward, values)
    formed = per_example.looped(plan, inputs, labels, of, plan.looped)
    parts = []
    for number, block in enumerate(blocks.of(forward, found, [0.0] * len(target.parameters))):
        if isinstance(block, blocks.KroneckerBlock):
            rows, cotangents = (_wide(t) for t in block.factors(found))
            part = _from_both_sides(rows, cotangents, dimension, key, 2 * number)
        else:
            gradients = formed.get(block.position)
            if gradients is None:
                parameter = target.parameters[block.position]
                gradients = passes.gradients(found[block.position], parameter, labels.shape[0])
            part = _wide(tf.reshape(gradients, [labels.shape[0], block.size]))
            if block.size > dimension:
                part = sketches.Signs(block.size, dimension, 2 * number).project(part, (key,))
        parts.append(tf.cast(part, _wide(tf.zeros([], target.dtype)).dtype))
    return tf.concat(parts, axis=1)


def _from_both_sides(rows: tf.Tensor, cotangents: tf.Tensor, dimension: int, key: tf.Tensor, stream: int) -> tf.Tensor:
    """[B, G, T, I], [B, G, T, O] -> [B, G k_I k_O]."""
    widths = _widths(dimension, rows.shape[1], rows.shape[3], cotangents.shape[3])
    sides = [
        _side(tensor, width, key, stream + side)
        for side, (tensor, width) in enumerate(zip((rows, cotangents), widths, strict=True))
    ]
    if rows.shape[2] == 1:  # an outer product, for which a batched matrix product is slow
        products = sides[0][:, :, 0, :, None] * sides[1][:, :, 0, None, :]
    else:
        products = tf.matmul(sides[0], sides[1], transpose_a=True)
    return tf.reshape(products, [rows.shape[0], -1])


def _widths(dimension: int, num_groups: int, num_inputs: int, num_outputs: int) -> tuple[int, int]:
    """(k_I, k_O), as equal as the sides allow and G k_I k_O at most the dimension, where that is G or more."""
    each = max(1, dimension // num_groups)
    inputs = min(num_inputs, math.isqrt(each))
    outputs = min(num_outputs, each // inputs)
    return min(num_inputs, each // outputs), outputs


def _side(tensor: tf.Tensor, width: int, key: tf.Tensor, stream: int) -> tf.Tensor:
    """[B, G, T, C] -> [B, G, T, k], groups by matrices of their own; the tensor itself where nothing is saved."""
    _, num_groups, _, size = tensor.shape
    if width == size:
        return tensor
    signs = random_signs.signs(key, stream, 0, (num_groups, size, width), tensor.dtype) / math.sqrt(width)
    return layouts.multiplied(tensor, signs)
