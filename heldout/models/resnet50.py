"""ResNet-50 (He et al., 2016; stride in the 3x3 convolution), the architecture of the published ImageNet zoo.

Images [B, H, W, C] -> logits [B, K]. The published checkpoints were written from Sonnet's own network, whose attribute
names are therefore their keys; it is used as it stands.
"""

import sonnet as snt


def resnet50(num_classes: int) -> snt.Module:
    """Sonnet's ResNet-50 (first version), called as module(images, is_training).

    Args:
        num_classes: number of logits K.
    """
    return snt.nets.ResNet50(num_classes)
