"""Conjugate gradients for all right-hand sides at once.

All directions of a block share what they learn of the matrix (O'Leary, 1980), in the form of Dubrulle (2001) that
stays orthonormal, so that right-hand sides may depend on one another: with Q an orthonormal basis of the residuals,
S the directions and small matrices of the block's size,

    X += S (S^T A S)^-1 rho;   Q zeta = Q - A S (S^T A S)^-1   (QR);   S = Q + S zeta^T;   rho = zeta rho

and the residuals are Q rho. The small matrices are float64, the others of the target's dtype.
"""

from typing import Protocol

import numpy as np
import scipy.linalg
import tensorflow as tf
import threadpoolctl

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
            NotFiniteError: a right-hand side is.
        """
        vectors = solutions.check_vectors(vectors, self._operator.size)
        if not bool(tf.reduce_all(tf.math.is_finite(vectors))):
            raise errors.NotFiniteError("a right-hand side is not finite; check the losses that it is a gradient of")
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
        residuals = np.where(np.any(vectors.numpy(), axis=1), 1.0, 0.0)
        iterations = 0
        # Rounding parts the recurrence from the true residual: it begins again with what is left, while that helps.
        while iterations < self._max_iterations and (residuals > self._tolerance).any():
            remainder = vectors - self._products(values) if iterations else vectors
            # Threads of BLAS that wait for more work would take the processors from TensorFlow's, if those compute.
            accelerators = [device for kind in ("GPU", "TPU") for device in tf.config.list_logical_devices(kind)]
            with threadpoolctl.threadpool_limits(None if accelerators else 1, user_api="blas"):
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
        """A correction [R, P] for the remainders, and the iterations it took. Columns above are rows [R, P] here."""
        right = _read(self._transformed(remainder))
        # Rows of very different length would drown one another.
        lengths = _lengths(right)
        goal = 0.5 * self._tolerance * _lengths(_read(vectors)) / _lengths(_read(remainder))
        # Large arrays are made once: to have new ones each time takes longer than to fill them.
        rank = min(right.shape)
        basis, spare, products = (np.empty_like(right[:rank]) for _ in range(3))
        rho = _orthonormal(right / lengths[:, None].astype(right.dtype), basis)
        directions, total = basis.copy(), np.zeros_like(right)
        iteration = 0
        while iteration < max_iterations:
            iteration += 1
            self._system_products(directions, products)
            gram = (directions @ products.T).astype(np.float64)
            inverse = _positive_inverse((gram + gram.T) / 2)
            _add_combined((inverse @ rho).T, directions, total)
            _add_combined(-inverse, products, basis)
            zeta = _orthonormal(basis, spare)
            basis[:] = spare
            _add_combined(zeta, directions, spare)
            directions, spare = spare, directions
            rho = zeta @ rho
            if (np.linalg.norm(rho, axis=0) <= goal).all():
                break
        return self._transformed(tf.constant(total * lengths[:, None].astype(total.dtype))), iteration

    def _system_products(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Writes the rows [R, P] multiplied by the matrix between the roots of the preconditioner."""
        if self._preconditioner is None:
            np.multiply(rows, rows.dtype.type(self.damping), out=out)
            out += _read(self._operator.products(tf.constant(rows)))
        else:
            out[:] = _read(self._transformed(self._products(self._transformed(tf.constant(rows)))))


def _read(tensor: tf.Tensor) -> np.ndarray:
    """The values of a tensor, which may share its memory: not to be written to."""
    return np.asarray(tensor)


def _lengths(rows: np.ndarray) -> np.ndarray:
    """[R] float64, 1 for rows of zeros."""
    lengths = np.array([np.linalg.norm(row.astype(np.float64)) for row in rows])
    return np.where(lengths > 0, lengths, 1.0)


def _add_combined(matrix: np.ndarray, rows: np.ndarray, to: np.ndarray) -> None:
    """Adds a float64 matrix times rows of any dtype to other rows, in one pass over them."""
    (multiply,) = scipy.linalg.get_blas_funcs(["gemm"], [rows])
    # BLAS reads rows as the columns of the transposed product.
    found = multiply(1.0, rows.T, matrix.T.astype(rows.dtype), beta=1.0, c=to.T, overwrite_c=True)
    assert np.shares_memory(found, to), "rows must lie one after the other, or nothing is added to them"


def _orthonormal(rows: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Writes an orthonormal basis Q [min(R, P), P] of rows [R, P], and returns Z, float64, with rows = Z^T Q.

    By the Cholesky factor of their inner products, some ten times as fast as by reflections, where they are so
    independent that it leaves Q orthonormal; otherwise by reflections, for which they may depend on one another.
    """
    gram = (rows @ rows.T).astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(gram)
    # What is lost of Q's orthonormality is some rounding over this ratio.
    if len(rows) == len(out) and eigenvalues[0] > 1e3 * np.finfo(rows.dtype).eps * eigenvalues[-1]:
        lower = np.linalg.cholesky(gram)
        np.matmul(np.linalg.inv(lower).astype(rows.dtype), rows, out=out)
        return lower.T
    basis, upper = scipy.linalg.qr(rows.T, mode="economic")
    out[:] = basis.T
    return upper.astype(np.float64)


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
