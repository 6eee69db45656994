"""Training on image records read from disk as they are needed, for data larger than memory.

The loop, the models and the update are those of training_loop.py. Only where examples come from differs: every run
reads its own stream of records (heldout/datasets/indexed_records.py), and the host hands each step its batch. Models of
which such data is trained take a tenth of a second and more for a step, beside which the hand-over does not count.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from heldout import subsets
from heldout.datasets import indexed_records
from heldout.experiments import training_config
from heldout.training import batches, learners, training_loop
from zoo import errors


class StreamedTrainer(training_loop.Loop):
    """Trains on image records.

    Args:
        learner: the models.
        records: with a record for every example.
        config: optimisation; its augmentation must be empty, because records bring their own.
        strategy: as for `training_loop.Loop`.
        shuffle_records: as for `IndexedRecords.train_batches`.

    Raises:
        InvalidValueError: the configuration asks for augmentation.
    """

    def __init__(
        self,
        learner: learners.Learner,
        records: indexed_records.IndexedRecords,
        config: training_config.TrainingConfig,
        strategy: tf.distribute.Strategy | None = None,
        shuffle_records: int = indexed_records.SHUFFLE_RECORDS,
    ) -> None:
        if config.augmentation:
            raise errors.InvalidValueError(
                f"--augmentation={','.join(config.augmentation)}: image records that are read from disk are augmented "
                "as their format says; leave the flag out"
            )
        super().__init__(learner, config, strategy)
        self._records, self._shuffle_records = records, shuffle_records
        self._update = tf.function(self._update_on_each, reduce_retracing=True)

    def num_traces(self) -> int:
        """How often the step has been compiled."""
        return self._update.experimental_get_tracing_count()

    def _train_epoch(self, runs: list[batches.RunDraw], epoch: int, rates: np.ndarray) -> np.ndarray:
        streams = [self._stream(run, epoch) for run in runs]
        total = np.zeros(len(runs))
        for rate in rates:
            labels, images = zip(*(next(stream) for stream in streams), strict=True)
            by_run = [self._by_run(np.stack(parts), 0) for parts in (images, labels)]
            total += self._gathered(self._update(*by_run, self._on_each(rate)))
        return total / len(rates)

    def _stream(self, run: batches.RunDraw, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Labels [B] and images [B, H, W, C] of each step of an epoch."""
        mask = np.zeros(self._records.num_train, bool)
        mask[run.subset_indices] = True
        stream = self._records.train_batches(
            mask,
            min(self._config.batch_size, len(run.subset_indices)),
            subsets.seed(run.name, "records"),
            epoch,
            self._shuffle_records,
        )
        for _, label, image in stream.as_numpy_iterator():
            yield label.astype(np.int32), image.astype(self._config.dtype)

    def _update_on_each(self, *arguments: Any) -> Any:
        return self._strategy.run(self._step, arguments)
