"""Rebuilds a finished run from its checkpoint and holds its predictions against what was recorded.

Architecture and data set follow from the zoo's recipe, or from the name of a published experiment, or are given. The
whole original training set is one split here: examples trained on and held out together, compared by index.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from heldout import evaluation, evaluation_results, recipes, training_config
from heldout.datasets import dataset as dataset_lib
from heldout.datasets import registry as datasets
from heldout.models import registry as models
from zoo import aux_arrays, checkpoints, errors, layout, registry


@dataclasses.dataclass(frozen=True)
class RunSource:
    """What a run was made of.

    Attributes:
        dataset: name of the data set.
        architecture: name of the architecture.
        architecture_options: its keyword arguments.
        dtype: of weights and inputs.
    """

    dataset: str
    architecture: str
    architecture_options: dict
    dtype: str


def source_of(run: layout.Run, dataset: str | None, architecture: str | None) -> RunSource:
    """What a run was made of: what is given, else the recipe, else the name of a published experiment.

    Raises:
        InvalidValueError: nothing tells.
    """
    recipe = recipes.read(run.zoo, run.experiment)
    published = registry.PUBLISHED.get(run.experiment)
    dataset = dataset or recipes.default_dataset(run.zoo, run.experiment)
    if recipe is not None:
        own = architecture in (None, recipe.architecture)
        options, dtype = recipe.architecture_options if own else {}, recipe.training.dtype
        architecture = architecture or recipe.architecture
    else:
        options, dtype = {}, training_config.TrainingConfig().dtype
        architecture = architecture or (published.architecture if published is not None else None)
    if dataset is None or architecture is None:
        missing = [flag for flag, value in (("--dataset", dataset), ("--arch", architecture)) if value is None]
        raise errors.InvalidValueError(
            f"{run.directory}: neither a recipe.json nor the name {run.experiment!r} tells where to find what is "
            f"missing; give {' and '.join(missing)}"
        )
    return RunSource(dataset, architecture, options, dtype)


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
    source = source_of(run, dataset, architecture)
    aux = aux_arrays.read(run.aux_arrays_path)
    prefix = layout.latest_checkpoint(run) if epoch is None else run.checkpoint_prefix(epoch)
    data = datasets.load(source.dataset, data_dir)
    _check_data(run, source, data, aux)
    module = models.build(
        source.architecture,
        data.num_classes,
        data.image_shape,
        source.architecture_options,
        dtype=tf.as_dtype(source.dtype),
    )
    state = checkpoints.restore(module, prefix)
    evaluator = evaluation.Evaluator(module, evaluation.normaliser(data, source.dtype))
    examples = data.split(split)
    logits = evaluator.logits(examples.images)
    return _compare(split, logits, examples.label, aux, state.epoch)


def _check_data(run: layout.Run, source: RunSource, data: dataset_lib.Dataset, aux: aux_arrays.AuxArrays) -> None:
    if (aux.num_train, aux.num_test) != (len(data.train), len(data.test)):
        raise errors.MismatchError(
            f"{run.aux_arrays_path} records {aux.num_train} training and {aux.num_test} test examples, data set "
            f"{source.dataset} has {len(data.train)} and {len(data.test)}; give the --dataset of the run"
        )
    recipes.check_dataset(run.zoo, run.experiment, data)


def _compare(
    split: str, logits: np.ndarray, label: np.ndarray, aux: aux_arrays.AuxArrays, epoch: int | None
) -> evaluation_results.RunEvaluation:
    correct = evaluation.correct(logits, label)
    if split == "train":
        recorded, inside = aux.train_correctness(), aux.subset_mask()
        parts = np.where(inside, "in subset", "held out")
    else:
        recorded, parts = aux.test_correctness(), np.full(len(label), "test")
    two_largest = np.sort(logits, axis=1)[:, -2:]
    disagreements = [
        evaluation_results.Disagreement(
            int(i),
            str(parts[i]),
            int(label[i]),
            int(np.argmax(logits[i])),
            bool(recorded[i]),
            float(two_largest[i, 1] - two_largest[i, 0]),
        )
        for i in np.flatnonzero(correct != recorded)
    ]
    accuracy = {str(part): float(np.mean(correct[parts == part])) for part in np.unique(parts)}
    return evaluation_results.RunEvaluation(len(label), disagreements, accuracy, epoch)
