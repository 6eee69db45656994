"""Linear networks as problems, and their training written out: gradient descent step by step in the weights."""

import numpy as np

from scripts.unique_information import linearised_problem


def jacobians(num_train=9, num_val=5, num_outputs=2, num_parameters=30, seed=0):
    generator = np.random.default_rng(seed)
    shapes = ((num_train, num_outputs, num_parameters), (num_val, num_outputs, num_parameters))
    return tuple(generator.normal(size=shape) / np.sqrt(num_parameters) for shape in shapes)


def problem(train, val, form="dual", seed=1):
    """The problem of Jacobians [n, k, P] and [m, k, P], with outputs and targets by chance."""
    generator = np.random.default_rng(seed)
    rows, others = (one.reshape(-1, one.shape[2]) for one in (train, val))
    arrays = {
        f"{name}_{what}": generator.normal(size=one.shape[:2])
        for name, one in (("train", train), ("val", val))
        for what in ("output", "target")
    }
    return linearised_problem.Problem(
        form=form,
        train_rows=rows @ rows.T if form == "dual" else rows,
        val_rows=others @ rows.T if form == "dual" else others,
        train_index=np.arange(len(train)) * 3 + 10,
        val_index=np.arange(len(val)),
        **arrays,
        accuracy=2.2e-16,
    )


def descend(train, residuals, learning_rate, num_steps, l2=0.0, left_out=(), parts=None):
    """W - w0 [P] after full-batch gradient descent on the mean loss of what is left.

    Args:
        train: [n, k, P].
        residuals: f0 - y [n, k].
        learning_rate: of the mean loss.
        num_steps: t.
        l2: of 1/2 |w - w0|^2.
        left_out: places.
        parts: [n, P], to which the movement along the gradients of each example is added.
    """
    kept = np.setdiff1d(np.arange(len(train)), left_out)
    weights = np.zeros(train.shape[2])
    for _ in range(num_steps):
        errors = residuals + train @ weights
        gradients = np.einsum("nkp,nk->np", train, errors)
        if parts is not None:
            parts[kept] -= learning_rate / len(kept) * gradients[kept]
        weights = weights - learning_rate * (gradients[kept].mean(axis=0) + l2 * weights)
    return weights
