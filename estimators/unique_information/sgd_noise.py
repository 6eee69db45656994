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

from collections.abc import Iterator, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from estimators import errors
from estimators.linearized import dynamics, solutions, spectra
from estimators.unique_information import results

_CHUNK_BYTES = 64e6


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseInformation:
    """Unique information of G groups for F noise floors.

    Attributes:
        nats: [F, G] float64, 0 or more.
        floors: [F] float64, variances.
        squared_norms: [G] float64, |dw|^2.
        variances: eigenvalues of Sigma, ascending (for `diagonal` its diagonal, sorted): what floors are to be
            compared with.
        outside: [G] float64, the share of |dw|^2 outside the basis, which is left out; 0 up to round-off unless the
            basis is of fewer directions, or the Jacobian not that of the kernel.
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
        batch_size: b, 1 or more.
        floors: noise floors, variances >= 0.
        spectrum: of the kernel (dual form), if another than that of the solutions is to decide the rank.

    Returns:
        The scores; N D^2 operations for rank D, and D^2 for each group. Features are read block by block, twice.

    Raises:
        InvalidArgumentError: a constant lies outside.
        MismatchError: residuals of another number of examples or outputs.
        SolverError: Sigma is singular and a floor is 0.
    """
    rows = _checked_rows(removed, residuals, batch_size)
    is_dual = removed.form == "dual"
    known = spectrum if spectrum is not None and is_dual else removed.spectrum
    vectors, eigenvalues = known.eigenvectors[:, known.is_known], known.eigenvalues[known.is_known]
    scale = np.sqrt(eigenvalues) if is_dual else np.ones_like(eigenvalues)
    moved = ((removed.without - removed.full) @ vectors) * scale
    lam = removed.descent.rates(removed.num_train).lam
    sums = eigenvalues[:, None] + eigenvalues + 2 * lam
    constant = len(rows) * removed.descent.learning_rate / batch_size
    if is_dual:
        noise = _covariance(vectors, rows) * scale * scale[:, None]
    else:
        noise = vectors.T @ _covariance(removed.train_rows, rows) @ vectors
    covariance = constant * noise / sums
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
        jacobian: J [N, P]; a memory map is read some columns at a time.
        residuals: f - y [n, k], see `reduced`.
        batch_size: b.
        floors: variances >= 0.

    Returns:
        The scores; N P operations, and N P for each group. 64 MB beside what is returned.

    Raises:
        See `full`.
    """
    rows = _checked(removed, jacobian, residuals, batch_size)
    found, changes = _checked_floors(floors), removed.without - removed.full
    lam, constant = removed.descent.rates(len(rows)).lam, removed.descent.learning_rate / (2 * batch_size)
    variances = np.empty(np.shape(jacobian)[1])
    nats, inside = np.zeros((len(found), len(changes))), np.zeros(len(changes))
    for part in _parts(len(variances), 2 * len(rows) * rows.shape[1] + len(changes)):
        columns = np.asarray(jacobian[:, part], np.float64)
        noise = _gradients(columns, rows).var(axis=0)
        curvature = (np.sum(columns**2, axis=0) + lam) / len(rows)
        variances[part] = constant * np.divide(noise, curvature, out=np.zeros_like(noise), where=curvature > 0)
        squares = (changes @ columns) ** 2
        inside += squares.sum(axis=1)
        nats += _nats(squares, variances[part], found)
    return _result(removed, variances, nats, inside, found, "weights, SGD noise (diagonal)", batch_size)


def _parts(count: int, each: int) -> Iterator[slice]:
    """Of so many, so many at a time that the numbers that each takes stay small."""
    size = max(1, int(_CHUNK_BYTES / (8 * each)))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _checked_rows(removed: solutions.LeaveOut, residuals: np.ndarray, batch_size: int) -> np.ndarray:
    """The residuals as [n, k]."""
    if not (math.isfinite(batch_size) and batch_size >= 1):
        raise errors.InvalidArgumentError(f"batch_size {batch_size}: must be a number from 1 up")
    rows = dynamics.rows_of(residuals, len(removed.train_rows))
    if rows.shape[1] != removed.num_outputs:
        raise errors.MismatchError(
            f"residuals of shape {np.shape(residuals)}: expected {removed.num_outputs} outputs an example"
        )
    return rows


def _checked(removed: solutions.LeaveOut, jacobian: np.ndarray, residuals: np.ndarray, batch_size: int) -> np.ndarray:
    if removed.form != "dual" or np.ndim(jacobian) != 2 or len(jacobian) != len(removed.train_rows):
        raise errors.MismatchError(
            f"a Jacobian of shape {np.shape(jacobian)} beside solutions in {removed.form} form of "
            f"{len(removed.train_rows)} rows: expected [N, P] and dual form; in primal form use `reduced`"
        )
    return _checked_rows(removed, residuals, batch_size)


def _gradients(features: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """g_i = J_i^T res_i, [n, D]."""
    num, outputs = residuals.shape
    return np.einsum("nkd,nk->nd", features.reshape(num, outputs, -1), residuals)


def _covariance(features: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """C [D, D] of features [N, D], some examples at a time."""
    (num, outputs), width = residuals.shape, features.shape[1]
    parts = list(_parts(num, width * (outputs + 1)))

    def gradients(part: slice) -> np.ndarray:
        rows = features[part.start * outputs : part.stop * outputs]
        return _gradients(np.asarray(rows, np.float64), residuals[part])

    mean = sum(gradients(part).sum(axis=0) for part in parts) / num
    found = np.zeros((width, width))
    for part in parts:
        centred = gradients(part) - mean
        found += centred.T @ centred
    return found / num


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
    squares = (moved @ vectors) ** 2
    nats = _nats(squares, variances, found)
    return _result(removed, variances, nats, squares.sum(axis=1), found, measure, batch_size)


def _nats(squares: np.ndarray, variances: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """Of squares [G, D] of changes along directions of given variances, [F, G]; without sense where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([squares @ (0.5 / (variances + floor)) for floor in floors])


def _checked_floors(floors: Sequence[float]) -> np.ndarray:
    found = np.asarray(floors, np.float64).ravel()
    if not found.size or not np.isfinite(found).all() or found.min() < 0:
        raise errors.InvalidArgumentError(f"floors {floors}: expected numbers from 0 up, at least one")
    return found


def _result(
    removed: solutions.LeaveOut,
    variances: np.ndarray,
    nats: np.ndarray,
    inside: np.ndarray,
    floors: np.ndarray,
    measure: str,
    batch_size: int,
) -> NoiseInformation:
    """The scores, unless variances are 0 and a floor is; `inside` is |dw|^2 in the basis, [G]."""
    singular = len(variances) * np.finfo(np.float64).eps * variances.max(initial=0.0)
    if floors.min() == 0 and np.any(variances <= singular):
        raise errors.SolverError(
            f"floors {floors}: the noise covariance is singular ({int(np.sum(variances <= singular))} of "
            f"{len(variances)} variances are 0, the largest is {variances.max(initial=0.0):.3g}); give floors above 0"
        )
    whole = removed.squared_weight_changes()
    return NoiseInformation(
        nats=nats,
        floors=floors,
        squared_norms=whole,
        variances=np.sort(variances),
        outside=np.divide(np.abs(whole - inside), whole, out=np.zeros_like(whole), where=whole > 0),
        groups=removed.groups,
        measure=measure,
        config=results.config(removed, batch_size=batch_size),
    )
