"""The one training loop of the project: minibatch gradient descent of R models in step.

Whether one ResNet or sixteen small networks side by side (learners.py, ensemble.py), the loop is the
same: an epoch is one compiled call that gathers each batch on the device, differentiates the sum over runs of the
mean cross-entropy over the batch, and updates the variables in place (updates.py). The sum over runs keeps their
gradients apart, because no variable is shared. Under a `tf.distribute` strategy every replica does the same with runs
of its own (replicas.py). Order, augmentation and rates come from the host as plain arrays (batches.py,
schedules.py), so the same seeds give the same training in any grouping.
"""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from heldout.experiments import training_config
from heldout.training import augmentation, batches, learners, replicas, schedules, updates

# Called after every epoch with (epoch from 0, mean loss of each run [R]); a true value ends the training there.
OnEpoch = Callable[[int, np.ndarray], bool | None]


class Loop(abc.ABC):
    """The loop over epochs; where examples come from is said by who derives from it.

    Args:
        learner: the models.
        config: optimisation.
        strategy: whose replicas hold the models of the learner, the same number each; None for a single device.
    """

    def __init__(
        self,
        learner: learners.Learner,
        config: training_config.TrainingConfig,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self._learner = learner
        self._config = config
        self._strategy = strategy or tf.distribute.get_strategy()
        self._runs_per_replica = learner.num_runs // len(replicas.local_replicas(self._strategy))
        with replicas.separate_variables(self._strategy):
            self._update_rule = updates.make(config, learner.trainable_variables)

    def train(
        self,
        runs: list[batches.RunDraw],
        initial_values: Sequence[learners.ModelValues],
        on_epoch: OnEpoch | None = None,
        *,
        num_done: int = 0,
        rule_state: Sequence[np.ndarray] = (),
    ) -> np.ndarray:
        """Trains all models of the learner from given initial values.

        Args:
            runs: the R draws, with subsets of one size.
            initial_values: the variables of each of the R models before the first step.
            on_epoch: called after each epoch.
            num_done: epochs that lie behind these values; the training goes on as if it had not been interrupted.
            rule_state: what `rule_state` gave then; empty for no epochs.

        Returns:
            Mean training loss in nats, float64 [epochs done here, R]; not finite for a run that diverged.
        """
        self._learner.assign(initial_values)
        self._update_rule.reset()
        for variable, value in zip(self._update_rule.state, rule_state, strict=bool(num_done)):
            variable.assign(value)
        num_steps = batches.steps_per_epoch(self._config, len(runs[0].subset_indices))
        losses: list[np.ndarray] = []
        for epoch in range(num_done, self._config.num_epochs):
            rates = schedules.learning_rates(self._config, num_steps, epoch).astype(self._config.dtype)
            losses.append(self._train_epoch(runs, epoch, rates))
            if on_epoch is not None and on_epoch(epoch, losses[-1]):
                break
        return np.stack(losses) if losses else np.zeros((0, len(runs)))

    def rule_state(self) -> list[np.ndarray]:
        """What the update rule keeps of the steps so far; on a single device."""
        return [variable.numpy() for variable in self._update_rule.state]

    @abc.abstractmethod
    def _train_epoch(self, runs: list[batches.RunDraw], epoch: int, rates: np.ndarray) -> np.ndarray:
        """One pass over the subsets, a step for each of the rates; the mean loss of each run, float64 [R]."""

    def _on_each(self, values: np.ndarray) -> Any:
        """The same values on every replica."""
        return replicas.distributed(self._strategy, lambda _: values)

    def _by_run(self, array: np.ndarray, axis: int) -> Any:
        """To every replica its part of an array with runs along an axis; an array of no runs stays."""
        size = self._runs_per_replica if array.shape[axis] else 0

        def part(replica: int) -> np.ndarray:
            return array[(*(slice(None),) * axis, slice(replica * size, (replica + 1) * size))]

        return replicas.distributed(self._strategy, part)

    def _gathered(self, losses: Any) -> np.ndarray:
        """The losses [R] of all replicas of this process."""
        of_replicas = self._strategy.experimental_local_results(losses)
        return np.concatenate([part.numpy() for part in of_replicas]).astype(np.float64)

    def _step(self, inputs: tf.Tensor, labels: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """One update of every model; the loss of each before it, [R]."""
        variables = list(self._learner.trainable_variables)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits = self._learner.logits(inputs, is_training=True)
            cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            losses = tf.ensure_shape(tf.reduce_mean(cross_entropy, axis=1), [self._runs_per_replica])
            total = tf.reduce_sum(losses)
        gradients = tape.gradient(total, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        ranks = self._learner.trainable_ranks
        penalised = [
            updates.regularised(self._config, gradient, variable, rank)
            for gradient, variable, rank in zip(gradients, variables, ranks, strict=True)
        ]
        self._update_rule.apply(penalised, rate)
        return losses


class Trainer(Loop):
    """Trains on examples in memory, any number of times, with one compiled epoch.

    Args:
        learner: the models.
        images: [N, H, W, C] as stored; kept on the device in this form.
        labels: integers [N].
        normalise: maps stored images to the inputs of the model.
        config: optimisation.
        strategy: as for `Loop`.
        jit_compile: whether XLA compiles the epoch, once for every subset size.
    """

    def __init__(
        self,
        learner: learners.Learner,
        images: np.ndarray,
        labels: np.ndarray,
        normalise: Callable[[tf.Tensor], tf.Tensor],
        config: training_config.TrainingConfig,
        strategy: tf.distribute.Strategy | None = None,
        *,
        jit_compile: bool = False,
    ) -> None:
        super().__init__(learner, config, strategy)
        self._image_shape = images.shape[1:]
        self._images = self._on_each(images)
        self._labels = self._on_each(labels.astype(np.int32))
        self._normalise = normalise
        self._epoch = tf.function(
            self._run_epoch_on_each, input_signature=self._signature(images.dtype), jit_compile=jit_compile or None
        )

    def num_traces(self) -> int:
        """How often the epoch has been compiled; 1 is enough for all groups and subset sizes."""
        return self._epoch.experimental_get_tracing_count()

    def _train_epoch(self, runs: list[batches.RunDraw], epoch: int, rates: np.ndarray) -> np.ndarray:
        drawn = batches.epoch_batches(self._config, runs, epoch)
        by_run = [self._by_run(array, 1) for array in (drawn.indices, drawn.shifts, drawn.flips)]
        return self._gathered(self._epoch(self._images, self._labels, *by_run, self._on_each(rates)))

    def _signature(self, image_dtype: np.dtype) -> list[tf.TensorSpec] | None:
        """One trace for all subset sizes; values spread over replicas bring their own."""
        if self._strategy.num_replicas_in_sync > 1:
            return None
        return [
            tf.TensorSpec([None, *self._image_shape], image_dtype),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, None, None], tf.int32),
            tf.TensorSpec([None, None, None, 2], tf.int32),
            tf.TensorSpec([None, None, None], tf.bool),
            tf.TensorSpec([None], self._config.dtype),
        ]

    def _run_epoch_on_each(self, *arguments: Any) -> Any:
        return self._strategy.run(self._run_epoch, arguments)

    def _run_epoch(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        indices: tf.Tensor,
        shifts: tf.Tensor,
        flips: tf.Tensor,
        rates: tf.Tensor,
    ) -> tf.Tensor:
        total = tf.zeros([self._runs_per_replica], self._config.dtype)
        for step in tf.range(tf.shape(indices)[0]):
            inputs = self._inputs(images, indices[step], shifts, flips, step)
            total += self._step(inputs, tf.gather(labels, indices[step]), rates[step])
        return total / tf.cast(tf.shape(indices)[0], total.dtype)

    def _inputs(
        self, images: tf.Tensor, indices: tf.Tensor, shifts: tf.Tensor, flips: tf.Tensor, step: tf.Tensor
    ) -> tf.Tensor:
        """The augmented, normalised images [R, B, H, W, C] of one step."""
        batch = self._normalise(tf.gather(images, tf.reshape(indices, [-1])))
        if "crop" in self._config.augmentation:
            batch = augmentation.shift(batch, tf.reshape(shifts[step], [-1, 2]), self._config.crop_padding)
        if "flip" in self._config.augmentation:
            batch = augmentation.flip(batch, tf.reshape(flips[step], [-1]))
        batch = tf.reshape(batch, tf.concat([tf.shape(indices), tf.shape(batch)[1:]], 0))
        return tf.ensure_shape(batch, [self._runs_per_replica, None, *self._image_shape])
