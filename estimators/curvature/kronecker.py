"""K-FAC and EK-FAC: the Fisher matrix layer by layer, each layer a product of two small matrices.

For a layer with inputs a [T, I] and cotangents d [T, O] of the loss of one example, gradient G = sum_t a_t^T d_t
(Martens & Grosse, 2015; Grosse & Martens, 2016, for convolutions):

    A = E[(1/T) sum_t a_t^T a_t],   S = E[sum_t d_t^T d_t],   Fisher of the layer ~ A (x) S
    A = Q_A diag(alpha) Q_A^T,      S = Q_S diag(sigma) Q_S^T
    K-FAC:   Lambda = alpha sigma^T
    EK-FAC:  Lambda = E[(Q_A^T G Q_S)^2]                                  (George et al., 2018)
    (C + damping I)^-1 V ~ Q_A [(Q_A^T V Q_S) / (Lambda + weight decay + damping)] Q_S^T

EK-FAC's Lambda is the exact second moment of the gradients along its eigenvectors, a mean over examples. Expectations
over labels are those of the model, by one drawn label an example or exactly over all classes; with the labels of the
data it is the empirical Fisher matrix that is approximated. Parameters that do not multiply have their Fisher matrix
written out, or its diagonal where they are many. Grosse et al. (2023, arXiv:2308.03296) use it for influence functions.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples, parameters
from estimators.curvature import blocks, operators, solutions
from estimators.derivatives import layouts, passes, per_example, plans

LABELS = ("sampled", "expected", "data")
# Larger parameters that do not multiply have the diagonal of their Fisher matrix only.
MAX_WRITTEN_OUT = 1024
# Examples whose labels are drawn together, whatever the batches: part of what a seed means.
_DRAWN_TOGETHER = 256


@dataclasses.dataclass(frozen=True, eq=False)
class BlockFactors:
    """One block in its eigenvectors.

    Attributes:
        block: which parameters.
        inputs: [G, I, I] eigenvectors of A in columns, or for a formed block [P, P] of its Fisher matrix; None where
            only the diagonal is kept.
        outputs: [G, O, O] eigenvectors of S; None for a formed block.
        products: [G, I, O], eigenvalues of A times those of S; for a formed block its eigenvalues [P].
        moments: the second moments along the eigenvectors, of the same shape: EK-FAC's Lambda.
    """

    block: blocks.Block
    inputs: np.ndarray | None
    outputs: np.ndarray | None
    products: np.ndarray
    moments: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """All blocks of a target.

    Attributes:
        blocks: every parameter of the target is in one.
        labels: which labels the expectation is over, one of `LABELS`.
        num_train: examples that they are a mean over.
    """

    blocks: tuple[BlockFactors, ...]
    labels: str
    num_train: int


def fit(
    plan: plans.Plan,
    train: Any,
    *,
    labels: str = "sampled",
    batch_size: int = 128,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Factors:
    """Factors of the Fisher matrix of a target's training loss: two passes over the examples.

    Labels that are sampled are drawn beforehand, in a forward pass of their own.

    Args:
        plan: of the target.
        train: the training examples.
        labels: "sampled" for one label an example drawn from the model, "expected" for the mean over all classes (as
            many backward passes), "data" for the labels that there are.
        batch_size: examples at a time; bounds the memory and changes nothing else.
        seed: of the labels.
        progress: called with (examples done, examples in all) of both passes.

    Returns:
        The factors. Eigenvectors are float64, made in float64 from sums in the target's dtype.

    Raises:
        InvalidArgumentError: the kind of labels is unknown, or the loss gives none of that kind.
        NotFiniteError: a sum is NaN or infinite.
    """
    _check_labels(plan, labels)
    data = examples.of(train)
    size = min(batch_size, len(data))
    if labels == "sampled":
        data = _relabelled(plan, data, size, seed)
    found: list[blocks.Block] = []

    def batches(stage: int) -> Iterator[tuple[Any, Any]]:
        for number, batch in enumerate(data.batches(size)):
            yield batch.inputs, batch.labels
            progress(stage * len(data) + min((number + 1) * size, len(data)), 2 * len(data))

    second = _totals(_make_second_moments(plan, labels, found), batches(0), len(data))
    bases = [_eigenvectors(block, moments) for block, moments in zip(found, second, strict=True)]
    rotations = [[tf.constant(b, plan.target.dtype) for b in basis if b is not None] for basis, _ in bases]
    moments = _totals(_make_rotated_moments(plan, labels, found, rotations), batches(1), len(data))
    return Factors(
        tuple(
            BlockFactors(block, basis[0], basis[1], products, moment[0])
            for block, (basis, products), moment in zip(found, bases, moments, strict=True)
        ),
        labels,
        len(data),
    )


def _check_labels(plan: plans.Plan, labels: str) -> None:
    if labels not in LABELS:
        raise errors.InvalidArgumentError(f"labels {labels!r}: expected one of {', '.join(LABELS)}")
    loss = plan.target.loss
    missing = {"sampled": loss.sample_labels, "expected": loss.expected_labels, "data": True}[labels] is None
    if missing:
        raise errors.InvalidArgumentError(
            f"labels {labels!r}: the loss {loss.name} does not say how the model's own labels are distributed; use "
            "another kind, or give the Loss sample_labels or expected_labels"
        )


def _relabelled(plan: plans.Plan, data: examples.Examples, batch_size: int, seed: int) -> examples.Examples:
    """The examples with labels drawn from the model, by one forward pass.

    Which numbers are drawn depends on how many are drawn together, and under XLA on the device. They are drawn here for
    so many examples as never change, on one device: labels are the same in batches of any size.
    """
    sample = plan.target.loss.sample_labels
    assert sample is not None
    predict = per_example.compiled_rows(plan, lambda inputs, labels: plan.target.predict(inputs))
    drawn = []
    for number, together in enumerate(data.batches(_DRAWN_TOGETHER)):
        batches = together.batches(min(batch_size, len(together)))
        predictions = tf.concat([predict(batch.inputs, batch.labels) for batch in batches], axis=0)
        drawn.append(sample(predictions, tf.constant([seed, number], tf.int32)).numpy())
    return examples.Examples(data.inputs, np.concatenate(drawn), data.ids)


_Moments = list[list[tf.Tensor]]
_Batch = Callable[[Any, tf.Tensor], _Moments]


def _totals(function: _Batch, batches: Iterator[tuple[Any, Any]], num: int) -> list[list[np.ndarray]]:
    """Means over all examples in float64 of what a function sums over each batch."""
    totals: list[list[np.ndarray]] = []
    for batch in batches:
        sums = [[tensor.numpy().astype(np.float64) for tensor in some] for some in function(*batch)]
        if not all(np.isfinite(array).all() for some in sums for array in some):
            raise errors.NotFiniteError("second moments of gradients are not finite; check losses, weights and inputs")
        totals = _added(totals, sums)
    return [[array / num for array in some] for some in totals]


def _added(totals: list[list[Any]], new: list[list[Any]]) -> list[list[Any]]:
    """Sums of two lists of lists of arrays, of which the first may be empty yet."""
    if not totals:
        return new
    return [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(totals, new, strict=True)]


def _weighted_contributions(
    plan: plans.Plan, inputs: Any, labels: tf.Tensor, kind: str
) -> Iterator[tuple[passes.Pass, blocks.Contributions, dict[int, tf.Tensor], tf.Tensor]]:
    """For each label that counts: (pass, contributions, formed gradients, weight [B] of the label for each example)."""
    target = plan.target
    forward = plan.forward(inputs)
    ones = tf.ones([labels.shape[0]], target.dtype)
    counted = [(labels, ones)]
    if kind == "expected" and target.loss.expected_labels:
        counted = list(zip(*target.loss.expected_labels(tf.stop_gradient(forward.outputs)), strict=True))
    for some, weights in counted:
        some = tf.stop_gradient(some)
        found = plan.contributions(forward, target.loss.values(forward.outputs, some))
        looped = per_example.looped(plan, inputs, some, "loss", plan.looped)
        yield forward, found, looped, tf.cast(tf.stop_gradient(weights), target.dtype)


def _make_second_moments(plan: plans.Plan, kind: str, found: list[blocks.Block]) -> _Batch:
    """Sums of A and S of every block; fills `found` with the blocks when it is traced."""

    def compute(inputs: Any, labels: tf.Tensor) -> _Moments:
        sums: _Moments = []
        for forward, parts, looped, weights in _weighted_contributions(plan, inputs, labels, kind):
            found[:] = blocks.of(forward, parts, plan.target.weight_decay)
            new = [_second_moments(plan, block, parts, looped, weights) for block in found]
            # The inputs of a layer do not depend on the label: their weights add up to one.
            sums = _added(sums, new)
        return sums

    return per_example.compiled_sums(plan, compute)


def _second_moments(
    plan: plans.Plan,
    block: blocks.Block,
    parts: blocks.Contributions,
    looped: dict[int, tf.Tensor],
    weights: tf.Tensor,
) -> list[tf.Tensor]:
    if isinstance(block, blocks.FormedBlock):
        rows = formed_rows(plan, block, parts, looped, weights.shape[0])
        if block.size > MAX_WRITTEN_OUT:
            return [tf.linalg.matvec(tf.square(rows), weights, transpose_a=True)]
        return [tf.matmul(rows * weights[:, None], rows, transpose_a=True)]
    rows, cotangents = block.factors(parts)
    places = tf.cast(rows.shape[2], rows.dtype)
    scaled = weights[:, None, None, None]
    return [_gram(rows * scaled, rows) / places, _gram(cotangents * scaled, cotangents)]


def _gram(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """[B, G, T, I], [B, G, T, O] -> [G, I, O], summed over examples and places."""
    flat = [tf.reshape(tf.transpose(t, [1, 0, 2, 3]), [t.shape[1], -1, t.shape[3]]) for t in (first, second)]
    return tf.matmul(flat[0], flat[1], transpose_a=True)


def formed_rows(
    plan: plans.Plan,
    block: blocks.FormedBlock,
    parts: blocks.Contributions,
    looped: dict[int, tf.Tensor],
    num_examples: int,
) -> tf.Tensor:
    """[B, P], gradients of a block, within a function that is being traced."""
    if block.position in looped:
        rows = looped[block.position]
        return tf.reshape(rows, [num_examples, block.size])
    rows = passes.gradients(parts[block.position], plan.target.parameters[block.position], num_examples)
    return tf.reshape(rows, [num_examples, block.size])


def _make_rotated_moments(
    plan: plans.Plan, kind: str, found: Sequence[blocks.Block], rotations: Sequence[Sequence[tf.Tensor]]
) -> _Batch:
    """Sums of the squared gradients along the eigenvectors of every block."""

    def compute(inputs: Any, labels: tf.Tensor) -> _Moments:
        sums: _Moments = []
        for _, parts, looped, weights in _weighted_contributions(plan, inputs, labels, kind):
            new = [
                [_rotated_moments(plan, block, rotation, parts, looped, weights)]
                for block, rotation in zip(found, rotations, strict=True)
            ]
            sums = _added(sums, new)
        return sums

    return per_example.compiled_sums(plan, compute)


def _rotated_moments(
    plan: plans.Plan,
    block: blocks.Block,
    rotation: Sequence[tf.Tensor],
    parts: blocks.Contributions,
    looped: dict[int, tf.Tensor],
    weights: tf.Tensor,
) -> tf.Tensor:
    if isinstance(block, blocks.FormedBlock):
        rows = formed_rows(plan, block, parts, looped, weights.shape[0])
        rows = tf.matmul(rows, rotation[0]) if rotation else rows
        return tf.linalg.matvec(tf.square(rows), weights, transpose_a=True)
    if block.num_places(parts) == 1:  # the square of an outer product is the outer product of squares
        rows, cotangents = block.rotated_factors(parts, rotation)
        return _gram(tf.square(rows) * weights[:, None, None, None], tf.square(cotangents))
    squares = tf.square(block.rotated_gradients(parts, rotation))
    return tf.tensordot(weights, squares, axes=[[0], [0]])


def _eigenvectors(
    block: blocks.Block, moments: Sequence[np.ndarray]
) -> tuple[tuple[np.ndarray | None, np.ndarray | None], np.ndarray]:
    """((eigenvectors of A, of S), eigenvalues)."""
    if isinstance(block, blocks.FormedBlock):
        if moments[0].ndim == 1:
            return (None, None), moments[0]
        eigenvalues, eigenvectors = np.linalg.eigh((moments[0] + moments[0].T) / 2)
        return (eigenvectors, None), np.maximum(eigenvalues, 0.0)
    (alpha, inputs), (sigma, outputs) = (np.linalg.eigh((m + np.swapaxes(m, 1, 2)) / 2) for m in moments)
    return (inputs, outputs), np.maximum(alpha, 0.0)[:, :, None] * np.maximum(sigma, 0.0)[:, None, :]


class KroneckerSolver:
    """(C + damping I)^-1 with C approximated layer by layer.

    Attributes:
        factors: of the Fisher matrix.
        damping: added to every eigenvalue, beside the weight decay.
        rotated: for each block its factors, its eigenvectors in the target's dtype, and its damped eigenvalues.
    """

    def __init__(
        self,
        plan: plans.Plan,
        factors: Factors,
        damping: float,
        *,
        eigenvalue_correction: bool = True,
        operator: operators.Operator | None = None,
    ) -> None:
        """Prepares a solver.

        Args:
            plan: of the target that the factors are of.
            factors: from `fit`.
            damping: added to every eigenvalue, >= 0.
            eigenvalue_correction: EK-FAC's eigenvalues instead of K-FAC's.
            operator: the curvature that is approximated; with it, every solution is given its residual, which takes
                one product for each vector.

        Raises:
            MismatchError: the factors do not fit the target's parameters.
            SolverError: an eigenvalue is 0 with the damping.
        """
        self.damping, self.factors, self._operator = solutions.check_damping(damping), factors, operator
        self._target = plan.target
        self._check_fit()
        self.rotated = [
            (one, self._rotation(one), self._eigenvalues(one, eigenvalue_correction)) for one in factors.blocks
        ]

    def _check_fit(self) -> None:
        sizes = {k: p.size for k, p in enumerate(self._target.parameters)}
        found: dict[int, int] = {}
        for one in self.factors.blocks:
            found |= dict.fromkeys(one.block.positions, one.products.size)
        if set(found) != set(sizes) or sum(o.products.size for o in self.factors.blocks) != sum(sizes.values()):
            raise errors.MismatchError(
                f"factors of {sum(o.products.size for o in self.factors.blocks)} parameters for a target that has "
                f"{self._target.num_parameters}; fit them again"
            )

    def _rotation(self, one: BlockFactors) -> list[tf.Tensor]:
        return [tf.constant(b, self._target.dtype) for b in (one.inputs, one.outputs) if b is not None]

    def _eigenvalues(self, one: BlockFactors, corrected: bool) -> np.ndarray:
        decay = self._target.weight_decay[one.block.positions[0]]
        damped = (one.moments if corrected else one.products) + decay + self.damping
        smallest = float(damped.min())
        if smallest <= 0:
            raise errors.SolverError(
                f"the Fisher matrix of {self._target.parameters[one.block.positions[0]].name} has an eigenvalue 0 with "
                f"damping {self.damping}, so that it has no inverse; give a damping above 0"
            )
        return damped

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        """[R, P] -> [R, P], the solutions alone, without a product for their residuals."""
        return self._scaled(solutions.check_vectors(vectors, self._target.num_parameters), -1.0)

    def solve(self, vectors: tf.Tensor) -> solutions.Solution:
        """See `solutions.Solver`; residuals are NaN without an operator."""
        values = self.apply(vectors)
        num = int(vectors.shape[0])
        if self._operator is None:
            return solutions.Solution(values, np.full(num, np.nan), np.ones(num, bool), 1, 0)
        residuals = solutions.relative_residuals(self._operator.products(values), values, vectors, self.damping)
        return solutions.Solution(values, residuals, np.ones(num, bool), 1, num)

    def inverse_root(self, vectors: tf.Tensor) -> tf.Tensor:
        """See `conjugate_gradient.Preconditioner`: [R, P] -> [R, P], to the power -1/2."""
        return self._scaled(solutions.check_vectors(vectors, self._target.num_parameters), -0.5)

    def _scaled(self, vectors: tf.Tensor, power: float) -> tf.Tensor:
        """Rows multiplied by a power of the damped matrix."""
        tensors = parameters.unflatten(vectors, self._target.parameters)
        found: dict[int, tf.Tensor] = {}
        for one, rotation, damped in self.rotated:
            factor = tf.constant(damped**power, self._target.dtype)
            if isinstance(one.block, blocks.FormedBlock):
                rows = tf.reshape(tensors[one.block.position], [-1, one.block.size])
                rotated = (tf.matmul(rows, rotation[0]) if rotation else rows) * factor
                rows = tf.matmul(rotated, rotation[0], transpose_b=True) if rotation else rotated
                shape = self._target.parameters[one.block.position].shape
                found[one.block.position] = tf.reshape(rows, [-1, *shape])
                continue
            inputs, outputs = rotation
            matrices = tf.einsum("gij,rgio->rgjo", inputs, one.block.matrices(tensors))
            rotated = tf.einsum("gij,rgjo->rgio", inputs, layouts.multiplied(matrices, outputs) * factor)
            back = layouts.multiplied(rotated, tf.linalg.matrix_transpose(outputs))
            found |= one.block.tensors(back, self._target.parameters)
        return parameters.flatten([found[k] for k in range(len(self._target.parameters))], num_batch_axes=1)
