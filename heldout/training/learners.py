"""What the training loop trains: one model, or many of one architecture side by side.

A learner holds `num_runs` models and maps images [R, B, H, W, C] to logits [R, B, K]; run r sees images[r] only.
`SingleLearner` wraps any module with `module(images, is_training)`. The batched form is in ensemble.py.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from zoo import checkpoints

# The values of every variable of one model, by its key in a checkpoint.
ModelValues = Mapping[str, np.ndarray]


class Learner(Protocol):
    """R models of one architecture, trained in step."""

    num_runs: int
    # Trained by gradient; with a leading run axis where num_runs > 1 models share a variable.
    trainable_variables: list[tf.Variable]
    # For each trainable variable, its rank within one model.
    trainable_ranks: list[int]

    def logits(self, images: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Logits [R, B, K] of images [R, B, H, W, C]."""

    def assign(self, values: Sequence[ModelValues]) -> None:
        """Sets all variables of all R models."""

    def copy_to(self, run: int, module: tf.Module) -> None:
        """Copies the variables of model `run` into a module of the same architecture."""


class SingleLearner:
    """One model: any module called as `module(images, is_training)`.

    Args:
        module: a built module; trained in place.
    """

    num_runs = 1

    def __init__(self, module: tf.Module) -> None:
        self._module = module
        self._variables = checkpoints.model_variables(module)
        self.trainable_variables: list[tf.Variable] = list(module.trainable_variables)
        self.trainable_ranks: list[int] = [variable.shape.rank for variable in self.trainable_variables]

    def logits(self, images: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Logits [1, B, K] of images [1, B, H, W, C]."""
        return self._module(images[0], is_training)[None]

    def assign(self, values: Sequence[ModelValues]) -> None:
        """Sets all variables from a sequence of one mapping."""
        assign(self._module, values[0])

    def copy_to(self, run: int, module: tf.Module) -> None:
        """Copies the variables into a module of the same architecture."""
        del run
        assign(module, read_values(self._module))


def read_values(module: tf.Module) -> dict[str, np.ndarray]:
    """The values of all variables of a module, by checkpoint key."""
    return {key: variable.numpy() for key, variable in checkpoints.model_variables(module).items()}


def assign(module: tf.Module, values: ModelValues) -> None:
    """Sets all variables of a module from `read_values` of another of the same architecture."""
    for key, variable in checkpoints.model_variables(module).items():
        variable.assign(values[key])
