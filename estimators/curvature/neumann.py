"""An approximate inverse made exact: the preconditioned Neumann series.

With an approximation M^-1 of (C + damping I)^-1, such as EK-FAC,

    x_0 = s M^-1 v,   x_{k+1} = x_k + s M^-1 (v - (C + damping I) x_k)

converges to (C + damping I)^-1 v if s times the largest eigenvalue of M^-1 (C + damping I) is below 2. The step s is
found by power iteration. Unlike conjugate gradients it needs neither symmetry of the rounding nor inner products, so
that products may come from batches.
"""

import numpy as np
import tensorflow as tf

from estimators import errors
from estimators.curvature import operators, solutions


class NeumannSolver:
    """(C + damping I)^-1 by iterating an approximate inverse.

    Attributes:
        damping: added to every eigenvalue of C, that of the approximate inverse.
        step: s.
    """

    def __init__(
        self,
        operator: operators.Operator,
        approximate: solutions.Solver,
        damping: float,
        *,
        tolerance: float = 1e-3,
        max_iterations: int = 100,
        step: float | None = None,
        seed: int = 0,
    ) -> None:
        """Finds the step: 20 products, if it is not given.

        Args:
            operator: C, positive semidefinite up to the damping.
            approximate: a solver whose `solve` is close to (C + damping I)^-1 and symmetric positive.
            damping: added to every eigenvalue, >= 0.
            tolerance: residual at which a right-hand side is solved.
            max_iterations: rounds at most, each of one product for every right-hand side.
            step: s; None to choose 1 over the largest eigenvalue of M^-1 (C + damping I).
            seed: of the vector that power iteration begins with.

        Raises:
            InvalidArgumentError: a number lies outside what is allowed.
        """
        self.damping = solutions.check_damping(damping)
        if not (0 < tolerance < 1 and max_iterations >= 1 and (step is None or step > 0)):
            raise errors.InvalidArgumentError(
                f"tolerance {tolerance}, max_iterations {max_iterations}, step {step}: expected a tolerance between 0 "
                "and 1, at least one iteration, and a step above 0 or None"
            )
        self._operator, self._approximate = operator, approximate
        self._tolerance, self._max_iterations = tolerance, max_iterations
        self.step = step or self._find_step(np.random.default_rng(seed))

    def solve(self, vectors: tf.Tensor) -> solutions.Solution:
        """See `solutions.Solver`. Rows that did not converge are marked, with their residual.

        Raises:
            SolverError: the residual grows: the step is too large, or C + damping I not positive.
        """
        vectors = solutions.check_vectors(vectors, self._operator.size)
        values, left = tf.zeros_like(vectors), vectors
        best, residuals = values, np.ones(vectors.shape[0])
        iterations = 0
        while iterations < self._max_iterations:
            values += self.step * self._approximate.solve(left).values
            products = self._operator.products(values)
            left = vectors - products - self.damping * values
            iterations += 1
            now = solutions.relative_residuals(products, values, vectors, self.damping)
            if not (now < 1e3).all():
                raise errors.SolverError(
                    f"the Neumann series diverges: after {iterations} rounds the residual is {now.max():.3g}; use a "
                    f"smaller step than {self.step:.4g}, or a curvature that is positive with the damping"
                )
            best = tf.where((now < residuals)[:, None], values, best)
            residuals = np.minimum(now, residuals)
            if (residuals <= self._tolerance).all():
                break
        num_products = iterations * int(vectors.shape[0])
        return solutions.Solution(best, residuals, residuals <= self._tolerance, iterations, num_products)

    def _find_step(self, random: np.random.Generator) -> float:
        vector, largest = tf.constant(random.normal(size=(1, self._operator.size)), self._operator.dtype), 0.0
        for _ in range(20):
            vector /= tf.norm(vector)
            product = self._operator.products(vector) + self.damping * vector
            vector = self._approximate.solve(product).values
            largest = float(tf.norm(vector))
        # Power iteration comes from below; a tenth more keeps the step on the safe side of twice the inverse.
        return 1.0 / (1.1 * largest)
