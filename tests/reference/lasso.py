"""The lasso by trying every pattern of signs, and its objective and duality gap as they are defined. Slow and obvious.

Objective: 1 / (2 n) |y - b - A w|^2 + penalty |w|_1, all in float64.
"""

import itertools

import numpy as np


def objective(mask, output, intercept, weight, penalty):
    residual = output - intercept - mask.astype(float) @ weight
    return residual @ residual / (2 * len(output)) + penalty * np.sum(np.abs(weight))


def by_enumeration(mask, output, penalty):
    """(intercept, weights [N]) with the least objective.

    For given signs the objective is a parabola in the weights that are not 0, whose minimum solves a linear system. The
    minimum over all weights has some pattern of signs and is the minimum of its parabola.
    """
    num_runs, num_train = mask.shape
    columns, centred = mask - mask.mean(axis=0), output - output.mean()
    best = (np.inf, None)
    for signs in itertools.product((-1, 0, 1), repeat=num_train):
        signs = np.array(signs)
        support = np.flatnonzero(signs)
        weight = np.zeros(num_train)
        if len(support):
            chosen = columns[:, support]
            right = chosen.T @ centred - num_runs * penalty * signs[support]
            weight[support] = np.linalg.lstsq(chosen.T @ chosen, right, rcond=None)[0]
        intercept = output.mean() - mask.mean(axis=0) @ weight
        value = objective(mask, output, intercept, weight, penalty)
        if value < best[0]:
            best = value, (intercept, weight)
    return best[1]


def relative_gap(mask, output, weight, penalty):
    """Primal less dual of n times the objective, over the square of the centred output; dense products only."""
    num_runs = len(output)
    columns, centred = mask - mask.mean(axis=0), output - output.mean()
    residual = centred - columns @ weight
    largest = np.max(np.abs(columns.T @ residual))
    point = residual * min(1, num_runs * penalty / largest)
    primal = residual @ residual / 2 + num_runs * penalty * np.sum(np.abs(weight))
    dual = centred @ centred / 2 - (centred - point) @ (centred - point) / 2
    return (primal - dual) / (centred @ centred)
