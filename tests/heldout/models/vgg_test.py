"""VGG of every depth and width against known numbers of parameters and the network written out."""

import numpy as np
import pytest

from heldout.models import registry
from tests.heldout.models import networks
from tests.reference import plain_networks
from zoo import errors

_CIFAR = (32, 32, 3)
_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


@pytest.mark.parametrize(
    ("depth", "convolutions", "with_batch_norm"),
    # Of all convolutions with their biases; and with batch normalisation and the biases that ours leaves out.
    [
        (11, 9_220_480, 9_225_984),
        (13, 9_404_992, 9_410_880),
        pytest.param(16, 14_714_688, 14_723_136, marks=pytest.mark.slow),
        pytest.param(19, 20_024_384, 20_035_392, marks=pytest.mark.slow),
    ],
)
def test_known_numbers_of_the_published_width(depth, convolutions, with_batch_norm):
    assert networks.num_parameters(f"vgg{depth}", 10, _CIFAR) == convolutions + 513 * 10
    num_biases = (with_batch_norm - convolutions) // 2
    count = networks.num_parameters(f"vgg{depth}_64", 10, _CIFAR, batch_norm=True)
    assert count == with_batch_norm - num_biases + 513 * 10


@pytest.mark.parametrize(("depth", "square", "once"), [(11, 2250, 70), (13, 2295, 73), (16, 3591, 93), (19, 4887, 113)])
@pytest.mark.parametrize("width", [1, 3, 8])
def test_number_of_parameters(depth, square, once, width):
    count = networks.num_parameters(f"vgg{depth}_{width}", 7, _CIFAR)
    assert count == square * width**2 + (once + 8 * 7) * width + 7


@pytest.mark.parametrize("depth", _STAGES)
@pytest.mark.parametrize("size", [32, 17])
def test_it_is_the_network_written_out(depth, size):
    shape = (size, size, 3)
    model = networks.randomised(f"vgg{depth}_2", shape)
    images = networks.images(shape)
    expected = plain_networks.vgg(images, networks.in_order(model), _STAGES[depth])
    np.testing.assert_allclose(model(images, is_training=False), expected, rtol=1e-9, atol=1e-12)


def test_the_smallest_image():
    assert registry.build("vgg11_2", 10, (16, 16, 1)) is not None
    with pytest.raises(errors.InvalidValueError, match="larger images"):
        registry.build("vgg11_2", 10, (16, 15, 1))


def test_bad_widths():
    with pytest.raises(errors.InvalidValueError, match="width -4: expected a whole number above 0"):
        registry.build("vgg16", 10, _CIFAR, {"width": -4})
