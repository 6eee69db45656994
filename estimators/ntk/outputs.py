"""A target's outputs as what is differentiated: f(x) [B, k], whatever the loss that it is trained on.

The tangent kernel is of a network's outputs alone. What is here turns a target into one whose "labels" are cotangents
u [B, k] and whose "loss" is sum_j u_j f_j, so that everything that differentiates losses by example serves outputs too.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples, losses, targets
from estimators.derivatives import plans

_NUM_PROBED = 3
_NUM_NAMED = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of a target, checked on its first examples.

    Attributes:
        plan: of the target whose loss is sum_j u_j f_j, with cotangents u as labels; its predictions are [B, k].
        num_outputs: k.
    """

    plan: plans.Plan
    num_outputs: int

    @property
    def target(self) -> targets.Target:
        """The target with cotangents as labels."""
        return self.plan.target

    @property
    def dtype(self) -> np.dtype:
        """In which passes are computed: the parameters' own, float32 at least."""
        return np.promote_types(self.target.dtype.as_numpy_dtype, np.float32)


def of(target: targets.Target, x: Any) -> Outputs:
    """The outputs of a target; a model is checked as by `plans.make`.

    Args:
        target: a target; its loss, labels and measured output do not count.
        x: inputs, see `data`.

    Returns:
        The outputs.

    Raises:
        InvalidTargetError: the model does not give one row of numbers for each example, draws random numbers, or mixes
            the examples of a batch; a parameter is not trainable, or no output depends on any.
        NotFiniteError: a gradient of an output is NaN or infinite.
    """
    _check_trainable(target)
    probe = data(x).take(np.arange(_NUM_PROBED) % len(data(x)))
    found = target.predict(tf.nest.map_structure(tf.convert_to_tensor, probe.inputs))
    if not tf.is_tensor(found) or found.shape.rank is None or found.shape.rank < 1:
        raise errors.InvalidTargetError(
            f"predictions are a {type(found).__name__}; give predict=, a function of inputs that returns one tensor "
            "[B, k] or [B]"
        )
    num_outputs = int(np.prod(found.shape[1:]))
    cotangents = np.random.default_rng(0).normal(size=(_NUM_PROBED, num_outputs))
    changed = dataclasses.replace(
        target,
        predict=_flat(target.predict),
        loss=losses.Loss("outputs", _weighted),
        measured_name="loss",
        measured=_weighted,
    )
    labels = cotangents.astype(found.dtype.as_numpy_dtype)
    plan = plans.make(changed, examples.Examples(probe.inputs, labels))
    _check_depends(plan, tf.nest.map_structure(tf.convert_to_tensor, probe.inputs))
    return Outputs(plan, num_outputs)


def _check_trainable(target: targets.Target) -> None:
    """Refuses variables that TensorFlow's tapes pass over, whose gradients would be zero without a word."""
    fixed = [p.name for p in target.parameters if not p.variable.trainable]
    if fixed:
        raise errors.InvalidTargetError(
            f"parameters {', '.join(fixed)} are variables with trainable=False, by which TensorFlow does not "
            "differentiate; make them with trainable=True, or leave them out"
        )


def _check_depends(plan: plans.Plan, inputs: Any) -> None:
    depends = [bool(plan.looped)]

    def look(inputs: Any) -> None:
        forward = plan.forward(inputs)
        depends.append(any(plan.contributions(forward, forward.outputs[:, 0]).values()))

    tf.function(look, autograph=False).get_concrete_function(inputs)
    if not any(depends):
        raise no_dependence(plan.target)


def no_dependence(target: targets.Target) -> errors.InvalidTargetError:
    """The refusal of a target all of whose gradients are zero."""
    some = [p.name for p in target.parameters[:_NUM_NAMED]]
    more = len(target.parameters) - len(some)
    return errors.InvalidTargetError(
        f"no output depends on any parameter ({', '.join(some)}{f' and {more} more' if more else ''}); choose others, "
        "or another predict="
    )


def data(x: Any) -> examples.Examples:
    """Inputs as examples that need no labels.

    Args:
        x: `examples.Examples`, whose labels do not count, or inputs [n, ...] as the model takes them, which may be a
            nest of arrays.

    Raises:
        InvalidArgumentError: there is no example.
        MismatchError: arrays differ in length.
    """
    if isinstance(x, examples.Examples):
        return x
    arrays = tf.nest.map_structure(lambda a: a if hasattr(a, "shape") else np.asarray(a), x)
    return examples.Examples(arrays, np.zeros(len(tf.nest.flatten(arrays)[0]), np.float32))


def _flat(predict: Callable[[Any], tf.Tensor]) -> Callable[[Any], tf.Tensor]:
    """[B, ...] -> [B, k]."""

    def flat(inputs: Any) -> tf.Tensor:
        found = predict(inputs)
        return tf.reshape(found, [tf.shape(found)[0], int(np.prod(found.shape[1:]))])

    return flat


def _weighted(predictions: tf.Tensor, cotangents: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(predictions * tf.cast(cotangents, predictions.dtype), axis=1)
