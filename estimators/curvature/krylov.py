"""The largest eigenvalues of a curvature, by Lanczos iteration, and the inverse on their eigenvectors.

A symmetric matrix is reduced to a tridiagonal one on the Krylov space of a random vector (Lanczos, 1950) with full
reorthogonalisation. Schioppa et al. (2022, arXiv:2112.03052) use the same space for influence functions and call it
Arnoldi iteration, which for symmetric matrices it is: they keep the eigenvalues of largest *modulus* and leave all
other directions out. The smallest eigenvalues that the space shows are not eigenvalues at all.
"""

import numpy as np
import tensorflow as tf

from estimators import errors
from estimators.curvature import operators, solutions


class LanczosSolver:
    """(C + damping I)^-1 on the eigenvectors of C's eigenvalues of largest modulus; 0, or 1 / damping, elsewhere.

    Attributes:
        eigenvalues: [K], by descending modulus.
        eigenvectors: [K, P] in rows, orthonormal.
        eigen_residuals: [K] float64, |C u - lambda u|.
        damping: added to every eigenvalue.
    """

    def __init__(
        self,
        operator: operators.Operator,
        damping: float,
        *,
        num_eigenvalues: int = 50,
        num_steps: int = 200,
        seed: int = 0,
        complement: bool = False,
    ) -> None:
        """Finds the eigenvalues: one product a step, and P num_steps numbers in memory.

        Args:
            operator: C.
            damping: added to every eigenvalue, >= 0.
            num_eigenvalues: K to keep; as many as converge are few beside num_steps.
            num_steps: dimension of the Krylov space, >= K; P at most.
            seed: of the starting vector.
            complement: treat the directions left out as eigenvalues 0, so that they are divided by the damping, instead
                of leaving them out.

        Raises:
            InvalidArgumentError: a number lies outside what is allowed, or there is no damping for the complement.
        """
        self.damping = solutions.check_damping(damping)
        num_steps = min(num_steps, operator.size)
        if not 1 <= num_eigenvalues <= num_steps:
            raise errors.InvalidArgumentError(
                f"num_eigenvalues {num_eigenvalues}: must be from 1 to the dimension of the space, {num_steps}"
            )
        if complement and self.damping == 0:
            raise errors.InvalidArgumentError("complement=True divides by the damping, which is 0; give a damping")
        self._operator, self._complement = operator, complement
        basis, projected, rest = _lanczos(operator, num_steps, np.random.default_rng(seed))
        values, vectors = np.linalg.eigh(projected)
        order = np.argsort(-np.abs(values), kind="stable")[:num_eigenvalues]
        self.eigenvalues = values[order]
        # The residual of a Ritz vector is what leaves the space: the last beta times its last component.
        self.eigen_residuals = rest * np.abs(vectors[-1, order])
        self.eigenvectors = tf.cast(vectors[:, order].T @ basis, operator.dtype)

    @classmethod
    def of_eigenpairs(
        cls,
        operator: operators.Operator,
        damping: float,
        eigenvalues: np.ndarray,
        eigenvectors: np.ndarray,
        eigen_residuals: np.ndarray,
        *,
        complement: bool = False,
    ) -> "LanczosSolver":
        """A solver of eigenvalues [K] and eigenvectors [K, P] that were found before; the damping may be another.

        Raises:
            InvalidArgumentError: there is no damping for the complement.
            MismatchError: the eigenvectors are not as long as the operator is wide.
        """
        self = cls.__new__(cls)
        self.damping, self._operator, self._complement = solutions.check_damping(damping), operator, complement
        if complement and self.damping == 0:
            raise errors.InvalidArgumentError("complement=True divides by the damping, which is 0; give a damping")
        self.eigenvalues, self.eigen_residuals = eigenvalues, eigen_residuals
        self.eigenvectors = solutions.check_vectors(tf.cast(eigenvectors, operator.dtype), operator.size)
        return self

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        """[R, P] -> [R, P], the solutions alone, without a pass for their residuals.

        Raises:
            SolverError: a kept eigenvalue is the negative of the damping.
        """
        vectors = solutions.check_vectors(vectors, self._operator.size)
        damped = self.eigenvalues + self.damping
        if (np.abs(damped) <= 1e-7 * np.abs(damped).max()).any():
            raise errors.SolverError(
                f"a kept eigenvalue plus the damping {self.damping} is zero; change the damping or keep fewer"
            )
        along = tf.matmul(vectors, self.eigenvectors, transpose_b=True)
        weights = 1.0 / damped - (1.0 / self.damping if self._complement else 0.0)
        values = tf.matmul(along * tf.cast(weights, vectors.dtype), self.eigenvectors)
        return values + vectors / self.damping if self._complement else values

    def solve(self, vectors: tf.Tensor) -> solutions.Solution:
        """See `solutions.Solver` and `apply`; the residual counts what was left out, and takes one pass."""
        values = self.apply(vectors)
        residuals = solutions.relative_residuals(self._operator.products(values), values, vectors, self.damping)
        return solutions.Solution(values, residuals, residuals < 1e-2, 1, int(vectors.shape[0]))


def _lanczos(
    operator: operators.Operator, num_steps: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """(basis [K, P] float64, the operator in it [K, K], norm of what leaves the space)."""
    basis = np.zeros((num_steps, operator.size))
    diagonal, beside = np.zeros(num_steps), np.zeros(num_steps)
    vector = random.normal(size=operator.size)
    vector /= np.linalg.norm(vector)
    scale = 0.0
    for step in range(num_steps):
        basis[step] = vector
        product = operator.products(tf.constant(vector[None], operator.dtype)).numpy()[0].astype(np.float64)
        scale = max(scale, float(np.linalg.norm(product)))
        diagonal[step] = product @ vector
        for _ in range(2):  # twice is enough (Kahan), once is not
            product -= basis[: step + 1].T @ (basis[: step + 1] @ product)
        beside[step] = np.linalg.norm(product)
        # float32 products leave rounding behind, not a direction.
        if beside[step] <= 10 * np.finfo(operator.dtype.as_numpy_dtype).eps * scale:
            num_steps = step + 1
            beside[step] = 0.0
            break
        vector = product / beside[step]
    projected = np.diag(diagonal[:num_steps])
    off = beside[: num_steps - 1]
    projected += np.diag(off, 1) + np.diag(off, -1)
    return basis[:num_steps], projected, float(beside[num_steps - 1])
