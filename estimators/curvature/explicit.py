"""The inverse of a curvature that is small enough to be written out: exact, and the truth that others are held to."""

import numpy as np
import tensorflow as tf

from estimators import errors
from estimators.curvature import operators, solutions

# 20000 parameters are 3.2 GB in float64 and minutes of eigenvalues.
MAX_SIZE = 20000


class ExplicitSolver:
    """(C + damping I)^-1 by the eigenvalues of C in float64.

    Attributes:
        eigenvalues: [P] of C, ascending.
        eigenvectors: [P, P], in columns.
        damping: added to every eigenvalue.
    """

    def __init__(self, operator: operators.Operator, damping: float = 0.0, *, pseudo_inverse: bool = False) -> None:
        """Writes the operator out and decomposes it: P products, P^3 operations, 16 P^2 bytes.

        Args:
            operator: C.
            damping: added to every eigenvalue, >= 0.
            pseudo_inverse: leave directions out in which C + damping I is zero (up to rounding) instead of refusing.

        Raises:
            InvalidArgumentError: the damping is negative, or there are more than `MAX_SIZE` parameters.
            SolverError: C + damping I is singular and the pseudo-inverse was not asked for.
        """
        self.damping = solutions.check_damping(damping)
        if operator.size > MAX_SIZE:
            raise errors.InvalidArgumentError(
                f"{operator.size} parameters: a curvature is written out for {MAX_SIZE} at most; choose fewer "
                "parameters, or another solver"
            )
        self._dtype = operator.dtype
        self.eigenvalues, self.eigenvectors = np.linalg.eigh(operators.explicit(operator))
        damped = self.eigenvalues + self.damping
        rounding = np.finfo(self._dtype.as_numpy_dtype).eps * max(np.abs(self.eigenvalues).max(), self.damping)
        is_zero = np.abs(damped) <= rounding * np.sqrt(operator.size)
        if is_zero.any() and not pseudo_inverse:
            raise errors.SolverError(
                f"the curvature has {int(is_zero.sum())} of {operator.size} eigenvalues that are zero with damping "
                f"{self.damping}, so that it has no inverse; give a damping above 0, or ask for the pseudo-inverse"
            )
        self._inverse = np.where(is_zero, 0.0, 1.0 / np.where(is_zero, 1.0, damped))

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        """[R, P] -> [R, P], the solutions alone."""
        return self.solve(vectors).values

    def solve(self, vectors: tf.Tensor) -> solutions.Solution:
        """See `solutions.Solver`. Residuals count what the pseudo-inverse leaves out."""
        vectors = solutions.check_vectors(vectors, len(self.eigenvalues))
        rotated = vectors.numpy().astype(np.float64) @ self.eigenvectors
        values = rotated * self._inverse
        missed = values * (self.eigenvalues + self.damping) - rotated
        norms = np.linalg.norm(rotated, axis=1)
        residuals = np.linalg.norm(missed, axis=1) / np.where(norms > 0, norms, 1.0)
        converged = np.ones(len(residuals), bool)
        return solutions.Solution(tf.cast(values @ self.eigenvectors.T, self._dtype), residuals, converged, 1, 0)
