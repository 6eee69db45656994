"""Cross-entropy as a squared error: one Gauss-Newton model, in which everything of this package holds as it is.

At the current predictions f0 the cross-entropy of an example is l + g . d + 1/2 d^T H d + O(d^3) in the change d of its
predictions, with g = p - y and H = diag(p) - p p^T = B B^T, B = (I - p 1^T) diag(p)^1/2, and g = B (g / p^1/2). For a
sigmoid H = p (1 - p) = B^2. With B block by block,

    kernel B^T K B,  residuals B^+ g,  cross kernel K* B        in the place of K, r0, K*

give coefficients a~, and those of the rows of J are B a~; predictions are f0 + K B a~. How far the model can be trusted
depends on the step: `fit` compares it with the true loss, and `true_coefficients` trains the linearised network on the
true cross-entropy.
"""

import dataclasses
import math

import numpy as np
import scipy.special

from estimators import errors
from estimators.linearized import descents, dynamics


@dataclasses.dataclass(frozen=True, eq=False)
class GaussNewton:
    """The squared-error problem that stands for cross-entropy.

    Attributes:
        kernel: [N, N] float64, B^T K B.
        residuals: [n, k] float64, B^+ (p - y).
        factors: [n, k, k] float64, B of each example.
        initial: [n, k] float64, f0.
        labels: [n] classes, or numbers from 0 to 1 where k = 1.
    """

    kernel: np.ndarray
    residuals: np.ndarray
    factors: np.ndarray
    initial: np.ndarray
    labels: np.ndarray

    def coefficients(self, scaled: np.ndarray) -> np.ndarray:
        """B a~ for a~ [..., N]: coefficients of the rows of J, of the same shape."""
        blocks = np.reshape(scaled, (*np.shape(scaled)[:-1], *self.residuals.shape))
        return np.einsum("nab,...nb->...na", self.factors, blocks).reshape(np.shape(scaled))

    def cross(self, cross: np.ndarray) -> np.ndarray:
        """K* B for K* [m k, N], float64.

        Raises:
            MismatchError: it has other columns.
        """
        if np.ndim(cross) != 2 or np.shape(cross)[1] != self.residuals.size:
            raise errors.MismatchError(
                f"cross kernel of shape {np.shape(cross)}: expected [m k, {self.residuals.size}]"
            )
        return _times_factors(cross, self.factors)


@dataclasses.dataclass(frozen=True)
class Fit:
    """The quadratic model of the mean cross-entropy beside the loss itself, in nats.

    Attributes:
        initial_loss: at f0.
        model_loss: the quadratic model at f0 + d.
        true_loss: cross-entropy at f0 + d.
        relative_error: |model_loss - true_loss| / |true_loss - initial_loss|; NaN where nothing changes.
    """

    initial_loss: float
    model_loss: float
    true_loss: float
    relative_error: float


def make(kernel: np.ndarray, predictions: np.ndarray, labels: np.ndarray) -> GaussNewton:
    """The squared-error problem at given predictions.

    Args:
        kernel: K [N, N].
        predictions: f0, logits [n, k] of a softmax, or [n, 1] of a sigmoid.
        labels: [n] integers below k; for a sigmoid numbers from 0 to 1.

    Returns:
        The problem; N^2 k operations, one matrix of the size of the kernel.

    Raises:
        InvalidArgumentError: a label cannot be, or predictions are not finite, or so sure of another label that the
            curvature of the loss is 0 (logits hundreds apart).
        MismatchError: shapes do not agree.
    """
    kernel = _square(kernel)
    start = dynamics.rows_of(predictions, len(kernel))
    labels = _checked(labels, start.shape)
    shares = _shares(start)
    if start.shape[1] == 1:
        factors = np.sqrt(shares * scipy.special.expit(-start))[..., None]
        residuals = _divided(_slopes(start, labels), factors[..., 0])
    else:
        roots = np.sqrt(shares)
        factors = (np.eye(start.shape[1]) - shares[:, :, None]) * roots[:, None]
        residuals = _divided(_slopes(start, labels), roots)
    once = _times_factors(kernel, factors)
    return GaussNewton(_times_factors(once.T, factors), residuals, factors, start, labels)


def fit(problem: GaussNewton, predictions: np.ndarray) -> Fit:
    """How well the quadratic model gives the loss of predictions that it led to.

    Args:
        problem: the model.
        predictions: [n, k], f0 + d.

    Raises:
        MismatchError: of another size.
    """
    end = dynamics.rows_of(predictions, problem.initial.size).reshape(problem.initial.shape)
    slopes, curvatures = _derivatives(problem.initial, problem.labels)
    change = end - problem.initial
    initial = float(cross_entropy(problem.initial, problem.labels).mean())
    true = float(cross_entropy(end, problem.labels).mean())
    quadratic = np.einsum("na,na->n", slopes, change) + np.einsum("na,nab,nb->n", change, curvatures, change) / 2
    model = initial + float(quadratic.mean())
    gap = abs(true - initial)
    return Fit(initial, model, true, abs(model - true) / gap if gap > 0 else float("nan"))


def true_coefficients(
    kernel: np.ndarray, predictions: np.ndarray, labels: np.ndarray, descent: descents.GradientDescent, num_steps: int
) -> np.ndarray:
    """Coefficients a_t of the linearised network trained on the true cross-entropy, step by step.

        a <- a - eta (softmax(f0 + K a) - y + lam a)

    Args:
        kernel: K [N, N].
        predictions: f0 [n, k].
        labels: see `make`.
        descent: settings, in steps.
        num_steps: t, a whole number.

    Returns:
        [N] float64; N^2 operations a step.

    Raises:
        See `make`; also InvalidArgumentError for gradient flow and for infinitely many steps, and NotFiniteError where
            the steps diverge.
    """
    if descent.continuous:
        raise errors.InvalidArgumentError("continuous=True: the true cross-entropy is trained in steps; take steps")
    descent.check_time(num_steps)
    if not math.isfinite(num_steps):
        raise errors.InvalidArgumentError(f"num_steps {num_steps}: steps are taken one by one; give a finite number")
    kernel = _square(kernel)
    start = dynamics.rows_of(predictions, len(kernel))
    labels, rates = _checked(labels, start.shape), descent.rates(len(start))
    matrix, solution = np.asarray(kernel, np.float64), np.zeros(start.size)
    for step in range(int(num_steps)):
        slopes = _slopes(start + (matrix @ solution).reshape(start.shape), labels).ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            solution = solution - rates.eta * (slopes + rates.lam * solution)
        if not np.isfinite(solution).all():
            raise errors.NotFiniteError(
                f"learning_rate {descent.learning_rate}: coefficients are not finite after {step + 1} steps; take less"
            )
    return solution


def cross_entropy(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[n] nats, of logits [n, k] and classes [n], or for k = 1 of a sigmoid and numbers from 0 to 1."""
    if predictions.shape[1] == 1:
        logits, shares = predictions[:, 0], np.ravel(labels)
        return np.logaddexp(0, logits) - shares * logits
    return scipy.special.logsumexp(predictions, axis=1) - np.take_along_axis(predictions, labels[:, None], 1)[:, 0]


def _square(kernel: np.ndarray) -> np.ndarray:
    matrix = np.asarray(kernel)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise errors.MismatchError(f"kernel of shape {matrix.shape}: expected a square matrix [N, N]")
    return matrix


def _times_factors(rows: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Rows [R, N] times B, block by block."""
    blocks = np.asarray(rows, np.float64).reshape(len(rows), *factors.shape[:2])
    return np.einsum("rna,nab->rnb", blocks, factors, optimize=True).reshape(np.shape(rows))


def _divided(slopes: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """Slopes over roots, 0 / 0 = 0."""
    lost = np.flatnonzero(np.any((roots == 0) & (slopes != 0), axis=1))
    if lost.size:
        raise errors.InvalidArgumentError(
            f"the prediction of example {lost[0]} ({lost.size} in all) is so sure of another label that cross-entropy "
            "has no curvature there in float64; linearise at an earlier checkpoint"
        )
    return np.divide(slopes, roots, out=np.zeros_like(slopes), where=roots > 0)


def _shares(predictions: np.ndarray) -> np.ndarray:
    """Probabilities p, [n, k]."""
    if predictions.shape[1] == 1:
        return scipy.special.expit(predictions)
    return scipy.special.softmax(predictions, axis=1)


def _slopes(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The slopes p - y, [n, k]."""
    wanted = labels.reshape(-1, 1) if predictions.shape[1] == 1 else np.eye(predictions.shape[1])[labels]
    return _shares(predictions) - wanted


def _derivatives(predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes g [n, k] and curvatures H [n, k, k]."""
    shares = _shares(predictions)
    if predictions.shape[1] == 1:
        return _slopes(predictions, labels), (shares * scipy.special.expit(-predictions))[..., None]
    curvatures = shares[:, :, None] * np.eye(shares.shape[1]) - shares[:, :, None] * shares[:, None]
    return _slopes(predictions, labels), curvatures


def _checked(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    found = np.asarray(labels)
    if found.size != shape[0]:
        raise errors.MismatchError(f"labels of shape {found.shape} beside {shape[0]} examples: expected one for each")
    found = found.reshape(-1)
    if shape[1] == 1:
        valid = np.issubdtype(found.dtype, np.number) and bool(np.all((found >= 0) & (found <= 1)))
        wanted = "numbers from 0 to 1, of a sigmoid"
    else:
        valid = np.issubdtype(found.dtype, np.integer) and bool(np.all((found >= 0) & (found < shape[1])))
        wanted = f"integers from 0 to {shape[1] - 1}"
    if not valid:
        raise errors.InvalidArgumentError(
            f"labels of dtype {found.dtype} from {found.min()} to {found.max()} for {shape[1]} outputs: expected "
            f"{wanted}"
        )
    return found
