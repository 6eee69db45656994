"""SmallInception, the architecture of the published CIFAR zoos (Feldman & Zhang 2020; after Zhang et al., 2017).

Images [B, H, W, C] -> conv1 (96 channels, 3x3) -> three stages of two-branch blocks -> global max pool -> logits
[B, K]. Every convolution is followed by batch normalisation and ReLU. The attribute names of the modules are the keys
of the published checkpoints: renaming one breaks reading them.
"""

from collections.abc import Sequence

import sonnet as snt
import tensorflow as tf

from heldout.models import widths

_PUBLISHED_WIDTH = 96
_STAGE1 = ((32, 32), (32, 48))
_STAGE2 = ((112, 48), (96, 64), (80, 80), (48, 96))
_STAGE3 = ((176, 160), (176, 160))


class ConvBNReLU(snt.Module):
    """Convolution without bias and with SAME padding, batch normalisation, ReLU: [B, H, W, C] -> [B, H', W', C']."""

    def __init__(self, num_channels: int, kernel_size: int, stride: int = 1, name: str | None = None) -> None:
        super().__init__(name=name)
        self.conv = snt.Conv2D(num_channels, kernel_size, stride=stride, with_bias=False, padding="SAME")
        self.bn = snt.BatchNorm(create_scale=True, create_offset=True)

    def __call__(self, inputs: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Applies the three; training uses batch statistics and updates the moving averages."""
        return tf.nn.relu(self.bn(self.conv(inputs), is_training=is_training))


class InceptionBlock(snt.Module):
    """A 1x1 and a 3x3 branch side by side, concatenated in this order along the channels."""

    def __init__(self, num_channels_1x1: int, num_channels_3x3: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.conv1x1 = ConvBNReLU(num_channels_1x1, 1)
        self.conv3x3 = ConvBNReLU(num_channels_3x3, 3)

    def __call__(self, inputs: tf.Tensor, is_training: bool) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, num_channels_1x1 + num_channels_3x3]."""
        return tf.concat([self.conv1x1(inputs, is_training), self.conv3x3(inputs, is_training)], axis=-1)


class Stage(snt.Module):
    """Inception blocks in sequence, then a 3x3 convolution of stride 2 where `downsample` channels are asked for."""

    def __init__(self, widths: Sequence[tuple[int, int]], downsample: int | None, name: str | None = None) -> None:
        super().__init__(name=name)
        self._body = [InceptionBlock(*width) for width in widths]
        self._downsample = None if downsample is None else ConvBNReLU(downsample, 3, stride=2)

    def __call__(self, inputs: tf.Tensor, is_training: bool) -> tf.Tensor:
        """[B, H, W, C] -> features, of half the height and width (rounded up) with downsampling."""
        outputs = inputs
        for part in self.parts:
            outputs = part(outputs, is_training)
        return outputs

    @property
    def parts(self) -> "list[InceptionBlock | ConvBNReLU]":
        """The blocks in order, and the convolution that downsamples."""
        return [*self._body, *([] if self._downsample is None else [self._downsample])]


def pool_large(maps: tf.Tensor) -> tf.Tensor:
    """The max pool behind conv1 of the variant for large images."""
    return tf.nn.max_pool2d(maps, ksize=3, strides=2, padding="SAME")


class SmallInception(snt.Module):
    """The published classifier.

    Args:
        num_classes: number of logits K.
        large_inputs: the variant for images of about 224 pixels: conv1 is 7x7 with stride 2, followed by a 3x3 max
            pool of stride 2. The variables have the same names; only the shape of conv1's kernel differs.
        width: channels of conv1; all others in proportion, rounded, at least 1. The published one is 96.

    Raises:
        InvalidValueError: the width is no whole number above 0.

    Attributes:
        large_inputs: see the argument.
    """

    def __init__(
        self,
        num_classes: int,
        large_inputs: bool = False,
        width: int = _PUBLISHED_WIDTH,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        widths.check(width)
        self.large_inputs = large_inputs
        self.conv1 = ConvBNReLU(width, 7, stride=2) if large_inputs else ConvBNReLU(width, 3)
        self.stage1 = Stage(_scaled(_STAGE1, width), downsample=_scaled_number(160, width))
        self.stage2 = Stage(_scaled(_STAGE2, width), downsample=_scaled_number(240, width))
        self.stage3 = Stage(_scaled(_STAGE3, width), downsample=None)
        self._pred = snt.Linear(num_classes)

    def __call__(self, images: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Logits of images.

        Args:
            images: [B, H, W, C] float32.
            is_training: True for batch statistics (and an update of the moving averages), False for the averages.

        Returns:
            [B, K] logits.
        """
        outputs = self.conv1(images, is_training)
        if self.large_inputs:
            outputs = pool_large(outputs)
        for stage in (self.stage1, self.stage2, self.stage3):
            outputs = stage(outputs, is_training)
        return self._pred(tf.reduce_max(outputs, axis=[1, 2]))

    @property
    def prediction(self) -> snt.Linear:
        """The last layer, from pooled features to logits."""
        return self._pred


def _scaled_number(num_channels: int, width: int) -> int:
    return max(1, round(num_channels * width / _PUBLISHED_WIDTH))


def _scaled(blocks: Sequence[tuple[int, int]], width: int) -> list[tuple[int, int]]:
    return [(_scaled_number(first, width), _scaled_number(second, width)) for first, second in blocks]
