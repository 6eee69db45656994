"""Explicit Jacobians of outputs by `tape.jacobian`, one example at a time, and models to try the kernel on."""

import functools

import keras
import numpy as np
import sonnet as snt
import tensorflow as tf

from estimators import targets
from tests.estimators import models


def jacobian(target, inputs):
    """J [n k, P] in float64; row = example * k + output."""

    @tf.function
    def rows(one):
        with tf.GradientTape() as tape:
            outputs = tf.reshape(target.predict(one), [-1])
        found = tape.jacobian(
            outputs,
            target.variables,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
            experimental_use_pfor=False,
        )
        return [tf.convert_to_tensor(part) for part in found]

    parts = []
    for k in range(len(tf.nest.flatten(inputs)[0])):
        found = rows(tf.nest.map_structure(lambda a, k=k: tf.constant(a[k : k + 1]), inputs))
        parts.append(np.concatenate([np.asarray(p, np.float64).reshape(p.shape[0], -1) for p in found], axis=1))
    return np.concatenate(parts)


def by_example(kernel, k):
    """[n k, m k] -> [n, k, m, k]."""
    return kernel.reshape(kernel.shape[0] // k, k, kernel.shape[1] // k, k)


def mlp(num_outputs):
    """Three dense layers in float64, as many outputs as asked for."""
    shapes = {"w": (5, 6), "b": (6,), "v": (6, 4), "c": (4,), "u": (4, num_outputs), "d": (num_outputs,)}
    return models._functional(lambda x, w, b, v, c, u, d: tf.tanh(tf.tanh(x @ w + b) @ v + c) @ u + d, (5,), **shapes)


def scalar():
    """Predictions [B], without an axis of outputs."""
    return models._functional(lambda x, w, v: tf.reduce_sum(tf.tanh(x @ w) * v, axis=1), (5,), w=(5, 4), v=(4,))


def cnn(num_outputs):
    """Two convolutions, of which patches are large, pooling and a dense layer, in float64."""

    def apply(x, a, b, c, d):
        y = tf.tanh(tf.nn.conv2d(x, a, 1, "SAME") + b)
        y = tf.nn.max_pool2d(tf.tanh(tf.nn.conv2d(y, c, 2, "SAME")), 2, 2, "VALID")
        return tf.reduce_mean(y, [1, 2]) @ d

    return models._functional(apply, (8, 8, 3), a=(3, 3, 3, 5), b=(5,), c=(3, 3, 5, 6), d=(6, num_outputs))


class Residual(snt.Module):
    """Convolutions with batch normalisation, added to what goes past them."""

    def __init__(self):
        super().__init__()
        self.first = snt.Conv2D(6, 3, with_bias=False)
        self.convolutions = [snt.Conv2D(6, 3, with_bias=False) for _ in range(2)]
        self.norms = [snt.BatchNorm(create_scale=True, create_offset=True) for _ in range(2)]
        self.head = snt.Linear(4)

    def __call__(self, images, is_training):
        y = self.first(images)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            y = y + tf.nn.relu(norm(convolution(y), is_training=is_training))
        return self.head(tf.reduce_mean(y, [1, 2]))


def residual():
    """The same in float32, with moving statistics of a few batches."""
    tf.random.set_seed(3)
    inputs = np.random.default_rng(5).normal(size=(7, 6, 6, 3)).astype(np.float32)
    model = Residual()
    for _ in range(3):
        model(inputs, is_training=True)
    return models.Case(targets.of(model), inputs, np.zeros(7, np.int64))


def keras_float64():
    """Convolution, batch normalisation, dropout and dense layers of Keras in float64."""
    keras.utils.set_random_seed(4)
    layers, dtype = keras.layers, "float64"
    x = keras.Input((6, 6, 2), dtype=dtype)
    y = layers.BatchNormalization(dtype=dtype)(layers.Conv2D(4, 3, padding="same", dtype=dtype)(x))
    y = layers.Add(dtype=dtype)([y, layers.Conv2D(4, 3, padding="same", activation="tanh", dtype=dtype)(y)])
    y = layers.Dropout(0.5, dtype=dtype)(layers.GlobalAveragePooling2D(dtype=dtype)(y))
    model = keras.Model(x, layers.Dense(10, dtype=dtype)(y))
    return models.Case(targets.of(model), np.random.default_rng(6).normal(size=(7, 6, 6, 2)), np.zeros(7, np.int64))


def transposed():
    """A transposed convolution, whose cotangents are what its window moves over."""

    def apply(x, a, d):
        y = tf.nn.conv2d_transpose(x, a, [x.shape[0], 8, 8, 3], 2)
        return tf.reduce_sum(tf.tanh(y), [1, 2]) @ d

    return models._functional(apply, (4, 4, 2), a=(3, 3, 3, 2), d=(3, 4))


CASES = {
    "transposed": transposed,
    "mlp_1": functools.partial(mlp, 1),
    "mlp_10": functools.partial(mlp, 10),
    "scalar": scalar,
    "cnn_1": functools.partial(cnn, 1),
    "cnn_10": functools.partial(cnn, 10),
    "residual": residual,
    "keras_float64": keras_float64,
    "tied": models.tied,
    "tied_convolution": models.tied_convolution,
    "embedding": models.embedding,
    "class_token": models.class_token,
    "einsums": models.einsums,
    "weight_norm": models.weight_norm,
    "softplus_scale": models.softplus_scale,
    "several_inputs": models.several_inputs,
    "conv2d_grouped": models.ALL["conv2d_grouped"],
    "conv1d_strided": models.ALL["conv1d_strided"],
}
