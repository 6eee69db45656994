"""ResNet-18 and ResNet-34 of every width against their formulas, known numbers and the network written out."""

import numpy as np
import pytest
import tensorflow as tf

from heldout.models import registry, small_resnet
from tests.heldout.models import networks
from tests.reference import plain_networks
from zoo import checkpoints, errors

_CIFAR = (32, 32, 3)


@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("num_classes", [10, 100])
def test_number_of_parameters(width, num_classes):
    square, many = width**2, 8 * num_classes * width + num_classes
    assert networks.num_parameters(f"resnet18_{width}", num_classes, _CIFAR) == 2724 * square + 88 * width + many
    assert networks.num_parameters(f"resnet34_{width}", num_classes, _CIFAR) == 5190 * square + 146 * width + many


def test_known_numbers_of_the_published_width():
    # The widely used networks for CIFAR-10 with batch normalisation.
    assert networks.num_parameters("resnet18_64", 10, _CIFAR, batch_norm=True) == 11_173_962
    assert networks.num_parameters("resnet34", 10, _CIFAR, batch_norm=True) == 21_282_122
    assert networks.num_parameters("resnet18", 10, _CIFAR) == 2724 * 64**2 + 168 * 64 + 10


@pytest.mark.parametrize(("architecture", "stages"), [("resnet18_2", (2, 2, 2, 2)), ("resnet34_2", (3, 4, 6, 3))])
@pytest.mark.parametrize("size", [16, 9])
def test_it_is_the_network_written_out(architecture, stages, size):
    model = networks.randomised(architecture, (size, size, 3))
    images = networks.images((size, size, 3))
    expected = plain_networks.resnet(images, networks.in_order(model), stages)
    np.testing.assert_allclose(model(images, is_training=False), expected, rtol=1e-9, atol=1e-9)


def test_batch_norm_stands_behind_every_convolution_and_in_the_place_of_its_bias():
    model = registry.build("resnet18_2", 10, _CIFAR, {"batch_norm": True})
    keys = checkpoints.model_variables(model)
    kernels = [key for key, variable in keys.items() if variable.shape.rank == 4 and key.endswith("/w")]
    assert len(kernels) == 1 + 16 + 3
    assert sum(key.endswith("/scale") for key in keys) == len(kernels)
    assert [key for key in keys if key.endswith("/b")] == ["model/layers/12/b"]
    assert "model/layers/5/shortcut/2/scale" in keys


def test_shapes_within():
    model = registry.build("resnet18_2", 10, _CIFAR)
    blocks = [layer for layer in model.layers if isinstance(layer, small_resnet.BasicBlock)]
    assert [len(block.shortcut) for block in blocks] == [0, 0, 2, 0, 2, 0, 2, 0]
    assert [block.branch[0].stride for block in blocks] == [1, 1, 2, 1, 2, 1, 2, 1]


@pytest.mark.parametrize("count", [1, 3])
def test_small_batches_and_widths_can_be_differentiated(count):
    # See layers.Subsample; without it this ends the process.
    model = registry.build("resnet18_4", 10, _CIFAR)
    images = networks.images(_CIFAR, count).astype(np.float32)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(images, is_training=False) ** 2)
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(total, model.trainable_variables))


def test_bad_widths():
    with pytest.raises(errors.InvalidValueError, match="width 0: expected a whole number above 0"):
        registry.build("resnet18", 10, _CIFAR, {"width": 0})
