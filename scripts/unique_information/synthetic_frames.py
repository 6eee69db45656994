"""A linearised network of points in the plane, at several times: scores of the points and predictions on a grid.

Everything comes from three kernels of the network at its first weights: between training points, of validation with
training points, and of the grid with training points; no TensorFlow.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from estimators.linearized import descents, dynamics, leave_out, spectra
from estimators.unique_information import predictions, weights
from heldout.training import leave_out_data
from scripts.attribution import named_errors
from zoo import errors, files, npz

SCHEMA_VERSION = 1
# Around the points, as a share of their extent.
_MARGIN = 0.15


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
    """T moments of the training of n points.

    Attributes:
        step: int64 [T], ascending.
        train_index: int64 [n].
        point: float64 [n, 2].
        train_label: int64 [n], trained with.
        clean_train_label: int64 [n].
        grid: float64 [2, G], the coordinates of a grid along x and y.
        grid_prediction: float64 [T, G, G], f_t at [y, x]; 1/2 is the boundary.
        train_prediction: float64 [T, n].
        weights: float64 [T, n], |dw|^2 / 2: the information in the weights, in nats, for noise of 1.
        predictions: float64 [T, n], mean of |df|^2 / 2 over validation points: that in predictions.
        change_error: largest measured relative error of the changes of weights.
    """

    step: np.ndarray
    train_index: np.ndarray
    point: np.ndarray
    train_label: np.ndarray
    clean_train_label: np.ndarray
    grid: np.ndarray
    grid_prediction: np.ndarray
    train_prediction: np.ndarray
    weights: np.ndarray
    predictions: np.ndarray
    change_error: np.ndarray


def points(data: leave_out_data.LeaveOutData) -> np.ndarray:
    """The training points [n, 2], float64.

    Raises:
        InvalidValueError: they are none, or not of two classes.
    """
    inputs = data.train_inputs.reshape(len(data.train_inputs), -1).astype(np.float64)
    if inputs.shape[1] != 2 or data.num_outputs != 1:
        shape, num_classes = data.image_shape, max(2, data.num_outputs)
        raise errors.InvalidValueError(
            f"--dataset: has images of {' x '.join(map(str, shape))} in {num_classes} classes, expected points of two "
            "numbers in two classes, as --dataset=gaussians has them"
        )
    return inputs


def grid_around(point: np.ndarray, size: int) -> np.ndarray:
    """Coordinates [2, size] of a grid around points [n, 2]."""
    low, high = point.min(axis=0), point.max(axis=0)
    margin = _MARGIN * np.maximum(high - low, 1e-6)
    return np.stack([np.linspace(a, b, size) for a, b in zip(low - margin, high + margin, strict=True)])


def compute(
    kernel: np.ndarray,
    residuals: np.ndarray,
    val_kernel: np.ndarray,
    descent: descents.GradientDescent,
    steps: Sequence[int],
) -> tuple[dict[str, np.ndarray], dynamics.Dynamics]:
    """Scores of the points at each step.

    Args:
        kernel: K [n, n].
        residuals: f0 - y [n, 1].
        val_kernel: K* [m, n].
        descent: settings.
        steps: ascending.

    Returns:
        weights and predictions, [T, n] each, with change_error; and the dynamics of the same kernel.

    Raises:
        InvalidValueError: the steps diverge.
    """
    with named_errors.translated():
        spectrum = spectra.decompose(kernel)
        _check_steps(descent, spectrum.largest, len(kernel))
        trained = dynamics.Dynamics(spectrum, residuals, descent)
        removed = [leave_out.solve(kernel, residuals, descent, step, spectrum=spectrum) for step in steps]
        scores = {
            "weights": np.stack([weights.isotropic(one, sigma=1.0).nats for one in removed]),
            "predictions": np.stack([predictions.functional(one, val_kernel, sigma=1.0).nats for one in removed]),
        }
    errors_found = np.array([one.check.change_error for one in removed])
    return scores | {"change_error": np.max(errors_found)}, trained


def _check_steps(descent: descents.GradientDescent, largest: float, num_train: int) -> None:
    """Refuses steps that diverge with all points or without one of them, in the words of flags."""
    rates = (descent.rates(num_train), descent.without(num_train, 1, "mean"))
    reach = max(one.eta * (largest + one.lam) for one in rates)
    if not reach < 2:
        rate = descent.learning_rate
        raise errors.InvalidValueError(
            f"--learning_rate={rate:g}: steps of the linearised network diverge. Its largest eigenvalue is "
            f"{largest:.6g}, so that learning_rate / n times (eigenvalue + n l2) is {reach:.4g} and must be below 2; "
            f"take a rate below {2 * rate / reach:.4g}"
        )


def write(path: files.PathLike, frames: Frames) -> None:
    """Writes an npz file, whole or not at all."""
    members = {field.name: np.asarray(getattr(frames, field.name)) for field in dataclasses.fields(frames)}
    npz.write(path, {"schema_version": np.asarray(SCHEMA_VERSION), **members})


def read(path: files.PathLike) -> Frames:
    """What `write` wrote.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is unsound.
    """
    names = [field.name for field in dataclasses.fields(Frames)]
    stored = npz.read(path, ["schema_version", *names])
    if stored.pop("schema_version") != SCHEMA_VERSION:
        raise errors.DamagedFileError(f"{path}: of another schema version than {SCHEMA_VERSION}. {npz.REPAIR}")
    return Frames(**stored)
