"""From the stored bytes of an image to the input of a network, as TensorFlow operations on one image.

Evaluation on imagenet records: the centre square of side int(224 / 256 * short side), resized to [H, W] bilinearly
without antialiasing (pixel centres at half integers), divided by 255, less the mean, over the standard deviation.

Training on imagenet records: a window of random size, shape and place instead of the centre square, and a mirror
image in every second case. A window takes the share A of the area, uniform in [0.08, 1], and has the ratio of width to
height r, log r uniform in [log 3/4, log 4/3]: width sqrt(A r H W), height sqrt(A H W / r), both rounded. Of ten such
draws the first that fits into the image counts; the place is uniform among those that fit. Where none fits, as in very
long images, it is the largest centred window with a ratio in [3/4, 4/3].

All randomness is a function of a seed, so that images may be decoded in any order on any number of threads.

TensorFlow is imported in the functions: the registry of data sets, on the path of quick programs, needs this module.
"""

import math
from typing import TYPE_CHECKING

from heldout.datasets import record_format

if TYPE_CHECKING:
    import tensorflow as tf

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
NUM_DRAWS = 10
# Counter-based and the same on every device.
_GENERATOR = "philox"
# Decodes as other libraries do, and alike on every machine; the default depends on how TensorFlow was built.
_DCT = "INTEGER_ACCURATE"


def stored_image(content: "tf.Tensor", shape: tuple[int, int, int]) -> "tf.Tensor":
    """The image uint8 `shape` of a tiny record: plain pixels if the number of bytes says so, else JPEG or PNG.

    Args:
        content: its bytes, a scalar string.
        shape: of every image.
    """
    import tensorflow as tf  # see the module's first lines

    def decoded() -> "tf.Tensor":
        return tf.ensure_shape(tf.io.decode_jpeg(content, channels=shape[2], dct_method=_DCT), shape)

    def pixels() -> "tf.Tensor":
        return tf.reshape(tf.io.decode_raw(content, tf.uint8), shape)

    is_plain = tf.equal(tf.strings.length(content), math.prod(shape))
    return tf.ensure_shape(tf.cond(is_plain, pixels, decoded), shape)


def centre_square(content: "tf.Tensor", shape: tuple[int, int, int]) -> "tf.Tensor":
    """The centre square float32 `shape` in [0, 1] of an encoded image (a scalar string) of any size."""
    import tensorflow as tf  # see the module's first lines

    image = tf.io.decode_jpeg(content, channels=shape[2], dct_method=_DCT)  # reads PNG as well
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.maximum(tf.minimum(height, width) * 7 // 8, 1)
    # As the published networks were evaluated, halves are rounded up.
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    return _resized(image[top : top + side, left : left + side], shape)


def random_crop(content: "tf.Tensor", shape: tuple[int, int, int], seed: "tf.Tensor") -> "tf.Tensor":
    """A random window, mirrored in every second case, as float32 `shape` in [0, 1].

    Args:
        content: an encoded image of any size, a scalar string.
        shape: of the result.
        seed: int64 [2]; equal seeds give equal results.
    """
    import tensorflow as tf  # see the module's first lines

    # Drawn once: many small operations cost as much as a decoder.
    draws = _draws(seed)

    def window_of_jpeg() -> "tf.Tensor":
        # Decodes no more than the window.
        size = tf.io.extract_jpeg_shape(content)
        window = _window(size[0], size[1], draws)
        return tf.io.decode_and_crop_jpeg(content, window, channels=shape[2], dct_method=_DCT)

    def window_of_other() -> "tf.Tensor":
        image = tf.io.decode_jpeg(content, channels=shape[2])
        top, left, height, width = tf.unstack(_window(tf.shape(image)[0], tf.shape(image)[1], draws))
        return image[top : top + height, left : left + width]

    image = _resized(tf.cond(tf.io.is_jpeg(content), window_of_jpeg, window_of_other), shape)
    return tf.cond(draws[-1] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)


def random_window(height: "tf.Tensor", width: "tf.Tensor", seed: "tf.Tensor") -> "tf.Tensor":
    """A window of an image of height x width: int32 (top, left, window height, window width).

    Args:
        height: of the image, an int32 scalar.
        width: likewise.
        seed: int64 [2].
    """
    return _window(height, width, _draws(seed))


def _window(height: "tf.Tensor", width: "tf.Tensor", all_draws: "tf.Tensor") -> "tf.Tensor":
    import tensorflow as tf  # see the module's first lines

    draws = tf.reshape(all_draws[:-1], [NUM_DRAWS, 4])
    area = AREA[0] + draws[:, 0] * (AREA[1] - AREA[0])
    log_aspect = math.log(ASPECT[0]) + draws[:, 1] * (math.log(ASPECT[1]) - math.log(ASPECT[0]))
    pixels = area * tf.cast(height, tf.float32) * tf.cast(width, tf.float32)
    heights = tf.cast(tf.round(tf.sqrt(pixels * tf.exp(-log_aspect))), tf.int32)
    widths = tf.cast(tf.round(tf.sqrt(pixels * tf.exp(log_aspect))), tf.int32)
    fits = (heights > 0) & (widths > 0) & (heights <= height) & (widths <= width)
    first = tf.argmax(tf.cast(fits, tf.int32))

    def drawn() -> "tf.Tensor":
        rows, columns = height - heights[first] + 1, width - widths[first] + 1
        return tf.stack(
            [_place(draws[first, 2], rows), _place(draws[first, 3], columns), heights[first], widths[first]]
        )

    return tf.cond(fits[first], drawn, lambda: _largest_window(height, width))


def random_flip(seed: "tf.Tensor") -> "tf.Tensor":
    """True in every second case: a bool scalar, independent of `random_window` of the same seed."""
    return _draws(seed)[-1] < 0.5


def _draws(seed: "tf.Tensor") -> "tf.Tensor":
    """All draws of one image, uniform in [0, 1): four for each try of a window, and one for its mirror image."""
    import tensorflow as tf  # see the module's first lines

    return tf.random.stateless_uniform([4 * NUM_DRAWS + 1], seed, alg=_GENERATOR)


def normalised(image: "tf.Tensor", known: record_format.Format) -> "tf.Tensor":
    """(image - mean) / std per channel where the format has them; the image is float32 [..., C] in [0, 1]."""
    import tensorflow as tf  # see the module's first lines

    if known.mean is None or known.std is None:
        return image
    return (image - tf.constant(known.mean, tf.float32)) / tf.constant(known.std, tf.float32)


def _resized(image: "tf.Tensor", shape: tuple[int, int, int]) -> "tf.Tensor":
    import tensorflow as tf  # see the module's first lines

    return tf.ensure_shape(tf.image.resize(image, shape[:2], method="bilinear", antialias=False) / 255.0, shape)


def _place(draw: "tf.Tensor", count: "tf.Tensor") -> "tf.Tensor":
    """0..count-1 from a uniform draw in [0, 1)."""
    import tensorflow as tf  # see the module's first lines

    return tf.minimum(tf.cast(draw * tf.cast(count, tf.float32), tf.int32), count - 1)


def _largest_window(height: "tf.Tensor", width: "tf.Tensor") -> "tf.Tensor":
    """The largest centred window whose ratio of width to height lies in `ASPECT`."""
    import tensorflow as tf  # see the module's first lines

    longest_width = tf.cast(tf.round(tf.cast(height, tf.float32) * ASPECT[1]), tf.int32)
    longest_height = tf.cast(tf.round(tf.cast(width, tf.float32) / ASPECT[0]), tf.int32)
    rows, columns = tf.minimum(height, longest_height), tf.minimum(width, longest_width)
    return tf.stack([(height - rows) // 2, (width - columns) // 2, rows, columns])
