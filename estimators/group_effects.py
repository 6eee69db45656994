"""What leaving groups of training examples out would do, to first and second order.

After Koh et al. (2019, arXiv:1905.13289) and Basu, You & Feizi (2020, arXiv:1911.00418).

The training objective is (1/n) sum_i l_i + 1/2 theta^T D theta with curvature C at its minimum. Without the examples
of U, 1/n being kept, one Newton step moves the parameters by (C - C_U)^-1 b, where

    b = (1/n) sum_{i in U} g_i,    C_U = (1/n) sum_{i in U} curvature of l_i
    first order:   delta = C^-1 b                       the sum of what leaving out single examples does
    second order:  delta + C^-1 C_U delta               how the curvature changes with the group

For quadratic losses what the second order leaves out is of third order in the share of the group; for others the change
of the curvature along the way, which needs third derivatives, is left out too. If the mean is taken over the n - |U|
examples that are left and the weight decay is not, the objective is as if D grew: with p = |U| / n,
b gains p D theta and C_U gains p D.

    score[U, t] = -grad m_t^T delta

is the predicted measured output with the group minus without it, as for single examples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples, gradient_products, influence_functions, parameters, score_matrix
from estimators.curvature import operators


def parameter_changes(
    fitted: influence_functions.InfluenceFunctions,
    groups: Sequence[np.ndarray],
    *,
    order: int = 2,
    rescale: bool = False,
) -> tf.Tensor:
    """Predicted changes of the parameters when groups are left out.

    Args:
        fitted: the inverse of the curvature.
        groups: positions among the fitted training examples, for each group.
        order: 1 or 2.
        rescale: take the mean over the examples that are left instead of keeping 1/n.

    Returns:
        [G, P], parameters without the group minus parameters with it. One solution for each group and order; the
        gradients of its examples, and for the second order one product with their curvature.

    Raises:
        InvalidArgumentError: the order is neither, or a group is empty, repeats a position or lies outside.
        SolverError: the solver failed.
    """
    known = fitted.fitted()
    if order not in (1, 2):
        raise errors.InvalidArgumentError(f"order {order}: expected 1 or 2")
    checked = [_checked(group, known.num_train) for group in groups]
    if not checked:
        raise errors.InvalidArgumentError("no groups: at least one is needed")
    sources = tf.concat([_source(fitted, group, rescale=rescale) for group in checked], axis=0)
    changes = known.solver.solve(sources).values
    if order == 1:
        return changes
    pairs = enumerate(checked)
    curved = [_group_curvature(fitted, group, changes[k : k + 1], rescale=rescale) for k, group in pairs]
    return changes + known.solver.solve(tf.concat(curved, axis=0)).values


def scores(
    fitted: influence_functions.InfluenceFunctions,
    groups: Sequence[np.ndarray],
    test: Any,
    of: str = "loss",
    *,
    order: int = 2,
    rescale: bool = False,
) -> score_matrix.ScoreMatrix:
    """score[U, t] = -grad m_t^T delta_U; see the module.

    Args:
        fitted: the inverse of the curvature.
        groups: positions among the fitted training examples, for each group.
        test: test examples.
        of: what of them is predicted, "loss" or "measured".
        order: 1 or 2.
        rescale: take the mean over the examples that are left instead of keeping 1/n.

    Returns:
        [num_groups, num_test]; the "training examples" are groups, by their position in `groups`. Positive: having
        the group raises what is measured.

    Raises:
        See `parameter_changes` and `InfluenceFunctions.scores`.
    """
    test, measured = examples.of(test), gradient_products.measured_name(fitted.target, of)
    gradient_products.check_examples(fitted.target, test, of)
    changes = parameter_changes(fitted, groups, order=order, rescale=rescale)
    values = np.empty((len(test), len(groups)), fitted.target.dtype.as_numpy_dtype)
    gradient_products.fill(fitted.fitted().gradients[of], test, changes, -1.0, values, fitted.blocks.train)
    return score_matrix.ScoreMatrix(
        np.ascontiguousarray(values.T),
        np.arange(len(groups)),
        test.ids,
        method=f"group effects of order {order} ({fitted.settings.name})",
        quantity=f"having the group raises the {measured} of the test example",
        unit=measured,
        lower_is_better=measured == "loss",
        config={"of": of, "order": order, "rescale": rescale, "num_train": fitted.fitted().num_train},
    )


def _checked(group: np.ndarray, num_train: int) -> np.ndarray:
    positions = np.asarray(group)
    inside = positions.ndim == 1 and positions.size and np.issubdtype(positions.dtype, np.integer)
    if not inside or positions.min() < 0 or positions.max() >= num_train or len(set(positions)) < len(positions):
        raise errors.InvalidArgumentError(
            f"group {positions}: expected different positions from 0 to {num_train - 1}, at least one"
        )
    return positions


def _source(fitted: influence_functions.InfluenceFunctions, group: np.ndarray, *, rescale: bool) -> tf.Tensor:
    """[1, P], b."""
    known, target = fitted.fitted(), fitted.target
    total = tf.zeros([1, target.num_parameters], target.dtype)
    for batch, count in gradient_products.even_batches(known.problem.train.take(group), fitted.blocks.train):
        rows = known.gradients["loss"](batch.inputs, batch.labels)[:count]
        total += tf.reduce_sum(rows, axis=0, keepdims=True)
    source = total / known.num_train
    if rescale:
        pulled = tf.constant(target.weight_decay_vector(), target.dtype) * parameters.flatten(target.variables)
        source += len(group) / known.num_train * pulled[None]
    return source


def _group_curvature(
    fitted: influence_functions.InfluenceFunctions, group: np.ndarray, vectors: tf.Tensor, *, rescale: bool
) -> tf.Tensor:
    """[1, P], C_U times vectors."""
    known, target = fitted.fitted(), fitted.target
    kind = getattr(fitted.settings, "curvature", "gauss_newton")
    part = known.problem.train.take(group)
    operator = operators.Curvature(known.problem.plan, part, kind, batch_size=min(fitted.blocks.train, len(part)))
    products = operator.products(vectors)
    if not rescale:
        products -= tf.constant(target.weight_decay_vector(), target.dtype) * vectors
    return len(group) / known.num_train * products
