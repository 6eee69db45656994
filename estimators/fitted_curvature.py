"""What is known once the curvature of a training loss is: its inverse, the gradients, and their products."""

from collections.abc import Iterator
import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import examples, gradient_products, solving, sparse_products
from estimators.curvature import solutions
from estimators.derivatives import per_example


@dataclasses.dataclass(frozen=True, eq=False)
class FittedCurvature:
    """What is known once the curvature is.

    Attributes:
        problem: what was fitted.
        prepared: what can be stored.
        solver: the inverse.
        gradients: (inputs, labels) -> [B, P], of "loss" and of "measured".
        weights: their fingerprint.
        blocks: how many examples are held at a time.
    """

    problem: solving.Problem
    prepared: solving.Prepared
    solver: solutions.Solver
    gradients: dict[str, per_example.Compiled]
    weights: str
    blocks: gradient_products.Blocks

    @property
    def num_train(self) -> int:
        """N."""
        return len(self.problem.train)

    @functools.cached_property
    def _products(self) -> sparse_products.Products:
        return sparse_products.Products(self.problem.plan, self.gradients["loss"])

    def quadratic_forms(self) -> per_example.Compiled:
        """A function (inputs, labels) -> [B], g_b^T (C + damping I)^-1 g_b of the loss of each example."""
        if isinstance(self.solver, solving.DirectSolver):
            return self.solver.make_quadratic_forms(self.problem.plan)

        def compute(inputs: Any, labels: tf.Tensor) -> tf.Tensor:
            rows = self.gradients["loss"](inputs, labels)
            return tf.reduce_sum(rows * self.solver.solve(rows).values, axis=1)

        return compute

    def solutions(self, test: examples.Examples, of: str) -> Iterator[solutions.Solution]:
        """(C + damping I)^-1 grad m_t for test examples ("s_test"), in blocks of `blocks.solve`.

        Args:
            test: test examples.
            of: "loss" or "measured".

        Yields:
            The solutions of one block after the other, rows [R, P].

        Raises:
            InvalidArgumentError: `of` is unknown, or a label cannot be.
            NotFiniteError, SolverError: a gradient is no number; the solver failed.
        """
        per_example.check_of(of)
        gradient_products.check_examples(self.problem.plan.target, test, of)
        for batch, count in gradient_products.even_batches(test, self.blocks.solve):
            rows = self.gradients[of](batch.inputs, batch.labels)[:count]
            gradient_products.check_finite(rows, batch.ids)
            yield self.solver.solve(rows)

    def train_gradients(self, train: examples.Examples) -> Iterator[np.ndarray]:
        """g_i of training examples ("grad_z"), batch by batch: rows [B, P] of gradients of the loss, in order.

        Args:
            train: training examples.

        Raises:
            InvalidArgumentError: a label cannot be.
            NotFiniteError: a gradient is no number.
        """
        gradient_products.check_examples(self.problem.plan.target, train, "loss")
        for batch, count in gradient_products.even_batches(train, self.blocks.train):
            rows = self.gradients["loss"](batch.inputs, batch.labels)[:count]
            gradient_products.check_finite(rows, batch.ids)
            yield rows.numpy()

    def multiply(
        self,
        train: examples.Examples,
        solved: tf.Tensor,
        out: np.ndarray,
        progress: gradient_products.Progress = gradient_products.no_progress,
    ) -> None:
        """Writes -(1/n) g_i . x_r into out [num_train, R]: scores, of what `solutions` gave, in one pass.

        Args:
            train: training examples to score.
            solved: [R, P], whose rows are x.
            out: [num_train, R] floats, perhaps a part of a memory map.
            progress: called with (gradients of training examples done, all).

        Raises:
            As `train_gradients`.
        """
        gradient_products.check_examples(self.problem.plan.target, train, "loss")
        self._products.fill(train, solved, -1.0 / self.num_train, out, self.blocks, progress)
