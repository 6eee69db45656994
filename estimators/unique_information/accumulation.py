"""How far training moved along the gradients of each example.

The weights after t steps are w0 minus the sum over steps and examples of (learning_rate / n) g_i(w_s) (and of the pull
of l2): the part of example i is d_i = -(learning_rate / n) sum_s g_i(w_s), and |d_i| says how much of the movement is
owed to it. In a linearised network without l2 d_i = J_i^T a_i exactly.
"""

import numpy as np

from estimators import errors
from estimators.linearized import solutions


class GradientAccumulation:
    """Sums of gradients of single examples over a training, full or projected.

    Attributes:
        sums: [n, D] float64, sum over steps of step length times g_i.
        num_steps: how many were added.
    """

    def __init__(self, num_train: int, width: int) -> None:
        """Nothing is accumulated yet.

        Args:
            num_train: n.
            width: D, the number of weights, or of dimensions that gradients are projected to.
        """
        self.sums = np.zeros((num_train, width))
        self.num_steps = 0

    def add(self, gradients: np.ndarray, step_length: float, positions: np.ndarray | None = None) -> None:
        """Adds one step.

        Args:
            gradients: g_i at the weights before the step, [n, D], or of the examples at `positions`.
            step_length: learning rate over the number of examples in the batch.
            positions: [B] positions of the examples of the batch, of which one may be there more than once; None for
                all.

        Raises:
            InvalidArgumentError: a position lies outside.
            MismatchError: gradients of another shape.
            NotFiniteError: one is not finite.
        """
        rows = np.arange(len(self.sums)) if positions is None else np.asarray(positions)
        if np.shape(gradients) != (len(rows), self.sums.shape[1]):
            raise errors.MismatchError(
                f"gradients of shape {np.shape(gradients)}: expected {(len(rows), self.sums.shape[1])}"
            )
        whole = np.issubdtype(rows.dtype, np.integer) and bool(np.all((rows >= 0) & (rows < len(self.sums))))
        if len(rows) and not whole:
            raise errors.InvalidArgumentError(
                f"positions of dtype {rows.dtype} from {rows.min()} to {rows.max()}: expected integers from 0 to "
                f"{len(self.sums) - 1}"
            )
        if not np.isfinite(gradients).all():
            raise errors.NotFiniteError(f"a gradient of step {self.num_steps} is not finite; check the training")
        # Indexing with += would keep one of the gradients of an example that is drawn twice.
        np.add.at(self.sums, rows.astype(np.int64), step_length * np.asarray(gradients, np.float64))
        self.num_steps += 1

    def squared_norms(self) -> np.ndarray:
        """|d_i|^2, [n]: squared units of the weights (on average, if gradients are projected)."""
        return np.sum(self.sums**2, axis=1)


def of_linearised(kernel: np.ndarray, coefficients: np.ndarray, num_outputs: int) -> np.ndarray:
    """|d_i|^2 = a_i^T K_ii a_i in a linearised network without l2, [n] float64.

    Args:
        kernel: K [N, N].
        coefficients: a_t [N].
        num_outputs: k.

    Raises:
        MismatchError: shapes do not agree.
    """
    rows = len(kernel)
    if np.shape(coefficients) != (rows,) or rows % num_outputs:
        raise errors.MismatchError(
            f"coefficients of shape {np.shape(coefficients)} beside a kernel of {rows} rows of {num_outputs} outputs"
        )
    places = solutions.rows_of_examples(np.arange(rows // num_outputs), num_outputs).reshape(-1, num_outputs)
    blocks = np.asarray(kernel)[places[:, :, None], places[:, None, :]]
    parts = np.reshape(coefficients, (-1, num_outputs)).astype(np.float64)
    return np.maximum(np.einsum("na,nab,nb->n", parts, blocks, parts), 0.0)
