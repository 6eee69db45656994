"""Devices that are not there are refused by name. Each case needs a process of its own."""

import subprocess
import sys

import pytest
import tensorflow as tf


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


def test_unknown_device():
    assert "expected one of cpu, gpu, tpu" in configure("abacus").stderr
