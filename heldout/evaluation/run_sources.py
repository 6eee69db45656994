"""What the runs of an experiment were made of, by its recipe or its name; needs no TensorFlow."""

import dataclasses

from heldout.experiments import recipes, training_config
from zoo import errors, layout, registry


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
