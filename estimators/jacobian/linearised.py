"""A function and its derivatives at a batch of inputs: J v, J^T u and H v as often as wanted, from one forward pass.

Everything here runs while a tf.function is traced, products also within its loops. J^T u is a backward pass. J v is the
derivative of J^T u by u, which is linear in u: a backward pass through the backward pass. On two cores it takes as long
as J^T u, where forward-mode accumulation, which computes the function anew each time, takes twice as long.
"""

from collections.abc import Callable
import math

import tensorflow as tf

from estimators.jacobian import pooling

Map = Callable[[tf.Tensor], tf.Tensor]


class Linearised:
    """g(x) and dg/dx of every example of a batch; the activations are kept while products are taken.

    Attributes:
        outputs: g(x), [B, K].
    """

    def __init__(self, function: Map, inputs: tf.Tensor, *, with_jvp: bool = False, with_hvp: bool = False) -> None:
        """Traces the function at inputs [B, ...], and for `jvp` and `hvp` what they differentiate."""
        # Another tensor: inputs that the function captures by themselves are no part of what it is differentiated by.
        self._inputs = tf.identity(inputs)
        with inputs.graph.gradient_override_map(pooling.OVERRIDES):
            self.outputs = function(self._inputs)
        pooling.fold(inputs.graph)
        if with_jvp:
            self._seed = tf.zeros_like(self.outputs)
            self._pulled = self._pull(self._seed)
        if with_hvp:
            self._gradients = self._pull(tf.ones_like(self.outputs))

    def vjp(self, vectors: tf.Tensor) -> tf.Tensor:
        """J^T u for each example: [B, K] -> [B, D]."""
        return tf.reshape(self._pull(vectors), [self._inputs.shape[0], math.prod(self._inputs.shape[1:])])

    def jvp(self, vectors: tf.Tensor) -> tf.Tensor:
        """J v for each example: [B, D] -> [B, K]; only if made `with_jvp`."""
        tangents = tf.reshape(vectors, self._inputs.shape)
        found = _derivative(self._pulled, self._seed, tangents)
        # Gradients of gradients of convolutions come without a static shape.
        return tf.reshape(found, self.outputs.shape)

    def hvp(self, vectors: tf.Tensor) -> tf.Tensor:
        """H v for each example, of the sum of its outputs: [B, D] -> [B, D]; only if made `with_hvp`."""
        tangents = tf.reshape(vectors, self._inputs.shape)
        return tf.reshape(_derivative(self._gradients, self._inputs, tangents), vectors.shape)

    def _pull(self, vectors: tf.Tensor) -> tf.Tensor:
        return _derivative(self.outputs, self._inputs, vectors)


def _derivative(outputs: tf.Tensor, inputs: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    return tf.gradients(outputs, inputs, grad_ys=vectors, unconnected_gradients=tf.UnconnectedGradients.ZERO)[0]
