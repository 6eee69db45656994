"""A classifier that is a plain list of layers: images [B, H, W, C] -> logits [B, K].

The list is public. The batched trainer reads it and runs the same layers with a leading axis of runs; checkpoints
name the variables layers/<position>/w and layers/<position>/b.
"""

from collections.abc import Callable, Sequence

import sonnet as snt
import tensorflow as tf

# snt.Linear, snt.Conv2D, or one of heldout.models.layers.
Layer = Callable[[tf.Tensor], tf.Tensor]


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
            images: [B, H, W, C] floating.
            is_training: accepted as every model here does; these layers act alike in training and evaluation.

        Returns:
            [B, K] logits of the same dtype.
        """
        del is_training
        outputs = images
        for layer in self.layers:
            outputs = layer(outputs)
        return outputs
