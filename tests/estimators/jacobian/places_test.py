"""Neighbourhoods and paths: where they lie, by hand and by their distributions; averages by hand."""

import numpy as np
import pytest

from estimators import errors
from estimators.jacobian import averages, places
from tests.estimators.jacobian import networks

_IMAGES, _IDS = networks.images(3), np.array([5, 9, -1])


def test_shifts_repeat_the_edge():
    place = places.Shifts((1, 3), num_directions=4)
    found = place.points(_IMAGES, _IDS)
    assert found.inputs.shape == (3, 4, 2, 8, 8, 2)
    # To the right: columns move right, the left column is repeated.
    np.testing.assert_array_equal(found.inputs[:, 0, 0, :, 1:], _IMAGES[:, :, :-1])
    np.testing.assert_array_equal(found.inputs[:, 0, 1, :, :3], np.repeat(_IMAGES[:, :, :1], 3, axis=2))
    # Up, left, down.
    np.testing.assert_array_equal(found.inputs[:, 1, 0, :-1], _IMAGES[:, 1:])
    np.testing.assert_array_equal(found.inputs[:, 2, 1, :, :5], _IMAGES[:, :, 3:])
    np.testing.assert_array_equal(found.inputs[:, 3, 1, 3:], _IMAGES[:, :5])
    assert places.Shifts((1, 2), 8).offset(1, 2) == (-2, 2)
    offsets = {places.Shifts((1,), 8).offset(m, 1) for m in range(8)}
    assert len(offsets) == 8


def test_lengths_are_those_of_steps_along_the_path():
    found = places.Shifts((1, 2), num_directions=2).points(_IMAGES, _IDS)
    first = np.linalg.norm((found.inputs[:, :, 0] - _IMAGES[:, None]).reshape([3, 2, -1]), axis=2)
    second = np.linalg.norm((found.inputs[:, :, 1] - found.inputs[:, :, 0]).reshape([3, 2, -1]), axis=2)
    far = np.linalg.norm((found.inputs[:, :, 1] - _IMAGES[:, None]).reshape([3, 2, -1]), axis=2)
    np.testing.assert_allclose(found.lengths, np.stack([first, second], axis=2))
    np.testing.assert_allclose(found.distances, np.stack([first, far], axis=2))


def test_windows_of_singular_values_are_removed():
    found = places.SvdWindows((2, 4), num_directions=3).points(_IMAGES, _IDS)
    assert found.inputs.shape == (3, 3, 2, 8, 8, 2)
    for channel in range(2):
        values = np.linalg.svd(_IMAGES[0, :, :, channel], compute_uv=False)
        for direction in range(3):
            for anchor, size in enumerate((2, 4)):
                rest = np.linalg.svd(found.inputs[0, direction, anchor, :, :, channel], compute_uv=False)
                kept = np.delete(values, range(8 - direction - size, 8 - direction))
                np.testing.assert_allclose(rest[: 8 - size], kept, atol=1e-12)
                np.testing.assert_allclose(rest[8 - size :], 0, atol=1e-12)


def _radii(place):
    inputs = np.random.default_rng(0).normal(size=(1, 6))
    found = place.points(inputs, np.array([3]))
    return np.linalg.norm(found.inputs[0, :, 0] - inputs, axis=1), found


def test_random_points_have_their_distributions():
    num = 4000
    radii, found = _radii(places.Sphere(2.0, num))
    np.testing.assert_allclose(radii, 2, rtol=1e-12)
    np.testing.assert_allclose(found.distances[0, :, 0], 2, rtol=1e-12)
    # A mean of `num` points of variance 4 / 6 in each of 6 directions.
    offset = (found.inputs[0, :, 0].mean(axis=0) - np.random.default_rng(0).normal(size=6)) / np.sqrt(4 / 6 / num)
    assert np.abs(offset).max() < 4.5
    radii, _ = _radii(places.Ball(2.0, num))
    shares = (radii / 2) ** 6
    assert abs(shares.mean() - 0.5) < 4 * np.sqrt(1 / 12 / num)
    assert radii.max() <= 2
    radii, _ = _radii(places.Gaussian(0.5, num))
    assert abs(np.square(radii / 0.5).mean() - 6) < 4 * np.sqrt(12 / num)


def test_mixtures_lie_between_two_examples():
    partners = np.arange(5.0)[:, None] * np.ones((1, 4)) * 10
    place = places.MixUp(partners, np.arange(5), num_samples=500)
    found = place.points(partners[:1], np.array([0])).inputs[0, :, 0, 0]
    assert found.min() >= 0
    assert found.max() <= 40
    # 0 is never the partner: the mean is half of the mean of 10, 20, 30, 40.
    assert abs(found.mean() - 12.5) < 4 * found.std() / np.sqrt(500)
    assert (found > 0).all()


@pytest.mark.parametrize(
    "place",
    [
        places.Gaussian(0.1, 3),
        places.Sphere(1.0, 3),
        places.Ball(1.0, 3),
        places.MixUp(_IMAGES, _IDS, num_samples=3),
        places.Shifts((1, 2)),
        places.SvdWindows((2, 4)),
    ],
)
def test_points_belong_to_the_example_and_not_to_its_batch(place):
    whole = place.points(_IMAGES.astype(np.float32), _IDS)
    alone = place.points(_IMAGES[1:2].astype(np.float32), _IDS[1:2])
    np.testing.assert_allclose(alone.inputs[0], whole.inputs[1], rtol=1e-6, atol=1e-6)
    assert whole.inputs.dtype == np.float32
    if place.is_random:
        assert not np.allclose(whole.inputs[1, 0], whole.inputs[1, 1])


def test_refined_paths_have_points_between():
    place = places.Refined(places.Shifts((1, 2), 3), 4)
    coarse, fine = place.place.points(_IMAGES, _IDS), place.points(_IMAGES, _IDS)
    assert fine.inputs.shape[:3] == (3, 3, place.num_anchors)
    assert place.num_anchors == 8
    np.testing.assert_allclose(fine.inputs[:, :, 3::4], coarse.inputs)
    np.testing.assert_allclose(fine.inputs[:, :, 5], (coarse.inputs[:, :, 0] + coarse.inputs[:, :, 1]) / 2)
    np.testing.assert_allclose(fine.lengths[:, :, :4], np.repeat(coarse.lengths[:, :, :1] / 4, 4, axis=2))
    np.testing.assert_allclose(fine.lengths.sum(axis=2), coarse.lengths.sum(axis=2))
    assert (place.num_directions, place.is_random) == (3, False)


def test_averages_by_hand():
    path = averages.path(np.array([[[0.0, 1.0, 4.0]]]), np.array([[[1.0, 3.0]]]))
    assert path.values[0] == 2
    assert path.num_paths[0] == 1
    # By one trapezoid over the whole path it is 2 as well.
    assert path.quadrature_errors[0] == 0
    assert np.isnan(path.standard_errors[0])
    cumulative = averages.cumulative(np.array([[[0.0, 1.0, 4.0]]]), np.array([[[1.0, 3.0]]]))
    np.testing.assert_allclose(cumulative.values, [[0.5, 2.0]])
    assert averages.euclidean(np.array([[[2.0, 4.0], [2.0, 6.0]]])).values[0] == 3.5
    np.testing.assert_allclose(averages.euclidean(np.array([[[2.0, 4.0, 6.0]]])).values, 3.5)


def test_the_quadrature_error_follows_the_curvature():
    points = np.linspace(0, 1, 9)
    lengths = np.full((1, 1, 8), 1 / 8)
    straight = averages.path((1 + points)[None, None], lengths)
    assert straight.quadrature_errors[0] < 1e-15
    curved = averages.path(np.square(points)[None, None], lengths)
    # Trapezoids of x^2 are off by h^2 / 6: the two differ by three times the error of the finer.
    np.testing.assert_allclose(curved.values[0], 1 / 3 + (1 / 8) ** 2 / 6)
    np.testing.assert_allclose(curved.quadrature_errors[0], 3 * (1 / 8) ** 2 / 6)
    assert np.isnan(averages.path(np.ones((1, 1, 2)), np.ones((1, 1, 1))).quadrature_errors[0])


def test_a_path_of_no_length_is_nan_and_counted():
    values = np.array([[[1.0, 1.0], [1.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]]])
    lengths = np.array([[[0.0], [2.0]], [[0.0], [0.0]]])
    found = averages.path(values, lengths)
    assert found.values[0] == 2
    assert np.isnan(found.values[1])
    np.testing.assert_array_equal(found.num_paths, [1, 0])


def test_standard_errors_are_over_directions():
    values = np.random.default_rng(0).normal(size=(2, 50, 2))
    found = averages.euclidean(values)
    np.testing.assert_allclose(found.standard_errors, values.mean(axis=2).std(axis=1, ddof=1) / np.sqrt(50))


def test_misuse_is_refused():
    refused = [
        (lambda: places.Shifts((2, 1)), r"pixels \(2, 1\): expected whole numbers from 1 up, each above the last"),
        (lambda: places.Shifts((1,), 9), "num_directions 9: a shift of 1 pixels has from 1 to 8 directions"),
        (lambda: places.Shifts((8,)).points(_IMAGES, _IDS), "can be shifted by 7 at most"),
        (lambda: places.Shifts().points(_IMAGES[:, 0], _IDS), "expected images"),
        (lambda: places.SvdWindows((5,), 5).points(_IMAGES, _IDS), "have 8 singular values"),
        (lambda: places.Refined(places.Shifts(), 1), "num_parts 1: must be at least 2"),
        (lambda: places.Gaussian(0.0), "standard_deviation 0.0: must be a number above 0"),
        (lambda: places.Ball(1.0, 0), "num_samples 0: must be at least 1"),
        (lambda: places.MixUp(_IMAGES, [1, 1, 1]), "at least two different ones"),
    ]
    for call, message in refused:
        with pytest.raises(errors.InvalidArgumentError, match=message):
            call()
    with pytest.raises(errors.MismatchError, match="expected one for each step"):
        averages.path(np.zeros((1, 1, 3)), np.zeros((1, 1, 3)))
    with pytest.raises(errors.MismatchError, match="at least one point after it"):
        averages.euclidean(np.zeros((1, 1, 1)))
