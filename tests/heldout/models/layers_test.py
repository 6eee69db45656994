"""Layers without parameters, against sums and maxima written out in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from heldout.models import layers
from zoo import errors


def test_flatten_keeps_row_major_order_and_any_batch_size():
    images = np.arange(24.0).reshape(2, 2, 3, 2)
    np.testing.assert_array_equal(layers.Flatten()(tf.constant(images)), images.reshape(2, 12))
    traced = tf.function(layers.Flatten()).get_concrete_function(tf.TensorSpec([None, 2, 3, 2]))
    assert traced.structured_outputs.shape.as_list() == [None, 12]


def test_relu():
    np.testing.assert_array_equal(layers.Relu()(tf.constant([-1.5, 0.0, 2.0])), [0.0, 0.0, 2.0])


def test_max_pool_valid_drops_the_rest_and_same_keeps_it():
    images = np.random.default_rng(0).normal(size=(2, 5, 5, 3))
    valid = layers.MaxPool(2, 2)(tf.constant(images)).numpy()
    assert valid.shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(valid[:, 1, 0], images[:, 2:4, 0:2].max(axis=(1, 2)))
    same = layers.MaxPool(2, 2, "SAME")(tf.constant(images)).numpy()
    assert same.shape == (2, 3, 3, 3)
    np.testing.assert_array_equal(same[:, 2, 2], images[:, 4, 4])


@pytest.mark.parametrize("settings", [(0, 1), (2, 0), (2, 2, "same")])
def test_bad_settings_of_max_pool(settings):
    with pytest.raises(errors.InvalidValueError, match="at least 1 and padding"):
        layers.MaxPool(*settings)


def test_max_pool_names_an_image_that_is_too_small():
    with pytest.raises(errors.InvalidValueError, match=r"2x2 window.*only 1x4 pixels"):
        layers.MaxPool(2, 2)(tf.zeros([1, 1, 4, 1]))


def test_layers_are_values():
    assert layers.MaxPool(2, 2) == layers.MaxPool(2, 2) != layers.MaxPool(3, 2)
