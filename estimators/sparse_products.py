"""Products of gradients with given vectors through the factors of dense layers, whose zeros are left out.

The gradient of a dense layer for one example is a^T d, so that for a vector with the matrix X [I, O] there

    g . x = sum_i a_i (d . X_i) = sum_o d_o (a . X^o)

and only the inputs that are not zero count, or only the outputs whose cotangents are not: pixels of the background,
units that a ReLU has cut off. Examples are taken together that have something other than zero in a group of inputs (or
of outputs), and one matrix product of them with this group's part of all vectors is added to their rows. The larger
the group, the fewer additions, and the more zeros are multiplied. Side and size of the groups are chosen by counting,
from the factors themselves; one group with all inputs is the plain product. Nothing is approximated: what is left out
is zero.

On the CPU alone; elsewhere, and for parameters of other layers, gradients are formed (`gradient_products.fill`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import examples, gradient_products
from estimators.derivatives import contributions, layouts, passes, per_example, plans

# Operations of a matrix product in the time of adding one number to a row that is looked up, and of copying one.
_ADDING, _COPYING = 200, 100
_GROUP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Columns of a matrix that lies by rows are copied by cache lines.
_SMALLEST_STRIDED = 8
# Smaller layers, by I O / (I + O), gain nothing over forming their gradients.
_SMALLEST_LAYER = 8
_CAP_BYTES = 32_000_000


class Products:
    """Products of the gradients of a target's loss with vectors."""

    def __init__(self, plan: plans.Plan, gradients: per_example.Compiled) -> None:
        """Prepares products; nothing is computed yet.

        Args:
            plan: of the target.
            gradients: (inputs, labels) -> [B, P], from `per_example.make_gradients`, where factors do not serve.
        """
        self._gradients, self._target = gradients, plan.target
        flat = sum(p.size for p in plan.target.parameters if len(p.shape) == 2)
        self._serves = 2 * flat >= plan.target.num_parameters and plan.target.dtype in (tf.float32, tf.float64)
        ends = np.cumsum([p.size for p in plan.target.parameters])
        self._columns = [slice(int(e) - p.size, int(e)) for p, e in zip(plan.target.parameters, ends, strict=True)]
        self._layouts: dict[int, layouts.Layout] = {}
        self._factors = per_example.compiled_rows(plan, _make_factors(plan, self._layouts))

    def fill(
        self,
        train: examples.Examples,
        vectors: tf.Tensor,
        factor: float,
        out: np.ndarray,
        blocks: gradient_products.Blocks,
        progress: gradient_products.Progress = gradient_products.no_progress,
    ) -> None:
        """Writes factor g_i . v_r into out [num_train, R]; one pass over the training examples.

        Args:
            train: the training examples.
            vectors: [R, P], whose rows are v.
            factor: of all products.
            out: the array, perhaps a part of a memory map.
            blocks: how many examples are held at a time.
            progress: called with (training examples done, all).

        Raises:
            NotFiniteError: a gradient is NaN or infinite.
        """
        if self._serves and "CPU" in vectors.device:
            first = next(gradient_products.even_batches(train, blocks.train))[0]
            self._factors(first.inputs, first.labels)
            found = sum(self._target.parameters[k].size for k in self._layouts)
            self._serves = 2 * found >= self._target.num_parameters
        if not (self._serves and "CPU" in vectors.device):
            gradient_products.fill(self._gradients, train, vectors, factor, out, blocks.train, progress)
            return
        flat, done = vectors.numpy(), 0
        for factors, rest, count in self._chunks(train, flat, blocks):
            for (rows, cotangents), position in zip(factors, self._layouts, strict=True):
                add_outer_products(rest, rows, cotangents, self._matrices(flat, position))
            out[done : done + count] = rest * factor
            done += count
            progress(done, len(train))

    def _matrices(self, flat: np.ndarray, position: int) -> np.ndarray:
        """[R, I, O], a view of vectors [R, P]."""
        layout = self._layouts[position]
        split = flat[:, self._columns[position]].reshape(len(flat), *layout.split)
        return split.transpose(0, 1 + layout.inputs[0], 1 + layout.outputs[0])

    def _chunks(
        self, train: examples.Examples, flat: np.ndarray, blocks: gradient_products.Blocks
    ) -> Iterator[tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, int]]:
        """(factors of each dense layer, products [B, R] of all other parameters, B), as many as the memory allows."""
        size = -(-len(train) // -(-len(train) // blocks.train))
        widths = [sum(layout.sizes) for layout in self._layouts.values()]
        held = sum(widths) + 2 * len(flat)
        num_batches = max(1, 2 * blocks.train * flat.shape[1] // (held * size))
        others = _runs([k for k in range(len(self._columns)) if k not in self._layouts], self._columns)
        factors: list[list[Sequence[np.ndarray]]] = []
        products: list[np.ndarray] = []
        total = -(-len(train) // size)
        for number, (batch, count) in enumerate(gradient_products.even_batches(train, blocks.train)):
            pairs, formed = self._factors(batch.inputs, batch.labels)
            for tensor in [*tf.nest.flatten(pairs), formed]:
                gradient_products.check_finite(tensor[:count], batch.ids)
            factors.append([(rows.numpy()[:count], cotangents.numpy()[:count]) for rows, cotangents in pairs])
            products.append(_dense_products(formed.numpy()[:count], flat, others))
            if len(products) == num_batches or number + 1 == total:
                joined = [
                    (np.concatenate([one[k][0] for one in factors]), np.concatenate([one[k][1] for one in factors]))
                    for k in range(len(widths))
                ]
                summed = np.concatenate(products)
                factors, products = [], []
                yield joined, summed, len(summed)


def _make_factors(plan: plans.Plan, found: dict[int, layouts.Layout]) -> per_example.Compiled:
    """(inputs, labels) -> ([(a [B, I], d [B, O])] of dense layers, [B, P'] of all else); fills `found` when traced."""

    def compute(inputs: Any, labels: tf.Tensor) -> Any:
        parts, looped = per_example.parts(plan, inputs, labels, "loss")
        dense = {
            k: part
            for k, some in sorted(parts.items())
            for part in some
            if len(some) == 1 and isinstance(part, contributions.Product) and _is_dense(part, plan.target.dtype)
        }
        found.clear()
        found.update({k: part.layout for k, part in dense.items()})
        num, params = labels.shape[0], plan.target.parameters
        formed = {k: passes.gradients(some, params[k], num) for k, some in parts.items() if k not in dense} | looped
        rows = [tf.reshape(gradient, [num, -1]) for _, gradient in sorted(formed.items())]
        rest = tf.concat(rows, axis=1) if rows else tf.zeros([num, 0], plan.target.dtype)
        pairs = [[t[:, 0, 0] for t in part.factors()] for part in dense.values()]
        return pairs, rest

    return compute


def _is_dense(part: contributions.Product, dtype: tf.DType) -> bool:
    """Whether it is one matrix for one place, large enough, in the dtype of all parameters."""
    layout = part.layout
    _, num_inputs, num_outputs = layout.sizes
    plain = part.num_places == 1 and not layout.groups and len(layout.inputs) == len(layout.outputs) == 1
    large = num_inputs * num_outputs >= _SMALLEST_LAYER * (num_inputs + num_outputs)
    return plain and large and part.rows.dtype == part.cotangents.dtype == dtype


def _runs(positions: Sequence[int], columns: Sequence[slice]) -> list[slice]:
    """Columns of parameters, neighbours joined, so that they are multiplied at once."""
    runs: list[slice] = []
    for position in positions:
        one = columns[position]
        if runs and runs[-1].stop == one.start:
            runs[-1] = slice(runs[-1].start, one.stop)
        else:
            runs.append(one)
    return runs


def _dense_products(rows: np.ndarray, flat: np.ndarray, columns: Sequence[slice]) -> np.ndarray:
    """[B, R], rows [B, P'] times the given columns of vectors [R, P], none of which are copied."""
    total = np.zeros((len(rows), len(flat)), flat.dtype)
    start = 0
    for one in columns:
        stop = start + one.stop - one.start
        total += rows[:, start:stop] @ flat[:, one].T
        start = stop
    return total


def add_outer_products(total: np.ndarray, rows: np.ndarray, cotangents: np.ndarray, matrices: np.ndarray) -> None:
    """Adds sum_io a_bi d_bo X_r,io to total [B, R], in place.

    Args:
        total: [B, R].
        rows: a [B, I].
        cotangents: d [B, O].
        matrices: X [R, I, O], perhaps a view.
    """
    sides = ((rows, cotangents, matrices), (cotangents, rows, matrices.transpose(0, 2, 1)))
    costs = {
        (number, size): _cost(side[0], side[1], len(matrices), size, strided)
        for number, side in enumerate(sides)
        for strided in [side[2].strides[2] > side[2].strides[1]]
        for size in _GROUP_SIZES
        if not (strided and size < _SMALLEST_STRIDED)
    }
    number, size = min(costs, key=costs.__getitem__)
    add_by_groups(total, *sides[number], size)


def _cost(first: np.ndarray, second: np.ndarray, num_vectors: int, size: int, strided: bool) -> float:
    """Operations of `add_by_groups`, all counted as those of matrix products."""
    there = first != 0
    there = there[:, there.any(axis=0)]
    if not there.shape[1]:
        return 0.0
    num_rows = np.logical_or.reduceat(there, np.arange(0, there.shape[1], size), axis=1).sum()
    width = (second != 0).any(axis=0).sum()
    copied = there.shape[1] * width * (2 if strided else 1) * _COPYING
    cap = max(1, _CAP_BYTES // max(1, width * num_vectors * first.itemsize))
    # Groups that do not fit are cut by `add_by_groups`, which costs more additions.
    pieces = -(-size // cap)
    return float(num_vectors * (num_rows * (2.0 * size * width + pieces * _ADDING) + copied))


def add_by_groups(
    total: np.ndarray, first: np.ndarray, second: np.ndarray, matrices: np.ndarray, group_size: int
) -> None:
    """Adds sum_sk first_bs second_bk X_r,sk to total [B, R], in place, by groups of s.

    Args:
        total: [B, R].
        first: [B, S], of which zeros are left out by groups.
        second: [B, K], of which columns are left out that are zero in all rows.
        matrices: X [R, S, K].
        group_size: columns of `first` that are multiplied together, fewer where they take too much memory.
    """
    used, kept = (np.flatnonzero((t != 0).any(axis=0)) for t in (first, second))
    if not (used.size and kept.size):
        return
    second = second if kept.size == second.shape[1] else second[:, kept]
    group_size = min(group_size, max(1, _CAP_BYTES // (kept.size * len(matrices) * first.itemsize)))
    for start in range(0, used.size, group_size):
        group = used[start : start + group_size]
        block = first[:, group]
        part = matrices[:, group] if kept.size == matrices.shape[2] else matrices[:, group][:, :, kept]
        vectors = np.ascontiguousarray(part).reshape(len(matrices), -1)
        where = np.flatnonzero((block != 0).any(axis=1))
        step = max(1, _CAP_BYTES // (max(vectors.shape) * first.itemsize))
        for chunk in (where[k : k + step] for k in range(0, where.size, step)):
            outer = block[chunk][:, :, None] * second[chunk][:, None, :]
            total[chunk] += outer.reshape(chunk.size, -1) @ vectors.T
