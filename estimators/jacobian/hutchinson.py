"""Frobenius norms by random signs (Hutchinson, 1990): unbiased for the square, with a standard error.

    |J|_F^2 = E |J^T z|^2,    |H|_F^2 = E |H z|^2,    z of independent signs

The variance of one draw is 2 (|G|_F^2 - sum_k G_kk^2) with G = J J^T, or H H: none if its off-diagonal elements vanish,
and at most 2 |J|_F^4. Signs belong to the example's id, so that batches and shards change nothing.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples
from estimators.jacobian import batching, functions, keys, linearised, normalisations, operator_norms

# Within a traced function: inputs, labels -> (vectors [B, n] -> products [B, m]).
Products = Callable[[tf.Tensor, tf.Tensor], Callable[[tf.Tensor], tf.Tensor]]


@dataclasses.dataclass(frozen=True, eq=False)
class Frobenius:
    """Estimated Frobenius norms.

    Attributes:
        values: [N] float64, root of the mean square.
        standard_errors: [N] float64 of the values, standard error of the square over twice the value; NaN with fewer
            than two samples, and where the value is 0.
        squares: [N] float64, unbiased for the square.
        squares_standard_errors: [N] float64.
        num_samples: draws for each example.
        ids: [N] int64.
    """

    values: np.ndarray
    standard_errors: np.ndarray
    squares: np.ndarray
    squares_standard_errors: np.ndarray
    num_samples: int
    ids: np.ndarray


class Estimator:
    """Frobenius norms of matrices that are known by products with vectors, compiled once."""

    def __init__(
        self,
        function: functions.Function,
        products: Products,
        size: int,
        *,
        num_samples: int = 16,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        """Compiles at the first use.

        Args:
            function: what the products are of; says how they are compiled.
            products: the matrix of each example, or its transpose, by its products.
            size: n, length of the vectors.
            num_samples: products.
            batch_size: examples at a time.
            seed: of the signs.

        Raises:
            InvalidArgumentError: there are no samples, or no examples in a batch.
        """
        if num_samples < 1:
            raise errors.InvalidArgumentError(f"num_samples {num_samples}: must be at least 1")
        self._size, self._num_samples, self._sizes, self._seed = size, num_samples, batching.Sizes(batch_size), seed
        self._squares = function.compiled(self._draws(products))

    def run(self, data: examples.Examples, *, owners: np.ndarray | None = None) -> Frobenius:
        """The norms of every example.

        Args:
            data: examples with labels that are class numbers.
            owners: [N] or [N, m] integers that signs belong to; by default the examples' ids.

        Raises:
            NotFiniteError: a norm is NaN or infinite.
        """
        owners, rows = np.asarray(data.ids if owners is None else owners), []
        numbered = examples.Examples(data.inputs, data.labels)
        for batch, count in self._sizes.batches(numbered):
            signs = keys.signs(self._seed, "hutchinson", owners[batch.ids], (self._num_samples, self._size))
            rows.append(self._squares((batch.inputs, signs), batch.labels).numpy()[:count])
        return _summary(np.concatenate(rows), data.ids)

    def _draws(self, products: Products) -> Callable[[tuple[tf.Tensor, tf.Tensor], tf.Tensor], tf.Tensor]:
        """((inputs [B, ...], signs [B, num_samples, n]), labels [B]) -> [B, num_samples] float64, squares."""
        num_samples = self._num_samples

        def compute(rows: tuple[tf.Tensor, tf.Tensor], labels: tf.Tensor) -> tf.Tensor:
            inputs, signs = rows
            apply = products(inputs, labels)

            def draw(k: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
                image = tf.cast(apply(tf.cast(signs[:, k], inputs.dtype)), tf.float64)
                return k + 1, found.write(k, tf.reduce_sum(tf.square(image), axis=1))

            found = tf.TensorArray(tf.float64, num_samples, element_shape=[inputs.shape[0]])
            found = tf.while_loop(lambda k, _: k < num_samples, draw, (0, found), parallel_iterations=2)[1]
            return tf.transpose(found.stack())

        return compute


def of_function(
    function: functions.Function,
    normalisation: str = "none",
    *,
    target_logit_only: bool = False,
    num_samples: int = 16,
    batch_size: int = 32,
    seed: int = 0,
) -> Estimator:
    """Estimates |dg/dx|_F by backward passes; as many as outputs are better spent on `gram`, which is exact.

    Args:
        function: what is differentiated.
        normalisation: name in `normalisations.NAMES`.
        target_logit_only: of the label's entry alone, where one sample is exact.
        num_samples: backward passes.
        batch_size: examples at a time.
        seed: of the signs.

    Raises:
        InvalidArgumentError: the normalisation is unknown, or there are no samples.
    """
    size = normalisations.num_values(normalisation, function.num_outputs, target_logit_only)

    def products(inputs: tf.Tensor, labels: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        return linearised.Linearised(
            lambda x: normalisations.apply(normalisation, function.predict(x), labels, target_logit_only), inputs
        ).vjp

    return Estimator(function, products, size, num_samples=num_samples, batch_size=batch_size, seed=seed)


def frobenius_norms(function: functions.Function, data: Any, normalisation: str = "none", **options: Any) -> Frobenius:
    """|dg/dx|_F of every example, see `of_function` for the options.

    Args:
        function: what is differentiated.
        data: `examples.Examples` or (inputs, labels).
        normalisation: name in `normalisations.NAMES`.
        **options: of `of_function`.

    Raises:
        InvalidArgumentError: a name, a number or a label cannot be.
        NotFiniteError: a norm is NaN or infinite.
    """
    estimator = of_function(function, normalisation, **options)
    return estimator.run(functions.checked(function, data))


def _summary(draws: np.ndarray, ids: np.ndarray) -> Frobenius:
    """From squares [N, num_samples]."""
    num_samples, squares = draws.shape[1], draws.mean(axis=1)
    operator_norms.check_finite(squares, ids, "the squared Frobenius norm")
    deviation = draws.std(axis=1, ddof=1) if num_samples > 1 else np.full(len(ids), np.nan)
    errors_of_squares = deviation / np.sqrt(num_samples)
    values = np.sqrt(squares)
    of_values = errors_of_squares / np.where(values > 0, 2 * values, np.nan)
    return Frobenius(values, of_values, squares, errors_of_squares, num_samples, ids)
