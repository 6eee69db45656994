"""Inner products and cosines of gradients: what one step of gradient descent on a training example does.

    dot      score[i, t] = -g_i . grad m_t                              (Charpiat et al., 2019)
    cosine   score[i, t] = -g_i . grad m_t / (|g_i| |grad m_t|)

with g_i the gradient of the training loss: a step on example i of length eta changes m_t by eta score[i, t], to first
order. Positive raises what is measured; for the loss it is the negative of the similarity. No gradient is formed where
inner products of its factors take fewer operations.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples, gradient_products, score_matrix, targets
from estimators.derivatives import per_example, plans


def dot(
    target: targets.Target,
    train: Any,
    test: Any,
    of: str = "loss",
    *,
    batch_size: int = 256,
    memory_limit_mb: float = 2048.0,
    out: np.ndarray | None = None,
    progress: gradient_products.Progress = gradient_products.no_progress,
) -> score_matrix.ScoreMatrix:
    """score[i, t] = -g_i . grad m_t, in units of m times the loss over squared units of the parameters.

    Args:
        target: what is differentiated.
        train: training examples.
        test: test examples.
        of: what of them is predicted, "loss" or "measured".
        batch_size: training examples, and test examples, at a time, fewer if the memory allows no more.
        memory_limit_mb: of gradients that are formed; activations come on top.
        out: [num_train, num_test] floats to fill, such as a memory map; None for a new array.
        progress: called with (tiles done, all).

    Returns:
        The scores. Test examples are differentiated once, and training examples once for each block of test examples
        that the memory holds, where gradients are formed; else both sides for each tile of batch_size x batch_size.

    Raises:
        InvalidArgumentError: `of` is unknown, or a label cannot be.
        MismatchError: `out` has another shape.
        NotFiniteError: a gradient is no number.
    """
    return _scores(target, train, test, of, batch_size, memory_limit_mb, out, progress, normalised=False)


def cosine(
    target: targets.Target,
    train: Any,
    test: Any,
    of: str = "loss",
    *,
    batch_size: int = 256,
    memory_limit_mb: float = 2048.0,
    out: np.ndarray | None = None,
    progress: gradient_products.Progress = gradient_products.no_progress,
) -> score_matrix.ScoreMatrix:
    """score[i, t] = -g_i . grad m_t / (|g_i| |grad m_t|), from -1 to 1; NaN where a gradient is zero.

    Args, Raises: see `dot`; the lengths take one pass more over either side.
    """
    return _scores(target, train, test, of, batch_size, memory_limit_mb, out, progress, normalised=True)


def _scores(
    target: targets.Target,
    train: Any,
    test: Any,
    of: str,
    batch_size: int,
    memory_limit_mb: float,
    out: np.ndarray | None,
    progress: gradient_products.Progress,
    *,
    normalised: bool,
) -> score_matrix.ScoreMatrix:
    train, test = examples.of(train), examples.of(test)
    measured = gradient_products.measured_name(target, of)
    products = Products(target, train, test, of, batch_size=batch_size, memory_limit_mb=memory_limit_mb)
    values = score_matrix.output_array(out, len(train), len(test), target.dtype.as_numpy_dtype)
    lengths = (products.lengths(train, "loss"), products.lengths(test, of)) if normalised else None

    def write(rows: slice, columns: slice, tile: np.ndarray) -> None:
        values[rows, columns] = -tile if lengths is None else -tile / lengths[0][rows, None] / lengths[1][columns]

    products.tiles(write, progress)
    return score_matrix.ScoreMatrix(
        values,
        train.ids,
        test.ids,
        method="cosines of gradients" if normalised else "inner products of gradients",
        quantity=f"a step of gradient descent on the training example raises the {measured} of the test example",
        unit="1 (cosine)" if normalised else f"{measured} per unit of step length",
        lower_is_better=measured == "loss",
        config={"of": of, "measured": target.measured_name, "loss": target.loss.name},
    )


# Of rows, columns and products.
Write = Callable[[slice, slice, np.ndarray], None]


class Products:
    """g_i . grad m_t of all pairs, tile by tile, at the weights as they are when tiles are asked for."""

    def __init__(
        self,
        target: targets.Target,
        train: examples.Examples,
        test: examples.Examples,
        of: str,
        *,
        batch_size: int,
        memory_limit_mb: float,
    ) -> None:
        """Checks the target and compiles.

        Args:
            target: what is differentiated.
            train: training examples.
            test: test examples.
            of: what of them is differentiated, "loss" or "measured".
            batch_size: of either side.
            memory_limit_mb: of gradients that are formed.

        Raises:
            InvalidTargetError, InvalidArgumentError, NotFiniteError: see `plans.make`.
        """
        per_example.check_of(of)
        self._plan, self._train, self._test, self._of = plans.make(target, train), train, test, of
        gradient_products.check_examples(target, test, of)
        vector = target.num_parameters * target.dtype.size / 1e6
        # Gradients of both sides are there twice while they are joined.
        self._batch_size = max(1, min(batch_size, int(memory_limit_mb / (4 * vector))))
        self._held = max(1, min(len(test), int(memory_limit_mb / (4 * vector))))
        self._dots = per_example.make_dot_products(self._plan, "loss", of)
        self._gradients = {side: per_example.make_gradients(self._plan, side) for side in {"loss", of}}
        self._norms: dict[str, per_example.Compiled] = {}

    def tiles(self, write: Write, progress: gradient_products.Progress) -> None:
        """Calls write(rows, columns, products) for every tile.

        Where gradients have to be formed, those of test examples are formed once, and those of training examples once
        for each block of test examples that the memory holds; else both sides' factors once for each tile.

        Raises:
            NotFiniteError: a product is NaN or infinite.
        """
        if _mostly_formed(self._plan, self._train, self._batch_size):
            self._formed_tiles(write, progress)
        else:
            self._ghost_tiles(write, progress)

    def _formed_tiles(self, write: Write, progress: gradient_products.Progress) -> None:
        column, done = 0, 0
        total = -(-len(self._train) // self._batch_size) * -(-len(self._test) // self._held)
        for block, num_columns in gradient_products.even_batches(self._test, self._held):
            parts = gradient_products.even_batches(block.take(slice(0, num_columns)), self._batch_size)
            second = tf.concat(
                [self._gradients[self._of](one.inputs, one.labels)[:count] for one, count in parts], axis=0
            )
            row = 0
            for batch, num_rows in gradient_products.even_batches(self._train, self._batch_size):
                first = self._gradients["loss"](batch.inputs, batch.labels)[:num_rows]
                tile = tf.matmul(first, second, transpose_b=True).numpy()
                _check_finite(tile, batch.ids, block.ids)
                write(slice(row, row + num_rows), slice(column, column + num_columns), tile)
                row += num_rows
                done += 1
                progress(done, total)
            column += num_columns

    def _ghost_tiles(self, write: Write, progress: gradient_products.Progress) -> None:
        size, row, done = self._batch_size, 0, 0
        total = -(-len(self._train) // size) * -(-len(self._test) // size)
        for batch, num_rows in gradient_products.even_batches(self._train, size):
            column = 0
            for other, num_columns in gradient_products.even_batches(self._test, size):
                tile = self._dots(batch.inputs, batch.labels, other.inputs, other.labels)[
                    :num_rows, :num_columns
                ].numpy()
                _check_finite(tile, batch.ids, other.ids)
                write(slice(row, row + num_rows), slice(column, column + num_columns), tile)
                column += num_columns
                done += 1
                progress(done, total)
            row += num_rows

    def squared_norms(self, data: examples.Examples, of: str) -> np.ndarray:
        """[N], |gradient|^2 of the loss or of what is measured, of examples.

        Raises:
            NotFiniteError: one is NaN or infinite.
        """
        if of not in self._norms:
            self._norms[of] = per_example.make_squared_norms(self._plan, of)
        batches = gradient_products.even_batches(data, self._batch_size)
        norms = np.concatenate([self._norms[of](batch.inputs, batch.labels)[:num].numpy() for batch, num in batches])
        _check_finite(norms[:, None], data.ids, None)
        return norms

    def lengths(self, data: examples.Examples, of: str) -> np.ndarray:
        """[N], |gradient|; NaN where it is zero, so that what is divided by it is not defined."""
        norms = self.squared_norms(data, of)
        return np.sqrt(np.where(norms > 0, norms, np.nan))


def _mostly_formed(plan: plans.Plan, train: examples.Examples, batch_size: int) -> bool:
    """Whether inner products of tiles of gradients form those of most parameters; nothing is computed."""
    ghosts: list[int] = []

    def look(inputs: Any, labels: tf.Tensor) -> None:
        parts, _ = per_example.parts(plan, inputs, labels, "loss")
        for position, some in parts.items():
            if per_example.uses_ghosts(some, some, (batch_size, batch_size)):
                ghosts.append(plan.target.parameters[position].size)

    few = train.take(np.arange(2) % len(train))
    tensors = tf.nest.map_structure(tf.convert_to_tensor, (few.inputs, few.labels))
    tf.function(look, autograph=False).get_concrete_function(*tensors)
    return 2 * sum(ghosts) < plan.target.num_parameters


def _check_finite(tile: np.ndarray, train_ids: np.ndarray, test_ids: np.ndarray | None) -> None:
    if not np.isfinite(tile).all():
        row, column = np.argwhere(~np.isfinite(tile))[0]
        beside = "" if test_ids is None else f" with that of {test_ids[column]}"
        raise errors.NotFiniteError(
            f"the product of the gradient of example {train_ids[row]}{beside} is not finite; check the weights, the "
            "inputs and the labels"
        )
