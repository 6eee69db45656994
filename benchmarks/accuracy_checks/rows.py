"""One line of the table of accuracies."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Row:
    """What was compared, and how it came out.

    Attributes:
        quantity: what an estimator gave.
        truth: what it was held against.
        num_cases: models, settings or refits that were compared.
        figure: largest error, or the correlation.
        dtype: that the estimator computed in.
        bound: what the figure must not exceed; of a correlation, what it must reach.
        is_correlation: whether the figure is one.
    """

    quantity: str
    truth: str
    num_cases: int
    figure: float
    dtype: str
    bound: float
    is_correlation: bool = False

    @property
    def passes(self) -> bool:
        """Whether the figure keeps to the bound; one that is no number does not."""
        return self.figure >= self.bound if self.is_correlation else self.figure <= self.bound


def errors(
    quantity: str, truth: str, dtype: str, bound: float, *pairs: tuple[Any, Any], num_cases: int | None = None
) -> Row:
    """A row of the largest |found - true| over the largest |true| of its pair.

    Args:
        quantity: of the row.
        truth: of the row.
        dtype: of the row.
        bound: of the row.
        *pairs: (found, true) arrays.
        num_cases: by default the number of pairs.
    """
    return Row(quantity, truth, num_cases or len(pairs), largest_error(pairs), dtype, bound)


def largest_error(pairs: Sequence[tuple[Any, Any]]) -> float:
    """Over all pairs (found, true), relative to the largest true number; infinite if shapes differ."""
    largest = 0.0
    for found, true in pairs:
        found, true = np.asarray(found, np.float64), np.asarray(true, np.float64)
        if found.shape != true.shape or not np.isfinite(found).all():
            return np.inf
        largest = max(largest, float(np.abs(found - true).max() / np.abs(true).max()))
    return largest


def correlation(quantity: str, truth: str, dtype: str, bound: float, found: Any, true: Any, num_cases: int) -> Row:
    """A row of the Pearson correlation of two arrays."""
    figure = float(np.corrcoef(np.ravel(found), np.ravel(true))[0, 1])
    return Row(quantity, truth, num_cases, figure, dtype, bound, is_correlation=True)
