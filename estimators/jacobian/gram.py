"""J J^T of every example from K backward passes, from which all norms and normalisations follow.

    compute = gram.make(function)
    logits, products = compute(inputs)         # [B, K] and [B, K, K] float64
    spectra.of_gram(products, logits, labels, "softmax").operator_norms

The products are by the inputs alone: no gradient of a parameter is formed. The forward pass is made once.
"""

from collections.abc import Callable

import tensorflow as tf

from estimators.jacobian import functions, linearised

# Passes of one turn of the loop run side by side, which keeps two cores busy; more would hold more activations.
_PASSES_PER_TURN = 5

Compiled = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def make(function: functions.Function) -> Compiled:
    """A function inputs [B, ...] -> (outputs [B, K], J J^T [B, K, K] float64) of every example.

    Args:
        function: what is differentiated, in its own precision; the products are summed in float64.

    Returns:
        A tf.function, traced once for each size of batch. One forward pass and K backward passes by the input;
        B K D numbers twice, and the activations of a few passes.
    """

    def compute(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs, rows = jacobians(function, inputs)
        wide = tf.cast(rows, tf.float64)
        return outputs, tf.matmul(wide, wide, transpose_b=True)

    return _of_inputs(function, compute)


def make_jacobians(function: functions.Function) -> Compiled:
    """A function inputs [B, ...] -> (outputs [B, K], J [B, K, D]); args and cost as of `make`."""
    return _of_inputs(function, lambda inputs: jacobians(function, inputs))


def _of_inputs(function: functions.Function, compute: Compiled) -> Compiled:
    if function.strategy is None:
        return tf.function(compute, autograph=False, jit_compile=function.jit_compile or None)
    compiled = function.compiled(lambda inputs, _: compute(inputs))
    # No label is looked at: any tensor with a row for each example will do.
    return tf.function(lambda inputs: compiled(inputs, tf.zeros([inputs.shape[0]])), autograph=False)


def bytes_per_example(function: functions.Function) -> int:
    """What a Jacobian takes, twice in its own precision and once in float64."""
    return function.num_outputs * function.input_size * (2 * function.dtype.size + 8)


def jacobians(function: functions.Function, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(outputs [B, K], J [B, K, D]) within a function that is being traced, see `make`."""
    linear = linearised.Linearised(function.predict, inputs)
    outputs, num_outputs = linear.outputs, function.num_outputs
    turns = -(-num_outputs // _PASSES_PER_TURN)
    passes = -(-num_outputs // turns)
    identity = tf.eye(turns * passes, num_outputs, dtype=outputs.dtype)

    def turn(k: tf.Tensor, rows: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        for j in range(passes):
            cotangent = tf.broadcast_to(identity[k * passes + j], outputs.shape)
            rows = rows.write(k * passes + j, linear.vjp(cotangent))
        return k + 1, rows

    shape = [inputs.shape[0], function.input_size]
    rows = tf.TensorArray(function.dtype, turns * passes, element_shape=shape)
    _, rows = tf.while_loop(lambda k, rows: k < turns, turn, (0, rows), parallel_iterations=1)
    return outputs, tf.transpose(rows.stack()[:num_outputs], [1, 0, 2])
