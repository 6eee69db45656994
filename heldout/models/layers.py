"""Layers without parameters, as plain values.

A sequential model lists them beside Sonnet's Linear and Conv2D. They hold nothing but their settings, so that code
which runs many models at once can read the list and apply each layer in its own way.
"""

import dataclasses

import tensorflow as tf

from zoo import errors


@dataclasses.dataclass(frozen=True)
class Flatten:
    """[B, ...] -> [B, product of the rest], in row-major order."""

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Flattens all axes but the first, whose size may be unknown; the others must be known."""
        return tf.reshape(inputs, [-1, inputs.shape[1:].num_elements()])


@dataclasses.dataclass(frozen=True)
class Relu:
    """max(x, 0), element by element."""

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Applies the rectifier; shape and dtype stay."""
        return tf.nn.relu(inputs)


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """Maximum over square windows of images [B, H, W, C].

    Attributes:
        window: side of the window in pixels, >= 1.
        stride: step between windows in pixels, >= 1.
        padding: "VALID" or "SAME".

    Raises:
        InvalidValueError: a setting lies outside these.
    """

    window: int
    stride: int
    padding: str = "VALID"

    def __post_init__(self) -> None:
        if self.window < 1 or self.stride < 1 or self.padding not in ("VALID", "SAME"):
            raise errors.InvalidValueError(
                f"{self}: window and stride must be at least 1 and padding 'VALID' or 'SAME'; change the model"
            )

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Pools images.

        Raises:
            InvalidValueError: no window fits into the image.
        """
        height, width = inputs.shape[1:3]
        if self.padding == "VALID" and min(height, width) < self.window:
            raise errors.InvalidValueError(
                f"max pooling with a {self.window}x{self.window} window: the image has only {height}x{width} pixels "
                "left at this layer; use larger images or another architecture"
            )
        return tf.nn.max_pool2d(inputs, self.window, self.stride, self.padding)
