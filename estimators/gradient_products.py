"""Inner products of the training examples' gradients with given vectors, the gradients never being held together.

    products[i, r] = g_i . v_r

The training examples are read once for each block of vectors; of each batch the gradients [B, P] are formed and
multiplied by the block [P, R]. n P numbers exist nowhere.
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples, targets
from estimators.derivatives import per_example

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Tells nobody."""
    del done, total


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How much is held at a time, within a limit of memory. It changes no result but by rounding.

    Attributes:
        train: training examples whose gradients are formed together.
        solve: right-hand sides that are solved together.
        test: solutions that are held while the training examples pass by.
        megabytes: what gradients, right-hand sides and solutions take at most; a model's own activations come on top.
    """

    train: int
    solve: int
    test: int
    megabytes: float


# A solver holds some 8 vectors for each right-hand side; batches and solutions are there twice while they are joined.
_SOLVER_COPIES, _JOINED_COPIES = 8, 2


def choose_blocks(num_parameters: int, itemsize: int, batch_size: int, memory_limit_mb: float) -> Blocks:
    """Half of the memory for solutions, a quarter for solving, a quarter for gradients of training examples.

    Args:
        num_parameters: P.
        itemsize: bytes of a number.
        batch_size: training examples at a time at most.
        memory_limit_mb: the limit.

    Returns:
        The blocks.

    Raises:
        InvalidArgumentError: one example at a time takes more, or the batch size is below 1.
    """
    vector = num_parameters * itemsize / 1e6
    if batch_size < 1:
        raise errors.InvalidArgumentError(f"batch_size {batch_size}: must be at least 1")
    train = min(batch_size, int(memory_limit_mb / 4 / (_JOINED_COPIES * vector)))
    solve = int(memory_limit_mb / 4 / (_SOLVER_COPIES * vector))
    if min(train, solve) < 1:
        raise errors.InvalidArgumentError(
            f"memory_limit_mb {memory_limit_mb}: vectors of {num_parameters} parameters take {vector:.4g} MB each and "
            f"at least {4 * _SOLVER_COPIES * vector:.4g} MB together; raise the limit, or choose fewer parameters"
        )
    test = int(memory_limit_mb / 2 / (_JOINED_COPIES * vector))
    used = vector * (train * _JOINED_COPIES + solve * _SOLVER_COPIES + test * _JOINED_COPIES)
    return Blocks(train, solve, test, used)


def even_batches(data: examples.Examples, batch_size: int) -> Iterator[tuple[examples.Examples, int]]:
    """The examples in order in batches of one size, so that functions of batches are traced once.

    Args:
        data: the examples.
        batch_size: examples at a time at most.

    Yields:
        (batch, how many of its first examples count); the last example fills the last batch up.

    Raises:
        InvalidArgumentError: the batch size is below 1.
    """
    if batch_size < 1:
        raise errors.InvalidArgumentError(f"batch_size {batch_size}: must be at least 1")
    size = -(-len(data) // -(-len(data) // batch_size))
    for start in range(0, len(data), size):
        count = min(size, len(data) - start)
        last = np.minimum(np.arange(start, start + size), len(data) - 1)
        yield data.take(slice(start, start + size) if count == size else last), count


def fill(
    gradients: Callable[[Any, tf.Tensor], tf.Tensor],
    train: examples.Examples,
    vectors: tf.Tensor,
    factor: float,
    out: np.ndarray,
    batch_size: int,
    progress: Progress = no_progress,
) -> None:
    """Writes factor g_i . v_r into out [num_train, R]; one pass over the training examples.

    Args:
        gradients: (inputs, labels) -> [B, P], from `per_example.make_gradients`.
        train: the training examples.
        vectors: [R, P], whose rows are v.
        factor: of all products.
        out: the array, perhaps a part of a memory map.
        batch_size: training examples at a time.
        progress: called with (training examples done, all).

    Raises:
        NotFiniteError: a gradient is NaN or infinite.
    """
    start = 0
    for batch, count in even_batches(train, batch_size):
        rows = gradients(batch.inputs, batch.labels)[:count]
        check_finite(rows, batch.ids)
        products = tf.matmul(rows, vectors, transpose_b=True) * factor
        out[start : start + count] = products.numpy()
        start += count
        progress(start, len(train))


def check_finite(rows: tf.Tensor, ids: np.ndarray) -> None:
    """Refuses gradients [B, P] that are no numbers.

    Raises:
        NotFiniteError: a gradient is NaN or infinite.
    """
    # A sum is no number as soon as one term is none, and is cheaper than a test of every element.
    sums = tf.reduce_sum(rows, axis=1).numpy()
    if not np.isfinite(sums).all():
        wrong = np.flatnonzero(~np.isfinite(sums))
        raise errors.NotFiniteError(
            f"the gradient of example {ids[wrong[0]]} is not finite, as are {len(wrong)} of its batch; check the "
            "weights, the inputs and the labels"
        )


def check_examples(target: targets.Target, data: examples.Examples, of: str) -> None:
    """Refuses labels that the loss, or what is measured, cannot take.

    Raises:
        InvalidArgumentError: a label cannot be.
    """
    if of == "measured" and target.measured_name not in ("loss", "margin", "logit", "probability"):
        return
    first = tf.nest.map_structure(tf.convert_to_tensor, data.take(slice(0, 1)).inputs)
    target.loss.check(np.asarray(data.labels), int(np.prod(target.predict(first).shape[1:])))


def measured_name(target: targets.Target, of: str) -> str:
    """What a score is a change of, by name; "loss" for the loss.

    Raises:
        InvalidArgumentError: `of` is unknown.
    """
    per_example.check_of(of)
    return "loss" if of == "loss" else target.measured_name
