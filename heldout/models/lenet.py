"""A LeNet-5 (LeCun et al., 1998) in its present-day form: ReLU, max pooling, SAME padding.

Images [B, H, W, C] with H, W >= 4 -> conv 5x5x6 -> pool 2 -> conv 5x5x16 -> pool 2 -> 120 -> 84 -> logits [B, K].
"""

import sonnet as snt

from heldout.models import layers, sequential


def lenet(num_classes: int) -> sequential.SequentialClassifier:
    """A LeNet with Sonnet's default initialisation.

    Args:
        num_classes: number of logits K.
    """
    stack: list[sequential.Layer] = []
    for num_channels in (6, 16):
        stack += [
            snt.Conv2D(num_channels, kernel_shape=5, padding="SAME"),
            layers.Relu(),
            layers.MaxPool(window=2, stride=2),
        ]
    stack.append(layers.Flatten())
    for size in (120, 84):
        stack += [snt.Linear(size), layers.Relu()]
    stack.append(snt.Linear(num_classes))
    return sequential.SequentialClassifier(stack, name="lenet")
