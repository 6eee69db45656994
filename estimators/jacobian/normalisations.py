"""What of the logits is differentiated, by the names of the published code.

    none           f
    softmax        p = softmax(f)
    logsoftmax     log p
    crossentropy   -log p_y, in nats

and with `target_logit_only` the label's own entry of f, p or log p.
"""

import numpy as np
import tensorflow as tf

from estimators import errors

NAMES = ("none", "softmax", "logsoftmax", "crossentropy")


def check(name: str) -> str:
    """The name itself.

    Raises:
        InvalidArgumentError: it is unknown.
    """
    if name not in NAMES:
        raise errors.InvalidArgumentError(f"normalisation {name!r}: expected one of {', '.join(NAMES)}")
    return name


def check_labels(labels: np.ndarray, num_outputs: int) -> np.ndarray:
    """Labels as [N] int64.

    Raises:
        InvalidArgumentError: they are no class numbers of the model.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise errors.InvalidArgumentError(
            f"labels of dtype {labels.dtype} and shape {labels.shape}: expected class numbers [N]"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_outputs))
    if wrong.size:
        raise errors.InvalidArgumentError(
            f"label {labels[wrong[0]]} of example {wrong[0]}: the model has {num_outputs} outputs, so labels are 0 to "
            f"{num_outputs - 1}; {wrong.size} of {len(labels)} lie outside"
        )
    return labels.astype(np.int64)


def apply(name: str, logits: tf.Tensor, labels: tf.Tensor, target_logit_only: bool = False) -> tf.Tensor:
    """[B, K], or [B, 1] of the cross-entropy or of the label's entry alone."""
    check(name)
    if name == "crossentropy":
        return -_label_entry(tf.nn.log_softmax(logits), labels)
    values = {"none": tf.identity, "softmax": tf.nn.softmax, "logsoftmax": tf.nn.log_softmax}[name](logits)
    return _label_entry(values, labels) if target_logit_only else values


def _label_entry(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    chosen = tf.one_hot(labels, values.shape[1], dtype=values.dtype)
    return tf.reduce_sum(chosen * values, axis=1, keepdims=True)


def matrices(name: str, logits: np.ndarray, labels: np.ndarray, target_logit_only: bool = False) -> np.ndarray:
    """Derivatives [N, Q, K] of the normalised values by the logits, in float64.

    softmax: diag p - p p^T;  logsoftmax: I - 1 p^T;  crossentropy: (p - e_y)^T; Q is K, or 1.
    """
    check(name)
    logits = np.asarray(logits, np.float64)
    identity = np.broadcast_to(np.eye(logits.shape[1]), (len(logits), logits.shape[1], logits.shape[1]))
    p = probabilities(logits)
    labels = np.asarray(labels)
    if name == "crossentropy":
        return (p - identity[np.arange(len(labels)), labels])[:, None]
    full = {
        "none": lambda: identity,
        "softmax": lambda: p[:, :, None] * identity - p[:, :, None] * p[:, None, :],
        "logsoftmax": lambda: identity - p[:, None, :],
    }[name]()
    return full[np.arange(len(labels)), labels][:, None] if target_logit_only else full


def values(name: str, logits: np.ndarray, labels: np.ndarray, target_logit_only: bool = False) -> np.ndarray:
    """[N, K] in float64, or [N, 1] of the cross-entropy or of the label's entry alone, as `apply`."""
    check(name)
    rows, labels = np.arange(len(labels)), np.asarray(labels)
    if name == "crossentropy":
        return -log_probabilities(logits)[rows, labels][:, None]
    full = {"none": lambda x: np.asarray(x, np.float64), "softmax": probabilities, "logsoftmax": log_probabilities}[
        name
    ](logits)
    return full[rows, labels][:, None] if target_logit_only else full


def probabilities(logits: np.ndarray) -> np.ndarray:
    """softmax(f) [N, K] in float64."""
    return np.exp(log_probabilities(logits))


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Logarithms of softmax(f) [N, K] in float64."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def num_values(name: str, num_outputs: int, target_logit_only: bool = False) -> int:
    """Q, how many values are differentiated: K, or 1."""
    return 1 if check(name) == "crossentropy" or target_logit_only else num_outputs


def rank(name: str, num_outputs: int, target_logit_only: bool = False) -> int:
    """How many singular values can differ from zero: softmax and log-softmax leave one direction of logits out."""
    num = num_values(name, num_outputs, target_logit_only)
    return num - 1 if name in ("softmax", "logsoftmax") and not target_logit_only else num
