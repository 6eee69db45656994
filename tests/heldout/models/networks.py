"""What tests of networks share: numbers of parameters, and values under which every variable matters."""

import numpy as np
import tensorflow as tf

from heldout.models import registry
from zoo import checkpoints


def num_parameters(architecture: str, num_classes: int, image_shape: tuple[int, int, int], **options) -> int:
    """Numbers that are trained."""
    model = registry.build(architecture, num_classes, image_shape, options)
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def randomised(architecture: str, image_shape: tuple[int, int, int], **options) -> tf.Module:
    """A float64 model of five classes whose offsets and scales are random too."""
    model = registry.build(architecture, 5, image_shape, options, dtype=tf.float64)
    random = np.random.default_rng(0)
    for key, variable in checkpoints.model_variables(model).items():
        if variable.shape.rank == 1:
            low, high = (0.5, 1.5) if key.endswith("/scale") else (-0.5, 0.5)
            variable.assign(random.uniform(low, high, variable.shape))
        else:
            fan_in = np.prod(variable.shape[:-1])
            variable.assign(random.normal(size=variable.shape) * np.sqrt(2 / fan_in))
    return model


def in_order(model: tf.Module) -> list[np.ndarray]:
    """Values of a list of layers in order, in blocks those of the branch before the shortcut, kernels before biases."""

    def place(key: str) -> tuple[int, str, int, bool]:
        words = key.split("/")
        return int(words[2]), words[3] if len(words) > 4 else "", int(words[4]) if len(words) > 4 else 0, key[-1] == "b"

    variables = checkpoints.model_variables(model)
    return [variables[key].numpy() for key in sorted(variables, key=place)]


def images(image_shape: tuple[int, int, int], count: int = 3) -> np.ndarray:
    """Uniform noise, float64."""
    return np.random.default_rng(1).uniform(size=(count, *image_shape))
