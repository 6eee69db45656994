"""A product for each of several vectors: all at a time where that is safe and fits, one after the other elsewhere.

What does not depend on the vector, the pass through the model itself, is computed once for all of them, and what does
becomes one large matrix product. Convolutions have no such form (TensorFlow would loop over them, and make a second
copy of what they read), and products of stacks of matrices are avoided: TensorFlow 2.21 computes some of those wrongly
on the CPU once one side is repeated, see `layouts.multiplied`.
"""

from collections.abc import Callable
import math
from typing import Any

import tensorflow as tf

# Numbers of all vectors' passes that are held at a time: 256 million of float32 are 1 GiB.
_HELD = 2**28
# More than so many vectors at a time make nothing faster.
_MOST = 32
_LOOPED = (
    "BatchMatMul",
    "Conv",
    "Depthwise",
    "Einsum",
    "If",
    "Map",
    "StatelessIf",
    "StatelessWhile",
    "While",
    "XlaDot",
)


def num_together(function: Callable[..., Any], *arguments: Any) -> int:
    """Vectors whose passes may be made at a time, 1 if it is to be one after the other.

    Args:
        function: a pass through the model and back, of which the products are derivatives.
        arguments: of the function, tensors of static shapes; only their shapes are used.
    """
    specs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), arguments)
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    definition = graph.as_graph_def()
    bodies = [definition.node, *(f.node_def for f in definition.library.function)]
    if any(node.op.startswith(_LOOPED) for body in bodies for node in body):
        return 1
    made = [operation for operation in graph.get_operations() if operation.type not in ("Const", "Placeholder")]
    shapes = [output.shape for operation in made for output in operation.outputs]
    held = sum(math.prod(shape) for shape in shapes if shape.is_fully_defined())
    # Along a vector everything is there once more, and some of it twice.
    return max(1, min(_MOST, _HELD // (2 * max(held, 1))))


def for_each(product: Callable[[tf.Tensor], tf.Tensor], vectors: tf.Tensor, together: int) -> tf.Tensor:
    """[R, P] -> [R, P], within a function that is being traced.

    Args:
        product: [P] -> [P].
        vectors: [R, P].
        together: from `num_together`.
    """
    num = vectors.shape[0]
    if num == 1:
        return product(vectors[0])[None]
    if together > 1 and num is not None:
        try:
            return _blocks(product, vectors, together)
        except ValueError:
            # TensorFlow has no form of some operation for several vectors; if it was another error it comes again.
            pass
    return tf.map_fn(product, vectors, parallel_iterations=1)


def _blocks(product: Callable[[tf.Tensor], tf.Tensor], vectors: tf.Tensor, together: int) -> tf.Tensor:
    """As many vectors in every block; the last is filled up with zeros."""
    num, size = vectors.shape
    num_blocks = math.ceil(num / together)
    block_size = math.ceil(num / num_blocks)
    filled = tf.pad(vectors, [[0, num_blocks * block_size - num], [0, 0]])

    def some(block: tf.Tensor) -> tf.Tensor:
        return tf.vectorized_map(product, block, fallback_to_while_loop=False)

    if num_blocks == 1:
        return some(filled)
    found = tf.map_fn(some, tf.reshape(filled, [num_blocks, block_size, size]), parallel_iterations=1)
    return tf.reshape(found, [num_blocks * block_size, size])[:num]
