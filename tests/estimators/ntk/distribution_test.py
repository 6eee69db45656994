"""The tangent kernel on two devices, between which the batches are split."""

import subprocess
import sys
import textwrap

import pytest

_PROGRAM = """
    import numpy as np
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

    import sonnet as snt

    from estimators import ntk, targets
    from tests.estimators.ntk import truth

    inputs = np.random.default_rng(0).normal(size=(7, 6, 6, 3)).astype(np.float32)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def build():
        tf.random.set_seed(3)
        model = truth.Residual()
        model(inputs, is_training=True)
        return model

    alone = build()
    with strategy.scope():
        model = build()
    for own, other in zip(model.variables, alone.variables, strict=True):
        own.assign(other)
    first, target = targets.of(alone), targets.of(model)
    assert target.strategy is not None
    jacobian = truth.jacobian(first, inputs)
    kernel = jacobian @ jacobian.T

    def close(values, expected):
        np.testing.assert_allclose(values, expected, rtol=0, atol=2e-5 * np.abs(expected).max())

    for batch_size in (7, 4, 1):
        close(ntk.ntk_full(target, inputs, batch_size=batch_size), kernel)
    close(ntk.ntk_full(target, inputs, inputs[:3]), kernel[:, :12])
    close(ntk.ntk_trace(target, inputs), np.einsum("ijlj->il", kernel.reshape(7, 4, 7, 4)))
    close(ntk.ntk_diagonal(target, inputs), np.diag(kernel).reshape(7, 4))
    close(ntk.jacobians(target, inputs, batch_size=4), jacobian)
    vectors = np.random.default_rng(1).normal(size=(28, 2)).astype(np.float32)
    close(ntk.ntk_vector_products(target, inputs, vectors), kernel @ vectors)
    config = ntk.Projection("sparse_signs", 64)
    close(
        ntk.projected_jacobians(target, inputs, config).values, ntk.projected_jacobians(first, inputs, config).values
    )
"""


@pytest.mark.slow
def test_two_replicas_give_what_explicit_jacobians_give():
    """In a process of its own: the devices of one cannot be divided once TensorFlow has begun."""
    subprocess.run([sys.executable, "-c", textwrap.dedent(_PROGRAM)], check=True)
