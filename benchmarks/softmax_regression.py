"""Softmax regression at its optimum, and refitted without single examples: truth for the estimators, in float64.

The objective over weights W [D, K], the bias being a feature of ones that decays likewise, is

    (1/n) sum_i l_i(W) + 1/2 lambda |W|^2,    l_i = -log softmax(W^T x_i)_{y_i}

Nothing of `estimators` is used. Whether a fit is exact is told by the norm of its gradient alone: the objective is
strongly convex, so that |W - W*| <= |gradient| / lambda. Inverses of the Hessian only make steps good.
"""

from collections.abc import Callable
import dataclasses

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special

# Logits of all fits that are there at a time.
_ELEMENTS = 2**21


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Examples and weight decay.

    Attributes:
        features: [n, D] float64, with a column of ones for a bias.
        labels: [n] integers below K.
        num_classes: K.
        decay: lambda, above 0.
    """

    features: np.ndarray
    labels: np.ndarray
    num_classes: int
    decay: float

    def gradients(self, weights: np.ndarray, left_out: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Objective [F] and its gradients [F, D, K] at weights [F, D, K], each without one example, 1/n being kept.

        Args:
            weights: of F fits.
            left_out: [F] positions of the examples that are left out; None to keep all.
        """
        num, (num_fits, size, num_classes) = len(self.labels), weights.shape
        flat = weights.transpose(1, 0, 2).reshape(size, -1)
        values, slopes = np.zeros(num_fits), np.zeros_like(flat)
        height = max(1, _ELEMENTS // flat.shape[1])
        for start in range(0, num, height):
            rows = np.arange(start, min(start + height, num))
            some = self.features[start : rows[-1] + 1]
            losses, errors = _slopes(some @ flat, self.labels[rows], num_classes)
            if left_out is not None:
                fits = np.flatnonzero((left_out >= start) & (left_out <= rows[-1]))
                losses[left_out[fits] - start, fits] = 0.0
                errors[left_out[fits] - start, fits] = 0.0
            values += losses.sum(axis=0)
            slopes += some.T @ errors.reshape(len(rows), -1)
        gradients = slopes.reshape(size, num_fits, num_classes).transpose(1, 0, 2) / num + self.decay * weights
        return values / num + 0.5 * self.decay * np.sum(weights**2, axis=(1, 2)), gradients

    def make_newton_step(self, weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """A function: gradients [F, D, K] -> Hessian^-1 gradients, of the Hessian at weights [D, K] in float32."""
        size, num_classes = weights.shape
        features = self.features.astype(np.float32)
        shares = scipy.special.softmax(self.features @ weights, axis=1).astype(np.float32)
        hessian = np.zeros((num_classes, size, num_classes, size), np.float32)
        for k in range(num_classes):
            for m in range(k, num_classes):
                factor = shares[:, k] * (1 - shares[:, k] if k == m else shares[:, m])
                rows = features * np.sqrt(factor)[:, None]
                hessian[k, :, m] = hessian[m, :, k] = (rows.T @ rows) * ((1 if k == m else -1) / len(features))
        matrix = hessian.reshape(size * num_classes, -1)
        matrix[np.diag_indices(len(matrix))] += self.decay
        root = scipy.linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)

        def step(gradients: np.ndarray) -> np.ndarray:
            columns = gradients.transpose(2, 1, 0).reshape(len(matrix), -1)
            found = scipy.linalg.cho_solve(root, columns.astype(np.float32), check_finite=False).astype(np.float64)
            return found.reshape(num_classes, size, -1).transpose(2, 1, 0)

        return step


def _slopes(logits: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(losses [B, F], softmax minus one-hot [B, F, K]) of logits [B, F K]."""
    logits = logits.reshape(len(labels), -1, num_classes)
    logits -= logits.max(axis=2, keepdims=True)
    rows = np.arange(len(labels))
    own = logits[rows, :, labels]
    shares = np.exp(logits, out=logits)
    totals = shares.sum(axis=2, keepdims=True)
    shares /= totals
    losses = np.log(totals[:, :, 0]) - own
    shares[rows, :, labels] -= 1.0
    return losses, shares


def fit(problem: Problem, tolerance: float = 1e-10) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """(weights [D, K] whose gradient is no longer than the tolerance, Newton steps there).

    Raises:
        ArithmeticError: the tolerance was not reached.
    """
    shape = (problem.features.shape[1], problem.num_classes)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = problem.gradients(flat.reshape(1, *shape))
        return float(value[0]), gradient.ravel()

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 0.0, "gtol": 1e-5, "maxcor": 30}
    found = scipy.optimize.minimize(objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
    weights = found.x.reshape(shape)
    step = problem.make_newton_step(weights)
    return _refined(problem, weights[None], None, step, tolerance)[0], step


def leave_one_out(
    problem: Problem,
    weights: np.ndarray,
    step: Callable[[np.ndarray], np.ndarray],
    left_out: np.ndarray,
    tolerance: float = 1e-10,
) -> np.ndarray:
    """[F, D, K], the fits without each of some examples, 1/n being kept.

    Args:
        problem: all examples.
        weights: [D, K] of the fit to all.
        step: Newton steps there, from `fit`.
        left_out: [F] positions.
        tolerance: largest norm of a gradient.

    Raises:
        ArithmeticError: the tolerance was not reached.
    """
    start = np.repeat(weights[None], len(left_out), axis=0)
    return _refined(problem, start, left_out, step, tolerance)


def _refined(
    problem: Problem,
    weights: np.ndarray,
    left_out: np.ndarray | None,
    step: Callable[[np.ndarray], np.ndarray],
    tolerance: float,
) -> np.ndarray:
    """Steps with one Hessian for all: each round takes off all but what the Hessian has changed by."""
    weights, pending = weights.copy(), np.arange(len(weights))
    for _ in range(50):
        some = None if left_out is None else left_out[pending]
        _, gradients = problem.gradients(weights[pending], some)
        norms = np.linalg.norm(gradients, axis=(1, 2))
        far = norms > tolerance
        if not far.any():
            return weights
        pending = pending[far]
        weights[pending] -= step(gradients[far])
    raise ArithmeticError(f"gradients of up to {norms.max():.3g} are left after 50 rounds, above {tolerance}")
