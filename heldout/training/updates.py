"""What a step does to the variables, given their gradients: momentum, or Adam.

momentum   v <- momentum v + g;  w <- w - rate v, or w - rate (g + momentum v) after Nesterov
adam       m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  w <- w - rate c m / (root of v + e)
           with c = sqrt(1 - b2^t) / (1 - b1^t) at step t from 1 (Kingma & Ba 2015, section 2, in its second order)

with g the gradient of the loss plus, for variables of rank 2 or more, weight_decay w + l1 sign(w).
"""

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from heldout.experiments import training_config


class Update(Protocol):
    """One rule, with the state that it keeps of the steps so far."""

    # In the order in which `restore` takes them: what must be stored for a training to go on as if it had not ended.
    state: list[tf.Variable]

    def reset(self) -> None:
        """Forgets all steps."""

    def apply(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        """One step along the gradients, one for each variable."""


def make(config: training_config.TrainingConfig, variables: Sequence[tf.Variable]) -> Update:
    """The rule of a configuration; to be called where variables of the training are made.

    Args:
        config: optimisation.
        variables: what is trained, in order.
    """
    return Adam(config, variables) if config.optimizer == "adam" else Momentum(config, variables)


def regularised(
    config: training_config.TrainingConfig, gradient: tf.Tensor, variable: tf.Variable, rank: int
) -> tf.Tensor:
    """The gradient of the loss with that of the penalties on weights and filters.

    Args:
        config: optimisation.
        gradient: of the loss.
        variable: what it is of.
        rank: of the variable within one model.
    """
    if rank < 2:
        return gradient
    if config.weight_decay:
        gradient += tf.constant(config.weight_decay, gradient.dtype) * variable
    if config.l1:
        gradient += tf.constant(config.l1, gradient.dtype) * tf.sign(variable)
    return gradient


def _zeros(variables: Sequence[tf.Variable]) -> list[tf.Variable]:
    return [tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False) for variable in variables]


class Momentum:
    """Gradient descent with momentum."""

    def __init__(self, config: training_config.TrainingConfig, variables: Sequence[tf.Variable]) -> None:
        self._config, self._variables = config, variables
        self.state = _zeros(variables)

    def reset(self) -> None:
        """See `Update`."""
        for velocity in self.state:
            velocity.assign(tf.zeros(velocity.shape, velocity.dtype))

    def apply(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        """See `Update`."""
        for variable, velocity, gradient in zip(self._variables, self.state, gradients, strict=True):
            # One fused pass over the memory of the weights, which is what a small model's step waits for.
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle,
                accum=velocity.handle,
                lr=rate,
                grad=gradient,
                momentum=tf.constant(self._config.momentum, gradient.dtype),
                use_nesterov=self._config.nesterov,
            )


class Adam:
    """Adam; its state is the number of steps, then the first and the second moments."""

    def __init__(self, config: training_config.TrainingConfig, variables: Sequence[tf.Variable]) -> None:
        self._config, self._variables = config, variables
        self._num_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._first, self._second = _zeros(variables), _zeros(variables)
        self.state = [self._num_steps, *self._first, *self._second]

    def reset(self) -> None:
        """See `Update`."""
        for variable in self.state:
            variable.assign(tf.zeros(variable.shape, variable.dtype))

    def apply(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        """See `Update`."""
        config = self._config
        self._num_steps.assign_add(1)
        betas = [tf.constant(beta, rate.dtype) for beta in (config.adam_beta1, config.adam_beta2)]
        powers = [beta ** tf.cast(self._num_steps, rate.dtype) for beta in betas]
        for variable, first, second, gradient in zip(
            self._variables, self._first, self._second, gradients, strict=True
        ):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=powers[0],
                beta2_power=powers[1],
                lr=rate,
                beta1=betas[0],
                beta2=betas[1],
                epsilon=tf.constant(config.adam_epsilon, rate.dtype),
                grad=gradient,
            )
