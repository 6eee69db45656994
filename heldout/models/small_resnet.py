"""ResNet-18 and ResNet-34 of width k for small images (He et al., 2016, arXiv:1512.03385), without and with batch norm.

Images [B, H, W, C] -> 3x3 convolution with k channels, ReLU -> four stages of blocks with k, 2k, 4k and 8k channels,
the first block of each stage but the first with stride 2 -> mean over the image -> linear logits [B, K]. A block adds
two 3x3 convolutions, with a ReLU between them, to its shortcut and applies ReLU; where the shape changes, the shortcut
is a 1x1 convolution without bias. Published width: 64. Parameters, for images with three channels:

    ResNet-18   2724 k^2 + ( 88 + 8 K) k + K, with batch norm 2724 k^2 + (177 + 8 K) k + K
    ResNet-34   5190 k^2 + (146 + 8 K) k + K, with batch norm 5190 k^2 + (293 + 8 K) k + K

Batch normalisation stands behind every convolution, also that of a shortcut, and in the place of its bias.
"""

import functools

import sonnet as snt
import tensorflow as tf

from heldout.models import initialisation as initialisations
from heldout.models import layers, sequential, widths

_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_FACTORS = (1, 2, 4, 8)


class BasicBlock(sequential.Block):
    """relu(shortcut + conv(relu(conv(inputs)))), [B, H, W, C] -> [B, H / stride, W / stride, num_channels].

    Args:
        num_channels: of both convolutions.
        stride: of the first one, and of the shortcut.
        projected: whether the shortcut is a 1x1 convolution; else it is the inputs.
        batch_norm: whether batch normalisation stands behind every convolution.
        initial: how weights begin.

    Attributes:
        branch: the layers of the residual branch, in order.
        shortcut: those of the shortcut; none for the inputs as they are.
    """

    def __init__(
        self,
        num_channels: int,
        stride: int,
        projected: bool,
        batch_norm: bool,
        initial: initialisations.Initialisation,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.branch: list[sequential.Layer] = [
            widths.convolution(num_channels, initial.branch, with_batch_norm=batch_norm, stride=stride),
            *([widths.batch_norm()] if batch_norm else []),
            layers.Relu(),
            widths.convolution(num_channels, initial.branch_end, with_batch_norm=batch_norm),
            *([widths.batch_norm()] if batch_norm else []),
        ]
        self.shortcut: list[sequential.Layer] = []
        if projected:
            projection = snt.Conv2D(num_channels, 1, with_bias=False, w_init=initial.weights)
            self.shortcut += [layers.Subsample(stride), projection, *([widths.batch_norm()] if batch_norm else [])]

    def __call__(self, inputs: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Maps of maps; training uses the statistics of the batch and updates the moving averages."""
        branch = sequential.apply(self.branch, inputs, is_training)
        return tf.nn.relu(branch + sequential.apply(self.shortcut, inputs, is_training))


def resnet(
    depth: int, num_classes: int, width: int = 64, batch_norm: bool = False, initialisation: str = "default"
) -> sequential.SequentialClassifier:
    """A ResNet; `resnet18` and `resnet34` are those of a known depth.

    Args:
        depth: 18 or 34, the number of layers with weights.
        num_classes: number of logits K.
        width: k, >= 1.
        batch_norm: see above.
        initialisation: one of `initialisation.NAMES`.

    Raises:
        InvalidValueError: a setting lies outside these.
    """
    widths.check(width)
    num_branches = sum(_STAGES[depth])
    initial = initialisations.of(initialisation, batch_norm=batch_norm, num_branches=num_branches)
    stack = widths.convolution_stack(width, initial.weights, with_batch_norm=batch_norm)
    for stage, (num_blocks, factor) in enumerate(zip(_STAGES[depth], _FACTORS, strict=True)):
        for number in range(num_blocks):
            changes = stage > 0 and number == 0
            stack.append(BasicBlock(factor * width, 2 if changes else 1, changes, batch_norm, initial))
    stack += [layers.GlobalAveragePool(), snt.Linear(num_classes, w_init=initial.logits)]
    return sequential.SequentialClassifier(stack, name=f"resnet{depth}")


resnet18 = functools.partial(resnet, 18)
resnet34 = functools.partial(resnet, 34)
