"""The plain way to train the MNIST demonstration: one run after the other, one compiled step, in JAX or TensorFlow.

Written as a practitioner would write it for one run; the yardstick of benchmark_training.
"""

from collections.abc import Callable
import dataclasses
import itertools
import time
from typing import Any

import numpy as np

from heldout.datasets import dataset as dataset_lib

_SIZES = (512, 256)
_BATCH_SIZE, _LEARNING_RATE, _MOMENTUM, _RATIO = 128, 0.1, 0.9, 0.5

Parameters = list[tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Wall seconds of a number of runs, and their mean held-out accuracy."""

    seconds: float
    heldout_accuracy: float


def load(kind: str, data: dataset_lib.Dataset, num_epochs: int) -> Callable[[int], Timing]:
    """A function that trains the given number of runs and returns their time; compiled beforehand."""
    step, logits = {"jax": _jax, "tf": _tensorflow}[kind]()
    images = data.normalise(data.train.images).reshape(len(data.train), -1)
    test_images = data.normalise(data.test.images).reshape(len(data.test), -1)

    def one_run(seed: int, epochs: int) -> float:
        generator = np.random.default_rng(seed)
        subset = generator.permutation(len(images))[: int(_RATIO * len(images))]
        parameters = _initial(generator, images.shape[1], data.num_classes)
        velocities = [(np.zeros_like(w), np.zeros_like(b)) for w, b in parameters]
        state = (parameters, velocities)
        for _ in range(epochs):
            order = generator.permutation(subset)
            for first in range(0, len(order) - _BATCH_SIZE + 1, _BATCH_SIZE):
                batch = order[first : first + _BATCH_SIZE]
                state = step(*state, images[batch], data.train.label[batch])
        correct = np.argmax(np.asarray(logits(state[0], images)), axis=1) == data.train.label
        np.argmax(np.asarray(logits(state[0], test_images)), axis=1)
        return float(np.mean(np.delete(correct, subset)))

    def run(num_runs: int) -> Timing:
        start = time.perf_counter()
        accuracies = [one_run(seed, num_epochs) for seed in range(num_runs)]
        return Timing(time.perf_counter() - start, float(np.mean(accuracies)))

    one_run(0, 1)
    return run


def _initial(generator: np.random.Generator, num_inputs: int, num_classes: int) -> Parameters:
    sizes = (num_inputs, *_SIZES, num_classes)
    return [
        ((generator.standard_normal((a, b)) / np.sqrt(a)).astype(np.float32), np.zeros(b, np.float32))
        for a, b in itertools.pairwise(sizes)
    ]


def _jax() -> tuple[Callable, Callable]:
    import jax
    import jax.numpy as jnp

    def logits(parameters: Parameters, images: Any) -> Any:
        for w, b in parameters[:-1]:
            images = jax.nn.relu(images @ w + b)
        return images @ parameters[-1][0] + parameters[-1][1]

    def loss(parameters: Parameters, images: Any, labels: Any) -> Any:
        log_probability = jax.nn.log_softmax(logits(parameters, images))
        return -jnp.mean(jnp.take_along_axis(log_probability, labels[:, None], axis=1))

    @jax.jit
    def step(parameters: Parameters, velocities: Parameters, images: Any, labels: Any) -> Any:
        gradients = jax.grad(loss)(parameters, images, labels)
        velocities = jax.tree.map(lambda v, g: _MOMENTUM * v + g, velocities, gradients)
        return jax.tree.map(lambda w, v: w - _LEARNING_RATE * v, parameters, velocities), velocities

    return step, jax.jit(logits)


def _tensorflow() -> tuple[Callable, Callable]:
    import tensorflow as tf

    def logits(parameters: Parameters, images: Any) -> Any:
        for w, b in parameters[:-1]:
            images = tf.nn.relu(images @ w + b)
        return images @ parameters[-1][0] + parameters[-1][1]

    @tf.function(reduce_retracing=True)
    def step(parameters: Parameters, velocities: Parameters, images: Any, labels: Any) -> Any:
        flat = tf.nest.flatten(parameters)
        with tf.GradientTape() as tape:
            tape.watch(flat)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits(parameters, images))
            loss = tf.reduce_mean(loss)
        gradients = tf.nest.pack_sequence_as(parameters, tape.gradient(loss, flat))
        velocities = tf.nest.map_structure(lambda v, g: _MOMENTUM * v + g, velocities, gradients)
        return tf.nest.map_structure(lambda w, v: w - _LEARNING_RATE * v, parameters, velocities), velocities

    def as_tensors(function: Callable) -> Callable:
        return lambda *arguments: function(*tf.nest.map_structure(tf.convert_to_tensor, arguments))

    return as_tensors(step), as_tensors(tf.function(logits, reduce_retracing=True))
