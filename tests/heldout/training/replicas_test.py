"""Models on the replicas of a strategy train as each does alone. Devices are set up before TensorFlow runs anything, so
every case is a process of its own.
"""

import subprocess
import sys
import textwrap

import pytest
import tensorflow as tf

from heldout.training import replicas
from zoo import errors

PREPARE = """
import numpy as np
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from heldout.experiments import training_config
from heldout import subsets
from heldout.models import registry
from heldout.training import batches, learners, replicas, training_loop

SHAPE = (8, 8, 1)
generator = np.random.default_rng(0)
images, labels = generator.normal(size=(60, *SHAPE)).astype("float32"), generator.integers(0, 5, 60)


def build():
    return registry.build(ARCHITECTURE, 5, SHAPE, OPTIONS)


def normalise(values):
    return tf.cast(values, tf.float32)


def values_of(seed):
    tf.random.set_seed(seed)
    return learners.read_values(build())


module = build()
config = training_config.TrainingConfig(
    num_epochs=2, batch_size=10, learning_rate=0.01, augmentation=("crop", "flip"), crop_padding=1, weight_decay=1e-3
)
runs = [batches.RunDraw(("e", 0.5, i), subsets.subset_indices("e", 0.5, i, 60)) for i in range(2)]
values = [values_of(seed) for seed in range(2)]
strategy = replicas.make_strategy("mirrored", "cpu")
assert strategy.num_replicas_in_sync == 2
assert replicas.local_replicas(strategy) == [0, 1]
"""

COMPARE = """
together = replicas.ReplicaLearner(build, strategy, replicas.trained_keys(module))
assert together.num_runs == 2
trainer = training_loop.Trainer(together, images, labels, normalise, config, strategy)
for _ in range(2):  # velocities of the first training must not enter the second
    losses = trainer.train(runs, values)
assert losses.shape == (2, 2)
assert trainer.num_traces() == 1, trainer.num_traces()
for position in range(2):
    alone = learners.SingleLearner(build())
    trainer = training_loop.Trainer(alone, images, labels, normalise, config)
    expected = trainer.train([runs[position]], [values[position]])
    np.testing.assert_allclose(losses[:, position], expected[:, 0], rtol=1e-5)
    alone.copy_to(0, module)
    of_alone = learners.read_values(module)
    together.copy_to(position, module)
    found = learners.read_values(module)
    assert found.keys() == of_alone.keys()
    for key, value in of_alone.items():
        scale = np.abs(value).max() + 1e-3
        np.testing.assert_allclose(found[key] / scale, value / scale, rtol=0, atol=2e-3, err_msg=key)
assert not np.allclose(losses[:, 0], losses[:, 1], rtol=1e-3)
"""


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("architecture", "options"), [("mlp", {"hidden_sizes": [7]}), ("tests.heldout.small_models:OwnModel", {})]
)
def test_each_replica_trains_its_own_model_as_if_alone(architecture, options):
    run(f"ARCHITECTURE, OPTIONS = {architecture!r}, {options!r}\n{PREPARE}{COMPARE}")


def test_a_single_device_needs_no_strategy():
    strategy = replicas.make_strategy("none", "cpu")
    assert strategy.num_replicas_in_sync == 1
    with replicas.separate_variables(strategy):
        variable = tf.Variable(1.0)
    assert variable.trainable
    assert replicas.distributed(strategy, lambda replica: replica + 5).numpy() == 5


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("mirored", "cpu", "--strategy=mirored: expected one of none, mirrored, tpu, multi_worker"),
        ("tpu", "gpu", "--strategy=tpu with --device=gpu: tpu goes with tpu"),
        ("mirrored", "tpu", "--strategy=mirrored with --device=tpu"),
    ],
)
def test_what_does_not_go_together_is_refused(name, device, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        replicas.make_strategy(name, device)
