"""How long the training of a linearised network follows the true one."""

import dataclasses

import numpy as np

from estimators import errors


@dataclasses.dataclass(frozen=True, eq=False)
class Agreement:
    """Predicted beside true predictions at T times.

    Attributes:
        times: [T], ascending.
        relative_errors: [T] float64, |predicted - true| / |true - initial| over all examples and outputs; NaN where
            neither has changed or one is not finite, infinite where only the prediction has changed.
        example_errors: [T, n] float64, the same for each example.
        correlations: [T] float64, Pearson, between predicted and true changes; NaN where one is constant.
        tolerance: what counts as following.
        holds_until: the last time up to which no relative error is above the tolerance, and all predictions are
            finite; NaN if there is none.
    """

    times: np.ndarray
    relative_errors: np.ndarray
    example_errors: np.ndarray
    correlations: np.ndarray
    tolerance: float
    holds_until: float


def compare(
    times: np.ndarray, predicted: np.ndarray, true: np.ndarray, initial: np.ndarray, *, tolerance: float = 0.1
) -> Agreement:
    """Compares predictions of the linearised network with those of the network that was trained.

    Args:
        times: [T], ascending: steps after which predictions were taken.
        predicted: [T, n, k] (or [T, n]), of the linearised network, see `dynamics.Dynamics.train_predictions`.
        true: of the same shape, of the network itself.
        initial: [n, k] (or [n]), of both before training.
        tolerance: relative error that counts as following, > 0.

    Returns:
        The agreement.

    Raises:
        MismatchError: shapes do not agree.
        InvalidArgumentError: times do not ascend, or the tolerance is not above 0.
    """
    times, predicted, true = np.asarray(times), np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    initial = np.asarray(initial, np.float64)
    if predicted.shape != true.shape or true.shape != (len(times), *initial.shape) or initial.ndim not in (1, 2):
        raise errors.MismatchError(
            f"predicted {predicted.shape} and true {true.shape} at {len(times)} times from initial {initial.shape}: "
            "expected [T, n, k] twice and [n, k]"
        )
    if not len(times) or np.any(np.diff(times) <= 0):
        raise errors.InvalidArgumentError(f"times {times}: expected at least one, in ascending order")
    if not tolerance > 0:
        raise errors.InvalidArgumentError(f"tolerance {tolerance}: must be above 0")
    # Training that diverges ends in infinities, and in NaN where they are subtracted: it is not followed.
    with np.errstate(invalid="ignore", over="ignore"):
        return _compared(times, predicted, true, initial, tolerance)


def _compared(
    times: np.ndarray, predicted: np.ndarray, true: np.ndarray, initial: np.ndarray, tolerance: float
) -> Agreement:
    apart = (predicted - true).reshape(len(times), len(initial), -1)
    moved = (true - initial).reshape(apart.shape)
    foreseen = (predicted - initial).reshape(apart.shape)
    whole = _ratio(np.linalg.norm(apart, axis=(1, 2)), np.linalg.norm(moved, axis=(1, 2)))
    # Before anything has moved, nothing disagrees.
    failed = np.flatnonzero(~(whole <= tolerance) & np.any(apart != 0, axis=(1, 2)))
    last = len(times) - 1 if not failed.size else failed[0] - 1
    return Agreement(
        times=times,
        relative_errors=whole,
        example_errors=_ratio(np.linalg.norm(apart, axis=2), np.linalg.norm(moved, axis=2)),
        correlations=np.array([_pearson(a.ravel(), b.ravel()) for a, b in zip(foreseen, moved, strict=True)]),
        tolerance=tolerance,
        holds_until=float(times[last]) if last >= 0 else float("nan"),
    )


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    found = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
    return np.where((below == 0) & (above > 0), np.inf, found)


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = np.linalg.norm(first) * np.linalg.norm(second)
    return float(first @ second / size) if size > 0 else float("nan")
