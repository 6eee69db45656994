"""Products with curvatures against the matrices written out."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors
from estimators.curvature import operators
from estimators.derivatives import plans
from tests.estimators import models
from tests.reference import curvature as reference

_CASES = ["mlp", "conv2d_strided", "regression", "multi_label", "weight_norm", "einsums", "several_inputs"]


def _decayed(case):
    decay = tuple(0.1 * k for k in range(len(case.target.parameters)))
    return dataclasses.replace(case, target=dataclasses.replace(case.target, weight_decay=decay))


@pytest.mark.parametrize("kind", operators.KINDS)
@pytest.mark.parametrize("name", _CASES)
def test_products_are_those_of_the_matrix(name, kind):
    case = _decayed(models.ALL[name]())
    plan = plans.make(case.target, (case.inputs, case.labels))
    curvature = operators.Curvature(plan, (case.inputs, case.labels), kind, batch_size=3)
    truth = getattr(reference, kind)(case.target, case.inputs, case.labels)
    np.testing.assert_allclose(operators.explicit(curvature, block=7), truth, atol=1e-10 * np.abs(truth).max())
    assert curvature.num_products == curvature.size == len(truth)


@pytest.mark.parametrize("kind", operators.KINDS)
def test_the_size_of_batches_and_xla_change_nothing(kind):
    case = models.ALL["mlp"]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    vectors = tf.constant(np.random.default_rng(0).normal(size=(3, plan.target.num_parameters)))
    options = [{"batch_size": 1}, {"batch_size": 7}, {"batch_size": 100}, {"batch_size": 4, "jit_compile": True}]
    found = [
        operators.Curvature(plan, (case.inputs, case.labels), kind, **option).products(vectors) for option in options
    ]
    for values in found[1:]:
        np.testing.assert_allclose(values, found[0], rtol=1e-10)


def test_products_with_a_batch_are_those_of_its_examples():
    case = _decayed(models.ALL["mlp"]())
    plan = plans.make(case.target, (case.inputs, case.labels))
    curvature = operators.Curvature(plan, (case.inputs, case.labels))
    positions = np.array([5, 2])
    truth = reference.hessian(case.target, case.inputs[positions], case.labels[positions])
    vectors = np.random.default_rng(0).normal(size=(2, curvature.size))
    np.testing.assert_allclose(curvature.batch_products(tf.constant(vectors), positions), vectors @ truth, rtol=1e-8)


def test_softmax_gauss_newton_is_the_fisher_matrix_and_the_empirical_one_is_not():
    """The expectation of g g^T over labels from the model is G; over the labels that there are it is another matrix."""
    case = models.ALL["mlp"]()
    probabilities = tf.nn.softmax(case.target.predict(case.inputs)).numpy()
    fisher = 0.0
    for label in range(3):
        for k in range(7):
            one = reference.empirical_fisher(case.target, case.inputs[k : k + 1], np.array([label]))
            fisher = fisher + probabilities[k, label] * one / 7
    plan = plans.make(case.target, (case.inputs, case.labels))
    matrix = operators.explicit(operators.Curvature(plan, (case.inputs, case.labels), "gauss_newton"))
    np.testing.assert_allclose(matrix, fisher, atol=1e-10)
    empirical = operators.explicit(operators.Curvature(plan, (case.inputs, case.labels), "empirical_fisher"))
    assert np.abs(matrix - empirical).max() > 0.01


def test_unknown_kinds_and_products_that_are_no_numbers_are_refused():
    case = models.ALL["mlp"]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    with pytest.raises(errors.InvalidArgumentError, match="curvature 'fisher': expected one of hessian"):
        operators.Curvature(plan, (case.inputs, case.labels), "fisher")
    curvature = operators.Curvature(plan, (case.inputs, case.labels))
    with pytest.raises(errors.NotFiniteError, match="a product with the hessian is not finite"):
        curvature.products(tf.fill([1, curvature.size], tf.constant(np.inf, tf.float64)))
