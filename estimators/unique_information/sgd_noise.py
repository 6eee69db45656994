"""Unique information in the weights by the noise of stochastic gradient descent.

    SI_i = 1/2 dw_i^T (Sigma + floor I)^-1 dw_i,    H Sigma + Sigma H = (learning_rate / b) C
    H = (J^T J + lam I) / n,    C = (1/n) sum_i g_i g_i^T - gbar gbar^T,    g_i = J_i^T res_i

Sigma is the stationary covariance around stated weights, at which the residuals res = f - y are taken. It is singular
where there are more weights than rows, and nearly so before, so that scores depend on a noise floor, a variance that
every weight has in addition: it is an argument, and several can be given to see how much. Harutyunyan et al. (ICLR
2021) leave learning_rate / b and the 1/2 out and add 1e-10 to the diagonals of C and Sigma.

`reduced` works in the basis of the eigenvectors of J^T J on its range and needs no weights; `full` and `diagonal` take
the Jacobian. Outside the range Sigma is 0 (for lam = 0 it is not determined there) and dw too.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from estimators import errors
from estimators.linearized import dynamics, solutions, spectra
from estimators.unique_information import results


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseInformation:
    """Unique information of G groups for F noise floors.

    Attributes:
        nats: [F, G] float64, 0 or more.
        floors: [F] float64, variances.
        squared_norms: [G] float64, |dw|^2.
        variances: eigenvalues of Sigma, ascending (for `diagonal` its diagonal, sorted): what floors are to be
            compared with.
        outside: [G] float64, the share of |dw|^2 outside the basis, which is left out; 0 up to round-off.
        groups: positions of the examples of each group.
        measure: name.
        config: constants and settings of the training.
    """

    nats: np.ndarray
    floors: np.ndarray
    squared_norms: np.ndarray
    variances: np.ndarray
    outside: np.ndarray
    groups: tuple[np.ndarray, ...]
    measure: str
    config: dict[str, Any]


def reduced(
    removed: solutions.LeaveOut,
    residuals: np.ndarray,
    *,
    batch_size: int,
    floors: Sequence[float],
    spectrum: spectra.Spectrum | None = None,
) -> NoiseInformation:
    """Sigma on the range of J^T, from the kernel or features alone.

    With J^T J = V Lambda V^T: (V^T Sigma V)_ab = (n learning_rate / b) (V^T C V)_ab / (lambda_a + lambda_b + 2 lam),
    where in dual form V^T g_i = Lambda^1/2 U_i^T res_i and V^T dw = Lambda^1/2 U^T da.

    Args:
        removed: solutions without each group.
        residuals: f - y [n, k] at the weights around which the noise is.
        batch_size: b.
        floors: noise floors, variances >= 0.
        spectrum: of the kernel (dual form), if it is known.

    Returns:
        The scores; D^3 operations for rank D, and D^2 for each group.

    Raises:
        InvalidArgumentError: a constant lies outside.
        MismatchError: residuals of another number.
        SolverError: Sigma is singular and a floor is 0.
    """
    results.check_positive("batch_size", batch_size)
    rows = dynamics.rows_of(residuals, len(removed.train_rows))
    changes = removed.without - removed.full
    if removed.form == "dual":
        known = spectra.decompose(removed.train_rows) if spectrum is None else spectrum
        kept = known.eigenvalues > known.tolerance
        scale = np.sqrt(known.eigenvalues[kept])
        features = known.eigenvectors[:, kept] * scale
        moved = (changes @ known.eigenvectors[:, kept]) * scale
        eigenvalues = known.eigenvalues[kept]
    else:
        known = spectra.decompose(removed.train_rows.astype(np.float64).T @ removed.train_rows)
        kept = known.eigenvalues > known.tolerance
        features = removed.train_rows @ known.eigenvectors[:, kept]
        moved, eigenvalues = changes @ known.eigenvectors[:, kept], known.eigenvalues[kept]
    lam = removed.descent.rates(removed.num_train).lam
    sums = eigenvalues[:, None] + eigenvalues + 2 * lam
    constant = len(rows) * removed.descent.learning_rate / batch_size
    covariance = constant * _covariance(features, rows) / sums
    return _scores(removed, covariance, moved, floors, "weights, SGD noise (reduced)", batch_size)


def full(
    removed: solutions.LeaveOut,
    jacobian: np.ndarray,
    residuals: np.ndarray,
    *,
    batch_size: int,
    floors: Sequence[float],
) -> NoiseInformation:
    """Sigma as a matrix [P, P] of the weights; equal to `reduced`, for networks of few weights.

    Args:
        removed: solutions in dual form.
        jacobian: J [N, P].
        residuals: f - y [n, k], see `reduced`.
        batch_size: b.
        floors: variances >= 0.

    Returns:
        The scores; P^3 operations.

    Raises:
        See `reduced`; also MismatchError for a Jacobian of other rows, or solutions in primal form.
    """
    rows = _checked(removed, jacobian, residuals, batch_size)
    jacobian = np.asarray(jacobian, np.float64)
    spectrum = spectra.decompose(jacobian.T @ jacobian)
    sums = spectrum.eigenvalues[:, None] + spectrum.eigenvalues + 2 * removed.descent.rates(len(rows)).lam
    vectors = spectrum.eigenvectors
    constant = len(rows) * removed.descent.learning_rate / batch_size
    # Where nothing pulls back, no gradient points either: 0 / 0, and 0 is the solution on the range.
    known = sums > 2 * spectrum.tolerance
    rotated = np.divide(constant * _covariance(jacobian @ vectors, rows), sums, out=np.zeros_like(sums), where=known)
    moved = (removed.without - removed.full) @ jacobian
    return _scores(removed, vectors @ rotated @ vectors.T, moved, floors, "weights, SGD noise (full)", batch_size)


def diagonal(
    removed: solutions.LeaveOut,
    jacobian: np.ndarray,
    residuals: np.ndarray,
    *,
    batch_size: int,
    floors: Sequence[float],
) -> NoiseInformation:
    """Each weight by itself: Sigma_pp = learning_rate / (2 b) C_pp / H_pp, off the diagonal 0.

    Args:
        removed: solutions in dual form.
        jacobian: J [N, P]; a memory map is read in columns.
        residuals: f - y [n, k], see `reduced`.
        batch_size: b.
        floors: variances >= 0.

    Returns:
        The scores; N P operations, and N P for each group.

    Raises:
        See `full`.
    """
    rows = _checked(removed, jacobian, residuals, batch_size)
    jacobian = np.asarray(jacobian, np.float64)
    gradients = _gradients(jacobian, rows)
    noise = gradients.var(axis=0)
    curvature = (np.sum(jacobian**2, axis=0) + removed.descent.rates(len(rows)).lam) / len(rows)
    constant = removed.descent.learning_rate / (2 * batch_size)
    variances = constant * np.divide(noise, curvature, out=np.zeros_like(noise), where=curvature > 0)
    moved = (removed.without - removed.full) @ jacobian
    measure = "weights, SGD noise (diagonal)"
    return _result(removed, variances, moved**2, _checked_floors(floors), measure, batch_size)


def _checked(removed: solutions.LeaveOut, jacobian: np.ndarray, residuals: np.ndarray, batch_size: int) -> np.ndarray:
    results.check_positive("batch_size", batch_size)
    if removed.form != "dual" or np.ndim(jacobian) != 2 or len(jacobian) != len(removed.train_rows):
        raise errors.MismatchError(
            f"a Jacobian of shape {np.shape(jacobian)} beside solutions in {removed.form} form of "
            f"{len(removed.train_rows)} rows: expected [N, P] and dual form; in primal form use `reduced`"
        )
    return dynamics.rows_of(residuals, len(removed.train_rows))


def _gradients(features: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """g_i = J_i^T res_i, [n, D]."""
    num, outputs = residuals.shape
    return np.einsum("nkd,nk->nd", features.reshape(num, outputs, -1), residuals)


def _covariance(features: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """C, [D, D]."""
    gradients = _gradients(features, residuals)
    gradients = gradients - gradients.mean(axis=0)
    return gradients.T @ gradients / len(gradients)


def _scores(
    removed: solutions.LeaveOut,
    covariance: np.ndarray,
    moved: np.ndarray,
    floors: Sequence[float],
    measure: str,
    batch_size: int,
) -> NoiseInformation:
    found = _checked_floors(floors)
    variances, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    variances = np.maximum(variances, 0.0)
    return _result(removed, variances, (moved @ vectors) ** 2, found, measure, batch_size)


def _checked_floors(floors: Sequence[float]) -> np.ndarray:
    found = np.asarray(floors, np.float64).ravel()
    if not found.size or not np.isfinite(found).all() or found.min() < 0:
        raise errors.InvalidArgumentError(f"floors {floors}: expected numbers from 0 up, at least one")
    return found


def _result(
    removed: solutions.LeaveOut,
    variances: np.ndarray,
    squares: np.ndarray,
    floors: np.ndarray,
    measure: str,
    batch_size: int,
) -> NoiseInformation:
    """Squares [G, D] of changes along directions of given variances."""
    singular = len(variances) * np.finfo(np.float64).eps * variances.max(initial=0.0)
    if floors.min() == 0 and np.any(variances <= singular):
        raise errors.SolverError(
            f"floors {floors}: the noise covariance is singular ({int(np.sum(variances <= singular))} of "
            f"{len(variances)} variances are 0, the largest is {variances.max(initial=0.0):.3g}); give floors above 0"
        )
    whole = removed.squared_weight_changes()
    inside = squares.sum(axis=1)
    return NoiseInformation(
        nats=np.stack([squares @ (0.5 / (variances + floor)) for floor in floors]),
        floors=floors,
        squared_norms=whole,
        variances=np.sort(variances),
        outside=np.divide(np.abs(whole - inside), whole, out=np.zeros_like(whole), where=whole > 0),
        groups=removed.groups,
        measure=measure,
        config=results.config(removed, batch_size=batch_size),
    )
