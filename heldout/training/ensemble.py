"""Many models trained as one: every variable carries a leading run axis.

R models of one architecture are one computation; ensemble_rules.py says how each part of it is applied to all
of them.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from heldout.training import ensemble_rules, learners
from zoo import checkpoints


class EnsembleLearner:
    """R models with stacked variables; a `learners.Learner`.

    Args:
        template: a built model that gives layers and shapes; its own variables are not touched.
        num_runs: R.
        compute_dtype: of products and activations in training; None for that of the images.
    """

    def __init__(self, template: tf.Module, num_runs: int, compute_dtype: tf.DType | None = None) -> None:
        self.num_runs = num_runs
        self._compute_dtype = compute_dtype
        self._template = template
        members = checkpoints.model_variables(template)
        self._stacked = {
            key: tf.Variable(tf.zeros([num_runs, *variable.shape], variable.dtype)) for key, variable in members.items()
        }
        self._by_member = {variable.ref(): self._stacked[key] for key, variable in members.items()}
        members_trained = [variable.ref() for variable in template.trainable_variables]
        self.trainable_variables: list[tf.Variable] = [self._by_member[reference] for reference in members_trained]
        self.trainable_ranks: list[int] = [variable.shape.rank - 1 for variable in self.trainable_variables]

    def logits(self, images: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Logits [R, B, K] of images [R, B, H, W, C]."""
        dtype = self._compute_dtype or images.dtype
        context = ensemble_rules.Context(self.num_runs, self._stack_of, is_training, dtype)
        logits = ensemble_rules.apply(self._template, context, tf.cast(images, dtype))
        return tf.cast(logits, images.dtype)

    def _stack_of(self, member: tf.Variable) -> tf.Variable:
        return self._by_member[member.ref()]

    def assign(self, values: Sequence[learners.ModelValues]) -> None:
        """Sets all variables of all R models."""
        for key, stacked in self._stacked.items():
            stacked.assign(np.stack([of_run[key] for of_run in values]))

    def copy_to(self, run: int, module: tf.Module) -> None:
        """Copies the variables of model `run` into a module of the same architecture."""
        learners.assign(module, {key: stacked[run].numpy() for key, stacked in self._stacked.items()})
