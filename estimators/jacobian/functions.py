"""What is differentiated by its inputs: the logits of a model that is not training.

    function = functions.of(model, images)                    # a Sonnet, Keras or tf.Module model
    pixels = function.of_pixels(mean, standard_deviation)     # the same network as a function of [0, 1] pixels

The unit of every derivative is logits per unit of the input. Networks that take standardised inputs (x - mean) / std
have Jacobians 1 / std times larger by pixels in [0, 1]; `of_pixels` measures those.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples, sharding, targets
from estimators import parameters as parameters_lib
from estimators.jacobian import normalisations

_NUM_PROBED = 3
_DEAR = 1e8
_OF_PRODUCTS = ("Conv1D", "Conv2D", "Conv3D", "MatMul")
# By bytes of a number: sums of many terms differ in their order.
_TOLERANCE = {4: 1e-3, 8: 1e-8}


@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """f(x) in R^K of inputs x of D numbers, deterministic, each row from its own input alone.

    Attributes:
        predict: inputs [B, *input_shape] -> outputs [B, K] in float32 or float64.
        input_shape: shape of one input.
        num_outputs: K.
        dtype: of inputs.
        unit: what one unit of an input is, for tables and plots.
        strategy: whose replicas share every batch, see `sharding`; None for one device.
        jit_compile: whatever is compiled of this function is compiled by XLA.
    """

    predict: Callable[[tf.Tensor], tf.Tensor]
    input_shape: tuple[int, ...]
    num_outputs: int
    dtype: tf.DType
    unit: str = "unit of the model's input"
    strategy: tf.distribute.Strategy | None = None
    jit_compile: bool = False

    @property
    def input_size(self) -> int:
        """D, the number of elements of one input."""
        return math.prod(self.input_shape)

    @property
    def is_dear(self) -> bool:
        """Whether a pass takes long beside the eigenvalues of a small matrix that are found in between.

        Where operations are computed one by one on processors, and there are 1e8 floating-point ones to an example.
        """
        if self.jit_compile or tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"):
            return False
        return self._num_operations >= _DEAR

    @functools.cached_property
    def _num_operations(self) -> int:
        """Floating-point operations of the convolutions and matrix products of one example's forward pass, roughly."""
        specification = tf.TensorSpec([1, *self.input_shape], self.dtype)
        graph = tf.function(self.predict, autograph=False).get_concrete_function(specification).graph
        total = 0
        for operation in graph.get_operations():
            if operation.type in _OF_PRODUCTS:
                made, read = operation.outputs[0].shape, operation.inputs[1].shape
                if made.is_fully_defined() and read.is_fully_defined():
                    # Each number that is made is a sum over all but the last axis of a filter or matrix.
                    total += 2 * math.prod(made) * math.prod(read[:-1])
        return total

    def of_pixels(self, mean: Any, standard_deviation: Any) -> "Function":
        """The same network as a function of pixels, which it takes as (pixels - mean) / standard_deviation.

        Args:
            mean: a number, or one for each channel.
            standard_deviation: the same, > 0.

        Raises:
            InvalidArgumentError: a standard deviation is not above 0, or the shapes do not fit the inputs.
        """
        mean, deviation = (np.asarray(value, np.float64) for value in (mean, standard_deviation))
        if not (np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all()):
            raise errors.InvalidArgumentError(
                f"mean {mean}, standard_deviation {deviation}: must be finite, and deviations above 0"
            )
        if max(mean.size, deviation.size) not in (1, self.input_shape[-1]):
            raise errors.InvalidArgumentError(
                f"mean and standard_deviation of {max(mean.size, deviation.size)} channels: the inputs "
                f"{list(self.input_shape)} have {self.input_shape[-1]}; give one number, or one for each channel"
            )
        shift, scale = tf.constant(mean, self.dtype), tf.constant(deviation, self.dtype)
        return dataclasses.replace(self, predict=lambda x: self.predict((x - shift) / scale), unit="pixel in [0, 1]")

    def compiled(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a function of batches as this one asks for, see `sharding.rows`.

        Args:
            compute: (inputs, labels, *shared) -> a nest of tensors [B, ...], row b from example b alone.
        """
        return sharding.rows(self.strategy, compute, jit_compile=self.jit_compile)


def of(
    model: Any, inputs: Any, *, predict: Callable[[Any], Any] | None = None, jit_compile: bool | None = None
) -> Function:
    """The function of a model whose variables exist, checked on examples.

    Args:
        model: a Sonnet module, Keras model, tf.Module, `targets.Target` or function of inputs; called with
            `is_training=False` or `training=False` where its call takes such an argument. Batch statistics would couple
            the examples of a batch, and every Jacobian of a single example would be wrong.
        inputs: [N, ...] floats, some of the inputs that the model will be given; those below the fourth are not read.
        predict: how predictions [B, ...] are made, if not by calling the model.
        jit_compile: compile by XLA whatever is compiled of the function, which takes seconds for each size of batch; by
            default as a target says, and otherwise not.

    Returns:
        The function. If the model's variables were made under a `tf.distribute` strategy, batches are split between its
        replicas; of functions that are no models nobody knows their variables, and they run on one device.

    Raises:
        InvalidTargetError: the model cannot be called, or a strategy's scope is open; predictions are not one row for
            each input, differ from one evaluation to the next, depend on the others in the batch, or do not follow from
            the input by derivatives.
        InvalidArgumentError: inputs are no array of floating-point numbers, or there is none.
        NotFiniteError: a prediction or derivative is NaN or infinite.
    """
    sharding.check_outside_scope()
    probe = _probe(inputs)
    if predict is None:
        predict = model.predict if isinstance(model, targets.Target) else targets.inference(model)
    flat = _flat(predict)
    # As every estimator calls it: compiled, with a batch of static size.
    try:
        outputs, gradients = _evaluate(flat, probe)
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, LookupError) as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        raise errors.InvalidTargetError(
            f"TensorFlow cannot differentiate this model by inputs of shape {probe.shape[1:]} on this device: "
            f"{reason}; use another device, dtype or shape of inputs"
        ) from error
    for name, values in (("prediction", outputs), ("derivative by the input", gradients)):
        if not np.isfinite(values).all():
            raise errors.NotFiniteError(
                f"a {name} of the first examples is not finite; check the weights and the scale of the inputs"
            )
    _check_rows(flat, probe, outputs)
    dtype = tf.as_dtype(probe.dtype)
    if jit_compile is None:
        jit_compile = isinstance(model, targets.Target) and model.jit_compile
    strategy = sharding.strategy_of(_variables(model))
    return Function(flat, probe.shape[1:], outputs.shape[1], dtype, strategy=strategy, jit_compile=jit_compile)


def checked(function: Function, data: Any) -> examples.Examples:
    """Examples whose inputs and labels the function can have, with labels as int64.

    Args:
        function: the function.
        data: `examples.Examples` or (inputs, labels).

    Raises:
        InvalidArgumentError: a label is no class number.
        MismatchError: inputs have another shape than the function's.
    """
    data = examples.of(data)
    if not hasattr(data.inputs, "shape") or tuple(data.inputs.shape[1:]) != function.input_shape:
        raise errors.MismatchError(
            f"inputs of shape {getattr(data.inputs, 'shape', type(data.inputs).__name__)}: the function takes "
            f"{[None, *function.input_shape]}"
        )
    if tf.as_dtype(data.inputs.dtype) != function.dtype:
        raise errors.MismatchError(
            f"inputs of dtype {data.inputs.dtype}: the function takes {function.dtype.name}; convert them"
        )
    return examples.Examples(data.inputs, normalisations.check_labels(data.labels, function.num_outputs), data.ids)


def _variables(model: Any) -> list[tf.Variable]:
    """Those that are trained; none of what is no model, or has none."""
    if isinstance(model, targets.Target):
        return model.variables
    try:
        return [parameter.variable for parameter in parameters_lib.of(model)]
    except errors.InvalidTargetError:
        return []


def _probe(inputs: Any) -> np.ndarray:
    """[3, ...], all different even if there is one example: equal rows would hide that they are mixed."""
    if not hasattr(inputs, "shape") or not hasattr(inputs, "dtype"):
        raise errors.InvalidArgumentError(
            f"inputs are a {type(inputs).__name__}; Jacobians are taken by one array [N, ...]: make a function of it"
        )
    dtype = tf.as_dtype(inputs.dtype)
    if dtype not in (tf.float32, tf.float64):
        raise errors.InvalidArgumentError(
            f"inputs of dtype {dtype.name}: expected float32 or float64, in the scale that the model takes"
        )
    if len(inputs.shape) < 2 or inputs.shape[0] == 0:
        raise errors.InvalidArgumentError(f"inputs of shape {tuple(inputs.shape)}: expected [N, ...] with N from 1 up")
    rows = np.asarray(inputs[:_NUM_PROBED])
    rows = rows[np.arange(_NUM_PROBED) % len(rows)]
    factors = 1.0 + 0.25 * np.arange(_NUM_PROBED).reshape([-1] + [1] * (rows.ndim - 1))
    return (rows * factors).astype(rows.dtype)


def _flat(predict: Callable[[Any], Any]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Predictions as rows, in float32 at least."""

    def flat(inputs: tf.Tensor) -> tf.Tensor:
        found = predict(inputs)
        if not tf.is_tensor(found) or found.shape.rank in (None, 0):
            raise errors.InvalidTargetError(
                f"predictions are a {type(found).__name__}; give predict=, a function of inputs that returns one "
                "tensor [B, ...]"
            )
        if found.dtype.size < 4:
            found = tf.cast(found, tf.float32)
        if found.shape.rank == 2:
            return found
        return tf.reshape(found, [inputs.shape[0], -1])

    return flat


def _evaluate(predict: Callable[[tf.Tensor], tf.Tensor], probe: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(outputs [3, K], gradients of their sums)."""

    @tf.function(autograph=False)
    def compute(inputs: tf.Tensor) -> tuple[tf.Tensor, Any]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = predict(inputs)
        return outputs, tape.gradient(outputs, inputs)

    outputs, gradients = compute(tf.constant(probe))
    if outputs.shape.rank != 2 or outputs.shape[0] != _NUM_PROBED:
        raise errors.InvalidTargetError(
            f"predictions of {_NUM_PROBED} examples have shape {outputs.shape}, expected [{_NUM_PROBED}, ...]; give "
            "predict=, a function of inputs that returns one row for each"
        )
    if gradients is None:
        raise errors.InvalidTargetError(
            "predictions have no derivative by the inputs; give predict= a function that computes them with TensorFlow "
            "from the inputs it is given"
        )
    return outputs.numpy(), gradients.numpy()


def _check_rows(predict: Callable[[tf.Tensor], tf.Tensor], probe: np.ndarray, outputs: np.ndarray) -> None:
    tolerance = _TOLERANCE[min(outputs.itemsize, probe.itemsize)] * max(float(np.abs(outputs).max()), 1e-30)
    again = predict(tf.constant(probe)).numpy()
    if np.abs(again - outputs).max() > tolerance:
        raise errors.InvalidTargetError(
            "two evaluations of the same examples differ: the model draws random numbers or updates itself, as with "
            "dropout while training; give predict= a function that calls it in inference mode"
        )
    alone = np.concatenate([predict(tf.constant(probe[k : k + 1])).numpy() for k in range(_NUM_PROBED)])
    if np.abs(alone - outputs).max() > tolerance:
        raise errors.InvalidTargetError(
            "the prediction of an example depends on the others in its batch, as with batch normalisation while "
            "training; give predict= a function that calls the model in inference mode"
        )
