"""How much of a tangent kernel is computed at a time, and matrices that are filled tile by tile."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples, gradient_products
from estimators.ntk import factors
from estimators.ntk import outputs as outputs_lib

# Factors of a batch are there some times over while they are computed.
_COPIES = 4


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is held at a time, within a limit of memory.

    Attributes:
        batch: examples whose factors are computed together, on either side of a tile.
        held: examples whose factors may be kept.
        elements: numbers that a way of contracting one parameter may hold beside the factors.
    """

    batch: int
    held: int
    elements: float


def sizes(outputs: outputs_lib.Outputs, x: Any, batch_size: int, memory_limit_mb: float, itemsize: int) -> Sizes:
    """Half of the memory for factors that are kept, a quarter for passes, a quarter for contractions.

    Args:
        outputs: of a target.
        x: inputs, of which the first are looked at.
        batch_size: examples at a time at most.
        memory_limit_mb: the limit.
        itemsize: bytes of a number of the kernel.

    Raises:
        InvalidArgumentError: the batch size is below 1, or the factors of one example take more than the limit.
    """
    if batch_size < 1:
        raise errors.InvalidArgumentError(f"batch_size {batch_size}: must be at least 1")
    per_example = _elements_per_example(outputs, x) * outputs.dtype.itemsize
    limit = memory_limit_mb * 1e6
    most = int(limit / 4 / (_COPIES * per_example))
    if most < 1:
        raise errors.InvalidArgumentError(
            f"memory_limit_mb {memory_limit_mb}: what the gradients of one example's {outputs.num_outputs} outputs are "
            f"made of takes {_COPIES * per_example / 1e6:.4g} MB, and a quarter of the limit is for it; raise the limit"
        )
    # A tile of the kernel and what is added to it.
    tile = int(math.sqrt(limit / 4 / (3 * itemsize)) / outputs.num_outputs)
    batch = max(1, min(batch_size, most, tile))
    return Sizes(batch, int(limit / 2 / per_example), limit / 4 / itemsize)


def _elements_per_example(outputs: outputs_lib.Outputs, x: Any) -> int:
    found: list[int] = []

    def look(inputs: Any) -> None:
        _, values = factors.of_batch(outputs, inputs)
        found.append(sum(math.prod(t.shape[1:]) for t in tf.nest.flatten(values)))

    data = outputs_lib.data(x)
    probe = tf.nest.map_structure(tf.convert_to_tensor, data.take(np.arange(2) % len(data)).inputs)
    tf.function(look, autograph=False).get_concrete_function(probe)
    return found[0]


# Factors of a batch, as they cross from one compiled function to the next.
Held = Mapping[int, factors.Values]
# Shapes and dtypes of the inputs of one example: what the kinds of their factors depend on.
Signature = tuple[tuple[tuple[int, ...], str], ...]


def signature(inputs: Any) -> Signature:
    """The signature of a batch, a nest of tensors [B, ...]."""
    return tuple((tuple(t.shape[1:]), t.dtype.name) for t in tf.nest.flatten(inputs))


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """One side of a kernel: examples in batches, with factors that are kept or computed anew.

    Attributes:
        data: the examples.
        batch: examples at a time.
        compute: inputs -> factors.
        keeps: factors are kept once they are computed.
        signature: of the inputs.
    """

    data: examples.Examples
    batch: int
    compute: Callable[[Any], Held]
    keeps: bool
    signature: Signature
    _kept: dict[int, Held] = dataclasses.field(default_factory=dict)

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        return -(-len(self.data) // self.batch)

    def batches(self, first: int = 0) -> Iterator[tuple[slice, Held]]:
        """(positions, factors) of every batch from the number `first` on; the factors may be of more examples."""
        size = -(-len(self.data) // self.num_batches)
        for number in range(first, self.num_batches):
            rows = slice(number * size, min((number + 1) * size, len(self.data)))
            if rows.start < rows.stop:
                yield rows, self._factors(number, rows, size)

    def _factors(self, number: int, rows: slice, size: int) -> Held:
        if number in self._kept:
            return self._kept[number]
        # The last example fills the last batch up, so that nothing is traced anew.
        filled = np.minimum(np.arange(rows.start, rows.start + size), rows.stop - 1)
        batch = self.data.take(rows if rows.stop - rows.start == size else filled)
        found = self.compute(batch.inputs)
        if self.keeps:
            self._kept[number] = found
        return found


# (factors of both sides, both are of the same batch) -> [B, e, C, e]
Contract = Callable[[Held, Held, bool], np.ndarray]


def fill(
    first: Side,
    second: Side | None,
    contract: Contract,
    num_entries: int,
    out: np.ndarray,
    progress: gradient_products.Progress,
) -> None:
    """Writes a kernel [n e, m e] tile by tile.

    Args:
        first: the side of the rows.
        second: the side of the columns; None if it is the first: one half is computed, and mirrored.
        contract: what a tile is computed by.
        num_entries: e, rows for each example.
        out: what is written into.
        progress: called with (tiles done, all).

    Raises:
        NotFiniteError: an entry is NaN or infinite.
    """
    columns = first if second is None else second
    num = first.num_batches
    done, total = 0, num * (num + 1) // 2 if second is None else num * columns.num_batches
    for number, (rows, own) in enumerate(first.batches()):
        # Of a batch beside itself the factors are there.
        beside = columns.batches() if second is not None else itertools.chain([(rows, own)], first.batches(number + 1))
        for others, factors_of_others in beside:
            same = second is None and others == rows
            tile = contract(own, factors_of_others, same)
            tile = tile[: rows.stop - rows.start, :, : others.stop - others.start]
            block = tile.reshape(tile.shape[0] * num_entries, tile.shape[2] * num_entries)
            check_finite(block, first.data.ids[rows])
            here, there = _entries(rows, num_entries), _entries(others, num_entries)
            if same:
                block = (block + block.T) / 2
            elif second is None:
                out[there, here] = block.T
            out[here, there] = block
            done += 1
            progress(done, total)


def _entries(rows: slice, num_entries: int) -> slice:
    return slice(rows.start * num_entries, rows.stop * num_entries)


def check_finite(block: np.ndarray, ids: np.ndarray) -> None:
    """Refuses entries of a kernel that are no numbers.

    Raises:
        NotFiniteError: one is NaN or infinite.
    """
    if not np.isfinite(block).all():
        raise errors.NotFiniteError(
            f"the tangent kernel of examples {ids[0]} to {ids[-1]} is not finite; check the weights and the inputs"
        )


def output_array(out: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that results are written into: `out`, or a new one.

    Raises:
        MismatchError: `out` has another shape, or cannot be written or hold floats.
    """
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or not np.issubdtype(out.dtype, np.floating) or not out.flags.writeable:
        raise errors.MismatchError(
            f"out of dtype {out.dtype} and shape {out.shape} (writeable: {out.flags.writeable}): expected a writeable "
            f"array of floats {shape}"
        )
    return out


def rows_at_a_time(outputs: outputs_lib.Outputs, batch_size: int, memory_limit_mb: float) -> int:
    """Examples whose gradients [k, P] are formed at a time.

    Raises:
        InvalidArgumentError: the batch size is below 1, or one example takes more than the limit.
    """
    if batch_size < 1:
        raise errors.InvalidArgumentError(f"batch_size {batch_size}: must be at least 1")
    size = outputs.num_outputs * outputs.target.num_parameters * outputs.dtype.itemsize / 1e6
    most = int(memory_limit_mb / (_COPIES * size))
    if most < 1:
        raise errors.InvalidArgumentError(
            f"memory_limit_mb {memory_limit_mb}: the gradients of one example's {outputs.num_outputs} outputs take "
            f"{_COPIES * size:.4g} MB while they are put together; raise the limit, or choose fewer parameters"
        )
    return min(batch_size, most)
