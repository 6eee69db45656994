"""Eigenvalues and eigenvectors of a kernel or Gram matrix, float64, on the host."""

import dataclasses

import numpy as np
import scipy.linalg

from estimators import errors


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """K = U diag(eigenvalues) U^T.

    Attributes:
        eigenvalues: [N] float64, ascending, >= 0.
        eigenvectors: [N, N] float64, U.
        clipped: the most negative eigenvalue that was found and set to 0 as round-off; 0 if there was none.
        tolerance: eigenvalues up to it count as 0 where a rank matters.
        accuracy: relative accuracy of the kernel's entries.
    """

    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    clipped: float
    tolerance: float
    accuracy: float

    @property
    def largest(self) -> float:
        """The largest eigenvalue."""
        return float(self.eigenvalues[-1])

    @property
    def rank(self) -> int:
        """Number of eigenvalues above the tolerance."""
        return int(np.sum(self.eigenvalues > self.tolerance))


def decompose(kernel: np.ndarray, *, accuracy: float | None = None) -> Spectrum:
    """The spectrum of a symmetric matrix without negative eigenvalues.

    Args:
        kernel: [N, N], float32 or float64, symmetric to round-off; its symmetric part is taken.
        accuracy: relative accuracy of its entries; None for that of its dtype. Give that of float32 (1.2e-7) for a
            kernel that was computed in float32 and stored in float64.

    Returns:
        The spectrum; about 9 N^3 operations and three matrices of float64.

    Raises:
        InvalidArgumentError: not square, not finite, not symmetric, or an eigenvalue is negative beyond round-off.
    """
    kernel = np.asarray(kernel)
    is_float = np.issubdtype(kernel.dtype, np.floating)
    eps = float(np.finfo(kernel.dtype if is_float else np.float64).eps) if accuracy is None else accuracy
    matrix = _checked(kernel, eps)
    eigenvalues, eigenvectors = scipy.linalg.eigh(matrix, driver="evd", overwrite_a=True, check_finite=False)
    # Rounding of the entries moves eigenvalues by as much as the matrix of roundings is large.
    round_off = 10 * len(matrix) * eps * max(float(eigenvalues[-1]), 0.0)
    if eigenvalues[0] < -round_off:
        raise errors.InvalidArgumentError(
            f"the kernel has the eigenvalue {eigenvalues[0]:.6g} (largest {eigenvalues[-1]:.6g}), which is more than "
            f"round-off of relative size {eps:.2g} below 0: a kernel J J^T has none; check how it was made, or give "
            "spectra.decompose the accuracy of its entries"
        )
    clipped = min(float(eigenvalues[0]), 0.0)
    return Spectrum(np.maximum(eigenvalues, 0.0), eigenvectors, clipped, round_off, eps)


def _checked(kernel: np.ndarray, eps: float) -> np.ndarray:
    """[N, N] float64, a copy that is symmetric."""
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not len(kernel):
        raise errors.InvalidArgumentError(f"kernel of shape {kernel.shape}: expected [N, N] with N = n k")
    exact = kernel.astype(np.float64)
    size = float(np.abs(exact).max())
    if not np.isfinite(size):
        raise errors.InvalidArgumentError("the kernel has entries that are not finite; check weights and inputs")
    apart = float(np.abs(exact - exact.T).max())
    if apart > 1e3 * eps * size:
        raise errors.InvalidArgumentError(
            f"the kernel is not symmetric: entries differ from the transposed ones by up to {apart:.3g} of "
            f"{size:.3g}; check how it was made, or give spectra.decompose the accuracy of its entries"
        )
    return (exact + exact.T) / 2
