"""The 5-layer CNN of width c (Nakkiran et al., 2020, arXiv:1912.02292), whose width is varied to see double descent.

Images [B, H, W, C] -> four 3x3 convolutions of c, 2c, 4c and 8c channels with bias and ReLU, and pooling -> linear
logits [B, K]. Of images with three channels it has 378 c^2 + (42 + 8 K) c + K parameters.

    pooling="max"      max pools of 2 behind the second, third and fourth convolution, then the maximum over what is
                       left, which is the published pool of 4 at 32 x 32 pixels; H, W >= 8
    pooling="average"  average pools of 2 behind the second and third, then the mean over what is left; H, W >= 4
"""

import sonnet as snt

from heldout.models import initialisation as initialisations
from heldout.models import layers, sequential, widths
from zoo import errors

_POOLS: dict[str, tuple[sequential.Layer | None, ...]] = {
    "max": (None, layers.MaxPool(2, 2), layers.MaxPool(2, 2), layers.MaxPool(2, 2), layers.GlobalMaxPool()),
    "average": (None, layers.AveragePool(2, 2), layers.AveragePool(2, 2), None, layers.GlobalAveragePool()),
}
POOLINGS = tuple(_POOLS)


def conv5(
    num_classes: int,
    width: int = 64,
    pooling: str = "max",
    batch_norm: bool = False,
    initialisation: str = "default",
) -> sequential.SequentialClassifier:
    """The 5-layer CNN.

    Args:
        num_classes: number of logits K.
        width: c, >= 1.
        pooling: "max" or "average", see above.
        batch_norm: batch normalisation in the place of the biases of the convolutions: 378 c^2 + (57 + 8 K) c + K
            parameters.
        initialisation: one of `initialisation.NAMES`.

    Raises:
        InvalidValueError: a setting lies outside these.
    """
    widths.check(width)
    if pooling not in POOLINGS:
        raise errors.InvalidValueError(f"pooling {pooling!r}: expected one of {', '.join(POOLINGS)}")
    initial = initialisations.of(initialisation, batch_norm=batch_norm)
    *pools, last_pool = _POOLS[pooling]
    stack: list[sequential.Layer] = []
    for factor, pool in zip((1, 2, 4, 8), pools, strict=True):
        stack += widths.convolution_stack(factor * width, initial.weights, with_batch_norm=batch_norm)
        stack += [] if pool is None else [pool]
    assert last_pool is not None
    stack += [last_pool, snt.Linear(num_classes, w_init=initial.logits)]
    return sequential.SequentialClassifier(stack, name="conv5")
