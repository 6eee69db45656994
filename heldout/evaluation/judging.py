"""Evaluation of one model: what it makes of every example of a split.

Training, `evaluate_run` and `evaluate_zoo` share this code, so that the correctness recorded with a run can be
reproduced from its checkpoint to the last bit on the same kind of machine. Logits are never held for a whole split.
"""

from collections.abc import Callable, Iterator
import dataclasses

import numpy as np
import tensorflow as tf

from heldout.datasets import indexed_records
from heldout.datasets import registry as datasets
from heldout.evaluation import margins

# Bound the memory of an evaluation; the first is also part of what makes it reproducible to the last bit.
_BATCH_SIZE = 1000
_BATCH_SIZE_FROM_DISK = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Judgement:
    """What a model makes of the n examples of a split, by original index.

    Attributes:
        label: int64 [n].
        predicted: int64 [n], the first class with the largest logit.
        gap: float64 [n], the largest logit less the second largest; 0 where there is one class.
        margin: float16 [n], see margins.py; NaN where a logit is not finite.
        finite: whether all logits are.
    """

    label: np.ndarray
    predicted: np.ndarray
    gap: np.ndarray
    margin: np.ndarray
    finite: bool

    @property
    def correct(self) -> np.ndarray:
        """Whether the label was predicted, bool [n]."""
        return self.predicted == self.label


def normaliser(data: datasets.AnyDataset, dtype: str = "float32") -> Callable[[tf.Tensor], tf.Tensor]:
    """Maps images as the data set gives them to model inputs of exactly `dtype`; image records come normalised."""
    if isinstance(data, indexed_records.IndexedRecords):
        return lambda images: tf.cast(images, dtype)
    scale, mean, std = data.scale, data.mean, data.std

    def normalise(images: tf.Tensor) -> tf.Tensor:
        values = tf.cast(images, dtype) / tf.constant(scale, dtype)
        if mean is not None and std is not None:
            values = (values - tf.constant(mean, dtype)) / tf.constant(std, dtype)
        return values

    return normalise


class Evaluator:
    """Evaluates a module, whatever weights it holds at the time, with one compiled function.

    Args:
        module: called as `module(images, is_training=False)`.
        data: with a training and a test split.
        dtype: of the module's inputs.
    """

    def __init__(self, module: tf.Module, data: datasets.AnyDataset, dtype: str = "float32") -> None:
        self._data = data
        normalise = normaliser(data, dtype)
        self._forward = tf.function(lambda images: module(normalise(images), is_training=False), reduce_retracing=True)

    @property
    def num_traces(self) -> int:
        """How often the module has been traced."""
        return int(self._forward.experimental_get_tracing_count())

    def judge(self, split: str) -> Judgement:
        """Judges all examples of "train" (the whole original training set) or "test"."""
        data = self._data
        label = (data.train if split == "train" else data.test).label
        predicted, gap = np.zeros(len(label), np.int64), np.zeros(len(label))
        margin, finite = np.zeros(len(label), np.float16), True
        for index, logits in self._batches(split):
            predicted[index] = np.argmax(logits, axis=1)
            gap[index] = _gap(logits)
            margin[index] = _margin(logits, label[index])
            finite = finite and bool(np.isfinite(logits).all())
        return Judgement(label, predicted, gap, margin, finite)

    def _batches(self, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Original indices [b] and logits [b, K]."""
        data = self._data
        if isinstance(data, indexed_records.IndexedRecords):
            for index, _, images in data.evaluation_batches(split, _BATCH_SIZE_FROM_DISK).as_numpy_iterator():
                yield index, self._forward(tf.constant(images)).numpy()
            return
        examples = data.split(split)
        for start in range(0, len(examples), _BATCH_SIZE):
            index = examples.index[start : start + _BATCH_SIZE]
            yield index, self._forward(tf.constant(examples.images[start : start + _BATCH_SIZE])).numpy()


def _gap(logits: np.ndarray) -> np.ndarray:
    if logits.shape[1] < 2:
        return np.zeros(len(logits))
    two_largest = np.partition(logits, -2, axis=1)[:, -2:]
    with np.errstate(invalid="ignore"):  # inf - inf
        return (two_largest[:, 1] - two_largest[:, 0]).astype(np.float64)


def _margin(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    finite = np.isfinite(logits).all(axis=1)
    found = np.full(len(label), np.nan, np.float16)
    found[finite] = margins.margins(logits[finite], label[finite])
    return found
