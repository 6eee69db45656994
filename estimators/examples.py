"""Examples as estimators take them: arrays of inputs and labels, read in batches."""

from collections.abc import Iterator
import dataclasses
import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Inputs and labels of N examples.

    Attributes:
        inputs: an array [N, ...], or a nest of such arrays as the model takes it (a dict, a tuple). Anything that has
            a shape and can be indexed by an array of positions serves: NumPy arrays and memory maps are read batch by
            batch.
        labels: array [N, ...].
        ids: [N] int64, what the examples are called in results; by default their positions.

    Raises:
        MismatchError: lengths differ.
        InvalidArgumentError: there is no example.
    """

    inputs: Any
    labels: Any
    ids: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        num = len(self.labels)
        lengths = {len(array) for array in tf.nest.flatten(self.inputs)}
        if lengths != {num}:
            raise errors.MismatchError(f"inputs of {sorted(lengths)} examples beside labels of {num}; give as many")
        if num == 0:
            raise errors.InvalidArgumentError("no examples: at least one is needed")
        ids = np.arange(num) if self.ids is None else np.asarray(self.ids)
        if ids.shape != (num,):
            raise errors.MismatchError(f"ids of shape {ids.shape} beside {num} examples; give one for each")
        object.__setattr__(self, "ids", ids.astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: np.ndarray | slice) -> "Examples":
        """The examples at positions, in memory."""
        inputs = tf.nest.map_structure(lambda array: np.asarray(array[positions]), self.inputs)
        return Examples(inputs, np.asarray(self.labels[positions]), self.ids[positions])

    def batches(self, batch_size: int) -> Iterator["Examples"]:
        """The examples in order; the last batch may be smaller.

        Raises:
            InvalidArgumentError: the batch size is below 1.
        """
        if batch_size < 1:
            raise errors.InvalidArgumentError(f"batch_size {batch_size}: must be at least 1")
        for start in range(0, len(self), batch_size):
            yield self.take(slice(start, start + batch_size))

    def fingerprint(self) -> str:
        """SHA-256 of inputs, labels and ids, by which stored factors know what they were computed of."""
        digest = hashlib.sha256()
        for array in [*tf.nest.flatten(self.inputs), self.labels, self.ids]:
            digest.update(f"{array.dtype} {tuple(array.shape)};".encode())
            for start in range(0, len(array), 1024):
                digest.update(np.ascontiguousarray(array[start : start + 1024]).tobytes())
        return digest.hexdigest()


def of(examples: "Examples | tuple[Any, Any]") -> Examples:
    """`examples` itself, or made of a pair (inputs, labels)."""
    return examples if isinstance(examples, Examples) else Examples(*examples)
