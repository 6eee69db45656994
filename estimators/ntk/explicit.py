"""Explicit Jacobians of a target's outputs by its parameters, J [n k, P], whose J J^T is the tangent kernel."""

from typing import Any

import numpy as np
import tensorflow as tf

from estimators import gradient_products, targets
from estimators.derivatives import per_example
from estimators.ntk import factors, tiles
from estimators.ntk import outputs as outputs_lib


def jacobians(
    target: targets.Target,
    x: Any,
    *,
    out: np.ndarray | None = None,
    batch_size: int = 256,
    memory_limit_mb: float = 2048.0,
    jit_compile: bool | None = None,
) -> np.ndarray:
    """J [n k, P], gradients of all outputs; row index = example * k + output.

    Args:
        target: what is differentiated; a parameter vector has the order of its `parameters`.
        x: inputs of n examples, see `TangentKernel`.
        out: [n k, P] floats to fill, such as a memory map; None for a new array.
        batch_size: examples at a time at most.
        memory_limit_mb: of the gradients of a batch; J itself comes on top where it is in memory.
        jit_compile: compile by XLA; None for what the target says.

    Returns:
        The Jacobian, in outputs per unit of the parameters. One forward and k backward passes for each example.

    Raises:
        InvalidArgumentError: the batch size is below 1, or one example takes more than the memory.
        InvalidTargetError, NotFiniteError: see `plans.make`; or a gradient is NaN or infinite.
        MismatchError: `out` has another shape.
    """
    outputs = outputs_lib.of(target, x)
    data, num = outputs_lib.data(x), outputs.num_outputs
    size = tiles.rows_at_a_time(outputs, batch_size, memory_limit_mb)
    values = tiles.output_array(out, (len(data) * num, target.num_parameters), outputs.dtype)

    def compute(inputs: Any, labels: tf.Tensor) -> tf.Tensor:
        del labels
        return rows(outputs, inputs)

    compiled = per_example.compiled_rows(outputs.plan, compute, jit_compile)
    start = 0
    for batch, count in gradient_products.even_batches(data, size):
        found = tf.reshape(compiled(batch.inputs, np.zeros(len(batch), np.float32))[:count], [count * num, -1])
        gradient_products.check_finite(found, np.repeat(batch.ids[:count], num))
        values[start : start + count * num] = found.numpy()
        start += count * num
    return values


def rows(outputs: outputs_lib.Outputs, inputs: Any) -> tf.Tensor:
    """[B, k, P], within a function that is being traced."""
    return tf.concat([tf.cast(part, outputs.dtype) for part in by_parameter(outputs, inputs)], axis=2)


def by_parameter(outputs: outputs_lib.Outputs, inputs: Any) -> list[tf.Tensor]:
    """[B, k, s] for each parameter of s elements, within a function that is being traced."""
    kinds, values = factors.of_batch(outputs, inputs)
    batch = tf.nest.flatten(inputs)[0].shape[0]
    return [
        factors.gradients(kinds[k], values[k])
        if k in kinds
        else tf.zeros([batch, outputs.num_outputs, parameter.size], outputs.dtype)
        for k, parameter in enumerate(outputs.target.parameters)
    ]
