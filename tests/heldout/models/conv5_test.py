"""The 5-layer CNN against its formula and the network written out."""

import numpy as np
import pytest

from heldout.models import conv5, registry
from tests.heldout.models import networks
from tests.reference import plain_networks
from zoo import errors


@pytest.mark.parametrize("width", [1, 2, 5, 16, 64])
@pytest.mark.parametrize("pooling", conv5.POOLINGS)
def test_number_of_parameters(width, pooling):
    count = networks.num_parameters(f"conv5_{width}", 10, (32, 32, 3), pooling=pooling)
    assert count == 378 * width**2 + 122 * width + 10
    if width == 64:
        assert count == 1_556_106


def test_number_of_parameters_for_other_classes_images_and_with_batch_norm():
    assert networks.num_parameters("conv5_3", 100, (32, 32, 3)) == 378 * 9 + (42 + 800) * 3 + 100
    # One channel in the place of three: 9 c weights in the place of 27 c. The size of the image adds nothing.
    for size in (8, 28, 32, 50):
        assert networks.num_parameters("conv5_3", 10, (size, size, 1)) == 378 * 9 + (122 - 18) * 3 + 10
    # Scale and offset in the place of 15 c biases.
    assert networks.num_parameters("conv5_3", 10, (32, 32, 3), batch_norm=True) == 378 * 9 + (122 + 15) * 3 + 10


@pytest.mark.parametrize("pooling", conv5.POOLINGS)
@pytest.mark.parametrize("size", [32, 28])
def test_it_is_the_network_written_out(pooling, size):
    shape = (size, size, 3)
    model = networks.randomised("conv5_2", shape, pooling=pooling)
    images = networks.images(shape)
    expected = plain_networks.conv5(images, networks.in_order(model), pooling)
    np.testing.assert_allclose(model(images, is_training=False), expected, rtol=1e-10, atol=1e-12)


def test_the_smallest_images():
    assert registry.build("conv5_2", 10, (8, 8, 1)) is not None
    assert registry.build("conv5_2", 10, (4, 4, 1), {"pooling": "average"}) is not None
    with pytest.raises(errors.InvalidValueError, match="larger images"):
        registry.build("conv5_2", 10, (8, 7, 1))


@pytest.mark.parametrize("width", [0, -1, 1.5, True, "3", None])
def test_bad_widths(width):
    with pytest.raises(errors.InvalidValueError, match=r"width .*: expected a whole number above 0"):
        conv5.conv5(10, width=width)


def test_bad_pooling():
    with pytest.raises(errors.InvalidValueError, match="'mean': expected one of max, average"):
        conv5.conv5(10, pooling="mean")
