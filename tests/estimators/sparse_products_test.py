"""Products through the factors of dense layers against products with gradients of single examples."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, examples, gradient_products, sparse_products, targets
from estimators.derivatives import per_example, plans
from tests.estimators import models

_BLOCKS = gradient_products.Blocks(train=3, solve=4, test=4, megabytes=1.0)


class _Relu(tf.Module):
    """Two dense layers, the second stored transposed, with a unit that no example switches on."""

    def __init__(self, dtype=tf.float64):
        super().__init__()
        generator = np.random.default_rng(0)
        self.first = tf.Variable(generator.normal(size=(24, 20)), dtype=dtype)
        self.offset = tf.Variable([-100.0] + [0.1] * 19, dtype=dtype)
        self.second = tf.Variable(generator.normal(size=(18, 20)), dtype=dtype)

    def __call__(self, inputs):
        hidden = tf.nn.relu(tf.matmul(inputs, self.first) + self.offset)
        return tf.matmul(hidden, self.second, transpose_b=True)


def _data(num, dtype=np.float64):
    generator = np.random.default_rng(1)
    inputs = generator.normal(size=(num, 24)) * (generator.random((num, 24)) < 0.3)
    inputs[:, 5] = 0.0
    return examples.Examples(inputs.astype(dtype), generator.integers(0, 18, num))


def _truth(target, data, vectors):
    """[N, R], one tape for each example."""
    rows = []
    for k in range(len(data)):
        with tf.GradientTape() as tape:
            loss = target.losses(tf.constant(data.inputs[k : k + 1]), tf.constant(data.labels[k : k + 1]))
        rows.append(np.concatenate([g.numpy().ravel() for g in tape.gradient(loss, target.variables)]))
    return np.array(rows) @ vectors.numpy().T


def _products(target, data):
    plan = plans.make(target, data)

    def refuse(inputs, labels):
        raise AssertionError("gradients were formed")

    return sparse_products.Products(plan, refuse)


@pytest.mark.parametrize(("num", "batch_size"), [(10, 3), (10, 1), (10, 64), (1, 5)])
def test_products_are_those_of_gradients_of_single_examples(num, batch_size):
    target, data = targets.of(_Relu()), _data(num)
    vectors = tf.constant(np.random.default_rng(2).normal(size=(5, target.num_parameters)))
    out, told = np.full((num, 5), np.nan), []
    blocks = gradient_products.Blocks(batch_size, 4, 4, 1.0)
    _products(target, data).fill(data, vectors, -0.5, out, blocks, lambda *done: told.append(done))
    np.testing.assert_allclose(out, -0.5 * _truth(target, data, vectors), rtol=1e-10, atol=1e-12)
    assert told[-1] == (num, num)


def test_examples_are_taken_together_as_the_memory_allows(monkeypatch):
    """Little memory makes more chunks, of several batches each, and changes nothing."""
    target, data = targets.of(_Relu()), _data(30)
    vectors = tf.constant(np.random.default_rng(2).normal(size=(200, target.num_parameters)))
    out, told = np.zeros((30, 200)), []
    products = _products(target, data)
    products.fill(data, vectors, 1.0, out, _BLOCKS, lambda done, total: told.append(done))
    assert told == [9, 18, 27, 30]
    np.testing.assert_allclose(out, _truth(target, data, vectors), rtol=1e-10, atol=1e-12)
    monkeypatch.setattr(sparse_products, "_CAP_BYTES", 1000)
    again = np.zeros((30, 200))
    products.fill(data, vectors, 1.0, again, _BLOCKS)
    np.testing.assert_allclose(again, out, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 8, 100])
@pytest.mark.parametrize("strided", [False, True])
def test_groups_of_any_size_leave_out_nothing_but_zeros(size, strided):
    generator = np.random.default_rng(0)
    first, second = (generator.normal(size=(11, width)) * (generator.random((11, width)) < 0.4) for width in (13, 7))
    first[:, 4], second[:, 2], first[3] = 0.0, 0.0, 0.0
    matrices = generator.normal(size=(6, 7, 13)).transpose(0, 2, 1) if strided else generator.normal(size=(6, 13, 7))
    start = generator.normal(size=(11, 6))
    total = start.copy()
    sparse_products.add_by_groups(total, first, second, matrices, size)
    np.testing.assert_allclose(total - start, np.einsum("bs,bk,rsk->br", first, second, matrices), atol=1e-12)


@pytest.mark.parametrize("dense_side", ["rows", "cotangents", "none", "both"])
def test_whichever_side_has_the_zeros(dense_side):
    generator = np.random.default_rng(0)
    rows, cotangents = generator.normal(size=(9, 30)), generator.normal(size=(9, 40))
    if dense_side not in ("rows", "both"):
        rows *= generator.random(rows.shape) < 0.2
    if dense_side not in ("cotangents", "both"):
        cotangents *= generator.random(cotangents.shape) < 0.2
    matrices, total = generator.normal(size=(4, 30, 40)), np.zeros((9, 4))
    sparse_products.add_outer_products(total, rows, cotangents, matrices)
    np.testing.assert_allclose(total, np.einsum("bi,bo,rio->br", rows, cotangents, matrices), atol=1e-11)


def test_gradients_of_zero_have_products_of_zero():
    total = np.zeros((3, 2))
    sparse_products.add_outer_products(total, np.zeros((3, 4)), np.ones((3, 5)), np.ones((2, 4, 5)))
    np.testing.assert_array_equal(total, 0.0)


@pytest.mark.parametrize("name", ["conv2d_strided", "tied", "embedding"])
def test_other_models_have_their_gradients_formed(name):
    case = models.ALL[name]()
    data = examples.Examples(case.inputs, case.labels)
    plan = plans.make(case.target, data)
    gradients = per_example.make_gradients(plan)
    vectors = tf.constant(np.random.default_rng(0).normal(size=(2, case.target.num_parameters)), case.target.dtype)
    out, expected = np.zeros((7, 2)), np.zeros((7, 2))
    sparse_products.Products(plan, gradients).fill(data, vectors, 2.0, out, _BLOCKS)
    gradient_products.fill(gradients, data, vectors, 2.0, expected, 3)
    np.testing.assert_array_equal(out, expected)


def test_float32_stays_float32():
    target, data = targets.of(_Relu(tf.float32)), _data(10, np.float32)
    vectors = tf.constant(np.random.default_rng(2).normal(size=(5, target.num_parameters)), tf.float32)
    out = np.zeros((10, 5), np.float32)
    _products(target, data).fill(data, vectors, 1.0, out, _BLOCKS)
    truth = _truth(target, data, vectors)
    np.testing.assert_allclose(out, truth, atol=1e-5 * np.abs(truth).max())


def test_a_gradient_that_is_no_number_is_refused():
    target, data = targets.of(_Relu()), _data(10)
    products = _products(target, data)
    broken = data.inputs.copy()
    broken[4, 2] = np.nan
    with pytest.raises(errors.NotFiniteError, match="the gradient of example 4 is not finite"):
        products.fill(
            examples.Examples(broken, data.labels), tf.ones([1, target.num_parameters], tf.float64), 1.0,
            np.zeros((10, 1)), _BLOCKS,
        )  # fmt: skip
