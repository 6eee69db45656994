"""The tiny models on which every promise of the estimators is tried, in float64 where TensorFlow allows it."""

import dataclasses
from typing import Any

import keras
import numpy as np
import sonnet as snt
import tensorflow as tf

from estimators import targets


@dataclasses.dataclass(frozen=True)
class Case:
    """A model with examples.

    Attributes:
        target: of the model, measuring the margin unless said otherwise.
        inputs, labels: seven examples.
        looped: parts of the names of parameters that have no rule.
    """

    target: targets.Target
    inputs: Any
    labels: np.ndarray
    looped: tuple[str, ...] = ()


class _Functional(tf.Module):
    """Weights and a function of them and of inputs."""

    def __init__(self, function, seed=0, dtype=tf.float64, **shapes):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.weights = {
            name: tf.Variable(0.5 * rng.normal(size=shape), dtype=dtype, name=name) for name, shape in shapes.items()
        }
        self._function = function

    def __call__(self, inputs):
        return self._function(inputs, **self.weights)


def _images(*shape, seed=1, dtype=np.float64, num=7):
    return np.random.default_rng(seed).normal(size=(num, *shape)).astype(dtype)


def _labels(num_classes=3, num=7):
    return np.random.default_rng(2).integers(0, num_classes, num)


def _functional(function, shape, looped=(), **shapes):
    module = _Functional(function, **shapes)
    return Case(targets.of(module, measured="margin"), _images(*shape), _labels(), looped)


def _convolution(shape, kernel, dtype=tf.float64, **options):
    """A convolution of images followed by a sum over space, smooth so that the loss depends on all of it."""

    def apply(x, w):
        y = tf.nn.convolution(x, w, **options)
        return tf.reduce_sum(tf.tanh(y), axis=list(range(1, len(y.shape) - 1)))[:, :3]

    module = _Functional(apply, dtype=dtype, w=kernel)
    return Case(targets.of(module, measured="margin"), _images(*shape, dtype=dtype.as_numpy_dtype), _labels())


def mlp():
    """Two dense layers."""
    return _functional(lambda x, w, b, v, c: tf.tanh(x @ w + b) @ v + c, (5,), w=(5, 4), b=(4,), v=(4, 3), c=(3,))


def transposed_dense():
    """A kernel that is stored [outputs, inputs]."""
    return _functional(lambda x, w: tf.matmul(x, w, transpose_b=True), (5,), w=(3, 5))


def tokens():
    """A dense layer over a sequence, flattened as Keras does it."""

    def apply(x, w, b, v):
        y = tf.tanh(tf.reshape(tf.reshape(x, [-1, 4]) @ w, [-1, 6, 5]) + b)
        return tf.reduce_sum(y, 1) @ v

    return _functional(apply, (6, 4), w=(4, 5), b=(5,), v=(5, 3))


def tied():
    """One kernel used twice."""
    return _functional(lambda x, w, v: tf.tanh(tf.tanh(x @ w) @ w) @ v, (5,), w=(5, 5), v=(5, 3))


def tied_convolution():
    """One convolution applied at two sizes."""

    def apply(x, w, v):
        y = tf.tanh(tf.nn.conv2d(x, w, 1, "SAME"))
        y = tf.tanh(tf.nn.conv2d(y[:, ::2, ::2], w, 1, "SAME"))
        return tf.reduce_sum(y, [1, 2]) @ v

    return _functional(apply, (6, 6, 2), w=(3, 3, 2, 2), v=(2, 3))


def weight_norm():
    """A kernel of given length, which mixes its elements."""
    return _functional(
        lambda x, g, w: x @ (g * w / tf.norm(w, axis=0)), (5,), looped=("weights/g", "weights/w"), g=(3,), w=(5, 3)
    )


def softplus_scale():
    """A kernel that follows from a parameter element by element."""
    return _functional(lambda x, w: x @ tf.math.softplus(w), (5,), w=(5, 3))


def arithmetic():
    """Parameters on either side of differences, products and quotients, with and without repetition."""

    def apply(x, a, b, c, d, e):
        y = (a - x * b) / (4.0 + c) - d
        return tf.reduce_sum(tf.tanh(y + e), axis=1)

    return _functional(apply, (4, 3), a=(3,), b=(4, 1), c=(1, 4, 3), d=(), e=(4, 3))


def einsums():
    """Attention-like products: heads, groups, and a kernel that comes first."""

    def apply(x, q, g, o):
        heads = tf.einsum("btd,dhk->bthk", x, q)
        mixed = tf.tanh(tf.einsum("bthk,hkl->bthl", heads, g))
        return tf.einsum("hlo,bthl->bo", o, mixed)

    case = _functional(apply, (4, 5), q=(5, 2, 3), g=(2, 3, 2), o=(2, 2, 3))
    return dataclasses.replace(case, looped=("weights/o",))  # sums over t, which no letter of the kernel names


def class_token():
    """A parameter repeated for every example."""

    def apply(x, token, w):
        first = tf.broadcast_to(token, [x.shape[0] or tf.shape(x)[0], 1, 4])
        return tf.reduce_sum(tf.tanh(tf.concat([first, x], 1)), 1) @ w

    return _functional(apply, (3, 4), token=(1, 1, 4), w=(4, 3))


def tiled_token():
    """The same by `tf.tile`, without a leading axis of its own, and by `tf.repeat`."""

    def apply(x, token, other, w):
        size = x.shape[0] or tf.shape(x)[0]
        parts = [tf.tile(token, [size, 1, 1]), x, tf.repeat(other[None], size, axis=0)]
        return tf.reduce_sum(tf.tanh(tf.concat(parts, 1)), 1) @ w

    return _functional(apply, (3, 4), token=(1, 1, 4), other=(2, 4), w=(4, 3))


def repeated_by_chance():
    """A parameter repeated as often as a plan has examples, but for all of them."""

    def apply(x, token, w):
        shared = tf.transpose(tf.broadcast_to(token, [3, 4]))
        return tf.tanh(x) @ (w + shared)

    return _functional(apply, (4,), looped=("weights/token",), token=(1, 4), w=(4, 3))


def initial_state():
    """A recurrent cell that begins with zeros, which follow the number of examples though none enters them."""

    def apply(x, w, u, b):
        state = tf.zeros([x.shape[0], 3], x.dtype)
        for step in range(3):
            state = tf.tanh(x[:, step] @ w + state @ u + b)
        return state

    return _functional(apply, (3, 4), w=(4, 3), u=(3, 3), b=(3,))


def nested_function():
    """A model that is a compiled function itself."""
    inner = tf.function(lambda x, w: tf.tanh(x) @ w, jit_compile=True)
    return _functional(lambda x, w: inner(x, w), (5,), w=(5, 3))


def branching():
    """A function that branches on tensors cannot be traced as plain Python."""

    @tf.function
    def inner(x, w):
        if tf.reduce_sum(w) > -1e9:  # noqa: SIM108, the branch that AutoGraph turns into tf.cond
            y = x @ w
        else:
            y = -(x @ w)
        return y

    return _functional(lambda x, w: inner(x, w), (5,), looped=("weights/w",), w=(5, 3))


def embedding():
    """A look-up of token vectors."""
    inputs = np.random.default_rng(3).integers(0, 6, (7, 4))

    def apply(x, table, w):
        return tf.reduce_sum(tf.tanh(tf.nn.embedding_lookup(table, x)), 1) @ w

    module = _Functional(apply, table=(6, 5), w=(5, 3))
    return Case(targets.of(module, measured="margin"), inputs, _labels())


def regression():
    """One output, squared error."""
    module = _Functional(lambda x, w, b: x @ w + b, w=(5, 1), b=(1,))
    labels = np.random.default_rng(4).normal(size=7)
    return Case(targets.of(module, loss="squared_error", measured="output"), _images(5), labels)


def multi_label():
    """Three binary labels an example."""
    module = _Functional(lambda x, w: tf.tanh(x) @ w, w=(5, 3))
    labels = np.random.default_rng(4).integers(0, 2, (7, 3))
    return Case(targets.of(module, loss="binary_cross_entropy"), _images(5), labels)


def several_inputs():
    """Inputs in a dict."""
    module = _Functional(lambda x, w, v: x["a"] @ w + tf.tanh(x["b"]) @ v, w=(5, 3), v=(2, 3))
    inputs = {"a": _images(5), "b": _images(2, seed=9)}
    return Case(targets.of(module, measured="logit"), inputs, _labels())


def _sonnet_norms(with_images):
    snt_layers = [
        snt.Conv2D(4, 3, with_bias=True),
        tf.tanh,
        snt.LayerNorm(axis=-1, create_scale=True, create_offset=True),
        snt.GroupNorm(2),
        snt.Flatten(),
        snt.Linear(3),
    ]
    model = snt.Sequential(snt_layers)
    model(with_images[:1])
    return model


def sonnet_norms():
    """Sonnet's layers with scale and offset."""
    inputs = _images(4, 4, 2, dtype=np.float32)
    tf.random.set_seed(5)
    return Case(targets.of(_sonnet_norms(inputs), measured="margin"), inputs, _labels())


class SonnetBatchNorm(snt.Module):
    """A convolution, batch normalisation and a dense layer."""

    def __init__(self):
        super().__init__()
        self.conv = snt.Conv2D(4, 3)
        self.norm = snt.BatchNorm(create_scale=True, create_offset=True)
        self.head = snt.Linear(3)

    def __call__(self, images, is_training):
        y = tf.tanh(self.norm(self.conv(images), is_training=is_training))
        return self.head(tf.reduce_mean(y, [1, 2]))


def tiny_sonnet():
    """A `SonnetBatchNorm` with its variables."""
    model = SonnetBatchNorm()
    model(np.zeros((1, 4, 4, 2), np.float32), is_training=True)
    return model


def sonnet_batch_norm():
    """Batch normalisation by its moving statistics, which are no parameters."""
    inputs = _images(4, 4, 2, dtype=np.float32)
    tf.random.set_seed(6)
    model = SonnetBatchNorm()
    for _ in range(3):
        model(inputs, is_training=True)
    return Case(targets.of(model, measured="margin"), inputs, _labels())


def keras_zoo():
    """Keras's convolutions and normalisations, one after the other."""
    keras.utils.set_random_seed(7)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((12, 12, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="tanh"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, depth_multiplier=2, activation="tanh"),
            layers.SeparableConv2D(6, 2, activation="tanh"),
            layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
            layers.GroupNormalization(2),
            layers.Reshape((-1, 4)),
            layers.Dense(5, activation="tanh"),
            layers.LayerNormalization(),
            layers.Conv1D(4, 3, dilation_rate=2),
            layers.Dropout(0.5),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    )
    return Case(targets.of(model, measured="margin"), _images(12, 12, 3, dtype=np.float32), _labels())


def keras_attention():
    """Embedding, attention and a recurrent layer, whose loop has no rule."""
    keras.utils.set_random_seed(8)
    layers = keras.layers
    tokens_in = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(11, 6)(tokens_in)
    attended = layers.MultiHeadAttention(2, 3)(embedded, embedded)
    model = keras.Model(tokens_in, layers.Dense(3)(layers.LSTM(4)(attended)))
    inputs = np.random.default_rng(3).integers(0, 11, (7, 5)).astype(np.int32)
    return Case(targets.of(model, measured="margin"), inputs, _labels(), looped=("lstm",))


ALL = {
    "mlp": mlp,
    "transposed_dense": transposed_dense,
    "tokens": tokens,
    "tied": tied,
    "tied_convolution": tied_convolution,
    "weight_norm": weight_norm,
    "softplus_scale": softplus_scale,
    "arithmetic": arithmetic,
    "einsums": einsums,
    "class_token": class_token,
    "tiled_token": tiled_token,
    "repeated_by_chance": repeated_by_chance,
    "initial_state": initial_state,
    "nested_function": nested_function,
    "branching": branching,
    "embedding": embedding,
    "regression": regression,
    "multi_label": multi_label,
    "several_inputs": several_inputs,
    "conv1d_valid": lambda: _convolution((9, 2), (3, 2, 4), padding="VALID"),
    "conv1d_strided": lambda: _convolution((9, 2), (4, 2, 3), strides=2, padding="SAME"),
    "conv2d_same": lambda: _convolution((6, 5, 2), (3, 2, 2, 4), padding="SAME"),
    "conv2d_strided": lambda: _convolution((7, 6, 2), (3, 3, 2, 4), strides=[2, 3], padding="SAME"),
    "conv2d_strided_valid": lambda: _convolution((8, 7, 2), (3, 3, 2, 4), strides=[3, 2], padding="VALID"),
    "conv2d_dilated": lambda: _convolution((9, 9, 2), (3, 3, 2, 4), dilations=2, padding="SAME"),
    "conv2d_grouped": lambda: _convolution((6, 6, 6), (3, 3, 2, 9), tf.float32, padding="SAME"),
    "conv2d_single": lambda: _convolution((3, 3, 2), (3, 3, 2, 4), padding="VALID"),
    "conv3d": lambda: _convolution((4, 5, 4, 2), (2, 3, 2, 2, 3), strides=[1, 2, 1], padding="SAME"),
    "sonnet_norms": sonnet_norms,
    "sonnet_batch_norm": sonnet_batch_norm,
    "keras_zoo": keras_zoo,
    "keras_attention": keras_attention,
}
