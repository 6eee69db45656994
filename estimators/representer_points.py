"""Representer points (Yeh et al., 2018, arXiv:1811.09720): a prediction as a sum over training examples.

A last layer Phi = W^T f (+ b) of features f that minimises (1/n) sum_i L(Phi_i, y_i) + 1/2 lambda |W|^2 satisfies

    W = sum_i f_i alpha_i^T,    alpha_i = -1/(lambda n) dL/dPhi_i          [K]

because the gradient of the objective is zero there. So the prediction of any example is a sum over training examples,

    Phi_t = sum_i alpha_i (f_i . f_t)

and score[i, t] = alpha_i[k] (f_i . f_t), k the class of t, is the part of that logit that is due to example i: positive
raises it. Yeh et al. write the penalty as lambda |W|^2, whose alpha is -1/(2 lambda n) dL/dPhi. The decomposition holds
at the optimum only, so that the last layer is first refined to it, with the features as they are; a bias is a feature
that is 1 and decays likewise, without which it would be owed to no example.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np
import scipy.optimize
import tensorflow as tf

from estimators import errors, examples, gradient_products, losses, score_matrix, sharding


@dataclasses.dataclass(frozen=True, eq=False)
class RepresenterPoints:
    """A refined last layer, and what it owes to every training example.

    Attributes:
        alpha: [N, K] float64.
        features: [N, D] float64, of the training examples, with the column of ones of a bias.
        weights: [D, K] float64, the refined last layer.
        gap: largest |W - sum_i f_i alpha_i^T| over the largest |W|: how exact the decomposition is.
        bias: whether there is a column of ones.
        train_ids: [N] int64.
        config: settings.
    """

    alpha: np.ndarray
    features: np.ndarray
    weights: np.ndarray
    gap: float
    bias: bool
    train_ids: np.ndarray
    config: dict[str, Any]

    def predictions(self, features: np.ndarray) -> np.ndarray:
        """[M, K], what the refined last layer predicts of features [M, D] (without a column of ones)."""
        return _with_bias(features, self.bias) @ self.weights

    def scores(
        self, features: np.ndarray, classes: np.ndarray, test_ids: np.ndarray | None = None
    ) -> score_matrix.ScoreMatrix:
        """score[i, t] = alpha_i[k_t] (f_i . f_t), whose sum over i is the logit k_t of t.

        Args:
            features: [M, D] of test examples, without a column of ones.
            classes: [M], whose logit is explained: labels, or predicted classes.
            test_ids: [M], what they are called; by default their positions.

        Returns:
            The scores, in units of the logit: positive raises it. N M (D + 1) operations.

        Raises:
            MismatchError: features of another width, or classes of another number.
            InvalidArgumentError: there is no such class.
        """
        features, classes = np.asarray(features, np.float64), np.asarray(classes)
        width = self.features.shape[1] - self.bias
        if features.ndim != 2 or features.shape[1] != width or classes.shape != (len(features),):
            raise errors.MismatchError(
                f"features of shape {features.shape} and classes of shape {classes.shape}: expected [M, {width}] and "
                "[M]"
            )
        num_classes = self.alpha.shape[1]
        if not np.issubdtype(classes.dtype, np.integer) or classes.min() < 0 or classes.max() >= num_classes:
            raise errors.InvalidArgumentError(
                f"classes from {classes.min()} to {classes.max()}: there are {num_classes}"
            )
        values = (self.features @ _with_bias(features, self.bias).T) * self.alpha[:, classes]
        return score_matrix.ScoreMatrix(
            values,
            self.train_ids,
            np.arange(len(features)) if test_ids is None else test_ids,
            method="representer points",
            quantity="the training example's part of the logit of the test example's class",
            unit="logit",
            lower_is_better=False,
            config={**self.config, "gap": self.gap},
        )


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    weight_decay: float,
    *,
    num_outputs: int | None = None,
    loss: str | losses.Loss | losses.PerExample = "cross_entropy",
    bias: bool = True,
    start: np.ndarray | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 10000,
    train_ids: np.ndarray | None = None,
) -> RepresenterPoints:
    """Refines a last layer to its optimum (L-BFGS in float64) and decomposes it.

    Args:
        features: [N, D], inputs of the last layer, without a column of ones. `features_of` computes them.
        labels: [N, ...] as the loss takes them.
        weight_decay: lambda of 1/2 lambda |W|^2, above 0.
        num_outputs: K; by default the number of classes in the labels, or the width of labels [N, K].
        loss: name in `losses.LOSSES`, a `Loss`, or a function (predictions, labels) -> [B].
        bias: add a column of ones.
        start: [D (+ 1), K] weights to begin with, the bias last; by default zeros.
        tolerance: largest `gap` that is accepted.
        max_iterations: of L-BFGS.
        train_ids: [N], what the examples are called; by default their positions.

    Returns:
        The representer points.

    Raises:
        InvalidArgumentError: the weight decay is not above 0, or a label cannot be.
        MismatchError: features or start have another shape.
        SolverError: the optimum was not reached.
    """
    if not (np.isfinite(weight_decay) and weight_decay > 0):
        raise errors.InvalidArgumentError(
            f"weight_decay {weight_decay}: must be above 0; without it a last layer is no sum over training examples"
        )
    features, labels, found = np.asarray(features, np.float64), np.asarray(labels), losses.find(loss)
    if features.ndim != 2 or len(features) != len(labels):
        raise errors.MismatchError(
            f"features of shape {features.shape} beside {len(labels)} labels: expected [{len(labels)}, D]"
        )
    if num_outputs is None:
        num_outputs = int(labels.max()) + 1 if np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1 else 0
        num_outputs = num_outputs or (labels.shape[1] if labels.ndim == 2 else 1)
    found.check(labels, num_outputs)
    rows = _with_bias(features, bias)
    begin = np.zeros((rows.shape[1], num_outputs)) if start is None else np.asarray(start, np.float64)
    if begin.shape != (rows.shape[1], num_outputs):
        raise errors.MismatchError(f"start of shape {begin.shape}: expected {(rows.shape[1], num_outputs)}")
    slopes = _make_slopes(found, labels)
    weights = _refined(rows, slopes, weight_decay, begin, max_iterations)
    alpha = -slopes(rows @ weights)[1] / (weight_decay * len(rows))
    gap = float(np.abs(weights - rows.T @ alpha).max() / max(np.abs(weights).max(), np.finfo(np.float64).tiny))
    if not gap <= tolerance:
        raise errors.SolverError(
            f"the last layer is {gap:.3g} (relative) from its optimum after {max_iterations} iterations at most, more "
            f"than tolerance {tolerance}: representer points would not add up to the predictions; allow more "
            "iterations, use a larger weight decay, or scale the features"
        )
    config = {"weight_decay": float(weight_decay), "loss": found.name, "bias": bias, "num_train": len(rows)}
    ids = np.arange(len(rows)) if train_ids is None else np.asarray(train_ids)
    return RepresenterPoints(alpha, rows, weights, gap, bias, ids, config)


def features_of(
    function: Callable[[Any], tf.Tensor],
    data: Any,
    *,
    batch_size: int = 256,
    strategy: tf.distribute.Strategy | None = None,
    jit_compile: bool = False,
) -> np.ndarray:
    """[N, D] float64, features of examples.

    Args:
        function: inputs [B, ...] -> features [B, ...], the model without its last layer.
        data: `examples.Examples` or (inputs, labels).
        batch_size: examples at a time.
        strategy: under which the model was made, to compute on all of its replicas.
        jit_compile: compile by XLA.
    """
    compute = sharding.rows(strategy, lambda inputs, labels: function(inputs), jit_compile=jit_compile)
    batches = gradient_products.even_batches(examples.of(data), batch_size)
    found = [np.asarray(compute(batch.inputs, batch.labels)[:num], np.float64) for batch, num in batches]
    return np.concatenate([array.reshape(len(array), -1) for array in found])


def _with_bias(features: np.ndarray, bias: bool) -> np.ndarray:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1) if bias else features


_Slopes = Callable[[np.ndarray], tuple[float, np.ndarray]]


def _make_slopes(loss: losses.Loss, labels: np.ndarray) -> _Slopes:
    """A function: predictions [N, K] -> (sum of losses, dL/dPhi [N, K])."""
    known = tf.convert_to_tensor(labels)

    @tf.function(autograph=False)
    def compute(predictions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(predictions)
            total = tf.reduce_sum(loss.values(predictions, known))
        return total, tape.gradient(total, predictions)

    def slopes(predictions: np.ndarray) -> tuple[float, np.ndarray]:
        total, gradient = compute(tf.constant(predictions, tf.float64))
        return float(total), gradient.numpy()

    return slopes


def _refined(
    rows: np.ndarray, slopes: _Slopes, weight_decay: float, start: np.ndarray, max_iterations: int
) -> np.ndarray:
    """[D, K] at the minimum of the objective."""

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(start.shape)
        total, gradient = slopes(rows @ weights)
        value = total / len(rows) + 0.5 * weight_decay * float(np.sum(weights**2))
        return value, (rows.T @ gradient / len(rows) + weight_decay * weights).ravel()

    options = {"maxiter": max_iterations, "maxfun": 2 * max_iterations, "ftol": 0.0, "gtol": 1e-12, "maxcor": 30}
    found = scipy.optimize.minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x).reshape(start.shape)
