"""Losses and measured outputs of single examples, as functions of a model's predictions.

A loss says how examples are trained on; a measured output says what is asked about a test example. They are kept
apart: gradients of the one belong to training examples, of the other to test examples. Each takes predictions
[B, K] (logits, or regression outputs) and labels, and returns one number per example.
"""

from collections.abc import Callable
import dataclasses

import numpy as np
import tensorflow as tf

from estimators import errors

PerExample = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss, and what curvature needs to know of it.

    Attributes:
        name: for messages and files.
        values: (predictions [B, ...], labels) -> [B].
        sample_labels: (predictions, seed [2] int32) -> labels drawn from the model itself, whose expected outer
            product of gradients is the Fisher matrix; None where the loss is no log-likelihood that we know.
        expected_labels: (predictions) -> (labels, weights), lists over the possible labels: their expectation is exact,
            where the labels are few; None otherwise.
        check: (labels, num_outputs) -> None; raises InvalidArgumentError for a label that cannot be.
        takes_logits: whether predictions are logits of a softmax, so that probabilities would be wrong.
    """

    name: str
    values: PerExample
    sample_labels: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None
    expected_labels: Callable[[tf.Tensor], tuple[list[tf.Tensor], list[tf.Tensor]]] | None = None
    check: Callable[[np.ndarray, int], None] = lambda labels, num_outputs: None
    takes_logits: bool = False


def _cross_entropy(predictions: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(labels, tf.int64), logits=predictions)


def _check_classes(labels: np.ndarray, num_outputs: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise errors.InvalidArgumentError(
            f"labels of dtype {labels.dtype} and shape {labels.shape}: cross-entropy takes class numbers [N]; "
            "for several labels an example use the loss binary_cross_entropy"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_outputs))
    if wrong.size:
        raise errors.InvalidArgumentError(
            f"label {labels[wrong[0]]} of example {wrong[0]}: the model has {num_outputs} classes, so labels are "
            f"0 to {num_outputs - 1}; {wrong.size} of {len(labels)} lie outside"
        )


def _sample_classes(predictions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    drawn = tf.random.stateless_categorical(predictions, 1, seed, dtype=tf.int32)[:, 0]
    # Of logits that are no numbers, one beyond the last class is drawn: its loss would be refused before it is NaN.
    return tf.minimum(drawn, predictions.shape[1] - 1)


def _expected_classes(predictions: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    probabilities = tf.unstack(tf.nn.softmax(predictions), axis=1)
    size = tf.shape(predictions)[0]
    return [tf.fill([size], k) for k in range(len(probabilities))], probabilities


def _binary_cross_entropy(predictions: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    targets = tf.cast(labels, predictions.dtype)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=predictions)
    return tf.reduce_sum(losses, axis=range(1, len(losses.shape)))


def _check_binary(labels: np.ndarray, num_outputs: int) -> None:
    if labels.ndim != 2 or labels.shape[1] != num_outputs:
        raise errors.InvalidArgumentError(
            f"labels of shape {labels.shape}: binary cross-entropy takes [N, {num_outputs}], one for each output"
        )
    wrong = np.argwhere((labels < 0) | (labels > 1))
    if len(wrong):
        row, column = wrong[0]
        raise errors.InvalidArgumentError(
            f"label {labels[row, column]} of example {row}, output {column}: expected 0, 1 or a share between them"
        )


def _sample_binary(predictions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    draws = tf.random.stateless_uniform(tf.shape(predictions), seed, dtype=predictions.dtype)
    return tf.cast(draws < tf.nn.sigmoid(predictions), predictions.dtype)


def _squared_error(predictions: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    targets = tf.reshape(tf.cast(labels, predictions.dtype), tf.shape(predictions))
    return 0.5 * tf.reduce_sum(tf.square(predictions - targets), axis=range(1, len(predictions.shape)))


def _check_numbers(labels: np.ndarray, num_outputs: int) -> None:
    if labels.size != len(labels) * num_outputs:
        raise errors.InvalidArgumentError(
            f"labels of shape {labels.shape}: squared error takes {num_outputs} numbers for each example"
        )


def _sample_numbers(predictions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    return predictions + tf.random.stateless_normal(tf.shape(predictions), seed, dtype=predictions.dtype)


LOSSES = {
    # -log softmax(f)_y, labels [B] of integers.
    "cross_entropy": Loss(
        "cross_entropy", _cross_entropy, _sample_classes, _expected_classes, _check_classes, takes_logits=True
    ),
    # Sum over outputs of -y log s(f) - (1 - y) log(1 - s(f)), labels [B, K] in [0, 1]: several labels an example.
    "binary_cross_entropy": Loss("binary_cross_entropy", _binary_cross_entropy, _sample_binary, None, _check_binary),
    # 1/2 sum over outputs of (f - y)^2, labels [B, K] or, for one output, [B].
    "squared_error": Loss("squared_error", _squared_error, _sample_numbers, None, _check_numbers),
}


def find(loss: str | Loss | PerExample) -> Loss:
    """A loss by name, one of `LOSSES`, or made of a function (predictions, labels) -> [B].

    Raises:
        InvalidArgumentError: the name is not known.
    """
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        return Loss(getattr(loss, "__name__", "custom"), loss)
    if loss not in LOSSES:
        raise errors.InvalidArgumentError(f"loss {loss!r}: expected one of {', '.join(LOSSES)}, or a function")
    return LOSSES[loss]


def _of_label(predictions: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.gather(predictions, tf.cast(labels, tf.int32), batch_dims=1)


def _margin(predictions: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    labels = tf.cast(labels, tf.int32)
    is_label = tf.cast(tf.one_hot(labels, predictions.shape[1]), tf.bool)
    # The least number and not -infinity, whose differences are no numbers; its exponential is 0 all the same.
    others = tf.where(is_label, predictions.dtype.min / 2, predictions)
    return _of_label(predictions, labels) - tf.reduce_logsumexp(others, axis=1)


def _probability(predictions: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return _of_label(tf.nn.softmax(predictions), labels)


def _output(predictions: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    del labels
    if int(np.prod(predictions.shape[1:])) != 1:
        raise errors.InvalidArgumentError(
            f"measured output 'output': of models with one output, not of predictions {list(predictions.shape)}; "
            "measure loss, margin, logit or probability, or a function of your own"
        )
    return tf.reshape(predictions, [tf.shape(predictions)[0]])


MEASURES = {
    # log(p_y / (1 - p_y)) = f_y - logsumexp of the other logits: the output that TRAK linearises.
    "margin": _margin,
    # f_y.
    "logit": _of_label,
    # p_y.
    "probability": _probability,
    # The only output of a regression network, whatever the label.
    "output": _output,
}


def measure(name: str | PerExample, loss: Loss) -> tuple[str, PerExample]:
    """A measured output by name: "loss", one of `MEASURES`, or a function (predictions, labels) -> [B].

    Returns:
        (name, function).

    Raises:
        InvalidArgumentError: the name is not known.
    """
    if callable(name):
        return getattr(name, "__name__", "custom"), name
    if name == "loss":
        return name, loss.values
    if name not in MEASURES:
        raise errors.InvalidArgumentError(
            f"measured output {name!r}: expected loss, {', '.join(MEASURES)}, or a function"
        )
    return name, MEASURES[name]
