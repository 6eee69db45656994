"""Products for several vectors at a time are those of one after the other, wherever that is allowed."""

import numpy as np
import pytest
import tensorflow as tf

from estimators.curvature import operators, vectorised
from estimators.derivatives import plans
from tests.estimators import models


def _num_together(name, num_examples=7):
    case = models.ALL[name]()
    inputs, labels = (tf.nest.map_structure(tf.constant, one) for one in (case.inputs, case.labels))
    inputs = tf.repeat(inputs, -(-num_examples // 7), axis=0)
    labels = tf.repeat(labels, -(-num_examples // 7), axis=0)
    return vectorised.num_together(lambda *batch: operators._summed_gradients(case.target, *batch), inputs, labels)


def test_vectors_go_together_where_all_products_are_of_two_matrices():
    assert _num_together("mlp") > 1


@pytest.mark.parametrize("name", ["tied_convolution", "einsums", "branching"])
def test_vectors_go_one_after_the_other_through_convolutions_and_stacks_of_matrices(name):
    assert _num_together(name) == 1


def test_fewer_vectors_go_together_the_more_a_pass_holds(monkeypatch):
    monkeypatch.setattr(vectorised, "_HELD", 50_000)
    few, many = _num_together("mlp", 210), _num_together("mlp")
    assert 1 <= few < many <= vectorised._MOST
    monkeypatch.setattr(vectorised, "_HELD", 1)
    assert _num_together("mlp") == 1


@pytest.mark.parametrize("together", [1, 2, 3, 4, 5, 32])
@pytest.mark.parametrize("num", [1, 4, 5])
def test_blocks_of_any_size_give_every_product(num, together):
    matrix = tf.constant(np.random.default_rng(0).normal(size=(6, 6)))
    vectors = np.random.default_rng(1).normal(size=(num, 6))

    @tf.function
    def compute(vectors):
        return vectorised.for_each(lambda vector: tf.linalg.matvec(matrix, vector), vectors, together)

    found = compute(tf.constant(vectors))
    assert found.shape == (num, 6)
    np.testing.assert_allclose(found, vectors @ matrix.numpy().T, rtol=1e-12)


def test_vectors_whose_number_is_not_known_go_one_after_the_other():
    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float64)])
    def compute(vectors):
        return vectorised.for_each(lambda vector: 2.0 * vector, vectors, 4)

    np.testing.assert_array_equal(compute(tf.ones([5, 3], tf.float64)), np.full((5, 3), 2.0))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("kind", ["hessian", "gauss_newton"])
def test_products_together_are_those_one_by_one(kind, jit_compile):
    case = models.ALL["mlp"]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    vectors = tf.constant(np.random.default_rng(0).normal(size=(9, plan.target.num_parameters)))
    curvature = operators.Curvature(plan, (case.inputs, case.labels), kind, jit_compile=jit_compile)
    alone = np.concatenate([curvature.products(vector[None]) for vector in vectors])
    np.testing.assert_allclose(curvature.products(vectors), alone, rtol=1e-9, atol=1e-12)


def test_an_operation_that_tensorflow_knows_for_one_vector_only_is_made_one_by_one():
    def product(vector):
        return tf.reshape(tf.image.resize(tf.reshape(vector, [1, 2, 3, 1]), [3, 4]), [12])[:6]

    vectors = tf.constant(np.random.default_rng(0).normal(size=(4, 6)).astype("float32"))
    with pytest.raises(ValueError, match="pfor"):
        tf.vectorized_map(product, vectors, fallback_to_while_loop=False)
    found = tf.function(lambda v: vectorised.for_each(product, v, 4))(vectors)
    np.testing.assert_allclose(found, [product(vector) for vector in vectors], rtol=1e-6)
