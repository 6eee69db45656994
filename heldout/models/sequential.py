"""A classifier that is a plain list of layers: images [B, H, W, C] -> logits [B, K].

The list is public. The batched trainer reads it and runs the same layers with a leading axis of runs; checkpoints
name the variables layers/<position>/w and layers/<position>/b.
"""

import abc
from collections.abc import Callable, Sequence

import sonnet as snt
import tensorflow as tf


class Block(snt.Module):
    """A part of a network that is called as the network is, because it acts otherwise in training."""

    @abc.abstractmethod
    def __call__(self, inputs: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Maps or features of maps or features."""


# snt.Linear, snt.Conv2D, snt.BatchNorm, a Block, or one of heldout.models.layers.
Layer = Callable[..., tf.Tensor]


def apply(layers: Sequence[Layer], inputs: tf.Tensor, is_training: bool) -> tf.Tensor:
    """What layers, one after the other, make of their inputs; without any layer, the inputs.

    Args:
        layers: in order.
        inputs: of the first one.
        is_training: passed to batch normalisation and blocks; the others act alike in training and evaluation.
    """
    outputs = inputs
    for layer in layers:
        if isinstance(layer, (snt.BatchNorm, Block)):
            outputs = layer(outputs, is_training=is_training)
        else:
            outputs = layer(outputs)
    return outputs


class SequentialClassifier(snt.Module):
    """Applies its layers one after the other.

    Attributes:
        layers: the layers in order; the last one gives the logits.
    """

    def __init__(self, layers: Sequence[Layer], name: str | None = None) -> None:
        super().__init__(name=name)
        self.layers = list(layers)

    def __call__(self, images: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Logits of images.

        Args:
            images: [B, H, W, C] floating; float32 with batch normalisation.
            is_training: True for the statistics of the batch in batch normalisation (and an update of the moving
                averages), False for the averages. Other layers act alike.

        Returns:
            [B, K] logits of the same dtype.
        """
        return apply(self.layers, images, is_training)
