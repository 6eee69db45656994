"""The LeNet: shapes of its variables and the smallest image it takes."""

import pytest

from heldout.models import registry
from zoo import errors


def test_shapes_on_mnist():
    model = registry.build("lenet", 10, (28, 28, 1))
    shapes = [layer.w.shape.as_list() for layer in model.layers if hasattr(layer, "w")]
    assert shapes == [[5, 5, 1, 6], [5, 5, 6, 16], [7 * 7 * 16, 120], [120, 84], [84, 10]]


def test_the_smallest_image():
    assert registry.build("lenet", 10, (4, 4, 3)) is not None
    with pytest.raises(errors.InvalidValueError, match="larger images"):
        registry.build("lenet", 10, (3, 4, 3))
