"""Singular values of dg/dx, for every normalisation g of the logits f, from G = J J^T of J = df/dx.

    dg/dx = S J,  (dg/dx) (dg/dx)^T = S G S^T,  singular values the square roots of its eigenvalues

with S of `normalisations.matrices`; no further pass through the network is made. In float64 throughout.
"""

import dataclasses

import numpy as np

from estimators import errors
from estimators.jacobian import normalisations

# Square root of the smallest float64 that adds to 1: eigenvalues of G below K times its square are rounding. And what
# rounding leaves of a singular value whose J came in float32.
_OF_SQUARES, _OF_SINGLE = 1.5e-8, 1e-7


@dataclasses.dataclass(frozen=True, eq=False)
class Spectra:
    """Singular values of the input Jacobians of N examples, and what follows from them.

    Attributes:
        singular_values: [N, Q] float64, descending; output units per unit of the input. Values below `resolution`
            times the first of their row are rounding.
        rank: how many of them can differ from zero: K - 1 for softmax and log-softmax.
        resolution: 1.5e-8 sqrt(K), and 1e-7 at least if J came in float32.
        squared_frobenius: [N] float64, the trace of the products, which has all digits.
    """

    singular_values: np.ndarray
    rank: int
    resolution: float
    squared_frobenius: np.ndarray

    @property
    def operator_norms(self) -> np.ndarray:
        """[N], largest singular value."""
        return self.singular_values[:, 0]

    @property
    def frobenius_norms(self) -> np.ndarray:
        """[N], root of the sum of squares."""
        return np.sqrt(self.squared_frobenius)

    @property
    def nuclear_norms(self) -> np.ndarray:
        """[N], sum of singular values."""
        return self.singular_values.sum(axis=1)

    @property
    def stable_ranks(self) -> np.ndarray:
        """[N], squared Frobenius over squared operator norm, from 1 to Q; NaN where the Jacobian is 0."""
        largest = np.square(self.operator_norms)
        return self.squared_frobenius / np.where(largest > 0, largest, np.nan)

    @property
    def num_resolved(self) -> np.ndarray:
        """[N] int64, how many of the first `rank` singular values stand above rounding."""
        values = self.singular_values
        return (values[:, : self.rank] > self.resolution * values[:, :1]).sum(axis=1)

    @property
    def condition_numbers(self) -> np.ndarray:
        """[N], largest over smallest of the first `rank` singular values; NaN where the smallest is rounding."""
        if self.rank == 0:
            return np.full(len(self.singular_values), np.nan)
        smallest = self.singular_values[:, self.rank - 1]
        return self.operator_norms / np.where(self.num_resolved >= self.rank, smallest, np.nan)


def of_gram(
    gram: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    normalisation: str = "none",
    *,
    target_logit_only: bool = False,
    itemsize: int = 4,
) -> Spectra:
    """Spectra of normalised logits from the products of Jacobians of logits; noisy and clean labels alike.

    Args:
        gram: [N, K, K], J J^T.
        logits: [N, K].
        labels: [N] class numbers, of the cross-entropy and of the label's entry.
        normalisation: name in `normalisations.NAMES`.
        target_logit_only: of the label's own entry.
        itemsize: bytes of the numbers that J was computed in, 4 or 8, for what counts as rounding.

    Returns:
        The spectra; K^3 operations an example.

    Raises:
        InvalidArgumentError: the normalisation is unknown or a label cannot be.
        MismatchError: shapes differ.
    """
    gram, logits = np.asarray(gram, np.float64), np.asarray(logits)
    if gram.shape != (*logits.shape, logits.shape[1]) or len(labels) != len(logits):
        raise errors.MismatchError(
            f"products of shape {gram.shape} beside logits {logits.shape} and {len(labels)} labels: expected "
            "[N, K, K], [N, K] and [N]"
        )
    labels = normalisations.check_labels(labels, logits.shape[1])
    slopes = normalisations.matrices(normalisation, logits, labels, target_logit_only)
    products = slopes @ gram @ slopes.transpose(0, 2, 1)
    # Rounding makes eigenvalues of positive semidefinite matrices negative where they are zero.
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(products)[:, ::-1], 0.0))
    rank = normalisations.rank(normalisation, logits.shape[1], target_logit_only)
    squared = np.maximum(np.trace(products, axis1=1, axis2=2), 0.0)
    resolution = max(_OF_SQUARES * np.sqrt(logits.shape[1]), _OF_SINGLE if itemsize < 8 else 0.0)
    return Spectra(values, rank, resolution, squared)
