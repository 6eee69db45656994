"""Curvature of the training objective as a linear operator on parameter vectors.

With losses l_i, predictions f_i and weight decay D (a diagonal), at the parameters as they are:

    hessian          H = (1/n) sum_i grad^2 l_i + D
    gauss_newton     G = (1/n) sum_i J_i^T (d^2 l_i / d f_i^2) J_i + D      J_i = d f_i / d theta (Schraudolph, 2002)
    empirical_fisher F = (1/n) sum_i grad l_i (grad l_i)^T + D

G and F are positive semidefinite, H need not be. For a softmax or a regression output trained by its log-likelihood G
is the Fisher matrix; F, of the labels as they are, is not (Kunstner et al., 2019), and is the outer product of loss
gradients, not a Gauss-Newton matrix. No damping is part of an operator: solvers add it.
"""

from collections.abc import Callable
import functools
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from estimators import errors, examples, parameters, targets
from estimators.curvature import vectorised
from estimators.derivatives import per_example, plans

KINDS = ("hessian", "gauss_newton", "empirical_fisher")


class Operator(Protocol):
    """A symmetric matrix that is known by its products."""

    @property
    def size(self) -> int:
        """P, its number of rows."""

    @property
    def dtype(self) -> tf.DType:
        """Floating dtype in which products are computed."""

    def products(self, vectors: tf.Tensor) -> tf.Tensor:
        """[R, P] -> [R, P], each row multiplied by the matrix."""


class DenseOperator:
    """A matrix that is there, for tests and small problems."""

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = tf.convert_to_tensor(matrix)

    @property
    def size(self) -> int:
        """See `Operator`."""
        return int(self._matrix.shape[0])

    @property
    def dtype(self) -> tf.DType:
        """See `Operator`."""
        return self._matrix.dtype

    def products(self, vectors: tf.Tensor) -> tf.Tensor:
        """See `Operator`."""
        return tf.matmul(vectors, self._matrix)


class Curvature:
    """The curvature of a target's training objective over its training examples.

    Attributes:
        kind: one of `KINDS`.
        num_products: vectors that were multiplied so far, each a pass over the training examples.
    """

    def __init__(
        self,
        plan: plans.Plan,
        train: Any,
        kind: str = "hessian",
        *,
        batch_size: int = 256,
        jit_compile: bool | None = None,
    ) -> None:
        """Prepares products; nothing is computed yet.

        Args:
            plan: of the target.
            train: the training examples, `examples.Examples` or (inputs, labels).
            kind: one of `KINDS`.
            batch_size: examples that are differentiated at a time. It bounds the memory and changes nothing else.
            jit_compile: compile by XLA; None for what the target says.

        Raises:
            InvalidArgumentError: the kind is not known.
        """
        if kind not in KINDS:
            raise errors.InvalidArgumentError(f"curvature {kind!r}: expected one of {', '.join(KINDS)}")
        self.kind, self.num_products = kind, 0
        self._plan, self._train, self._batch_size = plan, examples.of(train), batch_size
        self._decay = tf.constant(plan.target.weight_decay_vector(), plan.target.dtype)
        make = {"hessian": _hessian, "gauss_newton": _gauss_newton, "empirical_fisher": _empirical_fisher}[kind]
        self._sums = per_example.compiled_sums(plan, make(plan), jit_compile)

    @property
    def size(self) -> int:
        """P."""
        return self._plan.target.num_parameters

    @property
    def dtype(self) -> tf.DType:
        """Dtype of the parameters."""
        return self._plan.target.dtype

    @property
    def num_train(self) -> int:
        """N."""
        return len(self._train)

    def products(self, vectors: tf.Tensor) -> tf.Tensor:
        """[R, P] -> [R, P]; R passes over the training examples, each of some four gradients.

        Raises:
            NotFiniteError: a product is NaN or infinite.
        """
        batches = self._train.batches(min(self._batch_size, len(self._train)))
        parts = (self._sums(batch.inputs, batch.labels, vectors) for batch in batches)
        return self._finished(functools.reduce(tf.add, parts) / len(self._train), vectors)

    def batch_products(self, vectors: tf.Tensor, positions: np.ndarray) -> tf.Tensor:
        """[R, P] -> [R, P], products with the curvature of the mean loss of some training examples alone.

        Args:
            vectors: [R, P].
            positions: which training examples.

        Raises:
            NotFiniteError: a product is NaN or infinite.
        """
        batch = self._train.take(positions)
        return self._finished(self._sums(batch.inputs, batch.labels, vectors) / len(positions), vectors)

    def make_recursion(self, positions_per_step: int) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """Many steps h <- v + keep h - (C_batch h) / scale in one call of a compiled function.

        Args:
            positions_per_step: training examples in a batch.

        Returns:
            A function (vectors v [R, P], estimate h [R, P], positions [S, B], keep, scale) -> (h [R, P] after S steps,
            the sum [R, P] of the estimates after each), which reads the S B examples before it starts. It does not
            look whether they are finite.
        """
        data, decay = self._train, self._decay

        def steps(
            vectors: tf.Tensor, estimate: tf.Tensor, inputs: Any, labels: tf.Tensor, keep: tf.Tensor, scale: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            def step(k: tf.Tensor, h: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                one = tf.nest.map_structure(lambda t: t[k], inputs)
                products = self._sums(one, labels[k], h) / positions_per_step + decay * h
                h = vectors + keep * h - products / scale
                return k + 1, h, total + h

            num = tf.shape(labels)[0]
            start = (tf.constant(0), estimate, tf.zeros_like(estimate))
            return tf.while_loop(lambda k, *_: k < num, step, start, parallel_iterations=1)[1:]

        compiled = tf.function(steps, autograph=False, reduce_retracing=True)

        def recursion(
            vectors: tf.Tensor, estimate: tf.Tensor, positions: np.ndarray, keep: float, scale: float
        ) -> tuple[tf.Tensor, tf.Tensor]:
            batch = data.take(positions.ravel())
            shaped = tf.nest.map_structure(
                lambda array: tf.constant(array.reshape(*positions.shape, *array.shape[1:])),
                (batch.inputs, batch.labels),
            )
            numbers = [tf.constant(number, self.dtype) for number in (keep, scale)]
            self.num_products += int(vectors.shape[0]) * len(positions)
            return compiled(vectors, estimate, *shaped, *numbers)

        return recursion

    def _finished(self, means: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        self.num_products += int(vectors.shape[0])
        result, is_finite = _with_decay(means, self._decay, vectors)
        if not bool(is_finite):
            raise errors.NotFiniteError(
                f"a product with the {self.kind} is not finite; check that losses and weights are, and the vectors"
            )
        return result


def explicit(operator: Operator, block: int = 256) -> np.ndarray:
    """[P, P] float64, the matrix itself, from products with the unit vectors; made symmetric.

    Args:
        operator: the operator.
        block: rows that are computed at a time.
    """
    rows = []
    for start in range(0, operator.size, block):
        units = tf.one_hot(range(start, min(start + block, operator.size)), operator.size, dtype=operator.dtype)
        rows.append(operator.products(units).numpy().astype(np.float64))
    matrix = np.concatenate(rows)
    return (matrix + matrix.T) / 2


@tf.function(autograph=False, reduce_retracing=True)
def _with_decay(means: tf.Tensor, decay: tf.Tensor, vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(the products, whether all are finite)."""
    result = means + decay * vectors
    return result, tf.reduce_all(tf.math.is_finite(result))


# (inputs, labels, vectors [R, P]) -> [R, P], the products summed over the examples.
_Sums = Callable[[Any, tf.Tensor, tf.Tensor], tf.Tensor]


def _hessian(plan: plans.Plan) -> _Sums:
    """Forward over reverse: the derivative of the gradient along each vector (Pearlmutter, 1994)."""
    target, variables = plan.target, plan.target.variables

    def sums(inputs: Any, labels: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        def product(vector: tf.Tensor) -> tf.Tensor:
            with tf.autodiff.ForwardAccumulator(variables, parameters.unflatten(vector, target.parameters)) as forward:
                gradients = _summed_gradients(target, inputs, labels)
            zero = tf.UnconnectedGradients.ZERO
            return parameters.flatten([forward.jvp(g, unconnected_gradients=zero) for g in gradients])

        return vectorised.for_each(product, vectors, _num_together(target, inputs, labels))

    return sums


def _gauss_newton(plan: plans.Plan) -> _Sums:
    target, variables = plan.target, plan.target.variables

    def sums(inputs: Any, labels: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        def product(vector: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                with tf.autodiff.ForwardAccumulator(
                    variables, parameters.unflatten(vector, target.parameters)
                ) as forward:
                    predictions = target.predict(inputs)
                slopes = forward.jvp(predictions, unconnected_gradients=tf.UnconnectedGradients.ZERO)
                curved = tf.stop_gradient(_curved_outputs(target.loss.values, predictions, labels, slopes))
            found = tape.gradient(
                predictions, variables, output_gradients=curved, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            return parameters.flatten([tf.convert_to_tensor(gradient) for gradient in found])

        return vectorised.for_each(product, vectors, _num_together(target, inputs, labels))

    return sums


def _summed_gradients(target: targets.Target, inputs: Any, labels: tf.Tensor) -> list[tf.Tensor]:
    """Of the summed loss, one for each variable."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(target.losses(inputs, labels))
    found = tape.gradient(loss, target.variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.convert_to_tensor(gradient) for gradient in found]


def _num_together(target: targets.Target, inputs: Any, labels: tf.Tensor) -> int:
    return vectorised.num_together(lambda *batch: _summed_gradients(target, *batch), inputs, labels)


def _curved_outputs(
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], predictions: tf.Tensor, labels: tf.Tensor, slopes: tf.Tensor
) -> tf.Tensor:
    """(d^2 l / d f^2) slopes, example by example."""
    with tf.autodiff.ForwardAccumulator(predictions, slopes) as forward:
        with tf.GradientTape() as tape:
            tape.watch(predictions)
            total = tf.reduce_sum(loss(predictions, labels))
        gradient = tape.gradient(total, predictions, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return forward.jvp(gradient, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _empirical_fisher(plan: plans.Plan) -> _Sums:
    def sums(inputs: Any, labels: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        rows = parameters.flatten(per_example.gradients(plan, inputs, labels, "loss"), num_batch_axes=1)
        return tf.matmul(tf.matmul(vectors, rows, transpose_b=True), rows)

    return sums
