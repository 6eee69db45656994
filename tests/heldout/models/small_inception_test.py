"""SmallInception is the published network: keys, shapes, logits; and its variant for large inputs."""

import numpy as np
import pytest
import tensorflow as tf

from heldout.models import registry, small_inception
from tests.heldout.models import golden
from zoo import checkpoints, errors

# float32 sums in another order differ by about 1e-6 of the largest logit; a wrong stride, epsilon, order of branches
# or kind of pooling by 1e-2 and more.
_RELATIVE_TOLERANCE = 1e-5


@pytest.mark.parametrize("num_classes", [10, 100])
def test_it_is_the_published_network(num_classes):
    listing = golden.read(f"small_inception_{num_classes}")
    model = registry.build("small_inception", num_classes, tuple(listing["input_shape"][1:]))
    assert golden.shapes(model) == listing["variables"]
    assert golden.relative_logit_error(model, listing) < _RELATIVE_TOLERANCE


def test_of_half_the_width_all_numbers_of_channels_are_halved():
    expected = golden.read("small_inception_10")["variables"]
    for name, shape in expected.items():
        # Images keep their channels, logits their number.
        expected[name] = [n if n in (1, 3, 10) else n // 2 for n in shape]
    assert golden.shapes(registry.build("small_inception_48", 10, (32, 32, 3))) == expected
    narrow = registry.build("small_inception_1", 10, (32, 32, 3))
    assert min(min(variable.shape) for variable in narrow.trainable_variables) == 1
    assert narrow(tf.zeros([2, 32, 32, 3]), is_training=True).shape == (2, 10)


@pytest.mark.parametrize("width", [0, -3, 2.5])
def test_bad_widths(width):
    with pytest.raises(errors.InvalidValueError, match=f"width {width}"):
        small_inception.SmallInception(10, width=width)


def test_a_written_checkpoint_has_exactly_the_listed_keys(tmp_path):
    model = registry.build("small_inception", 10, (32, 32, 3))
    prefix = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    written = {
        key.removesuffix(suffix): shape for key, shape in tf.train.list_variables(prefix) if key.startswith("model/")
    }
    assert written == golden.read("small_inception_10")["variables"]


def test_the_golden_logits_see_the_order_of_the_branches(monkeypatch):
    def swapped(self, inputs, is_training):
        return tf.concat([self.conv3x3(inputs, is_training), self.conv1x1(inputs, is_training)], axis=-1)

    listing = golden.read("small_inception_10")
    model = registry.build("small_inception", 10, (32, 32, 3))
    monkeypatch.setattr(small_inception.InceptionBlock, "__call__", swapped)
    assert golden.relative_logit_error(model, listing) > 1e-2


def test_large_inputs_change_only_the_kernel_of_conv1():
    model = registry.build("small_inception", 10, (96, 96, 3), {"large_inputs": True})
    expected = golden.read("small_inception_10")["variables"]
    expected["model/conv1/conv/w"] = [7, 7, 3, 96]
    assert golden.shapes(model) == expected
    assert model(tf.zeros([2, 96, 96, 3]), is_training=False).shape == (2, 10)


def test_large_inputs_are_quartered_before_the_first_stage():
    model = registry.build("small_inception", 10, (96, 96, 3), {"large_inputs": True})
    seen = []
    stage1 = model.stage1
    model.stage1 = lambda inputs, is_training: seen.append(inputs.shape) or stage1(inputs, is_training)
    model(tf.zeros([1, 96, 96, 3]), is_training=False)
    assert seen == [(1, 24, 24, 96)]


def test_training_updates_the_moving_averages_and_evaluation_does_not():
    model = registry.build("small_inception", 10, (32, 32, 3))
    images = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3)).astype(np.float32)
    average = checkpoints.model_variables(model)["model/conv1/bn/moving_mean/average"]
    before = average.numpy()
    model(images, is_training=False)
    np.testing.assert_array_equal(average.numpy(), before)
    model(images, is_training=True)
    assert np.abs(average.numpy() - before).max() > 0
