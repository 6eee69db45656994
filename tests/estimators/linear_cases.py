"""Models whose leave-one-out effects are known in closed form, or by quick refits."""

import dataclasses

import numpy as np
import sklearn.datasets
import tensorflow as tf

from estimators import targets


@dataclasses.dataclass(frozen=True)
class Ridge:
    """(1/n) sum 1/2 e_i^2 + lam/2 |theta|^2 at its minimum, in float64.

    Attributes:
        target: measuring the output.
        x, y: [n, 5], [n] training examples.
        x_test, y_test: [3, 5], [3].
        decay: lam.
        theta: [5].
    """

    target: targets.Target
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    decay: float
    theta: np.ndarray

    @property
    def hessian(self):
        """[5, 5]."""
        return self.x.T @ self.x / len(self.x) + self.decay * np.eye(5)

    def without(self, positions, *, rescale=False):
        """Parameters of the fit without some examples; 1/n is kept or is that of the examples left."""
        left = np.delete(np.arange(len(self.x)), positions)
        n = len(left) if rescale else len(self.x)
        matrix = self.x[left].T @ self.x[left] / n + self.decay * np.eye(5)
        return np.linalg.solve(matrix, self.x[left].T @ self.y[left] / n)


def ridge(num=12, decay=0.3):
    """A ridge regression."""
    rng = np.random.default_rng(0)
    x, x_test = rng.normal(size=(num, 5)), rng.normal(size=(3, 5))
    y, y_test = rng.normal(size=num) + x[:, 0], rng.normal(size=3)
    theta = np.linalg.solve(x.T @ x / num + decay * np.eye(5), x.T @ y / num)
    module = tf.Module()
    module.w = tf.Variable(theta[:, None])
    target = targets.of(
        module, loss="squared_error", measured="output", weight_decay=decay, predict=lambda x: x @ module.w
    )
    return Ridge(target, x, y, x_test, y_test, decay, theta)


def intercepts():
    """Softmax regression of an intercept alone, counts 5, 3, 2: (target, train, one test example of each class)."""
    module = tf.Module()
    module.b = tf.Variable(np.log([0.5, 0.3, 0.2]))
    target = targets.of(module, predict=lambda x: x @ tf.ones([1, 1], tf.float64) * module.b)
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    return target, (np.ones((10, 1)), labels), (np.ones((3, 1)), np.arange(3))


def logistic_fit(x, y, decay, num=None, start=None):
    """Weights [D] of logistic regression (1/num) sum losses + decay/2 |w|^2 by Newton's method."""
    num = num or len(x)
    w = np.zeros(x.shape[1]) if start is None else start.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ w))
        step = np.linalg.solve(
            (x.T * (p * (1 - p))) @ x / num + decay * np.eye(x.shape[1]), x.T @ (p - y) / num + decay * w
        )
        w -= step
        if np.abs(step).max() < 1e-12:
            return w
    raise AssertionError("Newton's method did not converge")


def logistic(num=300, num_test=50, decay=0.01):
    """Digits 3 and 8: (target, (x, y [N, 1]), test, weights)."""
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    chosen = np.random.default_rng(1).permutation(np.flatnonzero((labels == 3) | (labels == 8)))[: num + num_test]
    x = np.concatenate([images[chosen] / 16, np.ones((len(chosen), 1))], axis=1)
    y = (labels[chosen] == 8).astype(np.float64)
    weights = logistic_fit(x[:num], y[:num], decay)
    module = tf.Module()
    module.w = tf.Variable(weights[:, None])
    target = targets.of(
        module,
        loss="binary_cross_entropy",
        measured=lambda predictions, labels: predictions[:, 0],
        weight_decay=decay,
        predict=lambda x: x @ module.w,
    )
    return target, (x[:num], y[:num, None]), (x[num:], y[num:, None]), weights
