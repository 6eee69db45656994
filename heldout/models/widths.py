"""What convolutional networks that come in every width are made of: 3x3 convolutions, and a check of the width."""

import sonnet as snt

from heldout.models import layers, sequential
from zoo import errors


def check(width: int) -> None:
    """Refuses what is no width.

    Raises:
        InvalidValueError: it is not a whole number above 0.
    """
    check_number("width", width)


def check_number(name: str, value: int) -> None:
    """Refuses an option that must be a whole number above 0.

    Raises:
        InvalidValueError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise errors.InvalidValueError(f"{name} {value!r}: expected a whole number above 0")


def batch_norm() -> snt.BatchNorm:
    """Sonnet's batch normalisation with its defaults: epsilon 1e-5, moving averages with a decay of 0.999."""
    return snt.BatchNorm(create_scale=True, create_offset=True)


def convolution(
    num_channels: int,
    initialiser: snt.initializers.Initializer | None,
    *,
    with_batch_norm: bool,
    kernel_size: int = 3,
    stride: int = 1,
) -> snt.Conv2D:
    """A convolution with SAME padding; the offset of a batch normalisation behind it takes the place of its bias."""
    return snt.Conv2D(
        num_channels, kernel_size, stride=stride, with_bias=not with_batch_norm, w_init=initialiser, padding="SAME"
    )


def convolution_stack(
    num_channels: int, initialiser: snt.initializers.Initializer | None, *, with_batch_norm: bool
) -> list[sequential.Layer]:
    """A 3x3 convolution, batch normalisation if it is asked for, and ReLU."""
    first = convolution(num_channels, initialiser, with_batch_norm=with_batch_norm)
    return [first, *([batch_norm()] if with_batch_norm else []), layers.Relu()]
