"""Evaluation of one model: logits and right-or-wrong for every example of a split.

Training and `evaluate_run` share this code, so that the correctness recorded with a run can be reproduced from its
checkpoint to the last bit on the same kind of machine.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from heldout.datasets import dataset as dataset_lib

# Bounds the memory of an evaluation; also part of what makes it reproducible to the last bit.
_BATCH_SIZE = 1000


def normaliser(dataset: dataset_lib.Dataset, dtype: str = "float32") -> Callable[[tf.Tensor], tf.Tensor]:
    """The TensorFlow form of `dataset.normalise`: stored images -> model inputs of exactly `dtype`."""

    def normalise(images: tf.Tensor) -> tf.Tensor:
        values = tf.cast(images, dtype) / tf.constant(dataset.scale, dtype)
        if dataset.mean is not None and dataset.std is not None:
            values = (values - tf.constant(dataset.mean, dtype)) / tf.constant(dataset.std, dtype)
        return values

    return normalise


class Evaluator:
    """Evaluates a module, whatever weights it holds at the time, with one compiled function.

    Args:
        module: called as `module(images, is_training=False)`.
        normalise: maps stored images to the inputs of the model.
    """

    def __init__(self, module: tf.Module, normalise: Callable[[tf.Tensor], tf.Tensor]) -> None:
        self._forward = tf.function(lambda images: module(normalise(images), is_training=False), reduce_retracing=True)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits [n, K] of stored images [n, H, W, C]."""
        starts = range(0, len(images), _BATCH_SIZE)
        return np.concatenate([self._forward(tf.constant(images[i : i + _BATCH_SIZE])).numpy() for i in starts])


def correct(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Whether the first largest of the logits [n, K] stands at the label [n]; bool [n]."""
    return np.argmax(logits, axis=1) == label
