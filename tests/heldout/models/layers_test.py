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


def test_average_pool_valid_drops_the_rest_and_same_averages_what_is_there():
    images = np.random.default_rng(0).normal(size=(2, 5, 5, 3))
    valid = layers.AveragePool(2, 2)(tf.constant(images)).numpy()
    assert valid.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(valid[:, 1, 0], images[:, 2:4, 0:2].mean(axis=(1, 2)), rtol=1e-12)
    same = layers.AveragePool(2, 2, "SAME")(tf.constant(images)).numpy()
    assert same.shape == (2, 3, 3, 3)
    np.testing.assert_allclose(same[:, 2, 0], images[:, 4, 0:2].mean(axis=1), rtol=1e-12)


def test_subsample_keeps_every_second_pixel_from_the_first():
    images = np.random.default_rng(0).normal(size=(2, 5, 4, 3))
    np.testing.assert_array_equal(layers.Subsample(2)(tf.constant(images)), images[:, [0, 2, 4]][:, :, [0, 2]])
    with pytest.raises(errors.InvalidValueError, match="stride must be at least 1"):
        layers.Subsample(0)


def test_global_pools():
    images = np.random.default_rng(0).normal(size=(2, 5, 4, 3))
    np.testing.assert_array_equal(layers.GlobalMaxPool()(tf.constant(images)), images.max(axis=(1, 2)))
    mean = layers.GlobalAveragePool()(tf.constant(images))
    np.testing.assert_allclose(mean, images.mean(axis=(1, 2)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("pool", [layers.MaxPool, layers.AveragePool])
@pytest.mark.parametrize("settings", [(0, 1), (2, 0), (2, 2, "same")])
def test_bad_settings_of_pools(pool, settings):
    with pytest.raises(errors.InvalidValueError, match=f"{pool.__name__}.*at least 1 and padding"):
        pool(*settings)


@pytest.mark.parametrize(("pool", "kind"), [(layers.MaxPool, "max"), (layers.AveragePool, "average")])
def test_pools_name_an_image_that_is_too_small(pool, kind):
    with pytest.raises(errors.InvalidValueError, match=rf"{kind} pooling with a 2x2 window.*only 1x4 pixels"):
        pool(2, 2)(tf.zeros([1, 1, 4, 1]))


def test_layers_are_values():
    assert layers.MaxPool(2, 2) == layers.MaxPool(2, 2) != layers.MaxPool(3, 2)
    assert layers.MaxPool(2, 2) != layers.AveragePool(2, 2)
