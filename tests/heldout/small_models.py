"""Models that are quick to trace, for --arch=tests.heldout.small_models:NAME."""

import numpy as np
import sonnet as snt
import tensorflow as tf

from heldout.models import small_inception


class OwnModel(snt.Module):
    """A user's model, of which nothing is known but how it is called: one convolution with batch normalisation."""

    def __init__(self, num_classes, num_channels=3):
        super().__init__()
        self.maps = small_inception.ConvBNReLU(num_channels, 3)
        self.logits = snt.Linear(num_classes)

    def __call__(self, images, is_training):
        return self.logits(tf.reduce_mean(self.maps(images, is_training), [1, 2]))


class FromNumPy(OwnModel):
    """Begins with values that no seed of TensorFlow says."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.scale = tf.Variable(np.random.normal(size=num_classes).astype(np.float32))
