"""Random images have the channel statistics of the real ones, and follow from their seed."""

import dataclasses

import numpy as np
import pytest

from heldout.datasets import dataset as dataset_lib
from heldout.datasets import random_images
from tests import cases
from zoo import errors


@pytest.fixture(scope="module")
def coloured():
    """200 images of two channels that differ in mean and spread."""
    generator = np.random.default_rng(0)
    images = np.stack([generator.integers(0, 256, (200, 6, 6)), generator.integers(100, 140, (200, 6, 6))], axis=-1)
    split = dataset_lib.Split(images.astype(np.uint8), np.arange(200) % 4)
    return dataset_lib.Dataset("coloured", "1", split, split, tuple("abcd"), scale=255.0)


def test_channel_statistics_are_those_of_all_pixels(coloured, monkeypatch):
    monkeypatch.setattr(random_images, "_NUMBERS_AT_A_TIME", 1000)
    mean, std = random_images.channel_statistics(coloured.train.images)
    np.testing.assert_allclose(mean, coloured.train.images.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, coloured.train.images.astype(float).std(axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("kind", random_images.KINDS)
def test_the_statistics_stay(coloured, kind):
    found = random_images.replaced(coloured, kind, 0)
    mean, std = random_images.channel_statistics(coloured.train.images)
    for split in (found.train, found.test):
        assert split.images.dtype == np.float32
        values = split.images.astype(np.float64)
        # 7200 pixels of each channel, independent or almost.
        assert (np.abs(values.mean(axis=(0, 1, 2)) - mean) < 6 * std / np.sqrt(7200)).all()
        assert (np.abs(values.std(axis=(0, 1, 2)) / std - 1) < 6 / np.sqrt(7200)).all()
    np.testing.assert_array_equal(found.train.label, coloured.train.label)
    assert not np.array_equal(found.train.images, found.test.images)


def test_uniform_values_stay_in_their_interval_and_fill_it(coloured):
    mean, std = random_images.channel_statistics(coloured.train.images)
    values = (random_images.replaced(coloured, "uniform", 0).train.images - mean) / std / np.sqrt(3)
    assert 0.99 < np.abs(values).max() <= 1.0001


def test_spheres_have_one_radius(coloured):
    mean, std = random_images.channel_statistics(coloured.train.images)
    values = (random_images.replaced(coloured, "sphere", 0).train.images - mean) / std
    np.testing.assert_allclose(np.mean(np.square(values), axis=(1, 2)), 1, rtol=1e-4)


def test_jitter_keeps_half_of_the_variance_of_the_real_images(coloured):
    found = random_images.replaced(coloured, "jitter", 0).train.images
    for channel in range(2):
        real, noisy = (images[..., channel].ravel().astype(float) for images in (coloured.train.images, found))
        assert abs(np.corrcoef(real, noisy)[0, 1] - np.sqrt(0.5)) < 6 * 0.5 / np.sqrt(7200)
    independent = random_images.replaced(coloured, "normal", 0).train.images
    assert abs(np.corrcoef(coloured.train.images[..., 0].ravel(), independent[..., 0].ravel())[0, 1]) < 6 / np.sqrt(
        7200
    )


def test_the_seed_decides_all_and_chunks_nothing(coloured, monkeypatch):
    first, other = (random_images.replaced(coloured, "normal", seed).train.images for seed in (0, 1))
    monkeypatch.setattr(random_images, "_NUMBERS_AT_A_TIME", 1000)
    again = random_images.replaced(coloured, "normal", 0).train.images
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_channel_of_one_value_stays_as_it_is():
    data = cases.tiny_digits(8, 4)
    split = dataset_lib.Split(np.full_like(data.train.images, 7), data.train.label)
    constant = dataclasses.replace(data, train=split)
    for kind in random_images.KINDS:
        assert (random_images.replaced(constant, kind, 0).train.images == 7).all()


def test_an_unknown_kind_is_refused(coloured):
    with pytest.raises(errors.InvalidValueError, match="--random_data=waves: expected one of none, uniform, normal"):
        random_images.replaced(coloured, "waves", 0)
