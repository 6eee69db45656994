"""The multilayer perceptron: sizes and settings."""

import pytest
import tensorflow as tf

from heldout.models import layers, mlp, registry
from zoo import errors


def test_default_sizes_on_mnist():
    model = registry.build("mlp", 10, (28, 28, 1))
    shapes = [layer.w.shape.as_list() for layer in model.layers if hasattr(layer, "w")]
    assert shapes == [[784, 512], [512, 256], [256, 10]]


def test_sizes_from_options_and_no_activation_after_the_logits():
    model = registry.build("mlp", 3, (2, 2, 1), {"hidden_sizes": [5]})
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Flatten", "Linear", "Relu", "Linear"]
    assert model(tf.zeros([7, 2, 2, 1]), is_training=True).shape == (7, 3)


def test_no_hidden_layer_is_a_linear_classifier():
    model = mlp.mlp(3, hidden_sizes=())
    assert isinstance(model.layers[0], layers.Flatten)
    assert len(model.layers) == 2


@pytest.mark.parametrize("hidden_sizes", ["512", 512, [0], [1.5], [True], [None]])
def test_bad_sizes(hidden_sizes):
    with pytest.raises(errors.InvalidValueError, match="hidden_sizes"):
        mlp.mlp(3, hidden_sizes=hidden_sizes)
