"""The trainable variables of a model by name, and vectors over them.

A parameter is addressed by its attribute path ("layers/2/w" in Sonnet, "dense_1/kernel" in Keras), because names of
variables repeat between siblings. A *parameter vector* is the concatenation of all chosen parameters, each flattened
in row-major order, in the order of the model.
"""

from collections.abc import Sequence
import dataclasses
import math
import re
from typing import Any

import tensorflow as tf

from estimators import errors


@dataclasses.dataclass(frozen=True, eq=False)
class Parameter:
    """One trainable variable.

    Attributes:
        name: attribute path in the model, unique in it.
        variable: the tf.Variable (for Keras 3, the one inside its Variable).
    """

    name: str
    variable: tf.Variable

    @property
    def shape(self) -> tuple[int, ...]:
        """Static shape."""
        return tuple(self.variable.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def of(model: Any) -> tuple[Parameter, ...]:
    """The trainable variables of a Sonnet module, Keras model or tf.Module, each once, in the model's own order.

    Moving statistics of batch normalisation are not trainable, hence never parameters.

    Args:
        model: anything with `trainable_variables` whose variables exist already.

    Returns:
        One parameter per variable.

    Raises:
        InvalidTargetError: there is none.
    """
    try:
        variables = [_unwrapped(variable) for variable in _trainable(model)]
    except ValueError as error:  # what Sonnet raises for none
        if isinstance(error, errors.EstimatorError):
            raise
        variables = []
    if not variables:
        raise errors.InvalidTargetError(
            f"{type(model).__name__} has no trainable variables (yet); call it once on an example so that they exist"
        )
    paths = _keras_paths(model) or _attribute_paths(model)
    found: dict[Any, Parameter] = {}
    for position, variable in enumerate(variables):
        name = paths.get(variable.ref(), f"{variable.name.partition(':')[0]}#{position}")
        found.setdefault(variable.ref(), Parameter(name, variable))
    return tuple(found.values())


def _trainable(model: Any) -> Sequence[Any]:
    if not hasattr(type(model), "trainable_variables"):
        raise errors.InvalidTargetError(
            f"{type(model).__name__} has no trainable_variables; expected a Sonnet module, a Keras model or a tf.Module"
        )
    return model.trainable_variables


def _unwrapped(variable: Any) -> tf.Variable:
    """Keras 3 wraps variables; a tf.Variable has a method of the name under which it keeps them."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def _keras_paths(model: Any) -> dict[Any, str]:
    variables = model.trainable_variables
    if not all(hasattr(variable, "path") for variable in variables):
        return {}
    return {_unwrapped(variable).ref(): variable.path for variable in variables}


def _attribute_paths(model: Any) -> dict[Any, str]:
    """Paths by breadth, so that a variable that two modules share is named by the shortest."""
    paths: dict[Any, str] = {}
    view = tf.train.TrackableView(model)
    pending, seen = [(model, "")], {id(model)}
    while pending:
        found = []
        for parent, path in pending:
            for name, child in view.children(parent).items():
                here = f"{path}/{name}" if path else name
                if isinstance(child, tf.Variable):
                    paths.setdefault(child.ref(), here)
                elif id(child) not in seen:
                    seen.add(id(child))
                    found.append((child, here))
        pending = found
    return paths


def matching(parameters: Sequence[Parameter], pattern: str) -> tuple[Parameter, ...]:
    """The parameters in whose name a regular expression is found.

    Raises:
        InvalidArgumentError: it is no regular expression, or is found in none.
    """
    try:
        chosen = tuple(parameter for parameter in parameters if re.search(pattern, parameter.name))
    except re.error as error:
        raise errors.InvalidArgumentError(f"parameters {pattern!r} is no regular expression: {error}") from error
    if not chosen:
        known = ", ".join(parameter.name for parameter in parameters)
        raise errors.InvalidArgumentError(f"parameters {pattern!r} matches none of {known}; change the expression")
    return chosen


def parent(name: str) -> str:
    """The layer that a parameter belongs to: its path without the last part."""
    return name.rpartition("/")[0]


def total_size(parameters: Sequence[Parameter]) -> int:
    """Length P of a parameter vector."""
    return sum(parameter.size for parameter in parameters)


def flatten(tensors: Sequence[tf.Tensor], num_batch_axes: int = 0) -> tf.Tensor:
    """Joins tensors of the parameters' shapes, behind common leading axes, into vectors [..., P]."""
    lead = tf.shape(tensors[0])[:num_batch_axes]
    flat = [tf.reshape(t, tf.concat([lead, [math.prod(t.shape[num_batch_axes:].as_list())]], axis=0)) for t in tensors]
    return tf.concat(flat, axis=-1)


def unflatten(vectors: tf.Tensor, parameters: Sequence[Parameter]) -> list[tf.Tensor]:
    """Cuts parameter vectors [..., P] into tensors [..., *shape], one for each parameter.

    Raises:
        MismatchError: the last axis is not as long as the parameters are together.
    """
    total = total_size(parameters)
    if vectors.shape[-1] != total:
        raise errors.MismatchError(
            f"a parameter vector of length {vectors.shape[-1]}: the {len(parameters)} parameters have {total} elements"
        )
    lead = tf.shape(vectors)[:-1]
    parts = tf.split(vectors, [parameter.size for parameter in parameters], axis=-1)
    return [
        tf.reshape(part, tf.concat([lead, tf.constant(parameter.shape, tf.int32)], axis=0))
        for part, parameter in zip(parts, parameters, strict=True)
    ]
