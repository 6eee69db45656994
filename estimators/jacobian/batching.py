"""Batches of a size that stays, so that what is compiled for it serves however much is measured."""

from collections.abc import Iterator

import numpy as np

from estimators import errors, examples


class Sizes:
    """How many examples a compiled function is given at a time.

    The first data are divided evenly. Later ones come in batches of the same size, filled up where they are fewer; the
    first that would need more batches for it raise the size to the most, once: nothing is traced more than twice.
    """

    def __init__(self, most: int) -> None:
        """No size is chosen yet.

        Args:
            most: examples at a time.

        Raises:
            InvalidArgumentError: it is below 1.
        """
        if most < 1:
            raise errors.InvalidArgumentError(f"batch_size {most}: must be at least 1")
        self._most, self._size = most, 0

    def choose(self, num: int) -> int:
        """The size of batches of `num` examples."""
        even = -(-num // -(-num // self._most))
        if even > self._size:
            self._size = self._most if self._size else even
        return self._size

    def batches(self, data: examples.Examples) -> Iterator[tuple[examples.Examples, int]]:
        """The examples in order.

        Args:
            data: the examples.

        Yields:
            (batch, how many of its first examples count); the last example fills the last batch up.
        """
        size = self.choose(len(data))
        for start in range(0, len(data), size):
            count = min(size, len(data) - start)
            filled = np.minimum(np.arange(start, start + size), len(data) - 1)
            yield data.take(slice(start, start + size) if count == size else filled), count


def most(num_bytes: int, memory_limit_mb: float) -> int:
    """How many examples of so many bytes each are held at a time.

    Raises:
        InvalidArgumentError: one takes more than the limit.
    """
    found = int(memory_limit_mb * 1e6 / num_bytes)
    if found < 1:
        raise errors.InvalidArgumentError(
            f"memory_limit_mb {memory_limit_mb}: one example takes {num_bytes / 1e6:.4g} MB; raise the limit"
        )
    return found
