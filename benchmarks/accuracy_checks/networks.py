"""A network with a shared dense layer over places and one without, whose every derivative can be written out.

    f(x) = (sum_t tanh(x_t w + b)) v,      x [6, 4], w [4, 5], b [5], v [5, 3]

Its weights are the same in float32 and float64: truth is always that of float64.
"""

import dataclasses
import functools

import numpy as np
import scipy.special
import tensorflow as tf

from estimators import targets
from tests.reference import curvature, gradients, kronecker

DAMPING, _DECAY = 0.1, 0.05
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


class _Network(tf.Module):
    def __init__(self, dtype: str) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        shapes = {"w": (4, 5), "b": (5,), "v": (5, 3)}
        weights = {name: (0.5 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
        self.w, self.b, self.v = (tf.Variable(weights[name], dtype=dtype) for name in ("w", "b", "v"))

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        hidden = tf.tanh(tf.reshape(tf.reshape(inputs, [-1, 4]) @ self.w, [-1, 6, 5]) + self.b)
        return tf.reduce_sum(hidden, 1) @ self.v


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """The network in one precision.

    Attributes:
        target: measuring the margin, with weight decay.
        train: (inputs [12, 6, 4], labels [12]).
        test: (inputs [5, 6, 4], labels [5]).
        dtype: "float32" or "float64".
    """

    target: targets.Target
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    dtype: str

    @property
    def tolerance(self) -> float:
        """Largest error that rounding accounts for."""
        return TOLERANCE[self.dtype]


@functools.cache
def make(dtype: str) -> Case:
    """The network with its examples, which are the same numbers in both precisions."""
    rng = np.random.default_rng(1)
    inputs, labels = rng.normal(size=(17, 6, 4)).astype(np.float32).astype(dtype), rng.integers(0, 3, 17)
    target = targets.of(_Network(dtype), measured="margin", weight_decay=_DECAY)
    return Case(target, (inputs[:12], labels[:12]), (inputs[12:], labels[12:]), dtype)


@functools.cache
def gradient_rows(split: str, of: str) -> np.ndarray:
    """[N, P] float64, of the training or test examples."""
    case = make("float64")
    return gradients.single(case.target, *getattr(case, split), of)


@functools.cache
def curvature_matrix(kind: str) -> np.ndarray:
    """[P, P], a curvature over the training examples with its weight decay."""
    case = make("float64")
    return getattr(curvature, kind)(case.target, *case.train)


@functools.cache
def kronecker_matrix(corrected: bool) -> np.ndarray:
    """[P, P], K-FAC or EK-FAC over the training examples with weight decay, by the derivatives of each layer."""
    case = make("float64")
    b, v, w = (variable.numpy() for variable in case.target.variables)
    inputs, _ = case.train
    hidden = np.tanh(inputs @ w + b)
    probabilities = scipy.special.softmax(hidden.sum(axis=1) @ v, axis=1)
    outer = probabilities[None] - np.eye(3)[:, None, :]  # by label: [3, N, 3]
    inner = (outer @ v.T)[:, :, None, :] * (1 - hidden**2)  # [3, N, T, 5]
    with_ones = np.concatenate([inputs, np.ones((*inputs.shape[:2], 1))], axis=2)
    found = [
        kronecker.layer(with_ones, inner, probabilities.T)[corrected],
        kronecker.layer(hidden.sum(axis=1)[:, None], outer[:, :, None], probabilities.T)[corrected],
    ]
    # Parameters come as b [5], v [5, 3], w [4, 5].
    where = [np.concatenate([20 + np.arange(20), np.arange(5)]), 5 + np.arange(15)]
    return kronecker.joined(found, where, 40) + _DECAY * np.eye(40)
