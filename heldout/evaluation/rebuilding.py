"""Predictions of many finished runs from their checkpoints: one module, built once, restored into again and again."""

import dataclasses

import numpy as np
import tensorflow as tf

from heldout.datasets import registry as datasets
from heldout.evaluation import judging, run_sources
from heldout.models import registry as models
from zoo import aux_arrays, checkpoints, errors, layout


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a rebuilt run says of one split, beside its record; n examples by original index.

    Attributes:
        correctness: bool [n], found now.
        margin: float16 [n], see `heldout.evaluation.margins`.
        recorded: bool [n], the correctness of the record.
        in_subset: bool [n], whether the run was trained on the example; None on the test set.
        epoch: of the checkpoint, where it says.
    """

    correctness: np.ndarray
    margin: np.ndarray
    recorded: np.ndarray
    in_subset: np.ndarray | None
    epoch: int | None


class Rebuilder:
    """Rebuilds runs of one experiment.

    Args:
        source: what the runs were made of.
        data: with the labels of the training.
    """

    def __init__(self, source: run_sources.RunSource, data: datasets.AnyDataset) -> None:
        self._source = source
        self._data = data
        dtype = tf.as_dtype(source.dtype)
        self._module = models.build(
            source.architecture, data.num_classes, data.image_shape, source.architecture_options, dtype=dtype
        )
        self._evaluator = judging.Evaluator(self._module, data, source.dtype)

    @property
    def num_traces(self) -> int:
        """How often the model has been traced; it does not grow with the number of runs."""
        return self._evaluator.num_traces

    def predict(self, run: layout.Run, split: str, epoch: int | None = None) -> Predictions:
        """Restores a run and evaluates it on one split.

        Args:
            run: with record and checkpoint.
            split: "train" (the whole original training set) or "test".
            epoch: of the checkpoint; None for the last.

        Raises:
            MissingFileError: no record, or no checkpoint.
            DamagedFileError: record or checkpoint are damaged.
            MismatchError: checkpoint and architecture, or data set and record, do not belong together.
        """
        aux = aux_arrays.read(run.aux_arrays_path)
        if (aux.num_train, aux.num_test) != (len(self._data.train), len(self._data.test)):
            raise errors.MismatchError(
                f"{run.aux_arrays_path} records {aux.num_train} training and {aux.num_test} test examples, data set "
                f"{self._source.dataset} has {len(self._data.train)} and {len(self._data.test)}; give the --dataset "
                "of the run"
            )
        prefix = layout.latest_checkpoint(run) if epoch is None else run.checkpoint_prefix(epoch)
        state = checkpoints.restore(self._module, prefix)
        judgement = self._evaluator.judge(split)
        train = split == "train"
        return Predictions(
            judgement.correct,
            judgement.margin,
            aux.train_correctness() if train else aux.test_correctness(),
            aux.subset_mask() if train else None,
            state.epoch,
        )
