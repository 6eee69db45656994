"""A curvature of low rank from random products: C ~ U diag(lambda) U^T (Nystroem; Frangella, Tropp & Udell, 2023).

From K products Y = C Omega with orthonormal random Omega, shifted by a little so that the root exists:
Y_s = Y + s Omega, L L^T = Omega^T Y_s, B = Y_s L^-T, and B's singular values squared less s are the eigenvalues. Then

    (C + damping I)^-1 v ~ U diag(1 / (lambda + damping) - 1 / damping) U^T v + v / damping

by itself an approximate solver for a positive semidefinite C, and a preconditioner that makes conjugate gradients on
the same matrix converge in few rounds.
"""

import numpy as np
import scipy.linalg
import tensorflow as tf

from estimators import errors
from estimators.curvature import operators, solutions


class NystroemSolver:
    """(C + damping I)^-1 by an approximation of C of low rank.

    Attributes:
        eigenvalues: [K] float64, descending, >= 0.
        eigenvectors: [K, P] in rows, orthonormal.
        damping: added to every eigenvalue, > 0.
    """

    def __init__(self, operator: operators.Operator, damping: float, *, rank: int = 100, seed: int = 0) -> None:
        """Multiplies K random vectors by the operator; P K numbers in memory, P K^2 operations.

        Args:
            operator: C, positive semidefinite.
            damping: added to every eigenvalue, > 0: directions that the rank leaves out are divided by it.
            rank: K, at most P.
            seed: of the random vectors.

        Raises:
            InvalidArgumentError: the damping is not above 0, or the rank not from 1 to P.
            SolverError: C is negative along some direction.
        """
        self.damping = solutions.check_damping(damping)
        if self.damping == 0:
            raise errors.InvalidArgumentError("damping 0.0: the Nystroem approximation divides by it; give one above 0")
        if not 1 <= rank <= operator.size:
            raise errors.InvalidArgumentError(f"rank {rank}: must be from 1 to the {operator.size} parameters")
        self._operator = operator
        test = scipy.linalg.qr(np.random.default_rng(seed).normal(size=(operator.size, rank)), mode="economic")[0]
        products = operator.products(tf.constant(np.ascontiguousarray(test.T), operator.dtype))
        sketch = products.numpy().astype(np.float64).T
        shift = np.finfo(operator.dtype.as_numpy_dtype).eps * np.linalg.norm(sketch)
        shifted = sketch + shift * test
        gram = test.T @ shifted
        try:
            root = np.linalg.cholesky((gram + gram.T) / 2)
        except np.linalg.LinAlgError as error:
            raise errors.SolverError(
                "the curvature is negative along a direction, of which the Nystroem approximation has no root; use the "
                "Gauss-Newton matrix"
            ) from error
        halves = scipy.linalg.solve_triangular(root, shifted.T, lower=True)  # [K, P]
        _, singular, directions = scipy.linalg.svd(halves, full_matrices=False)
        self.eigenvalues = np.maximum(singular**2 - shift, 0.0)
        self.eigenvectors = tf.cast(directions, operator.dtype)

    @classmethod
    def of_eigenpairs(
        cls, operator: operators.Operator, damping: float, eigenvalues: np.ndarray, eigenvectors: np.ndarray
    ) -> "NystroemSolver":
        """A solver of eigenvalues [K] and eigenvectors [K, P] that were found before; the damping may be another.

        Raises:
            InvalidArgumentError: the damping is not above 0.
            MismatchError: the eigenvectors are not as long as the operator is wide.
        """
        self = cls.__new__(cls)
        self.damping, self._operator = solutions.check_damping(damping), operator
        if self.damping == 0:
            raise errors.InvalidArgumentError("damping 0.0: the Nystroem approximation divides by it; give one above 0")
        self.eigenvalues = eigenvalues
        self.eigenvectors = solutions.check_vectors(tf.cast(eigenvectors, operator.dtype), operator.size)
        return self

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        """[R, P] -> [R, P], the solutions alone, without a pass for their residuals."""
        vectors = solutions.check_vectors(vectors, self._operator.size)
        return self._scaled(vectors, 1.0 / (self.eigenvalues + self.damping), 1.0 / self.damping)

    def solve(self, vectors: tf.Tensor) -> solutions.Solution:
        """See `solutions.Solver`; the residual takes one pass."""
        values = self.apply(vectors)
        residuals = solutions.relative_residuals(self._operator.products(values), values, vectors, self.damping)
        return solutions.Solution(values, residuals, residuals < 1e-2, 1, int(vectors.shape[0]))

    def inverse_root(self, vectors: tf.Tensor) -> tf.Tensor:
        """See `conjugate_gradient.Preconditioner`: the approximation to the power -1/2, up to a factor.

        Directions left out count as the smallest eigenvalue that was found, which they are no larger than.
        """
        floor = self.eigenvalues[-1] + self.damping
        return self._scaled(vectors, np.sqrt(floor / (self.eigenvalues + self.damping)), 1.0)

    def _scaled(self, vectors: tf.Tensor, inside: np.ndarray, outside: float) -> tf.Tensor:
        """Multiplied by `inside` along the eigenvectors and by `outside` along the rest."""
        along = tf.matmul(vectors, self.eigenvectors, transpose_b=True)
        weights = tf.cast(inside - outside, vectors.dtype)
        return tf.matmul(along * weights, self.eigenvectors) + tf.cast(outside, vectors.dtype) * vectors
