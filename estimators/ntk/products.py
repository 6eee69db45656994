"""Products with Jacobians and with the tangent kernel, none of which is ever there as a matrix.

    jacobian = ntk.JacobianOperator(target, x)                       # J [n k, P]
    jacobian.products(weights)                                       # J W^T: [R, P] -> [n k, R]
    jacobian.transposed_products(vectors)                            # (J^T V)^T: [n k, R] -> [R, P]
    ntk.ntk_vector_products(target, x, vectors, x2)                  # K(x, x2) V: [m k, R] -> [n k, R]

J^T u by a backward pass, J v by the derivative of J^T u by u: a product with the kernel takes as long as some six
passes through the model for each vector, and no memory beyond one vector of parameters for each.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, gradient_products, parameters, targets
from estimators.derivatives import per_example
from estimators.ntk import outputs as outputs_lib


class JacobianOperator:
    """J = df/dtheta [n k, P] of examples, by its products; row index = example * k + output.

    Attributes:
        shape: (n k, P).
        num_outputs: k.
    """

    def __init__(
        self, target: targets.Target, x: Any, *, batch_size: int = 256, jit_compile: bool | None = None
    ) -> None:
        """Checks the target; nothing else is computed yet.

        Args:
            target: what is differentiated.
            x: inputs of n examples, see `TangentKernel`.
            batch_size: examples at a time; changes nothing but rounding.
            jit_compile: compile by XLA; None for what the target says.

        Raises:
            InvalidTargetError, NotFiniteError: see `plans.make`.
            InvalidArgumentError: the batch size is below 1.
        """
        if batch_size < 1:
            raise errors.InvalidArgumentError(f"batch_size {batch_size}: must be at least 1")
        self._outputs, self._data = outputs_lib.of(target, x), outputs_lib.data(x)
        self._batch_size, self.num_outputs = batch_size, self._outputs.num_outputs
        self.shape = (len(self._data) * self.num_outputs, target.num_parameters)
        plan = self._outputs.plan
        self._forward = per_example.compiled_rows(plan, _forward(self._outputs), jit_compile)
        self._backward = per_example.compiled_sums(plan, _backward(self._outputs), jit_compile)

    def products(self, weights: Any) -> np.ndarray:
        """J W^T [n k, R], changes of outputs along directions.

        Args:
            weights: W [R, P], one direction in each row.

        Raises:
            MismatchError: its rows are not as long as the parameters.
            NotFiniteError: a product is NaN or infinite.
        """
        weights = tf.cast(self._checked(weights, 1), self._outputs.target.dtype)
        parts = []
        for batch, count in gradient_products.even_batches(self._data, self._batch_size):
            found = self._forward(batch.inputs, np.zeros(len(batch), np.float32), weights)[:count]
            parts.append(_finite(found).reshape(count * self.num_outputs, -1))
        return np.concatenate(parts)

    def transposed_products(self, vectors: Any) -> np.ndarray:
        """(J^T V)^T [R, P], gradients of weighted sums of outputs.

        Args:
            vectors: V [n k, R], one weight for each example and output in each column.

        Raises:
            MismatchError: its columns have another length.
            NotFiniteError: a product is NaN or infinite.
        """
        checked = np.asarray(self._checked(vectors, 0))
        shaped = checked.reshape(len(self._data), self.num_outputs, -1)
        total = np.zeros((shaped.shape[2], self.shape[1]), np.float64)
        size = min(self._batch_size, len(self._data))
        for start in range(0, len(self._data), size):
            batch = self._data.take(slice(start, start + size))
            cotangents = tf.constant(shaped[start : start + size].astype(self._outputs.dtype))
            total += _finite(self._backward(batch.inputs, cotangents))
        return total.astype(self._outputs.dtype)

    def _checked(self, matrix: Any, axis: int) -> Any:
        if len(matrix.shape) != 2 or matrix.shape[axis] != self.shape[axis]:
            expected = f"[R, {self.shape[1]}]" if axis else f"[{self.shape[0]}, R]"
            raise errors.MismatchError(
                f"a matrix of shape {tuple(matrix.shape)} beside a Jacobian {self.shape}: expected {expected}"
            )
        return matrix


def ntk_vector_products(
    target: targets.Target, x: Any, vectors: Any, x2: Any = None, *, batch_size: int = 256
) -> np.ndarray:
    """K(x, x2) V [n k, R], products with the tangent kernel, of which no entry is computed.

    Args:
        target: what is differentiated.
        x: inputs of n examples, see `TangentKernel`.
        vectors: V [m k, R], one column for each vector.
        x2: inputs of m examples; None for `x`.
        batch_size: examples at a time; changes nothing but rounding.

    Returns:
        J(x) (J(x2)^T V): two passes for each example of x2 and vector, and two for each of x; R P numbers.

    Raises:
        InvalidTargetError, NotFiniteError, MismatchError, InvalidArgumentError: see `JacobianOperator`.
    """
    first = JacobianOperator(target, x, batch_size=batch_size)
    second = first if x2 is None else JacobianOperator(target, x2, batch_size=batch_size)
    return first.products(second.transposed_products(vectors))


def _forward(outputs: outputs_lib.Outputs) -> Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor]:
    """(inputs, labels that do not count, directions [R, P]) -> [B, k, R]."""
    target = outputs.target

    def compute(inputs: Any, labels: tf.Tensor, directions: tf.Tensor) -> tf.Tensor:
        del labels

        # J^T u is linear in u: what its product with v has as derivative by u is J v. Forward accumulation through
        # look-ups fails within loops (TensorFlow 2.21).
        def along(direction: tf.Tensor) -> tf.Tensor:
            tangents = parameters.unflatten(direction, target.parameters)
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    found = target.predict(inputs)
                seed = tf.zeros_like(found)
                outer.watch(seed)
                pulled = inner.gradient(found, target.variables, output_gradients=seed)
                pairs = zip(pulled, tangents, strict=True)
                total = tf.add_n([tf.reduce_sum(tf.convert_to_tensor(p) * t) for p, t in pairs if p is not None])
            return tf.cast(outer.gradient(total, seed), outputs.dtype)

        spec = tf.TensorSpec([None, outputs.num_outputs], outputs.dtype)
        found = tf.map_fn(along, directions, fn_output_signature=spec, parallel_iterations=1)
        return tf.transpose(found, [1, 2, 0])

    return compute


def _backward(outputs: outputs_lib.Outputs) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """(inputs, cotangents [B, k, R]) -> [R, P], summed over examples."""
    target = outputs.target

    def compute(inputs: Any, cotangents: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(persistent=True) as tape:
            found = target.predict(inputs)

        def pull(cotangent: tf.Tensor) -> tf.Tensor:
            parts = tape.gradient(
                found,
                target.variables,
                output_gradients=tf.cast(cotangent, found.dtype),
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            return parameters.flatten([tf.cast(tf.convert_to_tensor(part), outputs.dtype) for part in parts])

        spec = tf.TensorSpec([target.num_parameters], outputs.dtype)
        columns = tf.transpose(cotangents, [2, 0, 1])
        return tf.map_fn(pull, columns, fn_output_signature=spec, parallel_iterations=1)

    return compute


def _finite(found: tf.Tensor) -> np.ndarray:
    values = found.numpy()
    if not np.isfinite(values).all():
        raise errors.NotFiniteError(
            "a product with the Jacobian is not finite; check the weights, the inputs and the vectors"
        )
    return values
