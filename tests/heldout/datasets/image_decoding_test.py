"""Evaluation images against NumPy, and the laws of the training windows against their closed forms."""

import io
import math

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from heldout.datasets import image_decoding, record_format
from tests.heldout.datasets import image_cases

_NUM_DRAWS = 20000
_SHAPE = (224, 224, 3)


def _photo(width, height, kind="jpeg"):
    return image_cases.encoded(image_cases.coloured(image_cases.digit(5)[0]), kind, (width, height))


def _bilinear(image, size):
    """Bilinear values at pixel centres, edges repeated: slow and obvious."""
    result = np.asarray(image, np.float64)
    for axis in (0, 1):
        places = (np.arange(size) + 0.5) * result.shape[axis] / size - 0.5
        low = np.floor(places).astype(int)
        share = (places - low).reshape([-1 if i == axis else 1 for i in range(3)])
        last = result.shape[axis] - 1
        first, second = (np.take(result, np.clip(low + i, 0, last), axis) for i in (0, 1))
        result = first * (1 - share) + second * share
    return result


@pytest.mark.parametrize(("width", "height"), [(300, 260), (260, 301), (64, 64), (40, 500), (1, 1), (2, 3)])
def test_evaluation_takes_the_centre_square(width, height):
    content = _photo(width, height)
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    side = max(int(224 / 256 * min(width, height)), 1)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    expected = _bilinear(pixels[top : top + side, left : left + side], 224) / 255
    image = image_decoding.centre_square(tf.constant(content), _SHAPE).numpy()
    np.testing.assert_allclose(image, expected, atol=1e-5)
    assert image.dtype == np.float32


def test_evaluation_is_near_to_what_pillow_resizes():
    content = _photo(200, 180)  # enlarged, where both interpolate alike
    image = Image.open(io.BytesIO(content))
    side, left, top = 157, 22, 12
    resized = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BILINEAR)
    found = image_decoding.centre_square(tf.constant(content), _SHAPE).numpy()
    np.testing.assert_allclose(found * 255, np.asarray(resized), atol=1.01)


def test_evaluation_reads_png_and_cmyk_of_other_writers():
    pixels = np.asarray(Image.open(io.BytesIO(_photo(64, 64, "png"))))
    image = image_decoding.centre_square(tf.constant(_photo(64, 64, "png")), _SHAPE).numpy()
    np.testing.assert_allclose(image, _bilinear(pixels[4:60, 4:60], 224) / 255, atol=1e-5)
    cmyk = image_decoding.centre_square(tf.constant(_photo(64, 64, "cmyk")), _SHAPE).numpy()
    assert np.abs(cmyk - image).mean() < 0.05


def test_normalisation_is_that_of_imagenet():
    image = np.random.default_rng(0).random((4, 4, 3), np.float32)
    expected = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    found = image_decoding.normalised(tf.constant(image), record_format.FORMATS["imagenet"]).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32
    same = image_decoding.normalised(tf.constant(image), record_format.FORMATS["tiny"]).numpy()
    np.testing.assert_array_equal(same, image)


@pytest.mark.parametrize("kind", ["png", "jpeg", "raw"])
def test_stored_images_are_told_by_their_length(kind):
    pixels = image_cases.coloured(image_cases.digit(5)[0])
    content = pixels.tobytes() if kind == "raw" else image_cases.encoded(pixels, kind)
    truth = pixels if kind == "raw" else np.asarray(Image.open(io.BytesIO(content)))
    found = image_decoding.stored_image(tf.constant(content), (8, 8, 3)).numpy()
    np.testing.assert_array_equal(found, truth)
    assert kind == "jpeg" or np.array_equal(found, pixels)


def test_a_stored_image_of_another_size_is_an_error():
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        image_decoding.stored_image(tf.constant(_photo(9, 8, "png")), (8, 8, 3))


@pytest.fixture(scope="module")
def draws():
    """Windows of 20000 seeds in a square image of 1000 and in one of 1000 x 500, and flips."""
    seeds = tf.stack([tf.fill([_NUM_DRAWS], tf.constant(7, tf.int64)), tf.range(_NUM_DRAWS, dtype=tf.int64)], axis=1)

    @tf.function
    def draw(height, width):
        windows = tf.map_fn(
            lambda seed: image_decoding.random_window(height, width, seed), seeds, fn_output_signature=tf.int32
        )
        flips = tf.map_fn(image_decoding.random_flip, seeds, fn_output_signature=tf.bool)
        return windows, flips

    square, flips = draw(tf.constant(1000), tf.constant(1000))
    wide, _ = draw(tf.constant(500), tf.constant(1000))
    return {"square": (square.numpy(), 1000, 1000), "wide": (wide.numpy(), 500, 1000), "flips": flips.numpy()}


def _law(height, width, moment):
    """Mean and deviation of a function of (area share, log aspect) under the stated law, on a fine grid.

    A draw that does not fit is drawn again; that ten in a row do not fit has a probability below 1e-4 here.
    """
    area = np.linspace(0.08, 1, 2001)[:, None]
    log_aspect = np.linspace(math.log(3 / 4), math.log(4 / 3), 2001)[None]
    fits = np.sqrt(area * height * width * np.exp(log_aspect)) <= width + 0.5
    fits &= np.sqrt(area * height * width * np.exp(-log_aspect)) <= height + 0.5
    values = np.broadcast_to(moment(area, log_aspect), fits.shape)[fits]
    return values.mean(), values.std()


@pytest.mark.parametrize("shape", ["square", "wide"])
@pytest.mark.parametrize(
    "moment",
    [
        lambda area, log_aspect: area,
        lambda area, log_aspect: area**2,
        lambda area, log_aspect: area < 0.3,
        lambda area, log_aspect: log_aspect,
        lambda area, log_aspect: log_aspect**2,
        lambda area, log_aspect: log_aspect > 0.2,
        lambda area, log_aspect: area * log_aspect,
    ],
)
def test_windows_follow_their_law(draws, shape, moment):
    windows, height, width = draws[shape]
    rows, columns = windows[:, 2].astype(float), windows[:, 3].astype(float)
    found = moment(rows * columns / (height * width), np.log(columns / rows)).mean()
    mean, deviation = _law(height, width, moment)
    # Five standard errors, and what the rounding to whole pixels and the rare fallback can shift.
    assert abs(found - mean) < 5 * deviation / math.sqrt(_NUM_DRAWS) + 0.002


@pytest.mark.parametrize("shape", ["square", "wide"])
def test_windows_lie_within_the_image_and_their_limits(draws, shape):
    windows, height, width = draws[shape]
    top, left, rows, columns = windows.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= height).all()
    assert (left + columns <= width).all()
    share, aspect = rows * columns / (height * width), columns / rows
    assert share.min() > 0.078
    assert aspect.min() > 0.74
    assert aspect.max() < 1.35


@pytest.mark.parametrize("shape", ["square", "wide"])
def test_places_are_uniform_among_those_that_fit(draws, shape):
    windows, height, width = draws[shape]
    for place, room in ((windows[:, 0], height - windows[:, 2]), (windows[:, 1], width - windows[:, 3])):
        share = (place + 0.5) / (room + 1)
        assert abs(share.mean() - 0.5) < 5 / math.sqrt(12 * _NUM_DRAWS)
        assert abs(((share - 0.5) ** 2).mean() - 1 / 12) < 5 * math.sqrt(1 / 180 / _NUM_DRAWS) + 0.001


def test_every_second_image_is_mirrored_independently_of_its_window(draws):
    flips, windows = draws["flips"], draws["square"][0]
    assert abs(flips.mean() - 0.5) < 5 * 0.5 / math.sqrt(_NUM_DRAWS)
    rows = windows[:, 2]
    difference = rows[flips].mean() - rows[~flips].mean()
    assert abs(difference) < 5 * rows.std() * 2 / math.sqrt(_NUM_DRAWS)


def test_long_images_get_the_largest_window_that_is_allowed():
    window = image_decoding.random_window(tf.constant(10), tf.constant(1000), tf.constant([1, 2], tf.int64)).numpy()
    assert window.tolist() == [0, (1000 - 13) // 2, 10, 13]
    window = image_decoding.random_window(tf.constant(1000), tf.constant(10), tf.constant([1, 2], tf.int64)).numpy()
    assert window.tolist() == [(1000 - 13) // 2, 0, 13, 10]


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_training_image_is_its_window_mirrored_or_not(kind):
    content = _photo(120, 100, kind)
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    both = set()
    for number in range(12):
        seed = tf.constant([3, number], tf.int64)
        window = image_decoding.random_window(tf.constant(100), tf.constant(120), seed).numpy()
        top, left, rows, columns = window
        expected = _bilinear(pixels[top : top + rows, left : left + columns], 64) / 255
        flipped = bool(image_decoding.random_flip(seed))
        expected = expected[:, ::-1] if flipped else expected
        image = image_decoding.random_crop(tf.constant(content), (64, 64, 3), seed).numpy()
        # Chroma at the border of a window is interpolated without what lies outside.
        assert np.abs(image - expected).mean() < (0.01 if kind == "jpeg" else 1e-5)
        both.add(flipped)
    assert both == {True, False}
