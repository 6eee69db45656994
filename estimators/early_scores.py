"""Scores of training examples early in training (Paul, Ganguli & Dziugaite, 2021, arXiv:2107.07075).

    EL2N   |softmax(f_i) - onehot(y_i)|_2                 length of the error of the predicted probabilities
    GraNd  |grad l_i|_2                                   length of the gradient of the loss

each a mean over several models, such as a few epochs into trainings from different initial weights. Larger: the example
moves the model more, and is harder. EL2N is in [0, sqrt 2] for classes.
"""

from collections.abc import Callable, Iterable
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples, gradient_products, sharding, targets
from estimators.derivatives import per_example, plans


@dataclasses.dataclass(frozen=True, eq=False)
class EarlyScores:
    """Scores of examples over several models.

    Attributes:
        values: [N] float64, means over models.
        standard_errors: [N] float64, of the means; NaN with fewer than two models.
        num_models: how many.
        ids: [N] int64, what the examples are called.
        method: "EL2N" or "GraNd".
    """

    values: np.ndarray
    standard_errors: np.ndarray
    num_models: int
    ids: np.ndarray
    method: str


def el2n(models: targets.Target | Iterable[targets.Target], train: Any, *, batch_size: int = 256) -> EarlyScores:
    """|softmax(f_i) - onehot(y_i)|_2; for several labels an example |sigmoid(f_i) - y_i|_2, for numbers |f_i - y_i|_2.

    Args:
        models: the target, or targets one after the other; one object may be yielded again with other weights set.
        train: the examples.
        batch_size: examples at a time.

    Returns:
        The scores; one forward pass for each model.

    Raises:
        InvalidArgumentError: there is no model, a label cannot be, or the loss is none of `losses.LOSSES`.
        NotFiniteError: a score is no number.
    """
    data = examples.of(train)
    compiled: dict[targets.Target, per_example.Compiled] = {}

    def score(target: targets.Target) -> np.ndarray:
        if target.loss.name not in _ERRORS:
            raise errors.InvalidArgumentError(
                f"EL2N of the loss {target.loss.name}: what its predictions are is not known; expected a loss among "
                f"{', '.join(_ERRORS)}"
            )
        gradient_products.check_examples(target, data, "loss")
        if target not in compiled:
            compiled.clear()
            compiled[target] = _error_norms(target)
        norms = compiled[target]
        batches = gradient_products.even_batches(data, batch_size)
        return np.concatenate([norms(batch.inputs, batch.labels)[:num].numpy() for batch, num in batches])

    return _averaged(models, data, score, "EL2N")


def grand(models: targets.Target | Iterable[targets.Target], train: Any, *, batch_size: int = 256) -> EarlyScores:
    """|grad l_i|_2 by the target's parameters.

    Args:
        models: the target, or targets one after the other; one object may be yielded again with other weights set.
        train: the examples.
        batch_size: examples at a time.

    Returns:
        The scores; one forward and one backward pass for each model.

    Raises:
        InvalidArgumentError: there is no model, or a label cannot be.
        InvalidTargetError: see `plans.make`.
        NotFiniteError: a score is no number.
    """
    data = examples.of(train)
    compiled: dict[targets.Target, per_example.Compiled] = {}

    def score(target: targets.Target) -> np.ndarray:
        if target not in compiled:
            compiled.clear()
            compiled[target] = per_example.make_squared_norms(plans.make(target, data))
        norms = compiled[target]
        batches = gradient_products.even_batches(data, batch_size)
        return np.concatenate([np.sqrt(norms(batch.inputs, batch.labels)[:num].numpy()) for batch, num in batches])

    return _averaged(models, data, score, "GraNd")


def _error_norms(target: targets.Target) -> per_example.Compiled:
    """A function (inputs, labels) -> [B], lengths of the errors of the predictions."""
    error = _ERRORS[target.loss.name]

    def compute(inputs: Any, labels: tf.Tensor) -> tf.Tensor:
        errors_of_batch = error(target.predict(inputs), labels)
        return tf.norm(tf.reshape(errors_of_batch, [labels.shape[0], -1]), axis=1)

    return sharding.rows(target.strategy, compute, jit_compile=target.jit_compile)


def _classes(predictions: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax(predictions) - tf.one_hot(labels, predictions.shape[1], dtype=predictions.dtype)


def _binary(predictions: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.nn.sigmoid(predictions) - tf.cast(labels, predictions.dtype)


def _numbers(predictions: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return predictions - tf.reshape(tf.cast(labels, predictions.dtype), tf.shape(predictions))


_ERRORS = {"cross_entropy": _classes, "binary_cross_entropy": _binary, "squared_error": _numbers}


def _averaged(
    models: targets.Target | Iterable[targets.Target],
    data: examples.Examples,
    score: Callable[[targets.Target], np.ndarray],
    method: str,
) -> EarlyScores:
    total, squares, num_models = np.zeros(len(data)), np.zeros(len(data)), 0
    for target in [models] if isinstance(models, targets.Target) else models:
        values = score(target).astype(np.float64)
        if not np.isfinite(values).all():
            wrong = np.flatnonzero(~np.isfinite(values))
            raise errors.NotFiniteError(
                f"{method} of example {data.ids[wrong[0]]} under model {num_models} is not finite, as are {len(wrong)} "
                "in all; check weights and inputs"
            )
        num_models += 1
        # Welford's update: differences of large squares would lose the small deviations.
        step = values - total
        total += step / num_models
        squares += step * (values - total)
    if num_models == 0:
        raise errors.InvalidArgumentError(f"{method} of no models: at least one target is needed")
    deviation = np.sqrt(squares / max(num_models - 1, 1) / num_models)
    standard_errors = deviation if num_models > 1 else np.full(len(data), np.nan)
    return EarlyScores(total, standard_errors, num_models, data.ids, method)
