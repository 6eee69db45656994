"""Augmentation against slices written out by hand."""

import numpy as np
import tensorflow as tf

from heldout.training import augmentation


def test_shift_cuts_the_stated_window():
    images = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
    offsets = np.array([[2, 2], [0, 1], [4, 3]], np.int32)
    padded = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)])
    expected = np.stack([padded[i, r : r + 4, c : c + 5] for i, (r, c) in enumerate(offsets)])
    np.testing.assert_array_equal(augmentation.shift(tf.constant(images), tf.constant(offsets), 2), expected)
    np.testing.assert_array_equal(expected[0], images[0])


def test_flip_mirrors_only_what_it_is_told():
    images = np.arange(24.0).reshape(2, 3, 4, 1)
    flipped = augmentation.flip(tf.constant(images), tf.constant([False, True])).numpy()
    np.testing.assert_array_equal(flipped[0], images[0])
    np.testing.assert_array_equal(flipped[1], images[1, :, ::-1])
