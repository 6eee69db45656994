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
        tolerance: eigenvalues up to it count as 0 where a rank matters: what round-off may have made of a 0. A
            direction of such an eigenvalue moves no weight.
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
    def is_known(self) -> np.ndarray:
        """[N] bool, whether an eigenvalue lies above the tolerance."""
        return self.eigenvalues > self.tolerance

    @property
    def rank(self) -> int:
        """Number of eigenvalues above the tolerance."""
        return int(np.sum(self.is_known))


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
    size = np.abs(matrix.diagonal()).max()
    eigenvalues, eigenvectors = scipy.linalg.eigh(matrix, driver="evd", overwrite_a=True, check_finite=False)
    if eigenvalues[0] < -10 * len(matrix) * eps * max(float(eigenvalues[-1]), 0.0):
        raise errors.InvalidArgumentError(
            f"the kernel has the eigenvalue {eigenvalues[0]:.6g} (largest {eigenvalues[-1]:.6g}), which is more than "
            f"round-off of relative size {eps:.2g} below 0: a kernel J J^T has none; check how it was made, or give "
            "spectra.decompose the accuracy of its entries"
        )
    clipped = min(float(eigenvalues[0]), 0.0)
    tolerance = _round_off(float(size), float(eigenvalues[-1]), clipped, len(eigenvalues), eps)
    return Spectrum(np.maximum(eigenvalues, 0.0), eigenvectors, clipped, tolerance, eps)


def _round_off(size: float, largest: float, clipped: float, num_rows: int, eps: float) -> float:
    """How large round-off may make an eigenvalue that is 0.

    Independent errors of the entries, up to eps times the largest of them, `size`, move eigenvalues by up to about
    their root mean square times 2 sqrt(N); N times as much, which all in one direction would do, would discard most of
    a kernel of float32. The decomposition adds a few roundings of the largest eigenvalue. Errors of other kinds show in
    eigenvalues below 0, as far below as others are above.
    """
    expected = 4 * eps * np.sqrt(num_rows) * size + 4 * np.finfo(np.float64).eps * max(largest, 0.0)
    return float(max(expected, -2 * clipped))


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
