"""What settings of a solver turn into a solver: the problem, what is prepared once, and the solver itself."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from estimators import errors, examples
from estimators.curvature import kronecker, operators, quadratic_forms, solutions
from estimators.derivatives import per_example, plans

# What is prepared once: Kronecker factors, or named arrays of eigenvalues and eigenvectors; None where nothing is.
Prepared = kronecker.Factors | Mapping[str, np.ndarray] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What a solver is made for.

    Attributes:
        plan: of the target.
        train: the training examples.
        batch_size: examples that are differentiated at a time.
    """

    plan: plans.Plan
    train: examples.Examples
    batch_size: int

    def operator(self, kind: str) -> operators.Curvature:
        """The curvature over all training examples."""
        size = min(self.batch_size, len(self.train))
        return operators.Curvature(self.plan, self.train, kind, batch_size=size)


class Settings(Protocol):
    """Settings of one kind of solver."""

    @property
    def name(self) -> str:
        """As in `SOLVERS`."""

    @property
    def prepared_by(self) -> Mapping[str, Any]:
        """All that what is prepared depends on besides the problem; empty where nothing is prepared."""

    def prepare(self, problem: Problem) -> Prepared:
        """What can be stored and used again."""

    def make(self, problem: Problem, prepared: Prepared) -> solutions.Solver:
        """The solver of a problem."""


class Unprepared:
    """Settings of which nothing is prepared, or nothing worth storing."""

    @property
    def prepared_by(self) -> Mapping[str, Any]:
        """See `Settings`."""
        return {}

    def prepare(self, problem: Problem) -> Prepared:
        """See `Settings`."""
        del problem
        return None


class NoCurvature:
    """The identity in the place of an inverse."""

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        """[R, P] -> [R, P], the same."""
        return vectors


class DirectSolver:
    """A solver whose inverse costs no pass over the examples; residuals only where they are asked for."""

    def __init__(self, inner: Any, *, check: bool) -> None:
        """Wraps a solver that has `apply`.

        Args:
            inner: the solver.
            check: give every solution its residual, by one product with the curvature for each vector.
        """
        self.inner, self._check = inner, check

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        """[R, P] -> [R, P], the solutions alone."""
        return self.inner.apply(vectors)

    def make_quadratic_forms(self, plan: plans.Plan) -> per_example.Compiled:
        """A function (inputs, labels) -> [B], g_b^T (C + damping I)^-1 g_b of the loss of each example."""
        if isinstance(self.inner, NoCurvature):
            return per_example.make_squared_norms(plan)
        if isinstance(self.inner, kronecker.KroneckerSolver):
            return quadratic_forms.make(plan, self.inner)
        gradients = per_example.make_gradients(plan)

        def compute(inputs: Any, labels: tf.Tensor) -> tf.Tensor:
            rows = gradients(inputs, labels)
            return tf.reduce_sum(rows * self.apply(rows), axis=1)

        return compute

    def solve(self, vectors: tf.Tensor) -> solutions.Solution:
        """See `solutions.Solver`; residuals are NaN where they are not checked."""
        if self._check:
            return self.inner.solve(vectors)
        num = int(vectors.shape[0])
        return solutions.Solution(self.apply(vectors), np.full(num, np.nan), np.ones(num, bool), 1, 0)


def arrays(prepared: Prepared) -> Mapping[str, np.ndarray]:
    """Eigenpairs that were prepared.

    Raises:
        MismatchError: it is something else.
    """
    if not isinstance(prepared, Mapping):
        raise errors.MismatchError(f"prepared {type(prepared).__name__}: expected eigenpairs; prepare the solver again")
    return prepared


def factors(prepared: Prepared) -> kronecker.Factors:
    """Factors that were prepared.

    Raises:
        MismatchError: it is something else.
    """
    if not isinstance(prepared, kronecker.Factors):
        raise errors.MismatchError(f"prepared {type(prepared).__name__}: expected factors; prepare the solver again")
    return prepared
