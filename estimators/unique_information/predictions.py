"""Unique information in predictions, stability of training, and signed effects of leaving out.

All changes are without minus with the group: df = f_{-i} - f. A positive change of a loss: the network is worse
without the group.
"""

import dataclasses

import numpy as np

from estimators import errors
from estimators.linearized import dynamics, solutions
from estimators.unique_information import results


def functional(removed: solutions.LeaveOut, cross: np.ndarray, *, sigma: float) -> results.UniqueInformation:
    """F-SI_i = 1 / (2 sigma^2) (1/m) sum_j |df*_j|^2, nats, averaged over m examples.

    Functional sample information of Harutyunyan et al. (ICLR 2021); equal to dw^T F dw / (2 sigma^2) with
    F = J*^T J* / m.

    Args:
        removed: solutions without each group.
        cross: K* [m k, N] in dual form, test features [m k, D] in primal form.
        sigma: standard deviation of the noise of every predicted output, > 0.

    Returns:
        The scores; `squared_norms` are means over examples of |df*|^2. m k N operations for each group.

    Raises:
        InvalidArgumentError: sigma is not above 0, or a number of `cross` is not finite.
        MismatchError: `cross` does not fit the solutions, or has no rows.
    """
    results.check_positive("sigma", sigma)
    squared = removed.squared_prediction_changes(cross) * removed.num_outputs / len(cross)
    return results.UniqueInformation(
        nats=squared / (2 * sigma**2),
        squared_norms=squared,
        groups=removed.groups,
        measure="predictions",
        formula="mean over examples of |df*|^2 / (2 sigma^2)",
        squared_norm="change of the predictions of an example, mean over examples",
        config=results.config(removed, sigma=sigma, num_test=len(cross) // removed.num_outputs),
    )


def train_prediction_stability(removed: solutions.LeaveOut, *, sigma: float) -> results.UniqueInformation:
    """1 / (2 sigma^2) (1/n) sum_j |df_j|^2 over all n training examples, nats; the group's own are among them.

    Args:
        removed: solutions without each group.
        sigma: standard deviation of the noise of every predicted output, > 0.

    Returns:
        The scores; `squared_norms` are means over training examples of |df|^2.

    Raises:
        InvalidArgumentError: sigma is not above 0.
    """
    found = functional(removed, removed.train_rows, sigma=sigma)
    return dataclasses.replace(
        found,
        measure="training predictions",
        formula="mean over training examples of |df|^2 / (2 sigma^2)",
        squared_norm="change of the predictions of a training example, mean over them",
    )


@dataclasses.dataclass(frozen=True, eq=False)
class LossChanges:
    """Changes of 1/2 |f - y|^2, without minus with the group.

    Attributes:
        mean: [G] float64, over all examples: positive where the network is worse without the group.
        mean_absolute: [G] float64, mean over examples of the absolute change: how unstable losses are.
        others: [G] float64, the mean over the examples outside the group; for test examples NaN.
        own: [G] float64, the mean over the group's own examples: linearised memorization in the loss; for test
            examples NaN.
        groups: positions of the examples of each group.
    """

    mean: np.ndarray
    mean_absolute: np.ndarray
    others: np.ndarray
    own: np.ndarray
    groups: tuple[np.ndarray, ...]


def train_loss_stability(removed: solutions.LeaveOut, residuals: np.ndarray) -> LossChanges:
    """Changes of the losses of training examples.

    Args:
        removed: solutions without each group.
        residuals: f_t - y [n, k] with all examples, at the time of the solutions (`dynamics.Dynamics.residuals`).

    Returns:
        The changes; N^2 operations for each group.

    Raises:
        MismatchError: residuals of another number.
    """
    changes = _each_loss_change(removed, removed.train_rows, residuals)
    means = np.zeros((2, len(removed.groups)))
    for place, group in enumerate(removed.groups):
        own = changes[place, group]
        means[:, place] = own.mean(), (changes[place].sum() - own.sum()) / (removed.num_train - len(group))
    return LossChanges(changes.mean(axis=1), np.abs(changes).mean(axis=1), means[1], means[0], removed.groups)


def loss_changes(removed: solutions.LeaveOut, cross: np.ndarray, residuals: np.ndarray) -> LossChanges:
    """Changes of the losses of other examples.

    Args:
        removed: solutions without each group.
        cross: see `functional`.
        residuals: f*_t - y* [m, k] with all training examples, at the time of the solutions.

    Raises:
        InvalidArgumentError: a number is not finite.
        MismatchError: shapes do not agree, or there is no example.
    """
    changes = _each_loss_change(removed, cross, residuals)
    nothing = np.full(len(removed.groups), np.nan)
    return LossChanges(changes.mean(axis=1), np.abs(changes).mean(axis=1), nothing, nothing, removed.groups)


def _each_loss_change(removed: solutions.LeaveOut, cross: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """[G, m], res . df + 1/2 |df|^2."""
    rows = dynamics.rows_of(residuals, len(cross))
    if rows.shape[1] != removed.num_outputs:
        raise errors.MismatchError(
            f"residuals of shape {np.shape(residuals)}: expected {removed.num_outputs} outputs an example"
        )
    found = np.empty((len(removed.groups), len(rows)))
    for part, changes in removed.prediction_changes(cross):
        found[part] = np.sum(rows * changes + changes**2 / 2, axis=2)
    return found


def self_effects(removed: solutions.LeaveOut) -> list[np.ndarray]:
    """Changes df of the group's own examples, (K da)_i: linearised memorization, in units of the outputs.

    Positive: the output would be larger had the group been left out. For a group that the network fits, it points
    back from the label to where the others would predict it.

    Args:
        removed: solutions without each group.

    Returns:
        [g, k] for each group. N g k operations for each.
    """
    return removed.own_prediction_changes()


def effects(removed: solutions.LeaveOut, cross: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """df* of every example and output, signed, without minus with the group, in units of the outputs.

    Args:
        removed: solutions without each group.
        cross: see `functional`.
        out: [G, m, k] floats to fill, such as a memory map; None for a new array.

    Returns:
        [G, m, k]; float64 if new.

    Raises:
        InvalidArgumentError: a number of `cross` is not finite.
        MismatchError: `cross` does not fit the solutions, or `out` the result: it has another shape, or cannot be
            written or hold floats.
    """
    shape = (len(removed.groups), len(cross) // removed.num_outputs, removed.num_outputs)
    found = np.empty(shape) if out is None else out
    if found.shape != shape or not np.issubdtype(found.dtype, np.floating) or not found.flags.writeable:
        raise errors.MismatchError(
            f"out of shape {found.shape} and dtype {found.dtype} (writeable: {found.flags.writeable}): expected a "
            f"writeable array of floats {shape}"
        )
    for part, changes in removed.prediction_changes(cross):
        found[part] = changes
    return found
