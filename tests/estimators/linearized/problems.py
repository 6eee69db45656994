"""Small linearised networks by explicit Jacobians, and their training written out in the weights."""

import dataclasses

import numpy as np
import scipy.linalg


@dataclasses.dataclass(frozen=True)
class Problem:
    """n training and m test examples of k outputs, by Jacobians.

    Attributes:
        jacobian: [n k, P].
        test_jacobian: [m k, P].
        initial, labels: [n, k].
        test_initial: [m, k].
    """

    jacobian: np.ndarray
    test_jacobian: np.ndarray
    initial: np.ndarray
    labels: np.ndarray
    test_initial: np.ndarray

    @property
    def residuals(self):
        return self.initial - self.labels

    @property
    def kernel(self):
        return self.jacobian @ self.jacobian.T

    @property
    def cross(self):
        return self.test_jacobian @ self.jacobian.T

    def rows(self, removed):
        """[n k] bool, the rows that stay."""
        keep = np.ones(self.labels.shape, bool)
        keep[list(removed)] = False
        return keep.ravel()

    def learning_rate(self, reach, l2, removed=3):
        """A rate with eta' (lambda_max + lam) = reach when `removed` examples are left out."""
        num = len(self.labels)
        return reach * (num - removed) / (np.linalg.eigvalsh(self.kernel)[-1] + num * l2)


def make(num=9, outputs=1, width=20, seed=0, duplicate=True, least=0.05):
    """Random Jacobians; examples 0 and 1 share one, so that the kernel is singular, and their labels differ.

    Columns are of lengths from 1 to `least`.
    """
    rng = np.random.default_rng(seed)
    jacobian = rng.normal(size=(num * outputs, width)) * np.geomspace(1, least, width)
    if duplicate:
        jacobian[outputs : 2 * outputs] = jacobian[:outputs]
    initial, labels = rng.normal(size=(2, num, outputs))
    return Problem(jacobian, rng.normal(size=(4 * outputs, width)), initial, labels, rng.normal(size=(4, outputs)))


# Singular by a duplicate; several outputs; fewer weights than rows; a kernel of full rank.
ALL = {
    "singular": lambda: make(),
    "three outputs": lambda: make(outputs=3, width=40, seed=1),
    "rank-deficient": lambda: make(12, 2, 7, seed=2),
    "full rank": lambda: make(duplicate=False, seed=3),
}


def gradient(problem, weights, l2, removed=(), convention="mean"):
    """Gradient by w - w0 of the loss that is descended, as each convention defines it; [P]."""
    num, left = len(problem.labels), len(problem.labels) - len(removed)
    keep = problem.rows(removed)
    jacobian = problem.jacobian[keep]
    pulled = jacobian.T @ (problem.residuals.ravel()[keep] + jacobian @ weights)
    if not len(removed) or convention == "mean":
        return pulled / left + l2 * weights
    if convention == "fixed":
        return pulled / num + l2 * weights
    return (pulled + num * l2 * weights) / (num - 1)


def descend(problem, learning_rate, l2, steps, removed=(), convention="mean"):
    """Gradient descent, step by step: w_t - w0 [P]."""
    weights = np.zeros(problem.jacobian.shape[1])
    for _ in range(steps):
        weights = weights - learning_rate * gradient(problem, weights, l2, removed, convention)
    return weights


def flow(problem, learning_rate, l2, time, removed=(), convention="mean"):
    """Gradient flow by the exponential of the matrix of dw/dt = -(M w + c): w_t - w0 [P]."""
    width = problem.jacobian.shape[1]
    constant = gradient(problem, np.zeros(width), l2, removed, convention)
    columns = [gradient(problem, unit, l2, removed, convention) - constant for unit in np.eye(width)]
    matrix = np.zeros((width + 1, width + 1))
    matrix[:width, :width], matrix[:width, width] = np.stack(columns, axis=1), constant
    return scipy.linalg.expm(-learning_rate * time * matrix)[:width, width]


def optimum(problem, l2, removed=(), convention="mean"):
    """The limit: w - w0 [P], of least norm where there are several."""
    num = len(problem.labels)
    lam = l2 * (num - len(removed) if convention == "mean" else num)
    keep = problem.rows(removed)
    jacobian, residuals = problem.jacobian[keep], problem.residuals.ravel()[keep]
    if l2 == 0:
        return -np.linalg.lstsq(jacobian, residuals, rcond=1e-12)[0]
    return -np.linalg.solve(jacobian.T @ jacobian + lam * np.eye(jacobian.shape[1]), jacobian.T @ residuals)
