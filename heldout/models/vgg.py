"""VGG-11, 13, 16 and 19 of width k in their form for small images (Simonyan & Zisserman, 2015, arXiv:1409.1556).

Images [B, H, W, C] with H, W >= 16 -> five stages of 3x3 convolutions with k, 2k, 4k, 8k and 8k channels and ReLU, a
max pool of 2 behind each but the last -> maximum over what is left, a pool of 2 at 32 x 32 pixels -> linear logits
[B, K]. The hidden linear layers of the networks for ImageNet are left out, as is usual for CIFAR. Published width: 64.
"""

import functools

import sonnet as snt

from heldout.models import initialisation as initialisations
from heldout.models import layers, sequential, widths

_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_FACTORS = (1, 2, 4, 8, 8)


def vgg(
    depth: int, num_classes: int, width: int = 64, batch_norm: bool = False, initialisation: str = "default"
) -> sequential.SequentialClassifier:
    """A VGG; `vgg11` to `vgg19` are those of a known depth.

    Args:
        depth: 11, 13, 16 or 19, the number of layers with weights in the network for ImageNet.
        num_classes: number of logits K.
        width: k, >= 1.
        batch_norm: batch normalisation in the place of the biases of the convolutions.
        initialisation: one of `initialisation.NAMES`.

    Raises:
        InvalidValueError: a setting lies outside these.
    """
    widths.check(width)
    initial = initialisations.of(initialisation, batch_norm=batch_norm)
    stack: list[sequential.Layer] = []
    for number, (num_convolutions, factor) in enumerate(zip(_STAGES[depth], _FACTORS, strict=True)):
        for _ in range(num_convolutions):
            stack += widths.convolution_stack(factor * width, initial.weights, with_batch_norm=batch_norm)
        stack.append(layers.MaxPool(2, 2) if number < len(_FACTORS) - 1 else layers.GlobalMaxPool())
    stack.append(snt.Linear(num_classes, w_init=initial.logits))
    return sequential.SequentialClassifier(stack, name=f"vgg{depth}")


vgg11 = functools.partial(vgg, 11)
vgg13 = functools.partial(vgg, 13)
vgg16 = functools.partial(vgg, 16)
vgg19 = functools.partial(vgg, 19)
