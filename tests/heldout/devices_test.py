"""Devices that are not there are refused by name. Each case needs a process of its own."""

import subprocess
import sys

import pytest
import tensorflow as tf

from heldout import devices
from zoo import errors


def configure(device):
    code = (
        "from heldout import devices\nimport tensorflow as tf\n"
        f"with devices.configure({device!r}, 1):\n    print('on', tf.constant(1.0).device)\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_cpu():
    assert "CPU:0" in configure("cpu").stdout


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="a GPU is there")
def test_missing_gpu():
    assert "--device=gpu: TensorFlow sees no GPU" in configure("gpu").stderr


@pytest.mark.skipif(bool(tf.config.list_physical_devices("TPU")), reason="a TPU is there")
def test_missing_tpu():
    assert "--device=tpu: no TPU could be reached" in configure("tpu").stderr


def build_and_restore(folder, num_logical):
    """A model under a strategy, restored from a checkpoint that was written without one."""
    code = f"""
import numpy as np
import tensorflow as tf
from heldout import devices
strategy = devices.strategy("cpu", {num_logical}, num_threads=1)
assert strategy.num_replicas_in_sync == {num_logical}
from heldout.models import registry
from zoo import checkpoints
for name, options, shape in [
    ("mlp", {{"hidden_sizes": [3]}}, (4, 4, 1)), ("tests.heldout.small_models:OwnModel", {{}}, (8, 8, 3))
]:
    written = registry.build(name, 5, shape, options)
    checkpoints.write(written, {str(folder)!r} + "/ckpt-1", epoch=1, global_step=7)
    with strategy.scope():
        module = registry.build(name, 5, shape, options)
        assert checkpoints.restore(module, {str(folder)!r} + "/ckpt-1").global_step == 7
    ours, theirs = checkpoints.model_variables(module), checkpoints.model_variables(written)
    assert ours.keys() == theirs.keys()
    for key, variable in ours.items():
        parts = strategy.experimental_local_results(variable)
        assert len(parts) == {num_logical}
        for part in parts:
            np.testing.assert_array_equal(part.numpy(), theirs[key].numpy())
    images = tf.random.stateless_normal([2, *shape], [0, 1])
    np.testing.assert_allclose(module(images, False), written(images, False), rtol=1e-6)
    checkpoints.write(module, {str(folder)!r} + "/ckpt-2", epoch=1, global_step=7)
    checkpoints.restore(written, {str(folder)!r} + "/ckpt-2")
print("done")
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("num_logical", [1, 2])
def test_a_model_made_under_the_strategy_takes_checkpoints_and_gives_them(tmp_path, num_logical):
    done = build_and_restore(tmp_path, num_logical)
    assert "done" in done.stdout, done.stderr[-3000:]


@pytest.mark.parametrize(("device", "num_logical"), [("gpu", 2), ("tpu", 8), ("cpu", 0)])
def test_only_a_cpu_is_divided(device, num_logical):
    with pytest.raises(errors.InvalidValueError, match=f"--device={device} with {num_logical} logical devices"):
        devices.strategy(device, num_logical)


def test_unknown_device():
    assert "expected one of cpu, gpu, tpu" in configure("abacus").stderr
