"""Unique information in the weights of a linearised network, by noise that does not depend on the data."""

import math

from estimators import errors
from estimators.linearized import solutions
from estimators.unique_information import results


def isotropic(removed: solutions.LeaveOut, *, sigma: float) -> results.UniqueInformation:
    """SI_i = |dw_i|^2 / (2 sigma^2), nats: divergence of N(w_{-i}, sigma^2 I) and N(w, sigma^2 I).

    Smooth unique information of Harutyunyan et al. (ICLR 2021) with Sigma = sigma^2 I. In dual form |dw|^2 = da^T K da.

    Args:
        removed: solutions without each group.
        sigma: standard deviation of the noise of every weight, > 0, in units of the weights.

    Returns:
        The scores; `squared_norms` are |dw|^2. N^2 operations for each group in dual form.

    Raises:
        InvalidArgumentError: sigma is not above 0.
    """
    results.check_positive("sigma", sigma)
    squared = removed.squared_weight_changes()
    return results.UniqueInformation(
        nats=squared / (2 * sigma**2),
        squared_norms=squared,
        groups=removed.groups,
        measure="weights, isotropic",
        formula="|dw|^2 / (2 sigma^2)",
        squared_norm="change of the weights",
        config=results.config(removed, sigma=sigma),
    )


def langevin(removed: solutions.LeaveOut, *, sigma: float, batch_size: int) -> results.UniqueInformation:
    """SI_i = b / (learning_rate sigma^2) dw_i^T H dw_i, nats, with H = (J^T J + lam I) / n.

    1/2 dw^T Sigma^-1 dw with the stationary covariance Sigma = learning_rate sigma^2 / (2 b) H^-1 of stochastic
    gradient descent whose gradients have the covariance sigma^2 / b times the identity (Harutyunyan et al., 2021).

    Args:
        removed: solutions without each group.
        sigma: standard deviation of the gradient noise of one example, > 0.
        batch_size: b, 1 or more.

    Returns:
        The scores; `squared_norms` are n dw^T H dw = |df|^2 + lam |dw|^2, df being changes of training predictions.
        N^2 operations for each group.

    Raises:
        InvalidArgumentError: sigma is not above 0, or the batch size no whole number from 1 up.
    """
    results.check_positive("sigma", sigma)
    if not (math.isfinite(batch_size) and batch_size >= 1 and float(batch_size).is_integer()):
        raise errors.InvalidArgumentError(f"batch_size {batch_size}: must be a whole number from 1 up")
    lam = removed.descent.rates(removed.num_train).lam
    squared = removed.squared_prediction_changes(removed.train_rows) + lam * removed.squared_weight_changes()
    constant = batch_size / (removed.descent.learning_rate * sigma**2 * removed.num_train)
    return results.UniqueInformation(
        nats=constant * squared,
        squared_norms=squared,
        groups=removed.groups,
        measure="weights, Langevin",
        formula="b / (learning_rate sigma^2) dw^T H dw, H = (J^T J + lam I) / n",
        squared_norm="|df|^2 + lam |dw|^2 = n dw^T H dw",
        config=results.config(removed, sigma=sigma, batch_size=batch_size),
    )
