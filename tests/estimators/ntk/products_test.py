"""Products with Jacobians and kernels against the matrices themselves."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, ntk
from tests.estimators.ntk import truth

_SLOW = ("scalar", "residual", "several_inputs")
_NAMES = ["mlp_10", "cnn_1", "embedding", *(pytest.param(name, marks=pytest.mark.slow) for name in _SLOW)]


@pytest.mark.parametrize("name", _NAMES)
def test_products_are_those_with_the_explicit_jacobian(name):
    case = truth.CASES[name]()
    jacobian = truth.jacobian(case.target, case.inputs)
    tolerance = 1e-11 if case.target.dtype == tf.float64 else 2e-5
    dtype = case.target.dtype.as_numpy_dtype
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(3, jacobian.shape[1])).astype(dtype)
    vectors = generator.normal(size=(jacobian.shape[0], 2)).astype(dtype)

    def close(values, expected):
        assert values.dtype == dtype
        np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance * np.abs(expected).max())

    operator = ntk.JacobianOperator(case.target, case.inputs, batch_size=3)
    assert operator.shape == jacobian.shape
    close(operator.products(weights), jacobian @ weights.T)
    close(operator.transposed_products(vectors), vectors.T @ jacobian)
    close(ntk.ntk_vector_products(case.target, case.inputs, vectors), jacobian @ (jacobian.T @ vectors))
    few = tf.nest.map_structure(lambda a: a[:2], case.inputs)
    rows = jacobian[: 2 * operator.num_outputs]
    found = ntk.ntk_vector_products(case.target, few, vectors, case.inputs, batch_size=4)
    close(found, rows @ (jacobian.T @ vectors))


def test_shapes_are_checked():
    case = truth.CASES["mlp_10"]()
    operator = ntk.JacobianOperator(case.target, case.inputs)
    with pytest.raises(
        errors.MismatchError, match=r"shape \(2, 3\) beside a Jacobian \(70, 114\): expected \[R, 114\]"
    ):
        operator.products(np.zeros((2, 3)))
    with pytest.raises(errors.MismatchError, match=r"expected \[70, R\]"):
        operator.transposed_products(np.zeros((2, 3)))


def test_what_is_no_number_is_refused():
    case = truth.CASES["mlp_1"]()
    operator = ntk.JacobianOperator(case.target, case.inputs)
    with pytest.raises(errors.NotFiniteError, match="product with the Jacobian is not finite"):
        operator.products(np.full((1, operator.shape[1]), np.inf))
