"""The vision transformer against its formula and the network written out, token by token."""

import numpy as np
import pytest
import tensorflow as tf

from heldout.models import registry
from tests.heldout.models import networks
from tests.reference import plain_networks
from zoo import checkpoints, errors


@pytest.mark.parametrize(
    ("width", "depth", "patch_size", "mlp_ratio", "shape"),
    [(8, 2, 4, 2, (32, 32, 3)), (12, 3, 7, 4, (28, 28, 1)), (4, 1, 2, 1, (8, 4, 3)), (128, 6, 4, 2, (32, 32, 3))],
)
def test_number_of_parameters(width, depth, patch_size, mlp_ratio, shape):
    options = {"depth": depth, "patch_size": patch_size, "mlp_ratio": mlp_ratio}
    count = networks.num_parameters(f"vit_{width}", 10, shape, **options)
    num_tokens = shape[0] * shape[1] // patch_size**2
    of_block = (4 + 2 * mlp_ratio) * width**2 + (6 + mlp_ratio) * width
    assert count == (patch_size**2 * shape[2] + num_tokens + 3 + 10) * width + 10 + depth * of_block


def test_number_of_parameters_by_default():
    # Patches, positions, blocks of 16 d^2 / 2 + 8 d, last norm and last layer, with d = 128, added up by hand.
    assert networks.num_parameters("vit", 10, (32, 32, 3)) == 6272 + 8192 + 6 * (131072 + 1024) + 256 + 1290


@pytest.mark.parametrize(("width", "num_heads"), [(8, 4), (6, 2), (5, 1)])
def test_it_is_the_network_written_out(width, num_heads):
    shape = (8, 12, 3)
    model = networks.randomised(f"vit_{width}", shape, depth=2, num_heads=num_heads, mlp_ratio=3)
    images = networks.images(shape)
    values = {
        key.removeprefix("model/"): variable.numpy() for key, variable in checkpoints.model_variables(model).items()
    }
    expected = plain_networks.vit(images, values, depth=2, heads=num_heads, patch=4)
    for is_training in (False, True):
        # TensorFlow's GELU has the root of two in float32.
        np.testing.assert_allclose(model(images, is_training=is_training), expected, rtol=1e-7, atol=1e-8)


def test_positions_matter():
    model = networks.randomised("vit_8", (8, 8, 1), depth=1)
    images = networks.images((8, 8, 1))
    turned = images[:, ::-1, ::-1]
    assert not np.allclose(model(images, is_training=False), model(turned, is_training=False), atol=1e-3)
    # Without their embeddings the network sees a bag of patches; these are four equal pixels each.
    model.positions.assign(tf.zeros_like(model.positions))
    flat = np.repeat(np.repeat(images[:, :2, :2], 4, axis=1), 4, axis=2)
    turned = flat[:, ::-1, ::-1]
    np.testing.assert_allclose(model(flat, is_training=False), model(turned, is_training=False), rtol=1e-10)


def test_patches_that_do_not_fill_the_image():
    with pytest.raises(errors.InvalidValueError, match="patch_size 4: images of 30x32 pixels"):
        registry.build("vit", 10, (30, 32, 3))


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(errors.InvalidValueError, match="width 6 with 4 heads: expected a multiple"):
        registry.build("vit_6", 10, (8, 8, 3))


@pytest.mark.parametrize("option", ["width", "depth", "num_heads", "patch_size", "mlp_ratio"])
@pytest.mark.parametrize("value", [0, 2.0, True])
def test_bad_sizes(option, value):
    with pytest.raises(errors.InvalidValueError, match=f"{option} {value}: expected a whole number above 0"):
        registry.build("vit", 10, (8, 8, 3), {option: value})
