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
class Pool:
    """Square windows that are moved over images [B, H, W, C]; see `MaxPool` and `AveragePool`.

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

    def _check_fits(self, inputs: tf.Tensor, kind: str) -> None:
        height, width = inputs.shape[1:3]
        if self.padding == "VALID" and min(height, width) < self.window:
            raise errors.InvalidValueError(
                f"{kind} pooling with a {self.window}x{self.window} window: the image has only {height}x{width} pixels "
                "left at this layer; use larger images or another architecture"
            )


@dataclasses.dataclass(frozen=True)
class MaxPool(Pool):
    """Maximum over each window."""

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Pools images.

        Raises:
            InvalidValueError: no window fits into the image.
        """
        self._check_fits(inputs, "max")
        return tf.nn.max_pool2d(inputs, self.window, self.stride, self.padding)


@dataclasses.dataclass(frozen=True)
class AveragePool(Pool):
    """Mean over each window; padding does not count."""

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Pools images.

        Raises:
            InvalidValueError: no window fits into the image.
        """
        self._check_fits(inputs, "average")
        return tf.nn.avg_pool2d(inputs, self.window, self.stride, self.padding)


@dataclasses.dataclass(frozen=True)
class Subsample:
    """Every `stride`-th row and column of images, from the first: [B, H, W, C] -> [B, H / stride, W / stride, C].

    A 1x1 convolution behind it is one with that stride. Written so, its kernel can be differentiated: TensorFlow
    2.21 on CPUs corrupts memory over a strided 1x1 kernel of up to 12 channels where the batch is small.

    Attributes:
        stride: in pixels, >= 1.

    Raises:
        InvalidValueError: the stride is less.
    """

    stride: int

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise errors.InvalidValueError(f"{self}: the stride must be at least 1; change the model")

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Images of fewer pixels; sizes are rounded up."""
        return inputs[:, :: self.stride, :: self.stride]


@dataclasses.dataclass(frozen=True)
class GlobalMaxPool:
    """Maximum of each channel over the whole image, [B, H, W, C] -> [B, C]."""

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Pools images of any size."""
        return tf.reduce_max(inputs, axis=[1, 2])


@dataclasses.dataclass(frozen=True)
class GlobalAveragePool:
    """Mean of each channel over the whole image, [B, H, W, C] -> [B, C]."""

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Pools images of any size."""
        return tf.reduce_mean(inputs, axis=[1, 2])
