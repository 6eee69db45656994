"""Multilayer perceptron: flattened image -> hidden layers with ReLU -> logits.

Images [B, H, W, C] -> logits [B, K]. With the default sizes on MNIST the widths are 784-512-256-10.
"""

from collections.abc import Sequence

import sonnet as snt

from heldout.models import layers, sequential
from zoo import errors


def mlp(num_classes: int, hidden_sizes: Sequence[int] = (512, 256)) -> sequential.SequentialClassifier:
    """A multilayer perceptron with Sonnet's default initialisation.

    Args:
        num_classes: number of logits K.
        hidden_sizes: width of each hidden layer, all >= 1; empty for a linear classifier.

    Raises:
        InvalidValueError: a width is not a whole number above 0.
    """
    if isinstance(hidden_sizes, str) or not isinstance(hidden_sizes, Sequence):
        raise errors.InvalidValueError(f"hidden_sizes {hidden_sizes!r}: expected a list of widths such as [512, 256]")
    if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in hidden_sizes):
        raise errors.InvalidValueError(f"hidden_sizes {list(hidden_sizes)}: every width must be a whole number above 0")
    stack: list[sequential.Layer] = [layers.Flatten()]
    for size in hidden_sizes:
        stack += [snt.Linear(size), layers.Relu()]
    stack.append(snt.Linear(num_classes))
    return sequential.SequentialClassifier(stack, name="mlp")
