"""Rebuilds a finished run from its checkpoint and holds its predictions against what was recorded.

Architecture and data set follow from the zoo's recipe, or from the name of a published experiment, or are given. The
whole original training set is one split here: examples trained on and held out together, compared by index.
"""

import numpy as np
import tensorflow as tf

from heldout.datasets import registry as datasets
from heldout.evaluation import evaluation_results, judging, run_sources
from heldout.experiments import recipes
from heldout.models import registry as models
from zoo import aux_arrays, checkpoints, errors, layout


def evaluate(
    run: layout.Run,
    split: str,
    *,
    dataset: str | None = None,
    architecture: str | None = None,
    data_dir: str | None = None,
    epoch: int | None = None,
) -> evaluation_results.RunEvaluation:
    """Restores a run, evaluates it on one split, and compares with its aux arrays.

    Args:
        run: a finished run.
        split: "train" (the whole original training set) or "test".
        dataset: overrides the recipe's.
        architecture: overrides the recipe's.
        data_dir: where the data set lies.
        epoch: of the checkpoint; None for the last.

    Raises:
        MissingFileError: no run, checkpoint or data.
        DamagedFileError: the aux arrays or the checkpoint are damaged.
        MismatchError: checkpoint and architecture, or data set and record, do not belong together.
    """
    source = run_sources.source_of(run, dataset, architecture)
    aux = aux_arrays.read(run.aux_arrays_path)
    prefix = layout.latest_checkpoint(run) if epoch is None else run.checkpoint_prefix(epoch)
    data = recipes.open_dataset(run.zoo, run.experiment, source.dataset, data_dir)
    _check_data(run, source, data, aux)
    module = models.build(
        source.architecture,
        data.num_classes,
        data.image_shape,
        source.architecture_options,
        dtype=tf.as_dtype(source.dtype),
    )
    state = checkpoints.restore(module, prefix)
    judgement = judging.Evaluator(module, data, source.dtype).judge(split)
    return _compare(split, judgement, aux, state.epoch)


def _check_data(
    run: layout.Run, source: run_sources.RunSource, data: datasets.AnyDataset, aux: aux_arrays.AuxArrays
) -> None:
    if (aux.num_train, aux.num_test) != (len(data.train), len(data.test)):
        raise errors.MismatchError(
            f"{run.aux_arrays_path} records {aux.num_train} training and {aux.num_test} test examples, data set "
            f"{source.dataset} has {len(data.train)} and {len(data.test)}; give the --dataset of the run"
        )
    recipes.check_dataset(run.zoo, run.experiment, data)


def _compare(
    split: str, judgement: judging.Judgement, aux: aux_arrays.AuxArrays, epoch: int | None
) -> evaluation_results.RunEvaluation:
    correct, label = judgement.correct, judgement.label
    if split == "train":
        recorded, inside = aux.train_correctness(), aux.subset_mask()
        parts = np.where(inside, "in subset", "held out")
    else:
        recorded, parts = aux.test_correctness(), np.full(len(label), "test")
    disagreements = [
        evaluation_results.Disagreement(
            int(i),
            str(parts[i]),
            int(label[i]),
            int(judgement.predicted[i]),
            bool(recorded[i]),
            float(judgement.gap[i]),
        )
        for i in np.flatnonzero(correct != recorded)
    ]
    accuracy = {str(part): float(np.mean(correct[parts == part])) for part in np.unique(parts)}
    return evaluation_results.RunEvaluation(len(label), disagreements, accuracy, epoch)
