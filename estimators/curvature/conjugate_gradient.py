"""Conjugate gradients for all right-hand sides at once.

All directions of a block share what they learn of the matrix (O'Leary, 1980), in the form of Dubrulle (2001) that
stays orthonormal, so that right-hand sides may depend on one another: with Q an orthonormal basis of the residuals,
S the directions and small matrices of the block's size,

    X += S (S^T A S)^-1 rho;   Q zeta = Q - A S (S^T A S)^-1   (QR);   S = Q + S zeta^T;   rho = zeta rho

and the residuals are Q rho. The small matrices are float64.
"""

from typing import Protocol

import numpy as np
import scipy.linalg
import tensorflow as tf

from estimators import errors
from estimators.curvature import operators, solutions


class Preconditioner(Protocol):
    """A symmetric positive matrix M that is close to C + damping I."""

    def inverse_root(self, vectors: tf.Tensor) -> tf.Tensor:
        """[R, P] -> [R, P], rows multiplied by M^(-1/2)."""


class ConjugateGradientSolver:
    """(C + damping I)^-1 for a positive semidefinite C.

    Attributes:
        damping: added to every eigenvalue.
    """

    def __init__(
        self,
        operator: operators.Operator,
        damping: float,
        *,
        tolerance: float = 1e-5,
        max_iterations: int = 1000,
        block: int = 64,
        preconditioner: Preconditioner | None = None,
    ) -> None:
        """Prepares a solver; nothing is computed yet.

        Args:
            operator: C, positive semidefinite up to the damping.
            damping: added to every eigenvalue, >= 0.
            tolerance: residual |A x - v| / |v| at which a right-hand side is solved.
            max_iterations: rounds, each of one product for every right-hand side of a block.
            block: right-hand sides that are solved together; more converge in fewer rounds and take more memory,
                some 32 P bytes each.
            preconditioner: an approximation of C + damping I with a root.

        Raises:
            InvalidArgumentError: a number lies outside what is allowed.
        """
        self.damping = solutions.check_damping(damping)
        if not (0 < tolerance < 1 and max_iterations >= 1 and block >= 1):
            raise errors.InvalidArgumentError(
                f"tolerance {tolerance}, max_iterations {max_iterations}, block {block}: expected a tolerance between "
                "0 and 1, and at least one iteration and right-hand side"
            )
        self._operator, self._tolerance, self._max_iterations = operator, tolerance, max_iterations
        self._block, self._preconditioner = block, preconditioner

    def solve(self, vectors: tf.Tensor) -> solutions.Solution:
        """See `solutions.Solver`. Rows that did not converge are marked, with their residual.

        Raises:
            SolverError: C + damping I is not positive along a direction.
        """
        vectors = solutions.check_vectors(vectors, self._operator.size)
        found = [self._solve_block(vectors[k : k + self._block]) for k in range(0, vectors.shape[0], self._block)]
        return solutions.Solution(
            values=tf.concat([one.values for one in found], axis=0),
            residuals=np.concatenate([one.residuals for one in found]),
            converged=np.concatenate([one.converged for one in found]),
            num_iterations=max(one.num_iterations for one in found),
            num_products=sum(one.num_products for one in found),
        )

    def _solve_block(self, vectors: tf.Tensor) -> solutions.Solution:
        values, num_products = tf.zeros_like(vectors), 0
        residuals = np.where(np.linalg.norm(vectors.numpy(), axis=1) > 0, 1.0, 0.0)
        iterations = 0
        # Rounding parts the recurrence from the true residual: it begins again with what is left, while that helps.
        while iterations < self._max_iterations and (residuals > self._tolerance).any():
            remainder = vectors - self._products(values) if iterations else vectors
            step, rounds = self._round(remainder, vectors, self._max_iterations - iterations)
            num_products += rounds * vectors.shape[0] + (vectors.shape[0] if iterations else 0)
            iterations += rounds
            candidate = values + step
            checked = solutions.relative_residuals(self._operator.products(candidate), candidate, vectors, self.damping)
            num_products += vectors.shape[0]
            better = checked < residuals
            values = tf.where(better[:, None], candidate, values)
            stalled = not (checked < 0.5 * residuals).any()
            residuals = np.where(better, checked, residuals)
            if stalled:
                break
        return solutions.Solution(values, residuals, residuals <= self._tolerance, iterations, num_products)

    def _products(self, vectors: tf.Tensor) -> tf.Tensor:
        return self._operator.products(vectors) + self.damping * vectors

    def _transformed(self, vectors: tf.Tensor) -> tf.Tensor:
        return vectors if self._preconditioner is None else self._preconditioner.inverse_root(vectors)

    def _round(self, remainder: tf.Tensor, vectors: tf.Tensor, max_iterations: int) -> tuple[tf.Tensor, int]:
        """A correction [R, P] for the remainders, and the iterations it took."""
        dtype = vectors.dtype
        right = self._transformed(remainder).numpy().astype(np.float64).T  # [P, R]
        # Columns of very different length would drown one another.
        lengths = np.linalg.norm(right, axis=0)
        lengths = np.where(lengths > 0, lengths, 1.0)
        scale = np.linalg.norm(vectors.numpy(), axis=1)
        goal = (
            0.3
            * self._tolerance
            * np.where(scale > 0, scale, 1.0)
            / np.linalg.norm(remainder.numpy(), axis=1).clip(min=np.finfo(np.float64).tiny)
        )
        basis, rho = scipy.linalg.qr(right / lengths, mode="economic", overwrite_a=True)
        directions, total = basis, np.zeros_like(right)
        iteration = 0
        while iteration < max_iterations:
            iteration += 1
            moved = tf.constant(np.ascontiguousarray(directions.T), dtype)
            products = self._transformed(self._products(self._transformed(moved))).numpy().astype(np.float64).T
            gram = directions.T @ products
            inverse = _positive_inverse((gram + gram.T) / 2)
            total += directions @ (inverse @ rho)
            basis, zeta = scipy.linalg.qr(basis - products @ inverse, mode="economic", overwrite_a=True)
            directions = basis + directions @ zeta.T
            rho = zeta @ rho
            if (np.linalg.norm(rho, axis=0) <= goal).all():
                break
        return self._transformed(tf.constant(np.ascontiguousarray((total * lengths).T), dtype)), iteration


def _positive_inverse(gram: np.ndarray) -> np.ndarray:
    """Inverse of S^T A S; directions that have died out are left out.

    Raises:
        SolverError: A is negative along a direction.
    """
    eigenvalues, eigenvectors = np.linalg.eigh(gram)
    largest = np.abs(eigenvalues).max()
    if eigenvalues[0] < -1e-5 * largest:
        raise errors.SolverError(
            f"the damped curvature is negative along a direction ({eigenvalues[0]:.3g}), where conjugate gradients do "
            "not converge; use the Gauss-Newton matrix, or a damping above the most negative eigenvalue"
        )
    alive = eigenvalues > 1e-12 * largest
    return (eigenvectors[:, alive] / eigenvalues[alive]) @ eigenvectors[:, alive].T
