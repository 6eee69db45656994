"""Tests of heldout.report.images."""

import base64
import io
import re

import numpy as np
from PIL import Image
import pytest

from heldout.report import images
from zoo import errors


def _decoded(rule: str) -> np.ndarray:
    data = re.search(r"base64,([^)]*)", rule).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_survive_encoding(channels):
    image = np.random.default_rng(0).integers(0, 256, (7, 5, channels)).astype(np.uint8)
    table = images.ImageTable(scale=255.0)
    assert table.add(image) == "i0"
    np.testing.assert_array_equal(_decoded(table.style_sheet()).reshape(image.shape), image)


def test_scale_maps_to_full_brightness():
    pixels, stretched = images.to_bytes(np.array([[[0], [8], [16]]], np.uint8), scale=16.0)
    assert pixels[0, :, 0].tolist() == [0, 128, 255]
    assert not stretched


def test_values_outside_the_scale_are_stretched_and_counted():
    table = images.ImageTable(scale=1.0)
    image = np.array([[[-1.0], [3.0], [1.0]]], np.float32)
    table.add(image)
    assert _decoded(table.style_sheet())[0].tolist() == [0, 255, 128]
    assert table.num_stretched == 1
    table.add(np.full((2, 2, 1), 7.0, np.float32))
    assert table.num_stretched == 2


def test_identical_images_are_embedded_once():
    table = images.ImageTable(scale=255.0)
    first, second = np.zeros((4, 4, 1), np.uint8), np.ones((4, 4, 1), np.uint8)
    assert [table.add(first), table.add(second), table.add(first.copy())] == ["i0", "i1", "i0"]
    assert len(table) == 2
    assert table.style_sheet().count("data:image/png") == 2


def test_large_images_are_shrunk_and_keep_their_shape():
    picture = Image.open(io.BytesIO(images.png(np.zeros((300, 150, 3), np.uint8), max_side=96)))
    assert picture.size == (48, 96)


@pytest.mark.parametrize("shape", [(8, 8, 2), (8, 8, 4), (8, 8)])
def test_images_that_cannot_be_drawn_are_refused(shape):
    with pytest.raises(errors.InvalidValueError, match="only \\[height, width, 1\\]"):
        images.check_drawable(shape, "mine")
