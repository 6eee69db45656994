"""Hessian, Gauss-Newton and empirical Fisher matrices written out by nested differentiation, in float64."""

import numpy as np
import tensorflow as tf


def _flat(tensors, rows):
    return np.concatenate([tf.convert_to_tensor(t).numpy().reshape(rows, -1) for t in tensors], axis=1)


def hessian(target, inputs, labels):
    """[P, P]: derivative by derivative of the mean loss plus weight decay."""
    variables = target.variables

    @tf.function  # eagerly, some convolutions have no gradient
    def rows():
        with tf.GradientTape(persistent=True) as outer:
            with tf.GradientTape() as inner:
                loss = tf.reduce_mean(target.losses(inputs, labels))
            gradients = inner.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            flat = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0)
        zero = tf.UnconnectedGradients.ZERO
        return outer.jacobian(flat, variables, unconnected_gradients=zero, experimental_use_pfor=False)

    matrix = _flat(rows(), sum(variable.shape.num_elements() for variable in variables))
    return matrix + np.diag(target.weight_decay_vector())


def gauss_newton(target, inputs, labels):
    """[P, P]: (1 / N) sum of J^T (d^2 l / d f^2) J plus weight decay."""
    total = 0.0
    for k in range(len(labels)):
        one = tf.nest.map_structure(lambda array, k=k: tf.constant(array[k : k + 1]), (inputs, labels))
        with tf.GradientTape(persistent=True) as tape:
            predictions = target.predict(one[0])
        size = predictions.shape.num_elements()
        jacobian = _flat(tape.jacobian(predictions, target.variables, experimental_use_pfor=False), size)
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(predictions)
            with tf.GradientTape() as inner:
                inner.watch(predictions)
                loss = target.loss.values(predictions, one[1])
            slope = inner.gradient(loss, predictions)
        curved = outer.jacobian(slope, predictions, experimental_use_pfor=False).numpy().reshape(size, size)
        total = total + jacobian.T @ curved @ jacobian
    return total / len(labels) + np.diag(target.weight_decay_vector())


def empirical_fisher(target, inputs, labels):
    """[P, P]: (1 / N) sum of g g^T plus weight decay."""
    total = 0.0
    for k in range(len(labels)):
        one = tf.nest.map_structure(lambda array, k=k: tf.constant(array[k : k + 1]), (inputs, labels))
        with tf.GradientTape() as tape:
            loss = target.losses(*one)
        gradient = _flat(tape.gradient(loss, target.variables), 1)
        total = total + gradient.T @ gradient
    return total / len(labels) + np.diag(target.weight_decay_vector())
