"""Gradients of single examples by one tape for each, as float64."""

import numpy as np
import tensorflow as tf


def single(target, inputs, labels, of="loss"):
    """[B, P], the gradient of each example's loss or measured output."""
    function = target.losses if of == "loss" else target.measurements

    @tf.function  # eagerly, some convolutions have no gradient
    def gradient(inputs, labels):
        with tf.GradientTape() as tape:
            value = function(inputs, labels)
        found = tape.gradient(value, target.variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(g) for g in found]

    rows = []
    for k in range(len(labels)):
        one = tf.nest.map_structure(lambda array, k=k: tf.constant(array[k : k + 1]), (inputs, labels))
        rows.append(np.concatenate([np.ravel(g).astype(np.float64) for g in gradient(*one)]))
    return np.stack(rows)
