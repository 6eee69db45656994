"""Random shifts and flips of image batches, from draws made beforehand (batches.py)."""

import tensorflow as tf


def shift(images: tf.Tensor, offsets: tf.Tensor, padding: int) -> tf.Tensor:
    """Pads with zeros on each side and cuts a window of the old size at `offsets`.

    Args:
        images: [B, H, W, C].
        offsets: int32 [B, 2], row and column of the window's corner in [0, 2 * padding]; `padding` keeps the image.
        padding: pixels of zeros on each side.

    Returns:
        [B, H, W, C].
    """
    height, width = images.shape[1], images.shape[2]
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    rows = offsets[:, :1] + tf.range(height)[None]
    columns = offsets[:, 1:] + tf.range(width)[None]
    return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)


def flip(images: tf.Tensor, flipped: tf.Tensor) -> tf.Tensor:
    """Mirrors left and right the images [B, H, W, C] whose entry of `flipped` (bool [B]) is True."""
    return tf.where(flipped[:, None, None, None], tf.reverse(images, [2]), images)
