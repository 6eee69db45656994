"""The linearised network itself: predictions f(x) + J(x) (w - w0) for any weights w, by products with J alone.

    model = linear_models.of(target)                     # at the weights that the network has now, fresh or restored
    model = linear_models.of(target, mode="head", head="layers/4/", inputs=images[:8])
    model.predict(images, weights)                       # J v from backward passes
    model.weights(images, coefficients)                  # w0 + J^T a, a backward pass a batch

Weights are parameter vectors [P], see `parameters`.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, parameters, targets

MODES = ("initialisation", "checkpoint", "head")


class LinearModel:
    """A network in its tangent space at w0.

    Attributes:
        target: what was linearised; with mode "head" its parameters are those of the head.
        initial_weights: [P], w0, in the dtype of the parameters.
        mode: see `of`.
    """

    def __init__(self, target: targets.Target, mode: str) -> None:
        """Remembers the weights; see `of`, which checks."""
        self.target, self.mode = target, mode
        self.initial_weights = parameters.flatten([tf.convert_to_tensor(v) for v in target.variables]).numpy()
        self._jvp = tf.function(self._forward, autograph=False, reduce_retracing=True)
        self._vjp = tf.function(self._backward, autograph=False, reduce_retracing=True)

    @property
    def num_parameters(self) -> int:
        """Length P of a weight vector."""
        return self.target.num_parameters

    def predict(self, inputs: Any, weights: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """f(x) + J(x) (w - w0).

        Args:
            inputs: [B, ...], or a nest of such arrays.
            weights: w [P].
            batch_size: examples at a time.

        Returns:
            [B, k]; a forward and two backward passes.

        Raises:
            MismatchError: weights of another length, or the network's weights are not w0 any more.
        """
        self._check_unmoved()
        change = self._vector(weights) - self.initial_weights
        tangents = parameters.unflatten(tf.constant(change), self.target.parameters)
        return np.concatenate([self._jvp(batch, *tangents).numpy() for batch in _batches(inputs, batch_size)])

    def initial_predictions(self, inputs: Any, *, batch_size: int = 256) -> np.ndarray:
        """f0(x), [B, k].

        Raises:
            MismatchError: the network's weights are not w0 any more.
        """
        return self.predict(inputs, self.initial_weights, batch_size=batch_size)

    def weights(self, inputs: Any, coefficients: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
        """w0 + J^T a, [P] in the dtype of the parameters.

        Args:
            inputs: n training examples.
            coefficients: a, [n k] row = example k + output, or [n, k].
            batch_size: examples at a time; their parts are summed in float64.

        Raises:
            MismatchError: coefficients of another number, or the network's weights are not w0 any more.
        """
        self._check_unmoved()
        num = len(tf.nest.flatten(inputs)[0])
        if np.size(coefficients) % num:
            raise errors.MismatchError(f"{np.size(coefficients)} coefficients of {num} examples: expected [n k]")
        rows = np.reshape(coefficients, (num, -1)).astype(self.initial_weights.dtype)
        total, start = self.initial_weights.astype(np.float64), 0
        for batch in _batches(inputs, batch_size):
            size = len(tf.nest.flatten(batch)[0])
            total += self._vjp(batch, tf.constant(rows[start : start + size])).numpy()
            start += size
        return total.astype(self.initial_weights.dtype)

    def restore(self) -> None:
        """Gives the network the weights w0 back, after it was trained on."""
        pieces = parameters.unflatten(tf.constant(self.initial_weights), self.target.parameters)
        for variable, piece in zip(self.target.variables, pieces, strict=True):
            variable.assign(piece)

    def _forward(self, inputs: Any, *tangents: tf.Tensor) -> tf.Tensor:
        """F + J v: J v is the derivative of J^T u by u, which is linear in u.

        Forward accumulation would not go through look-ups in variables.
        """
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(self.target.variables)
                outputs = _rows(self.target.predict(inputs))
            seed = tf.zeros_like(outputs)
            outer.watch(seed)
            pulled = self._pull(tape, outputs, seed)
        zero = tf.UnconnectedGradients.ZERO
        change = outer.gradient(pulled, seed, output_gradients=list(tangents), unconnected_gradients=zero)
        return outputs + change

    def _backward(self, inputs: Any, coefficients: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.target.variables)
            outputs = _rows(self.target.predict(inputs))
        if outputs.shape[1] != coefficients.shape[1]:
            raise errors.MismatchError(
                f"{coefficients.shape[1]} coefficients an example beside {outputs.shape[1]} outputs: give [n, k]"
            )
        pulled = self._pull(tape, outputs, tf.cast(coefficients, outputs.dtype))
        return tf.concat([tf.reshape(gradient, [-1]) for gradient in pulled], axis=0)

    def _pull(self, tape: tf.GradientTape, outputs: tf.Tensor, vectors: tf.Tensor) -> list[tf.Tensor]:
        """J^T u, for each variable."""
        zero = tf.UnconnectedGradients.ZERO
        found = tape.gradient(outputs, self.target.variables, output_gradients=vectors, unconnected_gradients=zero)
        return [tf.convert_to_tensor(gradient) for gradient in found]

    def _vector(self, weights: np.ndarray) -> np.ndarray:
        found = np.asarray(weights, self.initial_weights.dtype)
        if found.shape != self.initial_weights.shape:
            raise errors.MismatchError(f"weights of shape {found.shape}: expected [{len(self.initial_weights)}]")
        return found

    def _check_unmoved(self) -> None:
        now = parameters.flatten([tf.convert_to_tensor(v) for v in self.target.variables]).numpy()
        if not np.array_equal(now, self.initial_weights):
            raise errors.MismatchError(
                "the network has other weights than those it was linearised at; call restore(), or linearise anew"
            )


def of(target: targets.Target, mode: str = "initialisation", *, head: str = "", inputs: Any = None) -> LinearModel:
    """The network linearised at the weights that it has now.

    Args:
        target: the network.
        mode: "initialisation" or "checkpoint": by all parameters of the target, at fresh weights or at those of a
            checkpoint that was restored; the two differ in name alone. "head": by the parameters of the last layer,
            in which the network is linear as it is.
        head: with mode "head", a regular expression that is found in the attribute paths of its parameters.
        inputs: with mode "head", a few examples on which it is checked that predictions are linear in the head.

    Returns:
        The model; nothing is computed but that check.

    Raises:
        InvalidArgumentError: the mode is unknown; head or inputs are missing, or given without that mode.
        InvalidTargetError: predictions are not linear in the head.
    """
    if mode not in MODES:
        raise errors.InvalidArgumentError(f"mode {mode!r}: expected one of {', '.join(MODES)}")
    is_head = mode == "head"
    if is_head != bool(head) or is_head != (inputs is not None):
        raise errors.InvalidArgumentError(
            f"mode {mode!r} with head {head!r} and inputs {'given' if inputs is not None else 'missing'}: both go with "
            "mode='head', such as head='layers/4/' and a few examples"
        )
    if not is_head:
        return LinearModel(target, mode)
    model = LinearModel(target.restricted(parameters.matching(target.parameters, head)), mode)
    _check_linear(model, inputs, head)
    return model


def _check_linear(model: LinearModel, inputs: Any, head: str) -> None:
    """Compares a step in a fixed direction with its derivative."""
    start = model.initial_weights
    spread = float(np.std(start)) or 1.0
    moved = start + (spread * np.random.default_rng(0).standard_normal(start.shape)).astype(start.dtype)
    linear, before = model.predict(inputs, moved), model.initial_predictions(inputs)
    pieces = parameters.unflatten(tf.constant(moved), model.target.parameters)
    try:
        for variable, piece in zip(model.target.variables, pieces, strict=True):
            variable.assign(piece)
        true = _rows(model.target.predict(tf.nest.map_structure(tf.convert_to_tensor, inputs))).numpy()
    finally:
        model.restore()
    apart, change = float(np.abs(true - linear).max()), float(np.abs(linear - before).max())
    scale = max(change, float(np.abs(before).max()))
    if not apart <= 1e4 * np.finfo(start.dtype).eps * scale:
        raise errors.InvalidTargetError(
            f"predictions are not linear in the parameters that {head!r} matches ("
            f"{', '.join(p.name for p in model.target.parameters)}): they differ by {apart:.3g} from a change of "
            f"{change:.3g}; name the last layer alone"
        )


def _rows(predictions: tf.Tensor) -> tf.Tensor:
    """[B, k], also of predictions [B] or of several axes, whose outputs are numbered row by row as in a kernel."""
    return tf.reshape(predictions, [tf.shape(predictions)[0], math.prod(predictions.shape[1:])])


def _batches(inputs: Any, batch_size: int) -> list[Any]:
    """Nests of tensors, in order."""
    if batch_size < 1:
        raise errors.InvalidArgumentError(f"batch_size {batch_size}: must be at least 1")
    num = len(tf.nest.flatten(inputs)[0])

    def cut(array: Any, start: int) -> tf.Tensor:
        return tf.convert_to_tensor(np.asarray(array[start : start + batch_size]))

    starts = range(0, num, batch_size)
    return [tf.nest.map_structure(lambda array, start=start: cut(array, start), inputs) for start in starts]
