"""Images of a data set as PNG data URIs for a page that stands alone.

Every image becomes a CSS class with a background, so that an image that appears many times, or twice under different
indices, is embedded once, and so that nothing is fetched. Small images are drawn large by the browser with nearest
neighbour (`image-rendering: pixelated`), which keeps the file small; large ones are shrunk before they are embedded.
"""

import base64
import io

import numpy as np

from zoo import errors


def check_drawable(image_shape: tuple[int, ...], name: str) -> None:
    """Raises InvalidValueError unless images [H, W, C] have one channel (gray) or three (red, green, blue)."""
    if len(image_shape) != 3 or image_shape[2] not in (1, 3):
        raise errors.InvalidValueError(
            f"data set {name}: images have shape {list(image_shape)}, and only [height, width, 1] and "
            "[height, width, 3] can be drawn; leave --dataset out for a report without images"
        )


def to_bytes(image: np.ndarray, scale: float) -> tuple[np.ndarray, bool]:
    """One image as uint8, and whether it had to be stretched.

    Args:
        image: [H, W, C], any real dtype; image / scale is meant to lie in [0, 1].
        scale: the data set's divisor.

    Returns:
        uint8 [H, W, C], and True if values outside [0, scale] (as standardised data have) made the image be mapped
        from its own lowest and highest value instead.
    """
    values = np.asarray(image, dtype=np.float64) / float(scale)
    low, high = float(values.min()), float(values.max())
    stretched = low < 0.0 or high > 1.0
    if stretched:
        values = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    return np.rint(values * 255).astype(np.uint8), stretched


def png(pixels: np.ndarray, max_side: int) -> bytes:
    """PNG file of uint8 [H, W, C] with C 1 or 3, shrunk where a side is longer than `max_side`."""
    from PIL import Image  # heavy, and needed by reports only

    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if max(picture.size) > max_side:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


class ImageTable:
    """Collects the images of a page; identical ones share one entry."""

    def __init__(self, scale: float, max_side: int = 96):
        """Starts empty.

        Args:
            scale: the data set's divisor, which brings pixels to [0, 1].
            max_side: images are embedded at most this many pixels wide and high.
        """
        self._scale = scale
        self._max_side = max_side
        self._names: dict[bytes, str] = {}
        self.num_stretched = 0
        self.num_bytes = 0  # of all PNG files together

    def __len__(self) -> int:
        return len(self._names)

    def add(self, image: np.ndarray) -> str:
        """Embeds one image [H, W, C] unless the same is there already; returns the name of its CSS class."""
        pixels, stretched = to_bytes(image, self._scale)
        encoded = png(pixels, self._max_side)
        if encoded not in self._names:
            self._names[encoded] = f"i{len(self._names)}"
            self.num_stretched += stretched
            self.num_bytes += len(encoded)
        return self._names[encoded]

    def style_sheet(self) -> str:
        """One CSS rule per image, in the order in which they were added."""
        rules = []
        for encoded, name in self._names.items():
            text = base64.b64encode(encoded).decode("ascii")
            rules.append(f".{name}{{background-image:url(data:image/png;base64,{text})}}")
        return "\n".join(rules)
