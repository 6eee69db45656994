"""Cholesky factors of Gram matrices in float64, which say when a matrix is singular."""

import numpy as np
import scipy.linalg

from estimators import errors


def root(gram: np.ndarray, ridge: float) -> np.ndarray:
    """The lower Cholesky factor of a Gram matrix plus a ridge.

    Args:
        gram: [d, d] float64, of which the lower triangle is read.
        ridge: added to the diagonal, >= 0.

    Returns:
        [d, d], lower triangular.

    Raises:
        SolverError: the sum is singular to working precision.
    """
    matrix = gram.copy(order="F")
    matrix[np.diag_indices(len(matrix))] += ridge
    largest = matrix.diagonal().max()
    try:
        found = scipy.linalg.cholesky(matrix, lower=True, overwrite_a=True)
    except np.linalg.LinAlgError:
        found = np.zeros_like(matrix)
    if found.diagonal().min() ** 2 <= len(matrix) * np.finfo(np.float64).eps * largest:
        raise errors.SolverError(
            f"the Gram matrix of {len(matrix)} dimensions is singular with ridge {ridge:.3g}; give a ridge or "
            "relative_ridge above 0, or a smaller dimension"
        )
    return found


def quadratic_forms(factor: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[B], v^T K^-1 v for each row v of [B, d], K being factor factor^T."""
    halves = scipy.linalg.solve_triangular(factor, rows.T, lower=True)
    return np.sum(halves**2, axis=0)
