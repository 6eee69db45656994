"""What becomes of every kind of image file; TensorFlow's decoders are the judge of what comes out."""

import io

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from heldout.datasets import image_files, record_format
from tests.heldout.datasets import image_cases
from zoo import errors

_IMAGENET, _TINY = record_format.FORMATS["imagenet"], record_format.FORMATS["tiny"]
_PIXELS = image_cases.coloured(image_cases.digit(3)[0])
_CONVERTED = [
    ("progressive", "progressive"),
    ("cmyk", "cmyk"),
    ("grey", "grey"),
    ("png", "png"),
    ("grey_png", "grey png"),
    ("palette", "palette png"),
    ("alpha", "alpha png"),
    ("gif", "palette gif"),
]


def test_sound_files_are_stored_byte_by_byte():
    content = image_cases.encoded(_PIXELS, "jpeg", (40, 30))
    assert image_files.prepare("a", content, _IMAGENET) == image_files.Prepared(content, None)
    for kind in ("jpeg", "png", "progressive"):
        content = image_cases.encoded(_PIXELS, kind)
        assert image_files.prepare("a", content, _TINY, (8, 8, 3)) == image_files.Prepared(content, None)


@pytest.mark.parametrize(("kind", "reason"), _CONVERTED)
def test_others_become_baseline_rgb_jpeg(kind, reason):
    content = image_cases.encoded(_PIXELS, kind, (40, 30))
    prepared = image_files.prepare("a", content, _IMAGENET)
    assert prepared.conversion == reason
    again = image_files.prepare("a", prepared.content, _IMAGENET)
    assert again == image_files.Prepared(prepared.content, None)
    decoded = tf.io.decode_jpeg(prepared.content).numpy().astype(int)
    assert decoded.shape == (30, 40, 3)
    truth = np.asarray(_image(content).convert("RGB")).astype(int)
    # A dithered palette is what JPEG keeps worst.
    assert np.abs(decoded - truth).mean() < (20 if "palette" in reason else 6)


def _image(content):
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("kind", ["cmyk", "grey", "grey_png", "palette", "alpha", "gif"])
def test_tiny_images_lose_nothing(kind):
    content = image_cases.encoded(_PIXELS, kind)
    prepared = image_files.prepare("a", content, _TINY, (8, 8, 3))
    pixels = np.frombuffer(prepared.content, np.uint8).reshape(8, 8, 3)
    np.testing.assert_array_equal(pixels, np.asarray(_image(content).convert("RGB")))
    # PNG itself is stored, GIF is not.
    assert prepared.conversion == {"grey_png": "grey", "gif": "palette gif"}.get(kind, kind)


def test_tiny_files_as_long_as_their_pixels_are_stored_as_pixels():
    pixels = np.full((8, 8, 3), 77, np.uint8)
    content = image_cases.encoded(pixels, "png")
    padded = content + bytes(8 * 8 * 3 - len(content))  # readers of PNG ignore what follows
    prepared = image_files.prepare("a", padded, _TINY, (8, 8, 3))
    assert prepared.conversion == "length"
    assert prepared.content == pixels.tobytes()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "image file is truncated"),
        ("text", "of no known image format"),
        ("deep", "its pixels are of kind I;16, expected 8 bits a channel"),
    ],
)
@pytest.mark.parametrize("known", [_IMAGENET, _TINY])
def test_damaged_images_are_named(kind, message, known):
    content = image_cases.encoded(_PIXELS, kind, (40, 30))
    with pytest.raises(errors.DamagedFileError, match=rf"^x/y.JPEG: not a sound image \(.*{message}"):
        image_files.prepare("x/y.JPEG", content, known, (30, 40, 3))


def test_every_cut_of_a_file_is_damage_or_decodes():
    """What passes here is decoded by TensorFlow, too."""
    for kind in ("jpeg", "png"):
        content, num_damaged = image_cases.encoded(_PIXELS, kind), 0
        for size in range(0, len(content), 7):
            try:
                prepared = image_files.prepare("a", content[:size], _IMAGENET)
            except errors.DamagedFileError:
                num_damaged += 1
            else:
                assert tf.io.decode_jpeg(prepared.content, channels=3).shape == (8, 8, 3)
        assert num_damaged > 5


def test_tiny_images_must_have_one_size():
    content = image_cases.encoded(_PIXELS, "png", (9, 8))
    with pytest.raises(errors.DamagedFileError, match=r"a: not a sound image \(it is 8 x 9, the first image 8 x 8\)"):
        image_files.prepare("a", content, _TINY, (8, 8, 3))


def test_shape_of_a_file(tmp_path):
    (tmp_path / "a.png").write_bytes(image_cases.encoded(_PIXELS, "grey_png", (40, 30)))
    assert image_files.image_shape(str(tmp_path / "a.png")) == (30, 40, 3)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(errors.DamagedFileError, match=r"b.png: not a sound image"):
        image_files.image_shape(str(tmp_path / "b.png"))
