"""What is differentiated: a model's parameters, the loss it was trained on, and what is asked about an example.

    target = targets.of(model)                                   # a classifier of ours: model(images, is_training)
    target = targets.of(keras_model, loss="squared_error", measured="output")
    target = targets.of(module, predict=lambda x: module.apply(x)["logits"], parameters="decoder/")

Estimators take a `Target` and never a model, so that Sonnet, Keras and plain tf.Modules are alike to them.
"""

from collections.abc import Callable, Sequence
import dataclasses
import inspect
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, losses, sharding
from estimators import parameters as parameters_lib


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """Parameters, loss and measured output of a model in inference mode.

    The objective that its parameters minimise is the mean of `losses` over the training examples plus
    1/2 sum_k weight_decay_k |theta_k|^2.

    Attributes:
        predict: inputs [B, ...] -> predictions [B, ...] (logits or regression outputs), deterministic, each row from
            its own input alone.
        parameters: the variables that derivatives are taken by.
        loss: the loss of one example.
        measured_name: name of the measured output.
        measured: (predictions, labels) -> [B], what is asked about test examples.
        weight_decay: one coefficient for each parameter, >= 0.
        jit_compile: all that is compiled of this target is compiled by XLA.
    """

    predict: Callable[[Any], tf.Tensor]
    parameters: tuple[parameters_lib.Parameter, ...]
    loss: losses.Loss
    measured_name: str
    measured: losses.PerExample
    weight_decay: tuple[float, ...]
    jit_compile: bool = False

    @property
    def num_parameters(self) -> int:
        """Length P of a parameter vector."""
        return parameters_lib.total_size(self.parameters)

    @property
    def variables(self) -> list[tf.Variable]:
        """The parameters' variables, in order."""
        return [parameter.variable for parameter in self.parameters]

    @property
    def dtype(self) -> tf.DType:
        """Floating dtype of the parameters (of the first, if they differ)."""
        return self.parameters[0].variable.dtype

    @property
    def strategy(self) -> tf.distribute.Strategy | None:
        """The strategy whose replicas share the work, see `sharding`; None for one device."""
        return sharding.strategy_of(self.variables)

    def losses(self, inputs: Any, labels: tf.Tensor) -> tf.Tensor:
        """Training loss of each example, [B], without weight decay."""
        return self.loss.values(self.predict(inputs), labels)

    def measurements(self, inputs: Any, labels: tf.Tensor) -> tf.Tensor:
        """Measured output of each example, [B]."""
        return self.measured(self.predict(inputs), labels)

    def weight_decay_vector(self) -> np.ndarray:
        """[P] float64: the coefficient of every element of a parameter vector."""
        return np.concatenate(
            [np.full(p.size, decay) for p, decay in zip(self.parameters, self.weight_decay, strict=True)]
        )

    def restricted(self, parameters: Sequence[parameters_lib.Parameter]) -> "Target":
        """The same with some of its parameters; the others count as constants."""
        decays = {p.name: decay for p, decay in zip(self.parameters, self.weight_decay, strict=True)}
        return dataclasses.replace(
            self, parameters=tuple(parameters), weight_decay=tuple(decays[p.name] for p in parameters)
        )


def of(
    model: Any,
    *,
    loss: str | losses.Loss | losses.PerExample = "cross_entropy",
    measured: str | losses.PerExample = "loss",
    parameters: str | Sequence[parameters_lib.Parameter] = "",
    weight_decay: float | Callable[[parameters_lib.Parameter], float] = 0.0,
    predict: Callable[[Any], tf.Tensor] | None = None,
    jit_compile: bool = False,
) -> Target:
    """The target of a model whose variables exist.

    Args:
        model: a Sonnet module, Keras model or tf.Module; it is called in inference mode
            (`is_training=False`, `training=False`) where its call takes such an argument.
        loss: name in `losses.LOSSES`, a `Loss`, or a function (predictions, labels) -> [B].
        measured: "loss", a name in `losses.MEASURES`, or a function (predictions, labels) -> [B].
        parameters: the parameters themselves, or a regular expression that is found in their attribute paths, such as
            "layers/4/" for one layer; empty for all.
        weight_decay: coefficient of 1/2 |theta|^2 in the training objective, for all parameters or by parameter, such
            as `lambda p: 1e-4 if len(p.shape) > 1 else 0.0`.
        predict: how predictions are made, if not by calling the model.
        jit_compile: compile by XLA whatever estimators compile of this target. Takes seconds for each size of batch; a
            model that XLA cannot compile fails when it is first differentiated.

    Returns:
        The target. Nothing is computed: `plans.make` checks it on examples.

    Raises:
        InvalidTargetError: the model has no trainable variables, or cannot be called.
        InvalidArgumentError: a name is unknown, a weight decay negative.
    """
    chosen = tuple(parameters) if not isinstance(parameters, str) else parameters_lib.of(model)
    if isinstance(parameters, str) and parameters:
        chosen = parameters_lib.matching(chosen, parameters)
    loss = losses.find(loss)
    measured_name, measured_function = losses.measure(measured, loss)
    return Target(
        predict=_in_full(predict or inference(model)),
        parameters=chosen,
        loss=loss,
        measured_name=measured_name,
        measured=measured_function,
        weight_decay=tuple(_decay(weight_decay, parameter) for parameter in chosen),
        jit_compile=jit_compile,
    )


def _in_full(predict: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Predictions in float32 at least: losses are differences of numbers that 16 bits do not tell apart."""

    def full(inputs: Any) -> Any:
        found = predict(inputs)
        is_half = tf.is_tensor(found) and found.dtype.is_floating and found.dtype.size < 4
        return tf.cast(found, tf.float32) if is_half else found

    return full


def _decay(
    weight_decay: float | Callable[[parameters_lib.Parameter], float], parameter: parameters_lib.Parameter
) -> float:
    value = float(weight_decay(parameter) if callable(weight_decay) else weight_decay)
    if not (np.isfinite(value) and value >= 0):
        raise errors.InvalidArgumentError(f"weight_decay {value} of {parameter.name}: must be a number from 0 up")
    return value


def inference(model: Any) -> Callable[[Any], tf.Tensor]:
    """The function inputs -> predictions of a model that is not training.

    Raises:
        InvalidTargetError: the model cannot be called.
    """
    if not callable(model):
        raise errors.InvalidTargetError(
            f"{type(model).__name__} cannot be called; give predict=, a function of inputs that returns predictions"
        )
    switch = _training_switch(model)
    return model if switch is None else (lambda inputs: model(inputs, **{switch: False}))


def _training_switch(model: Any) -> str | None:
    """The argument by which a model is told that it is not training; None where it takes none."""
    # Keras passes `training` on to its layers whether or not `call` names it.
    if hasattr(model, "call") and hasattr(model, "layers"):
        return "training"
    call = getattr(model, "call", None) or (model if inspect.isfunction(model) else type(model).__call__)
    # Sonnet's metaclass wraps methods without keeping their signature; the method itself is in the wrapper's closure.
    if inspect.isfunction(call):
        call = inspect.getclosurevars(call).nonlocals.get("f", call)
    # tf.function keeps it as `python_function`.
    names = inspect.signature(getattr(call, "python_function", call)).parameters
    return next((name for name in ("is_training", "training") if name in names), None)
