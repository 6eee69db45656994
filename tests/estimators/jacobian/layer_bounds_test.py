"""Layer-product bounds: exact where they can be, and above every input Jacobian."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors
from estimators.jacobian import functions, layer_bounds
from tests.estimators import models
from tests.estimators.jacobian import networks


def _norms(function, inputs):
    return np.linalg.norm(networks.dense_jacobians(function.predict, inputs), 2, axis=(1, 2))


@pytest.mark.parametrize("name", networks.ALL)
def test_no_jacobian_is_larger(name):
    function, inputs, _ = networks.case(name)
    found = layer_bounds.of(function)
    assert (_norms(function, inputs) <= found.bound).all()
    assert found.bound == found.steps[-1].bound


@pytest.mark.parametrize(
    "name", ["mlp", "class_token", "arithmetic", "tied_convolution", "sonnet_batch_norm", "conv2d_dilated"]
)
def test_no_jacobian_of_other_models_is_larger(name):
    case = models.ALL[name]()
    function = functions.of(case.target, case.inputs)
    assert (_norms(function, case.inputs) <= layer_bounds.of(function).bound * (1 + 1e-6)).all()


def test_one_matrix_and_a_product_of_matrices():
    first, second = (np.random.default_rng(k).normal(size=(5, 5)) for k in range(2))
    inputs = np.ones((1, 5))
    found = layer_bounds.of(functions.of(lambda x: 3 * tf.nn.relu(x @ first + 1.0) @ second, inputs))
    norms = [np.linalg.norm(matrix, 2) for matrix in (first, second)]
    np.testing.assert_allclose(found.bound, 3 * norms[0] * norms[1])
    assert sorted(step.factor for step in found.steps) == pytest.approx(sorted([3.0, *norms]))


@pytest.mark.parametrize(
    ("strides", "padding", "dilations"), [(1, "SAME", 1), (2, "SAME", 1), (1, "VALID", 1), (1, "SAME", 2)]
)
def test_a_convolution_is_bounded_by_its_transform(strides, padding, dilations):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4))
    inputs = np.random.default_rng(1).normal(size=(1, 7, 7, 2))
    convolve = functions.of(lambda x: tf.nn.convolution(x, kernel, strides, padding, dilations=dilations), inputs)
    bound, norm = layer_bounds.of(convolve).bound, _norms(convolve, inputs)[0]
    assert norm <= bound
    if strides == 1 and padding == "SAME" and dilations == 1:
        assert bound < 1.3 * norm


def test_a_residual_block_is_one_plus_its_branch():
    matrix = np.random.default_rng(0).normal(size=(5, 5))
    found = layer_bounds.of(functions.of(lambda x: x + tf.nn.relu(x @ matrix), np.ones((1, 5))))
    np.testing.assert_allclose(found.bound, 1 + np.linalg.norm(matrix, 2))


_POOLS = {
    "max": lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"),
    "overlapping max": lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"),
    "mean": lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
    "overlapping mean": lambda x: tf.nn.avg_pool2d(x, 3, 1, "SAME"),
    "global mean": lambda x: tf.reduce_mean(x, [1, 2]),
    "sum": lambda x: tf.reduce_sum(x, [1, 2]),
    "global max": lambda x: tf.reduce_max(x, [1, 2]),
    "joined": lambda x: tf.concat([x, 2 * x], axis=3),
    "repeated": lambda x: x[:, :, :1] + tf.zeros([1, 1, 6, 1], x.dtype),
    "quotient": lambda x: tf.nn.softmax(x / 4.0),
    "slope": lambda x: tf.nn.leaky_relu(x, 1.5),
    "larger": lambda x: tf.maximum(x, 0.3 * x),
}


@pytest.mark.parametrize("name", _POOLS)
def test_operations_are_bounded_tightly(name):
    inputs = np.random.default_rng(1).normal(size=(4, 6, 6, 1))
    function = functions.of(_POOLS[name], inputs)
    bound = layer_bounds.of(function).bound
    norms = _norms(function, inputs)
    assert (norms <= bound * (1 + 1e-12)).all()
    if name in ("max", "mean", "global mean", "sum", "joined", "repeated", "global max"):
        np.testing.assert_allclose(norms.max(), bound)


def test_what_has_no_bound_is_named():
    inputs = np.random.default_rng(0).normal(size=(3, 4))
    refused = {
        "of type Square has no known norm": tf.square,
        "of type Mul multiplies or mixes tensors that both follow": lambda x: x * tf.tanh(x),
        "divides by what follows from the input": lambda x: 1.0 / (10 + x),
    }
    for message, predict in refused.items():
        with pytest.raises(errors.InvalidTargetError, match=message):
            layer_bounds.of(functions.of(predict, inputs))
    grouped = models.ALL["conv2d_grouped"]()
    with pytest.raises(errors.InvalidTargetError, match="has groups of channels"):
        layer_bounds.of(functions.of(grouped.target, grouped.inputs))
