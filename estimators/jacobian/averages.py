"""One number for each example from values at it and around it.

Values [N, M, A + 1] are f_0 at the example itself, then f_1 .. f_A along each of M directions; lengths [N, M, A] are
d_a, from point a to point a + 1 (see `places`).

    euclidean    mean over directions and points of (f_0 + f_a) / 2
    path         sum_a (f_a + f_{a+1}) / 2 d_a / sum_a d_a       trapezoids along each path, then the mean of paths
    cumulative   the same up to each point
    raw          the values and lengths themselves
"""

import dataclasses

import numpy as np

from estimators import errors

NAMES = ("euclidean", "path", "cumulative", "raw")


@dataclasses.dataclass(frozen=True, eq=False)
class Average:
    """Averages of N examples.

    Attributes:
        values: [N] float64, or [N, A] for "cumulative"; NaN where no path has a length.
        standard_errors: the same shape, over directions; NaN with fewer than two of them. They are errors of a Monte
            Carlo estimate where directions are random draws, and only a measure of spread where they are chosen.
        num_paths: the same shape, int64, directions that count: a path of length 0, as of a shifted image of one
            colour, has no average.
        quadrature_errors: the same shape, |average - average by every second point|, the mean over paths: an
            indication of what the trapezoids miss, no bound. NaN with fewer than two steps, and for "euclidean".
    """

    values: np.ndarray
    standard_errors: np.ndarray
    num_paths: np.ndarray
    quadrature_errors: np.ndarray


def euclidean(values: np.ndarray) -> Average:
    """Mean over all points of (f_0 + f_a) / 2: of a line from the example to each, by one trapezoid.

    Raises:
        MismatchError: values are not [N, M, A + 1] with A from 1 up.
    """
    values = _checked(values)
    lines = (values[:, :, :1] + values[:, :, 1:]) / 2
    return _over_directions(lines.mean(axis=2), np.full(len(values), np.nan))


def path(values: np.ndarray, lengths: np.ndarray) -> Average:
    """Average along whole paths.

    Raises:
        MismatchError: shapes differ.
    """
    found = cumulative(values, lengths)
    return Average(
        found.values[:, -1], found.standard_errors[:, -1], found.num_paths[:, -1], found.quadrature_errors[:, -1]
    )


def cumulative(values: np.ndarray, lengths: np.ndarray) -> Average:
    """Average from the example to each of the A points.

    Raises:
        MismatchError: shapes differ.
    """
    values, lengths = _checked(values), np.asarray(lengths, np.float64)
    if lengths.shape != (*values.shape[:2], values.shape[2] - 1):
        raise errors.MismatchError(
            f"lengths of shape {lengths.shape} beside values {values.shape}: expected one for each step"
        )
    found = [_path(values[:, :, : a + 2], lengths[:, :, : a + 1]) for a in range(lengths.shape[2])]
    return Average(
        *(np.stack([getattr(one, field.name) for one in found], axis=1) for field in dataclasses.fields(Average))
    )


def _path(values: np.ndarray, lengths: np.ndarray) -> Average:
    averages = _trapezoids(values, lengths)
    num = lengths.shape[2]
    differences = np.full(averages.shape, np.nan)
    if num > 1:
        # Every second point, and the last.
        kept = np.unique([*range(0, num + 1, 2), num])
        positions = np.concatenate([np.zeros((*lengths.shape[:2], 1)), np.cumsum(lengths, axis=2)], axis=2)
        coarse = _trapezoids(values[:, :, kept], np.diff(positions[:, :, kept], axis=2))
        differences = np.abs(averages - coarse)
    return _over_directions(averages, _mean(differences)[0])


def _trapezoids(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[N, M]; NaN where a path has no length."""
    total = lengths.sum(axis=2)
    integrals = ((values[:, :, :-1] + values[:, :, 1:]) / 2 * lengths).sum(axis=2)
    return integrals / np.where(total > 0, total, np.nan)


def _over_directions(averages: np.ndarray, quadrature_errors: np.ndarray) -> Average:
    values, num = _mean(averages)
    squares = np.nansum(np.square(averages - values[:, None]), axis=1)
    standard_errors = np.sqrt(squares / np.where(num > 1, num - 1, np.nan) / np.where(num > 0, num, np.nan))
    return Average(values, standard_errors, num, quadrature_errors)


def _mean(averages: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean of the numbers of each row, how many there are)."""
    num = np.isfinite(averages).sum(axis=1)
    return np.nansum(averages, axis=1) / np.where(num > 0, num, np.nan), num


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 3 or values.shape[2] < 2:
        raise errors.MismatchError(
            f"values of shape {values.shape}: expected [N, M, A + 1], the example first and at least one point after it"
        )
    return values
