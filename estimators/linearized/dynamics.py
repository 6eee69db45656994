"""Gradient descent on a linearised network at any time, from one eigendecomposition.

    a_t = -p_t(A) r0,  A = K + lam I        w_t = w0 + J^T a_t        |w_t - w0|^2 = a_t^T K a_t
    f_t = f0 + K a_t                        f*_t = f*_0 + K* a_t

exactly, for squared error and full batches, with l2, singular kernels and any number of outputs. After Harutyunyan et
al. (ICLR 2021, arXiv:2101.06640), whose form of the train predictions holds without l2 only.
"""

import math

import numpy as np

from estimators import errors
from estimators.linearized import descents, spectra, spectral


class Dynamics:
    """Coefficients, predictions and distances at time t; the kernel is decomposed once."""

    def __init__(
        self,
        kernel: np.ndarray | spectra.Spectrum,
        residuals: np.ndarray,
        descent: descents.GradientDescent,
    ) -> None:
        """Decomposes and checks.

        Args:
            kernel: K [N, N], N = n k, or its spectrum.
            residuals: r0 = f0 - y, [n, k] or [n] at the weights of the linearisation.
            descent: settings.

        Raises:
            InvalidArgumentError: the kernel is none, residuals are not finite, or the steps diverge.
            MismatchError: residuals of another length.
        """
        self.spectrum = kernel if isinstance(kernel, spectra.Spectrum) else spectra.decompose(kernel)
        rows = rows_of(residuals, len(self.spectrum.eigenvalues))
        self.descent, self.num_train = descent, rows.shape[0]
        self._shape = rows.shape
        self.rates = descent.rates(self.num_train)
        descent.check_stable(self.spectrum.largest, self.rates)
        self._residuals = rows.ravel()
        self._rotated = self.spectrum.eigenvectors.T @ self._residuals

    def coefficients(self, time: float) -> np.ndarray:
        """a_t, [N] float64.

        Args:
            time: t, steps or (continuous) their number as a real number; infinity for the limit, of which the
                part in the null space of a singular kernel is 0 where l2 is: it moves no weight.

        Raises:
            InvalidArgumentError: the time cannot be.
        """
        return self.spectrum.eigenvectors @ self._rotated_coefficients(time)

    def train_predictions(self, initial: np.ndarray, time: float) -> np.ndarray:
        """f_t at the training examples, [n, k] as f0 `initial` is.

        Raises:
            InvalidArgumentError: the time cannot be.
            MismatchError: `initial` has another size.
        """
        start = rows_of(initial, len(self._residuals))
        change = self.spectrum.eigenvectors @ (self.spectrum.eigenvalues * self._rotated_coefficients(time))
        return (start.ravel() + change).reshape(np.shape(initial))

    def test_predictions(self, initial: np.ndarray, cross: np.ndarray, time: float) -> np.ndarray:
        """f*_t at other examples.

        Args:
            initial: f*_0, [m, k] or [m].
            cross: K* = J* J^T, [m k, N].
            time: t.

        Returns:
            Of the shape of `initial`, float64.

        Raises:
            InvalidArgumentError: the time cannot be, or a number is not finite.
            MismatchError: shapes do not agree.
        """
        cross, start = np.asarray(cross), np.asarray(initial, np.float64)
        if cross.shape != (start.size, len(self._residuals)):
            raise errors.MismatchError(
                f"cross kernel of shape {cross.shape}: expected [{start.size}, {len(self._residuals)}], a row for each "
                "initial test prediction and a column for each row of the kernel"
            )
        if not (np.isfinite(cross).all() and np.isfinite(start).all()):
            raise errors.InvalidArgumentError(
                "the cross kernel or initial test predictions are not finite; check weights and test inputs"
            )
        return start + (cross @ self.coefficients(time)).reshape(start.shape)

    def residuals(self, time: float) -> np.ndarray:
        """f_t - y, [n, k]."""
        change = self.spectrum.eigenvectors @ (self.spectrum.eigenvalues * self._rotated_coefficients(time))
        return (self._residuals + change).reshape(self._shape)

    def squared_distance(self, time: float) -> float:
        """|w_t - w0|^2 = a_t^T K a_t."""
        return float(np.sum(self.spectrum.eigenvalues * self._rotated_coefficients(time) ** 2))

    def _rotated_coefficients(self, time: float) -> np.ndarray:
        self.descent.check_time(time)
        return -transfer_of(self.spectrum, self.rates, time, continuous=self.descent.continuous) * self._rotated


def transfer_of(spectrum: spectra.Spectrum, rates: descents.Rates, time: float, *, continuous: bool) -> np.ndarray:
    """p_t(lambda + lam), [N]; at infinite time with lam = 0 the pseudo-inverse."""
    shifted = spectrum.eigenvalues + rates.lam
    if math.isinf(time):
        known = shifted > (0.0 if rates.lam > 0 else spectrum.tolerance)
        return np.divide(1.0, shifted, out=np.zeros_like(shifted), where=known)
    return spectral.transfer(shifted, rates, time, continuous=continuous)


def rows_of(values: np.ndarray, num_rows: int) -> np.ndarray:
    """[n, k] float64, of n examples with k numbers each ([n] for one) that are N rows together.

    Raises:
        MismatchError: they are not N.
        InvalidArgumentError: one is not finite.
    """
    rows = np.asarray(values, np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.size != num_rows:
        raise errors.MismatchError(
            f"residuals or predictions of shape {np.shape(values)} beside a kernel of {num_rows} rows: expected [n, k] "
            f"with n k = {num_rows}"
        )
    if not np.isfinite(rows).all():
        raise errors.InvalidArgumentError("residuals or predictions are not finite; check weights, inputs and labels")
    return rows
