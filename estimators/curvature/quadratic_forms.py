"""g^T (C + damping I)^-1 g of single examples with Kronecker factors, by which self-influence takes no solution.

    g^T (C + damping I)^-1 g ~ sum (Q_A^T G Q_S)^2 / (Lambda + weight decay + damping)

For a layer with one place G = a^T d, so that the rows a Q_A and d Q_S are all that is needed: I^2 + O^2 + I O
operations an example instead of I^2 O + I O^2, and no gradient is formed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from estimators.curvature import blocks, kronecker
from estimators.derivatives import per_example, plans


def make(plan: plans.Plan, solver: kronecker.KroneckerSolver) -> per_example.Compiled:
    """A function (inputs, labels) -> [B], g_b^T (C + damping I)^-1 g_b of the loss of each example.

    Args:
        plan: of the target.
        solver: its factors with a damping.

    Returns:
        A tf.function, traced once for each size of batch. One forward and one backward pass a batch.
    """

    def compute(inputs: Any, labels: tf.Tensor) -> tf.Tensor:
        parts, looped = per_example.parts(plan, inputs, labels, "loss")
        forms = [
            _form(plan, one.block, rotation, 1.0 / damped, parts, looped, labels.shape[0])
            for one, rotation, damped in solver.rotated
        ]
        return tf.add_n(forms)

    return per_example.compiled_rows(plan, compute)


def _form(
    plan: plans.Plan,
    block: blocks.Block,
    rotation: Sequence[tf.Tensor],
    inverse: np.ndarray,
    parts: blocks.Contributions,
    looped: dict[int, tf.Tensor],
    num_examples: int,
) -> tf.Tensor:
    """[B], squared gradients along the eigenvectors of one block, weighted by inverse eigenvalues."""
    weights = tf.constant(inverse, plan.target.dtype)
    if isinstance(block, blocks.FormedBlock):
        rows = kronecker.formed_rows(plan, block, parts, looped, num_examples)
        rows = tf.matmul(rows, rotation[0]) if rotation else rows
        return tf.linalg.matvec(tf.square(rows), tf.reshape(weights, [-1]))
    if block.num_places(parts) == 1:
        rows, cotangents = block.rotated_factors(parts, rotation)
        return tf.einsum("bgi,gio,bgo->b", tf.square(rows[:, :, 0]), weights, tf.square(cotangents[:, :, 0]))
    return tf.reduce_sum(tf.square(block.rotated_gradients(parts, rotation)) * weights, axis=[1, 2, 3])
