"""Gradients of single examples on two devices, the batch being split between them."""

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

    from estimators import targets
    from estimators.derivatives import per_example, plans

    generator = np.random.default_rng(0)
    inputs, labels = generator.normal(size=(8, 5)).astype(np.float32), np.arange(8) % 3
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = snt.Sequential([snt.Linear(4), tf.tanh, snt.Linear(3)])
        model(inputs)
    assert type(model.trainable_variables[0]).__name__ == "MirroredVariable"
    plan = plans.make(targets.of(model), (inputs, labels))
    assert not plan.looped
    function = per_example.make_gradients(plan)

    def split(array):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(array[4 * context.replica_id_in_sync_group :][:4])
        )

    for call in (strategy.run, tf.function(strategy.run, autograph=False)):
        parts = strategy.experimental_local_results(call(function, (split(inputs), split(labels))))
        np.testing.assert_allclose(np.concatenate(parts), function(inputs, labels), atol=1e-6)
"""


@pytest.mark.slow
def test_mirrored_variables_under_a_strategy():
    """In a process of its own: the devices of one cannot be divided once TensorFlow has begun."""
    subprocess.run([sys.executable, "-c", textwrap.dedent(_PROGRAM)], check=True)
