"""Losses and errors of one network on its training, validation and test examples."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from heldout.evaluation import judging
from heldout.training import model_data

# Bounds the memory of an evaluation; also part of what makes it reproducible to the last bit.
_BATCH_SIZE = 1000


class Evaluator:
    """Measures a module, whatever weights it holds at the time, with one compiled function.

    Args:
        module: called as `module(images, is_training=False)`.
        data: of the network.
        dtype: of the module's inputs.
    """

    def __init__(self, module: tf.Module, data: model_data.ModelData, dtype: str = "float32") -> None:
        self._data = data
        normalise = judging.normaliser(data.dataset, dtype)
        self._forward = tf.function(lambda images: module(normalise(images), is_training=False), reduce_retracing=True)

    def measure(self) -> dict[str, float]:
        """Mean cross-entropy (nats) and share of wrong predictions of each split, under their names in history.csv.

        Returns:
            All NaN of a split where a logit is not finite, or where it is empty.
        """
        found: dict[str, float] = {}
        for name in ("train", "val", "test"):
            split = self._data.split(name)
            loss, error, clean_error = self._measure_split(split)
            found |= {f"{name}_loss": loss, f"{name}_error": error}
            if name == "train":
                found["train_clean_error"] = clean_error
        return found

    def _measure_split(self, split: model_data.ModelSplit) -> tuple[float, float, float]:
        """Loss, error on the labels trained with, error on the clean ones."""
        if not len(split):
            return (float("nan"),) * 3
        total, wrong, wrong_clean = 0.0, 0, 0
        for rows, logits in self._batches(split):
            if not np.isfinite(logits).all():
                return (float("nan"),) * 3
            label, clean = split.label[rows], split.clean_label[rows]
            values = logits.astype(np.float64)
            values -= values.max(axis=1, keepdims=True)
            total += float(np.sum(np.log(np.sum(np.exp(values), axis=1)) - values[np.arange(len(label)), label]))
            predicted = np.argmax(logits, axis=1)
            wrong += int(np.sum(predicted != label))
            wrong_clean += int(np.sum(predicted != clean))
        return total / len(split), wrong / len(split), wrong_clean / len(split)

    def _batches(self, split: model_data.ModelSplit) -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, len(split), _BATCH_SIZE):
            rows = slice(start, start + _BATCH_SIZE)
            yield rows, self._forward(tf.constant(split.images[rows])).numpy()
