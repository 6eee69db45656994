"""Image files as people have them, judged and made fit for records.

A file that is what its format asks for is stored byte by byte:

    imagenet    baseline RGB JPEG
    tiny        JPEG or PNG with RGB of 8 bits, of the size of all others

All else is converted: to RGB JPEG at quality 95, 4:4:4, for imagenet, to the plain bytes of its RGB pixels for tiny.
Transparent pixels keep their colour, of animated images the first frame counts, and the orientation that a camera
notes is ignored, as TensorFlow does. Every image is decoded to its end, so that damage shows here and not in the middle
of a training.
"""

import dataclasses
import io
import math
import warnings

from PIL import Image

from heldout.datasets import record_format
from zoo import errors

SUFFIXES = frozenset(
    (".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")
)
QUALITY = 95
# Colours keep the full resolution.
_SUBSAMPLING = "4:4:4"
# MPO is a JPEG with further images behind it, which decoders pass over.
_JPEG, _PNG = ("JPEG", "MPO"), ("PNG",)
# Modes of 8 bits a channel that convert to RGB, and what makes them differ from it.
_MODES = {
    "RGB": "",
    "L": "grey",
    "1": "grey",
    "P": "palette",
    "PA": "palette",
    "RGBA": "alpha",
    "RGBX": "alpha",
    "LA": "alpha",
    "La": "alpha",
    "RGBa": "alpha",
    "CMYK": "cmyk",
    "YCbCr": "colour space",
    "LAB": "colour space",
    "HSV": "colour space",
}
# Everything that Pillow's readers raise over bytes that are not as promised.
_FORMAT_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, MemoryError, AttributeError),
    *(OverflowError, RuntimeError, NotImplementedError, ZeroDivisionError, Image.DecompressionBombError),
)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What is stored of an image.

    Attributes:
        content: the bytes.
        conversion: why they are not those of the file: grey, palette, alpha, cmyk, colour space, progressive, the
            name of a file format that is not stored, both as in "grey png", or length; None where they are.
    """

    content: bytes
    conversion: str | None


def image_shape(path: str) -> tuple[int, int, int]:
    """Height, width and 3, for the channels of the RGB image that a file becomes.

    Raises:
        DamagedFileError: the file holds no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width, 3
    except _FORMAT_ERRORS as error:
        raise _damaged(path, str(error)) from error


def prepare(
    path: str, content: bytes, known: record_format.Format, shape: tuple[int, int, int] | None = None
) -> Prepared:
    """Judges one image and converts it where it must be.

    Args:
        path: for messages.
        content: the bytes of the file.
        known: the format of the records.
        shape: that every image must have; None where sizes may differ, as in imagenet.

    Raises:
        DamagedFileError: the image cannot be decoded to its end, has channels of more than 8 bits, or another size.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as image:
            image.load()
            if image.mode not in _MODES:
                raise ValueError(f"its pixels are of kind {image.mode}, expected 8 bits a channel")
            if shape is not None and (image.height, image.width) != shape[:2]:
                raise ValueError(f"it is {image.height} x {image.width}, the first image {shape[0]} x {shape[1]}")
            conversion = _reason(image, content, known, shape)
            return Prepared(content if conversion is None else _converted(image, known), conversion)
    except Image.UnidentifiedImageError as error:  # its text names an object in memory
        raise _damaged(path, "of no known image format") from error
    except _FORMAT_ERRORS as error:
        raise _damaged(path, str(error) or type(error).__name__) from error


def _reason(
    image: Image.Image, content: bytes, known: record_format.Format, shape: tuple[int, int, int] | None
) -> str | None:
    """Why an image cannot be stored as it is."""
    stored = _JPEG if known.name == "imagenet" else (*_JPEG, *_PNG)
    other_format = "" if image.format in stored else str(image.format).lower()
    if reason := f"{_MODES[image.mode]} {other_format}".strip():
        return reason
    if known.name == "imagenet":
        return "progressive" if image.info.get("progressive") else None
    # Readers tell plain pixels by the number of bytes.
    return "length" if shape is not None and len(content) == math.prod(shape) else None


def _converted(image: Image.Image, known: record_format.Format) -> bytes:
    rgb = image.convert("RGB")
    if known.name != "imagenet":
        return rgb.tobytes()
    stream = io.BytesIO()
    rgb.save(stream, format="JPEG", quality=QUALITY, subsampling=_SUBSAMPLING)
    return stream.getvalue()


def _damaged(path: str, reason: str) -> errors.DamagedFileError:
    return errors.DamagedFileError(f"{path}: not a sound image ({reason})")
