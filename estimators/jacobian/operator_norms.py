"""The largest singular value of dg/dx for every example by products with it, for many outputs or large inputs.

    solver = operator_norms.Solver(function, "softmax")
    found = solver.run((images, labels))
    found.values, found.error_bounds, found.upper_bounds(0.999)

Lanczos iteration (see `lanczos`) on J J^T, or on J^T J if inputs are smaller than outputs: Golub-Kahan iteration of
which only the smaller side is kept. With u the unit vector that it finds, sigma = |J^T u| and v = J^T u / sigma,

    |J v - sigma u| = residual    =>    |sigma_k^2 - sigma^2| <= sigma residual for a singular value sigma_k,

which lies within residual / (1 + sqrt(1 - residual / sigma)) of sigma, about half the residual; sigma <= the largest.

One step takes a forward and a backward product, 10 to 25 steps are usual: below some 50 outputs `gram` is faster.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors
from estimators.jacobian import functions, lanczos, linearised, normalisations

# Rounding errors of one product, in units of the last place, that the bound allows for.
_ROUNDINGS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class OperatorNorms:
    """Largest singular values with what proves them.

    Attributes:
        values: [N] float64, sigma; output units per unit of the input.
        residuals: [N] float64, |J v - sigma u| with |J^T u - sigma v| = 0.
        num_steps: [N] int64, pairs of products.
        bounds: [N] float64, the residuals; where `lanczos.Config.stop` is "gap", those by the gap where smaller.
        converged: [N] bool, bounds <= tolerance sigma.
        exhausted: [N] bool, see `lanczos.Extremes`.
        ids: [N] int64.
    """

    values: np.ndarray
    residuals: np.ndarray
    bounds: np.ndarray
    num_steps: np.ndarray
    converged: np.ndarray
    exhausted: np.ndarray
    ids: np.ndarray
    _extremes: lanczos.Extremes
    _epsilon: float

    @property
    def error_bounds(self) -> np.ndarray:
        """[N], a singular value of the Jacobian as computed lies within this of `values`: `bounds` and rounding.

        Of any Jacobian where the iteration stops at residuals, and where by the gap, unless singular values are so
        close that it takes them for one, see `lanczos`.
        """
        shares = self.bounds / np.where(self.values > 0, self.values, 1.0)
        exact = self.bounds / (1.0 + np.sqrt(np.maximum(1.0 - shares, 0.0)))
        return exact + _ROUNDINGS * self._epsilon * self.values

    def upper_bounds(self, confidence: float = 0.999) -> np.ndarray:
        """[N], numbers that the largest singular value exceeds with probability 1 - confidence over start vectors.

        From the theorem in `lanczos`, for any spectrum, so wide; infinite after few steps.

        Raises:
            InvalidArgumentError: the confidence does not lie between 0 and 1.
        """
        kept = 1.0 - self._extremes.missed(confidence)
        certain = (self.values + self.error_bounds) / np.sqrt(np.where(kept > 0, kept, 1.0))
        return np.where(kept > 0, certain, np.inf)


class Solver:
    """Operator norms of a function under one normalisation, compiled once."""

    def __init__(
        self,
        function: functions.Function,
        normalisation: str = "none",
        *,
        target_logit_only: bool = False,
        config: lanczos.Config | None = None,
    ) -> None:
        """Compiles at the first use.

        Args:
            function: what is differentiated.
            normalisation: name in `normalisations.NAMES`.
            target_logit_only: of the label's entry alone, where one step is exact.
            config: when to stop; by default where a singular value lies within a relative 1e-4 of what is found.

        Raises:
            InvalidArgumentError: the normalisation is unknown.
        """
        self._function, self.config = function, config or lanczos.Config()
        num_outputs = normalisations.num_values(normalisation, function.num_outputs, target_logit_only)
        by_outputs = num_outputs <= function.input_size

        def products(inputs: tf.Tensor, labels: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
            linear = linearised.Linearised(
                lambda x: normalisations.apply(normalisation, function.predict(x), labels, target_logit_only),
                inputs,
                with_jvp=True,
            )
            return (lambda u: linear.jvp(linear.vjp(u))) if by_outputs else (lambda v: linear.vjp(linear.jvp(v)))

        size = min(num_outputs, function.input_size)
        self._solver = lanczos.Solver(
            products,
            size,
            function.dtype,
            "largest",
            self.config,
            compiled=function.compiled,
            looks_at_all=function.is_dear,
        )

    def run(self, data: Any, *, keys: np.ndarray | None = None) -> OperatorNorms:
        """The largest singular value for every example.

        Args:
            data: `examples.Examples` or (inputs, labels).
            keys: [N] or [N, m] integers that start vectors belong to; by default the examples' ids.

        Returns:
            The norms: 2 num_steps products an example, and 2 max_steps min(K, D) numbers of memory.

        Raises:
            InvalidArgumentError, MismatchError: see `functions.checked`.
            NotFiniteError: a norm is NaN or infinite.
        """
        data = functions.checked(self._function, data)
        found = self._solver.run(data.inputs, data.labels, data.ids if keys is None else keys)
        check_finite(found.values, data.ids, "the operator norm")
        values = np.sqrt(np.maximum(found.values, 0.0))
        scale = np.where(values > 0, values, 1.0)
        residuals, bounds = found.residuals / scale, found.bounds / scale
        epsilon = float(np.finfo(self._function.dtype.as_numpy_dtype).eps)
        return OperatorNorms(
            values, residuals, bounds, found.num_steps, found.converged, found.exhausted, data.ids, found, epsilon
        )


def bytes_per_example(function: functions.Function, config: lanczos.Config) -> int:
    """What the vectors of an iteration take, with their products, and in float64 while they are looked at."""
    size = min(function.num_outputs, function.input_size)
    return 2 * min(config.max_steps, size) * size * (2 * function.dtype.size + 8)


def check_finite(values: np.ndarray, ids: np.ndarray, what: str) -> None:
    """Refuses what is no number.

    Raises:
        NotFiniteError: a value is NaN or infinite.
    """
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise errors.NotFiniteError(
            f"{what} of example {ids[wrong[0]]} is {values[wrong[0]]}, {wrong.size} of {len(values)} are not finite; "
            "check the weights and the inputs"
        )
