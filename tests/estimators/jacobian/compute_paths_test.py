"""Statistics do not depend on how many devices compute them, nor on whether XLA compiles them."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from estimators import errors, targets
from estimators.jacobian import functions, hutchinson, input_hessian, lanczos, measuring, places
from tests.estimators.jacobian import networks

_NUM = 7
_LABELS = np.arange(_NUM) % 4


class _Colours(tf.Module):
    """`Convolutional` of one channel that is read twice, for changes of colour; smooth, so that it has a Hessian."""

    def __init__(self):
        super().__init__()
        self.network = networks.Convolutional()

    def __call__(self, images):
        return self.network(tf.tanh(2.0 * tf.concat([images, images[:, ::-1]], axis=3)))


_MODELS = {**networks.ALL, "colours": _Colours}


def _inputs(name):
    return np.random.default_rng(4).uniform(0.2, 0.8, (_NUM, 8, 8, 1)) if name == "colours" else networks.images(_NUM)


def _statistics(function, inputs):
    """Values of everything that is compiled, by name."""
    data, config = (inputs, _LABELS), lanczos.Config(tolerance=1e-5, max_steps=12, batch_size=5)
    metrics = ["jacobian", "jacobian_operator_norm", "crossentropy"]
    metrics += measuring.TANGENT_METRICS if function.input_shape[-1] == 1 else []
    found = {}
    for method in ("gram", "products"):
        statistics = measuring.measure(
            function,
            data,
            metrics=metrics,
            normalisations=("none", "softmax"),
            places={"shift": places.Shifts((1,), 2)},
            method=method,
            config=config,
            batch_size=5,
        )
        found |= {f"{method} {c.metric} {c.normalisation} {c.place}": c.values for c in statistics.columns}
    if function.input_shape[-1] == 1:
        found["top eigenvalue"] = input_hessian.eigenvalues(function, data, config=config).values
        found["hessian"] = input_hessian.frobenius_norms(function, data, num_samples=3, batch_size=4).values
    found["sampled"] = hutchinson.frobenius_norms(function, data, num_samples=3, batch_size=4).values
    return found


def _largest_difference(found, expected):
    assert found.keys() == expected.keys()
    return max(float(np.abs(found[name] / expected[name] - 1).max()) for name in expected)


_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("residual", "colours")]


@pytest.mark.parametrize("name", ["batch_normalised", *_SLOW])
def test_compiling_by_xla_changes_nothing(name):
    model, inputs = _MODELS[name](), _inputs(name)
    plain = functions.of(model, inputs)
    compiled = functions.of(model, inputs, jit_compile=True)
    assert (plain.jit_compile, compiled.jit_compile) == (False, True)
    assert compiled.compiled(lambda x, _: x)._jit_compile
    assert _largest_difference(_statistics(compiled, inputs), _statistics(plain, inputs)) < 1e-9


def test_a_target_says_whether_it_is_compiled():
    model = snt.Linear(3)
    inputs = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    model(inputs)
    assert functions.of(targets.of(model, jit_compile=True), inputs).jit_compile
    assert not functions.of(targets.of(model, jit_compile=True), inputs, jit_compile=False).jit_compile


@pytest.mark.parametrize("name", ["batch_normalised", *_SLOW])
def test_two_replicas_give_what_one_device_gives(name):
    """In a process of its own: the devices of one cannot be divided once TensorFlow has begun."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.estimators.jacobian.compute_paths_test", name],
        cwd=pathlib.Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    difference, num_replicas, devices = json.loads(done.stdout.splitlines()[-1])
    assert difference < 1e-10
    assert num_replicas == 2
    assert devices == ["CPU:0", "CPU:1"]


def _on_replicas(name):
    """(largest relative difference, replicas, devices on which the network ran)."""
    inputs, strategy = _inputs(name), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = _MODELS[name]()
        with pytest.raises(errors.InvalidTargetError, match=r"called within strategy\.scope\(\)"):
            functions.of(model, inputs)
    function, alone = functions.of(model, inputs), functions.of(_MODELS[name](), inputs)
    assert alone.strategy is None
    devices = set()

    def noted(x):
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            devices.add(f"CPU:{int(tf.get_static_value(context.replica_id_in_sync_group))}")
        return function.predict(x)

    shared = functions.Function(
        noted, function.input_shape, function.num_outputs, function.dtype, strategy=function.strategy
    )
    difference = _largest_difference(_statistics(shared, inputs), _statistics(alone, inputs))
    return difference, function.strategy.num_replicas_in_sync, sorted(devices)


if __name__ == "__main__":
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    print(json.dumps(_on_replicas(sys.argv[1])))
