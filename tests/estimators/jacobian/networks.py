"""Small networks whose input Jacobians are written out, one backward pass of one example at a time, in float64."""

import functools

import numpy as np
import tensorflow as tf

from estimators.jacobian import functions


def weights(*shape, seed=0, dtype=tf.float64):
    generator = np.random.default_rng([seed, *shape])
    return tf.Variable(generator.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1])), dtype=dtype)


class Convolutional(tf.Module):
    """Convolutions, biases, rectifiers, max and average pooling."""

    def __init__(self, num_outputs=4, dtype=tf.float64):
        super().__init__()
        self.kernels = [weights(3, 3, 2, 4, dtype=dtype), weights(3, 3, 4, 6, dtype=dtype)]
        self.biases = [weights(4, seed=1, dtype=dtype), weights(6, seed=1, dtype=dtype)]
        self.head = weights(2 * 2 * 6, num_outputs, dtype=dtype)

    def __call__(self, images):
        y = tf.nn.relu(tf.nn.conv2d(images, self.kernels[0], 1, "SAME") + 0.1 * self.biases[0])
        y = tf.nn.max_pool2d(y, 2, 2, "VALID")
        y = tf.nn.relu(tf.nn.conv2d(y, self.kernels[1], 1, "SAME") + 0.1 * self.biases[1])
        return tf.reshape(tf.nn.avg_pool2d(y, 2, 2, "VALID"), [-1, 24]) @ self.head


class BatchNormalised(tf.Module):
    """A convolution and batch normalisation, by moving statistics unless training."""

    def __init__(self, num_outputs=4, dtype=tf.float64):
        super().__init__()
        self.kernel, self.head = weights(3, 3, 2, 5, dtype=dtype), weights(5, num_outputs, dtype=dtype)
        self.scale, self.offset = weights(5, seed=2, dtype=dtype), weights(5, seed=3, dtype=dtype)
        generator = np.random.default_rng(5)
        self.mean = tf.Variable(generator.normal(size=5), dtype=dtype, trainable=False)
        self.variance = tf.Variable(generator.uniform(0.5, 2, 5), dtype=dtype, trainable=False)

    def __call__(self, images, is_training):
        y = tf.nn.conv2d(images, self.kernel, 1, "SAME")
        mean, variance = tf.nn.moments(y, [0, 1, 2]) if is_training else (self.mean, self.variance)
        y = tf.nn.batch_normalization(y, mean, variance, self.offset, self.scale, 1e-5)
        return tf.reduce_mean(tf.nn.relu(y), [1, 2]) @ self.head


class Residual(tf.Module):
    """Two blocks with shortcuts, the second with a stride and a projection."""

    def __init__(self, num_outputs=4, dtype=tf.float64):
        super().__init__()
        self.stem = weights(3, 3, 2, 4, dtype=dtype)
        self.first = [weights(3, 3, 4, 4, dtype=dtype, seed=k) for k in (1, 2)]
        self.second = [weights(3, 3, 4, 6, dtype=dtype), weights(3, 3, 6, 6, dtype=dtype)]
        self.shortcut, self.head = weights(1, 1, 4, 6, dtype=dtype), weights(6, num_outputs, dtype=dtype)

    def __call__(self, images):
        y = tf.nn.relu(tf.nn.conv2d(images, self.stem, 1, "SAME"))
        y = tf.nn.relu(y + _branch(y, self.first, 1))
        y = tf.nn.relu(tf.nn.conv2d(y, self.shortcut, 2, "SAME") + _branch(y, self.second, 2))
        return tf.reduce_mean(y, [1, 2]) @ self.head


def _branch(y, kernels, stride):
    y = tf.nn.relu(tf.nn.conv2d(y, kernels[0], stride, "SAME"))
    return 0.5 * tf.nn.conv2d(y, kernels[1], 1, "SAME")


ALL = {"convolutional": Convolutional, "batch_normalised": BatchNormalised, "residual": Residual}


def images(num=7, dtype=np.float64, seed=1):
    return np.random.default_rng(seed).normal(size=(num, 8, 8, 2)).astype(dtype)


def labels(num=7, num_outputs=4):
    return np.random.default_rng(2).integers(0, num_outputs, num)


@functools.cache
def case(name, dtype=tf.float64, num=7, num_outputs=4):
    """(function, inputs, labels)."""
    inputs = images(num, dtype.as_numpy_dtype)
    return functions.of(ALL[name](num_outputs, dtype), inputs), inputs, labels(num, num_outputs)


def linear(matrix, num=1):
    """f(x) = W x as a function, and inputs of ones."""
    matrix = tf.constant(matrix)
    inputs = np.ones((num, matrix.shape[1]), matrix.dtype.as_numpy_dtype)
    return functions.of(lambda x: x @ tf.transpose(matrix), inputs), inputs


def dense_jacobians(predict, inputs):
    """[N, K, D] float64: a tape for each example, a gradient for each output."""
    rows = []
    for k in range(len(inputs)):
        x = tf.constant(inputs[k : k + 1])
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            outputs = tf.unstack(predict(x)[0])
        rows.append([tape.gradient(output, x).numpy().ravel() for output in outputs])
    return np.array(rows, np.float64)
