"""Products with Jacobians within loops, and the derivative of max pooling, against TensorFlow's own."""

import numpy as np
import pytest
import tensorflow as tf

from estimators.jacobian import functions, gram, linearised
from tests.estimators.jacobian import networks


@pytest.mark.parametrize("name", networks.ALL)
def test_products_within_loops_are_those_of_the_dense_jacobian(name):
    function, inputs, _ = networks.case(name, num=3)
    truth = networks.dense_jacobians(function.predict, inputs)
    generator = np.random.default_rng(0)
    us, vs = generator.normal(size=(4, 3, 4)), generator.normal(size=(4, 3, 128))

    @tf.function(autograph=False)
    def products(inputs, us, vs):
        linear = linearised.Linearised(function.predict, inputs, with_jvp=True)
        # Two loops, and products outside of them, from the same pass.
        pulled = tf.map_fn(linear.vjp, us)
        return pulled, tf.map_fn(linear.jvp, vs), linear.vjp(us[0]), linear.jvp(vs[1])

    pulled, pushed, alone_pulled, alone_pushed = products(tf.constant(inputs), tf.constant(us), tf.constant(vs))
    np.testing.assert_allclose(pulled, np.einsum("nkd,snk->snd", truth, us), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(pushed, np.einsum("nkd,snd->snk", truth, vs), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(alone_pulled, pulled[0])
    np.testing.assert_allclose(alone_pushed, pushed[1])


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("shape", "size", "stride"), [((6, 8), 2, 2), ((7, 9), 2, 2), ((6, 6), 3, 3), ((7, 7), 3, 2)])
def test_pools_have_the_derivative_of_tensorflow(padding, shape, size, stride):
    # Rectified, so that windows hold several equal elements, of which the first counts.
    inputs = np.maximum(np.random.default_rng(0).integers(-2, 3, (4, *shape, 3)), 0).astype(np.float64)
    outputs = tf.nn.max_pool2d(inputs, size, stride, padding)
    u, v = np.random.default_rng(1).normal(size=outputs.shape), np.random.default_rng(2).normal(size=inputs.shape)

    @tf.function(autograph=False)
    def products(inputs):
        def pool(x):
            return tf.reshape(tf.nn.max_pool2d(x, size, stride, padding), [4, -1])

        linear = linearised.Linearised(pool, inputs, with_jvp=True)
        return linear.vjp(u.reshape([4, -1])), linear.jvp(v.reshape([4, -1]))

    with tf.GradientTape() as tape:
        x = tf.constant(inputs)
        tape.watch(x)
        value = tf.reduce_sum(tf.nn.max_pool2d(x, size, stride, padding) * u)
    expected = tape.gradient(value, x).numpy()
    pulled, pushed = products(tf.constant(inputs))
    np.testing.assert_array_equal(np.reshape(pulled, inputs.shape), expected)
    np.testing.assert_allclose(np.sum(np.reshape(pushed, outputs.shape) * u), np.sum(expected * v))


@pytest.mark.parametrize("read", ["by the pool alone", "by others too", "through a pool with overlaps"])
def test_rectifiers_before_pools(read):
    inputs = np.random.default_rng(0).integers(-3, 2, (4, 6, 6, 3)).astype(np.float64)
    size = 3 if read == "through a pool with overlaps" else 2

    def predict(x):
        y = tf.nn.relu(tf.tanh(x))
        rows = [tf.reshape(tf.square(tf.nn.max_pool2d(y, size, 2, "VALID")), [4, -1])]
        return tf.concat([*rows, tf.reshape(y, [4, -1])] if read == "by others too" else rows, axis=1)

    outputs = predict(tf.constant(inputs))
    u, v = np.random.default_rng(1).normal(size=outputs.shape), np.random.default_rng(2).normal(size=inputs.shape)
    graphs = []

    @tf.function(autograph=False)
    def products(inputs):
        linear = linearised.Linearised(predict, inputs, with_jvp=True)
        graphs.append(inputs.graph)
        return linear.vjp(tf.constant(u)), linear.jvp(tf.constant(v.reshape([4, -1])))

    with tf.GradientTape() as tape:
        x = tf.constant(inputs)
        tape.watch(x)
        value = tf.reduce_sum(predict(x) * u)
    expected = tape.gradient(value, x).numpy()
    pulled, pushed = products(tf.constant(inputs))
    np.testing.assert_allclose(np.reshape(pulled, inputs.shape), expected, rtol=1e-12)
    np.testing.assert_allclose(np.sum(pushed * u), np.sum(expected * v), rtol=1e-12)
    types = [operation.type for operation in graphs[0].get_operations()]
    assert ("ReluGrad" in types) == (read != "by the pool alone")


def test_places_of_maxima_are_found_once_for_all_passes():
    function, inputs, _ = networks.case("convolutional")
    graph = gram.make(function).get_concrete_function(tf.constant(inputs)).graph
    counted = [operation.type for operation in graph.get_operations()]
    assert counted.count("MaxPoolGrad") == 1
    assert counted.count("MaxPool") == 1


def test_compiling_by_xla_changes_nothing():
    first, second = (np.random.default_rng(k).normal(size=shape) for k, shape in enumerate([(5, 9), (9, 3)]))
    inputs = np.random.default_rng(2).normal(size=(4, 5))
    smooth = [functions.of(lambda x: tf.tanh(x @ first) @ second, inputs, jit_compile=jit) for jit in (False, True)]
    for make in (gram.make, gram.make_jacobians):
        plain, compiled = (make(function)(inputs)[1].numpy() for function in smooth)
        np.testing.assert_allclose(compiled, plain, rtol=1e-12)
