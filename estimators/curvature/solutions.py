"""What every solver of (C + damping I) x = v returns, and the one meaning of damping.

Damping is a number that is added to every eigenvalue of the curvature C. It is not scaled by the solver, by a layer's
size or by anything else, so that results of different solvers with one damping approximate one quantity.
"""

import dataclasses
from typing import Protocol

import numpy as np
import tensorflow as tf

from estimators import errors


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """Solutions of (C + damping I) x = v for several v.

    Attributes:
        values: [R, P], one x in each row.
        residuals: [R] float64, |(C + damping I) x - v| / |v|; NaN where the solver replaces C by a model of it and
            was not asked for a check.
        converged: [R] bool, whether the residual is below what was asked; for solvers that replace C by a model of it,
            whether the model was solved exactly.
        num_iterations: how often the solver went round.
        num_products: vectors that were multiplied by C.
    """

    values: tf.Tensor
    residuals: np.ndarray
    converged: np.ndarray
    num_iterations: int
    num_products: int


class Solver(Protocol):
    """(C + damping I)^-1 for a curvature C that is fixed."""

    def solve(self, vectors: tf.Tensor) -> Solution:
        """Solutions for the rows of vectors [R, P]."""


def check_damping(damping: float) -> float:
    """The damping as a float.

    Raises:
        InvalidArgumentError: it is negative or no number.
    """
    damping = float(damping)
    if not (np.isfinite(damping) and damping >= 0):
        raise errors.InvalidArgumentError(f"damping {damping}: must be a number from 0 up; it is added to eigenvalues")
    return damping


def check_vectors(vectors: tf.Tensor, size: int) -> tf.Tensor:
    """The vectors as a tensor [R, P].

    Raises:
        MismatchError: they have another shape.
    """
    vectors = tf.convert_to_tensor(vectors)
    if vectors.shape.rank != 2 or vectors.shape[1] != size:
        raise errors.MismatchError(
            f"vectors of shape {vectors.shape}: expected [R, {size}], one parameter vector a row"
        )
    return vectors


def relative_residuals(products: tf.Tensor, values: tf.Tensor, vectors: tf.Tensor, damping: float) -> np.ndarray:
    """[R] float64: |C x + damping x - v| / |v|, 0 for v = 0; `products` are C x."""
    left, right = (t.numpy().astype(np.float64) for t in (products + damping * values, vectors))
    norms = np.linalg.norm(right, axis=1)
    return np.linalg.norm(left - right, axis=1) / np.where(norms > 0, norms, 1.0)
