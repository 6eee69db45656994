"""What a step costs, counted by hand, and the groups that follow from it."""

import dataclasses

import pytest
import tensorflow as tf

from heldout.models import registry
from heldout.training import group_size

LENET_MACS = 28 * 28 * 25 * 6 + 14 * 14 * 25 * 6 * 16 + 784 * 120 + 120 * 84 + 84 * 10


@pytest.mark.parametrize(
    ("architecture", "macs", "num_weights"),
    [
        ("mlp", 784 * 512 + 512 * 256 + 256 * 10, 784 * 512 + 512 * 256 + 256 * 10 + 512 + 256 + 10),
        ("lenet", LENET_MACS, 156 + 2416 + 785 * 120 + 121 * 84 + 85 * 10),
    ],
)
def test_costs_of_a_step(architecture, macs, num_weights):
    module = registry.build(architecture, 10, (28, 28, 1))
    cost = group_size.step_cost(module, (28, 28, 1), 32, "float32")
    assert cost.macs == 32 * macs
    assert cost.weight_bytes == 4 * num_weights
    assert cost.convolves == (architecture == "lenet")
    twice = group_size.step_cost(module, (28, 28, 1), 64, "float32")
    assert twice.activation_bytes == pytest.approx(2 * cost.activation_bytes, rel=0.02)


def test_activations_are_counted_layer_by_layer():
    module = registry.build("mlp", 10, (28, 28, 1), {"hidden_sizes": [100]})
    cost = group_size.step_cost(module, (28, 28, 1), 32, "float32")
    # Product, bias and ReLU of the hidden layer, product and bias of the logits.
    assert cost.activation_bytes == 4 * 32 * (3 * 100 + 2 * 10)
    assert cost.memory == 4 * cost.weight_bytes + 2 * cost.activation_bytes


@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_transposed_matrices_cost_as_much(transposed):
    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.weights = tf.Variable(tf.zeros([64, 3]))

        def __call__(self, images, is_training):
            flat = tf.reshape(images, [5, 64])
            if transposed:
                return tf.transpose(tf.matmul(self.weights, flat, transpose_a=True, transpose_b=True))
            return tf.matmul(flat, self.weights)

    assert group_size.step_cost(Model(), (8, 8, 1), 5, "float32").macs == 5 * 64 * 3


def test_tracing_changes_no_model():
    module = registry.build("small_inception", 10, (8, 8, 1))
    before = [variable.numpy() for variable in module.variables]
    cost = group_size.step_cost(module, (8, 8, 1), 4, "float32")
    assert cost.macs > 1_000_000
    assert all((variable.numpy() == value).all() for variable, value in zip(module.variables, before, strict=True))


SMALL = group_size.StepCost(macs=300_000, weight_bytes=10_000, activation_bytes=50_000, convolves=False)


@pytest.mark.parametrize(
    ("changes", "device", "free_bytes", "expected"),
    [
        ({}, "cpu", None, 8),
        ({"macs": 5_000_000}, "cpu", None, 4),
        ({"macs": 70_000_000}, "cpu", None, 1),
        ({}, "cpu", 3 * 140_000 + 1, 3),
        ({}, "cpu", 10, 1),
        ({}, "gpu", 100 * 140_000, 100),
        ({"macs": 70_000_000}, "gpu", None, 256),
        ({}, "tpu", None, 256),
    ],
)
def test_choices(changes, device, free_bytes, expected):
    assert group_size.choose(dataclasses.replace(SMALL, **changes), device, free_bytes) == expected


def test_free_memory_is_shared():
    alone, shared = group_size.free_memory("cpu", 1), group_size.free_memory("cpu", 4)
    assert alone is not None
    assert 1 << 20 < shared < alone < 1 << 50
    assert shared == pytest.approx(alone / 4, rel=0.2)
    assert group_size.free_memory("tpu", 1) is None


@pytest.mark.parametrize(
    ("says", "free"), [("echo 4000; echo 3000", 3000), ("echo 5000", 5000), ("echo N/A", None), ("exit 9", None)]
)
def test_half_of_what_is_free_on_the_fullest_gpu_is_used(tmp_path, monkeypatch, says, free):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for num_workers in (1, 3):
        expected = None if free is None else free * 2**20 // 2 // num_workers
        assert group_size.free_memory("gpu", num_workers) == expected


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="a GPU is there")
def test_nobody_tells_of_a_gpu_that_is_not_there():
    assert group_size.free_memory("gpu", 1) is None


@pytest.mark.parametrize(
    ("changes", "device", "expected"),
    [
        ({}, "cpu", True),
        ({"macs": 70_000_000}, "cpu", False),
        ({"convolves": True}, "cpu", False),
        ({"macs": 70_000_000}, "gpu", True),
        ({"convolves": True}, "gpu", False),
        ({"convolves": True}, "tpu", True),
    ],
)
def test_where_xla_wins(changes, device, expected):
    assert group_size.xla_wins(dataclasses.replace(SMALL, **changes), device) == expected
