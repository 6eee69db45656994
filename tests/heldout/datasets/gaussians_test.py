"""Points in the plane: their moments within the errors of so many draws, their order, and that they stay the same."""

import math

import numpy as np

from heldout.datasets import dataset, gaussians


def test_points_have_the_moments_of_their_distributions():
    data = gaussians.load()
    assert data.image_shape == (1, 1, 2)
    assert (len(data.train), len(data.test), data.num_classes) == (2000, 400, 2)
    for split in (data.train, data.test):
        np.testing.assert_array_equal(split.label, np.arange(len(split)) % 2)
        for label, centre in enumerate(gaussians.CENTRES):
            points = split.images[split.label == label].reshape(-1, 2)
            error = gaussians.STANDARD_DEVIATION / math.sqrt(len(points))
            np.testing.assert_allclose(points.mean(axis=0), centre, atol=4 * error)
            np.testing.assert_allclose(points.std(axis=0), gaussians.STANDARD_DEVIATION, atol=4 * error / math.sqrt(2))
            assert abs(np.corrcoef(points.T)[0, 1]) < 4 / math.sqrt(len(points))
    assert not np.array_equal(data.train.images[:400], data.test.images)


def test_points_stay_the_same():
    data = gaussians.load()
    first = [-1.0999, 0.0810, -0.1644, 1.6789]
    np.testing.assert_allclose(data.train.images[:2].ravel(), first, atol=1e-4)
    assert dataset.label_sha256(data.train.label) == dataset.label_sha256(np.arange(2000) % 2)
