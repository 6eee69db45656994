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
            the examples of a batch.
        NotFiniteError: a gradient of an output is NaN or infinite.
    """
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
    return Outputs(plans.make(changed, examples.Examples(probe.inputs, labels)), num_outputs)


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
