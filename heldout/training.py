"""The one training loop of the project: minibatch gradient descent of R models in step.

Whether one ResNet or sixteen small networks side by side (heldout/learners.py, heldout/ensemble.py), the loop is the
same: an epoch is one compiled call that gathers each batch on the device, differentiates the sum over runs of the
mean cross-entropy over the batch, and applies momentum in place. The sum over runs keeps their gradients apart,
because no variable is shared. Order, augmentation and rates come from the host as plain arrays (heldout/batches.py,
heldout/schedules.py), so the same seeds give the same training in any grouping.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from heldout import augmentation, batches, learners, schedules, training_config

# Called after every epoch with (epoch from 0, mean loss of each run [R]); a true value ends the training there.
OnEpoch = Callable[[int, np.ndarray], bool | None]


class Trainer:
    """Trains the models of one learner, any number of times, with one compiled epoch.

    Args:
        learner: the models.
        images: [N, H, W, C] as stored; kept on the device in this form.
        labels: integers [N].
        normalise: maps stored images to the inputs of the model.
        config: optimisation.
    """

    def __init__(
        self,
        learner: learners.Learner,
        images: np.ndarray,
        labels: np.ndarray,
        normalise: Callable[[tf.Tensor], tf.Tensor],
        config: training_config.TrainingConfig,
    ) -> None:
        self._learner = learner
        self._images = tf.constant(images)
        self._labels = tf.constant(labels, tf.int32)
        self._normalise = normalise
        self._config = config
        self._velocities = [
            tf.Variable(tf.zeros_like(variable), trainable=False) for variable in learner.trainable_variables
        ]
        integers, rates = tf.TensorSpec([None, None, None], tf.int32), tf.TensorSpec([None], config.dtype)
        shifts, flips = tf.TensorSpec([None, None, None, 2], tf.int32), tf.TensorSpec([None, None, None], tf.bool)
        self._epoch = tf.function(self._run_epoch, input_signature=[integers, shifts, flips, rates])

    def train(
        self,
        runs: list[batches.RunDraw],
        initial_values: Sequence[learners.ModelValues],
        on_epoch: OnEpoch | None = None,
    ) -> np.ndarray:
        """Trains all models of the learner from given initial values.

        Args:
            runs: the R draws, with subsets of one size.
            initial_values: the variables of each of the R models before the first step.
            on_epoch: called after each epoch.

        Returns:
            Mean training loss in nats, float64 [epochs done, R]; not finite for a run that diverged.
        """
        self._learner.assign(initial_values)
        for velocity in self._velocities:
            velocity.assign(tf.zeros_like(velocity))
        num_steps = batches.steps_per_epoch(self._config, len(runs[0].subset_indices))
        losses: list[np.ndarray] = []
        for epoch in range(self._config.num_epochs):
            drawn = batches.epoch_batches(self._config, runs, epoch)
            rates = tf.constant(schedules.learning_rates(self._config, num_steps, epoch), self._config.dtype)
            loss = self._epoch(drawn.indices, drawn.shifts, drawn.flips, rates)
            losses.append(loss.numpy().astype(np.float64))
            if on_epoch is not None and on_epoch(epoch, losses[-1]):
                break
        return np.stack(losses)

    def num_traces(self) -> int:
        """How often the epoch has been compiled; 1 is enough for all groups and subset sizes."""
        return self._epoch.experimental_get_tracing_count()

    def _run_epoch(self, indices: tf.Tensor, shifts: tf.Tensor, flips: tf.Tensor, rates: tf.Tensor) -> tf.Tensor:
        total = tf.zeros([self._learner.num_runs], self._config.dtype)
        for step in tf.range(tf.shape(indices)[0]):
            inputs = self._inputs(indices[step], shifts, flips, step)
            total += self._step(inputs, tf.gather(self._labels, indices[step]), rates[step])
        return total / tf.cast(tf.shape(indices)[0], total.dtype)

    def _inputs(self, indices: tf.Tensor, shifts: tf.Tensor, flips: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """The augmented, normalised images [R, B, H, W, C] of one step."""
        images = self._normalise(tf.gather(self._images, tf.reshape(indices, [-1])))
        if "crop" in self._config.augmentation:
            images = augmentation.shift(images, tf.reshape(shifts[step], [-1, 2]), self._config.crop_padding)
        if "flip" in self._config.augmentation:
            images = augmentation.flip(images, tf.reshape(flips[step], [-1]))
        images = tf.reshape(images, tf.concat([tf.shape(indices), tf.shape(images)[1:]], 0))
        return tf.ensure_shape(images, [self._learner.num_runs, None, *self._images.shape[1:]])

    def _step(self, inputs: tf.Tensor, labels: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """One update of every model; the loss of each before it, [R]."""
        variables = list(self._learner.trainable_variables)
        with tf.GradientTape() as tape:
            logits = self._learner.logits(inputs, is_training=True)
            cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            losses = tf.ensure_shape(tf.reduce_mean(cross_entropy, axis=1), [self._learner.num_runs])
            total = tf.reduce_sum(losses)
        gradients = tape.gradient(total, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        ranks = self._learner.trainable_ranks
        for variable, velocity, gradient, rank in zip(variables, self._velocities, gradients, ranks, strict=True):
            if self._config.weight_decay and rank >= 2:
                gradient += tf.constant(self._config.weight_decay, gradient.dtype) * variable
            # One fused pass over the memory of the weights, which is what a small model's step waits for.
            tf.raw_ops.ResourceApplyMomentum(
                var=variable.handle,
                accum=velocity.handle,
                lr=rate,
                grad=gradient,
                momentum=tf.constant(self._config.momentum, gradient.dtype),
                use_nesterov=self._config.nesterov,
            )
        return losses
