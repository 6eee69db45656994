"""Do the checkpoints of an experiment fit its architecture, and do rebuilt runs predict what they recorded?

Both need TensorFlow and are done by worker processes (restore_worker.py, evaluate_worker.py); this
module only says what is to be done and collects what is found.
"""

from collections.abc import Callable, Collection, Sequence
import dataclasses
from typing import Any

import numpy as np

from heldout.evaluation import evaluation_results
from heldout.experiments import recipes, training_config
from heldout.running import workers
from zoo import aux_arrays, errors, files, layout, registry, verify

# Starting a worker takes seconds, restoring a small checkpoint milliseconds.
_CHECKPOINTS_A_WORKER = 50
# Of the published data sets; variables do not depend on it, but a model must be run once to have any.
_IMAGE_SHAPES = {"cifar10": (32, 32, 3), "cifar100": (32, 32, 3), "imagenet": (224, 224, 3)}
# Given how many are done and how many there are.
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """What the checkpoints of an experiment are restored into.

    Attributes:
        architecture: a name of heldout/models/registry.py, or "module:callable".
        options: its keyword arguments.
        dtype: of the variables.
        num_classes: number of logits; None to take it from the data set.
        image_shape: (H, W, C); None to take it from the data set.
        dataset: its name where it must be loaded, else None.
        data_dir: where it lies.
    """

    architecture: str
    options: dict[str, Any]
    dtype: str
    num_classes: int | None
    image_shape: tuple[int, int, int] | None
    dataset: str | None = None
    data_dir: str | None = None


def blueprint(
    zoo: files.PathLike,
    experiment: str,
    *,
    architecture: str | None = None,
    dataset: str | None = None,
    data_dir: str | None = None,
) -> Blueprint | None:
    """What an experiment's runs are made of: what is given, else the recipe, else the name of a published experiment.

    Args:
        zoo: the folder that holds the experiments.
        experiment: name of the experiment.
        architecture: overrides the recipe's.
        dataset: tells classes and image size where there is no recipe; not loaded otherwise.
        data_dir: where the data set lies.

    Returns:
        The blueprint, or None where nothing tells the architecture or the number of classes.

    Raises:
        DamagedFileError: the recipe is damaged.
    """
    recipe, published = recipes.read(zoo, experiment), registry.PUBLISHED.get(experiment)
    if recipe is not None:
        own = architecture in (None, recipe.architecture)
        num_classes, image_shape = _sizes(recipe, str(layout.recipe_path(zoo, experiment)))
        options = recipe.architecture_options if own else {}
        architecture = recipe.architecture if architecture is None else architecture
        return Blueprint(architecture, options, recipe.training.dtype, num_classes, image_shape)
    dtype = training_config.TrainingConfig().dtype
    if published is not None:
        architecture = architecture or published.architecture
        shape = _IMAGE_SHAPES.get(published.dataset or "")
        if architecture is not None and shape is not None and published.num_classes is not None:
            return Blueprint(architecture, {}, dtype, published.num_classes, shape)
    if architecture is None or dataset is None:
        return None
    return Blueprint(architecture, {}, dtype, None, None, dataset, data_dir)


def _sizes(recipe: recipes.Recipe, where: str) -> tuple[int, tuple[int, int, int]]:
    num_classes, image_shape = recipe.dataset.get("num_classes"), recipe.dataset.get("image_shape")
    sizes = [num_classes, *(image_shape if isinstance(image_shape, list) else [])]
    if len(sizes) != 4 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise errors.DamagedFileError(
            f"{where}: member 'dataset' has num_classes {num_classes!r} and image_shape {image_shape!r}, expected a "
            "number and a list of three; fetch the recipe again"
        )
    return sizes[0], (sizes[1], sizes[2], sizes[3])


def restore(
    runs: Sequence[layout.Run],
    plan: Blueprint,
    *,
    skip: Collection[str] = (),
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[int, list[verify.Finding]]:
    """Restores every complete checkpoint into the architecture; names, shapes and dtypes must agree both ways.

    Args:
        runs: those whose checkpoints to restore, all of one experiment.
        plan: what they are restored into.
        skip: prefixes of checkpoints to leave out.
        device: where to put the model.
        progress: called after each checkpoint.

    Returns:
        How many checkpoints were tried, and one finding, "damaged", for each that does not fit.

    Raises:
        TaskError: the architecture cannot be built, or the data set that tells its size cannot be loaded.
        WorkerError: a worker process died.
    """
    complete = {str(run.checkpoint_prefix(epoch)): run for run in runs for epoch in layout.checkpoint_epochs(run)}
    prefixes = {prefix: run for prefix, run in complete.items() if prefix not in skip}
    if not prefixes:
        return 0, []
    num_workers = min(workers.num_cores(), -(-len(prefixes) // _CHECKPOINTS_A_WORKER))
    messages = workers.run_tasks(
        "heldout.evaluation.restore_worker",
        {"device": device, "blueprint": dataclasses.asdict(plan)},
        ({"prefix": prefix} for prefix in prefixes),
        num_workers=num_workers,
        threads_per_worker=max(1, workers.num_cores() // num_workers),
    )
    faults: dict[str, str | None] = {}
    for message in messages:
        if "prefix" in message:
            faults[message["prefix"]] = message["fault"]
            if progress is not None:
                progress(len(faults), len(prefixes))
    found = ((prefix, run, faults[prefix]) for prefix, run in prefixes.items())
    return len(faults), [verify.Finding(run, prefix, "damaged", fault) for prefix, run, fault in found if fault]


def sample(runs: Sequence[layout.Run], size: int, seed: int) -> list[layout.Run]:
    """Some of the runs that have a record and a checkpoint, drawn without replacement, in their order.

    Args:
        runs: to draw from.
        size: how many; all where there are fewer.
        seed: the same seed draws the same of the same runs.
    """
    able = [run for run in runs if run.aux_arrays_path.is_file() and layout.checkpoint_epochs(run)]
    chosen = np.random.default_rng(seed).permutation(len(able))[:size]
    return [able[position] for position in sorted(chosen)]


def predict(
    runs: Sequence[layout.Run],
    *,
    architecture: str | None = None,
    dataset: str | None = None,
    data_dir: str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[int, list[verify.Finding]]:
    """Rebuilds runs and holds every prediction on both splits against their records.

    Args:
        runs: each with a sound record and checkpoint.
        architecture: overrides the recipe's.
        dataset: overrides the recipe's.
        data_dir: where it lies.
        device: where to compute.
        progress: called after each run and split.

    Returns:
        The number of predictions, and one finding, "differs", for each run and split with predictions that are not
        those recorded. Where the margin is near 0 that may be rounding of another machine.

    Raises:
        TaskError: the data set or architecture is not known or not there, or a run is damaged after all.
        WorkerError: the worker process died.
    """
    options = {"dataset": dataset, "architecture": architecture, "data_dir": data_dir}
    pairs = [(run, split) for run in runs for split in evaluation_results.SPLITS]
    # One worker, so that answers come in the order of the tasks.
    messages = workers.run_tasks(
        "heldout.evaluation.evaluate_worker",
        {"device": device},
        [{"run": str(run.directory), "options": options | {"split": split}} for run, split in pairs],
        num_workers=1 if pairs else 0,
        threads_per_worker=workers.num_cores(),
    )
    found, num_predictions, num_done = [], 0, 0
    for message in messages:
        if "evaluation" in message:
            (run, split), num_done = pairs[num_done], num_done + 1
            result = evaluation_results.RunEvaluation.from_json(message["evaluation"])
            num_predictions += result.num_predictions
            found += _differences(run, split, result)
            if progress is not None:
                progress(num_done, len(pairs))
    return num_predictions, found


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What `predict` would do.

    Attributes:
        runs: to be rebuilt.
        architecture: into which; None where nothing tells.
        dataset: on which; None where nothing tells where it lies.
        num_predictions: of all runs, on both splits; None where neither recipe nor record tells.
    """

    runs: tuple[layout.Run, ...]
    architecture: str | None
    dataset: str | None
    num_predictions: int | None


def plan_prediction(
    runs: Sequence[layout.Run], *, architecture: str | None = None, dataset: str | None = None
) -> Prediction:
    """What `predict` would do with the same arguments; reads no more than the recipe or one record.

    Raises:
        DamagedFileError: the recipe is damaged.
    """
    if not runs:
        return Prediction((), architecture, dataset, 0)
    zoo, experiment = runs[0].zoo, runs[0].experiment
    recipe, published = recipes.read(zoo, experiment), registry.PUBLISHED.get(experiment)
    told = recipe.architecture if recipe is not None else published.architecture if published is not None else None
    num_examples = _num_examples(runs[0], recipe)
    return Prediction(
        tuple(runs),
        architecture or told,
        dataset or recipes.default_dataset(zoo, experiment),
        None if num_examples is None else num_examples * len(runs),
    )


def _num_examples(run: layout.Run, recipe: recipes.Recipe | None) -> int | None:
    """N + M, by the recipe, else by the record of a run; None where neither tells."""
    sizes = [] if recipe is None else [recipe.dataset.get(name) for name in ("num_train", "num_test")]
    told = [size for size in sizes if isinstance(size, int)]
    if len(told) == 2:
        return sum(told)
    try:
        aux = aux_arrays.read(run.aux_arrays_path)
    except (errors.HeldoutError, OSError):
        return None
    return aux.num_train + aux.num_test


def told_by(zoo: files.PathLike, experiment: str, flag: str, value: str | None) -> str:
    """Where an experiment's architecture or data set comes from, for people: the flag, the recipe or the name."""
    if value is not None:
        return f"--{flag}"
    return layout.RECIPE_NAME if layout.recipe_path(zoo, experiment).exists() else "the experiment's name"


def _differences(run: layout.Run, split: str, result: evaluation_results.RunEvaluation) -> list[verify.Finding]:
    if not result.disagreements:
        return []
    largest = max(item.margin for item in result.disagreements)
    reason = (
        f"{run.aux_arrays_path}: {len(result.disagreements)} of {result.num_predictions} predictions on the {split} "
        f"split are not as recorded, the first at index {result.disagreements[0].index}; the largest margin between "
        f"the two best classes is {largest:.3g}, near 0 it may be rounding. evaluate_run --run={run.directory} "
        f"--split={split} lists them"
    )
    return [verify.Finding(run, str(run.aux_arrays_path), "differs", reason)]
