"""Folders of real images for tests of image records: scikit-learn's digits in the forms that image files take."""

import io
import pathlib

import numpy as np
from PIL import Image

from heldout.datasets import digits


def digit(number, split="train"):
    """One of the digits as uint8 [8, 8], values 0..255, and its label."""
    part = digits.load().split(split)
    return (part.images[number, :, :, 0].astype(np.float32) * 255 / 16).astype(np.uint8), int(part.label[number])


def coloured(pixels):
    """A digit in colour: three channels that differ."""
    return np.stack([pixels, 255 - pixels, pixels // 2], axis=-1)


def encoded(pixels, kind, size=None):
    """An image [H, W, 3] as the bytes of a file.

    Kinds: jpeg, progressive, cmyk, grey, png, grey_png, palette, alpha, gif, deep (16 bits), truncated, text.
    """
    image = Image.fromarray(pixels)
    if size is not None:
        image = image.resize(size)
    modes = {"cmyk": "CMYK", "grey": "L", "grey_png": "L", "palette": "P", "gif": "P", "alpha": "RGBA"}
    image = image.convert(modes.get(kind, "RGB"))
    if kind == "deep":
        image = Image.fromarray(np.arange(image.width * image.height, dtype=np.uint16).reshape(image.size[::-1]))
    stream = io.BytesIO()
    if kind in ("png", "grey_png", "palette", "alpha", "deep"):
        image.save(stream, "PNG")
    elif kind == "gif":
        image.save(stream, "GIF")
    else:
        image.save(stream, "JPEG", quality=90, progressive=kind == "progressive")
    content = stream.getvalue()
    if kind == "truncated":
        return content[:-30]
    return b"this is no image" if kind == "text" else content


def write_folders(root, num_train=30, num_test=12, kind="png", size=None, suffix=".png"):
    """`root`/train and `root`/test with one subfolder per digit; names do not follow the labels' order.

    Returns:
        For each split the list of (relative path, label, pixels [8, 8, 3]) sorted by class and name.
    """
    listed = {}
    for split, count in (("train", num_train), ("test", num_test)):
        rows = []
        for number in range(count):
            pixels, label = digit(number, split)
            name = f"class{label}/{split}_{number * 7919 % 9973:04d}{suffix}"
            path = pathlib.Path(root) / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(coloured(pixels), kind, size))
            rows.append((name, label, coloured(pixels)))
        for label in range(10):
            (pathlib.Path(root) / split / f"class{label}").mkdir(exist_ok=True)
        listed[split] = sorted(rows, key=lambda row: row[0])
    return listed


def rewrite(root, split, name, kind, size=None):
    """Replaces one file of `write_folders` by the same image in another form."""
    path = pathlib.Path(root) / split / name
    pixels = np.asarray(Image.open(path).convert("RGB"))
    path.write_bytes(encoded(pixels, kind, size))
