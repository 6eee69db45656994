"""The recipe of an experiment: everything that its runs share, stored beside them as `recipe.json`.

Runs of one experiment differ in subset ratio and run id only. A zoo therefore refuses runs of another recipe.
"""

import dataclasses
import json
from typing import Any, Self

from heldout import subsets, training_config
from zoo import errors, files, layout

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What was trained, on what, and how.

    Attributes:
        experiment: name of the experiment; part of every seed.
        dataset: fingerprint of the data set, as `Dataset.fingerprint()` gives it: name, version, sizes, label digests.
        architecture: a name of heldout/models/registry.py, or "module:callable".
        architecture_options: keyword arguments of the architecture.
        training: optimisation.
        seed_scheme: how seeds follow from names; see heldout/subsets.py.
    """

    experiment: str
    dataset: dict[str, Any]
    architecture: str
    architecture_options: dict[str, Any]
    training: training_config.TrainingConfig
    seed_scheme: str = subsets.SEED_SCHEME

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse."""
        return {
            "schema_version": SCHEMA_VERSION,
            "experiment": self.experiment,
            "dataset": self.dataset,
            "architecture": self.architecture,
            "architecture_options": self.architecture_options,
            "training": self.training.to_json(),
            "seed_scheme": self.seed_scheme,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Self:
        """Checks and converts what `to_json` wrote.

        Raises:
            DamagedFileError: members are missing or of a wrong type; `where` names the file.
        """
        version = value.get("schema_version")
        if version != SCHEMA_VERSION:
            raise errors.DamagedFileError(
                f"{where}: schema version {version!r}, this program reads {SCHEMA_VERSION}; "
                "use the version of Heldout that wrote the zoo"
            )
        types = {"experiment": str, "dataset": dict, "architecture": str, "architecture_options": dict}
        types |= {"training": dict, "seed_scheme": str}
        for key, kind in types.items():
            if not isinstance(value.get(key), kind):
                raise errors.DamagedFileError(f"{where}: member {key!r} should be a {kind.__name__}")
        members = {key: value[key] for key in types}
        try:
            members["training"] = training_config.TrainingConfig.from_json(members["training"])
        except errors.InvalidValueError as error:
            raise errors.DamagedFileError(f"{where}: {error}") from error
        return cls(**members)


def read(zoo: files.PathLike, experiment: str) -> Recipe | None:
    """The stored recipe, or None where the experiment has none (a published zoo)."""
    path = layout.recipe_path(zoo, experiment)
    if not path.exists():
        return None
    return Recipe.from_json(files.read_json(path), str(path))


def adopt(zoo: files.PathLike, recipe: Recipe) -> None:
    """Stores the recipe with its experiment, or checks it against the one that is there.

    Raises:
        MismatchError: the experiment was begun with another recipe, or its runs carry none; prints both.
    """
    path = layout.recipe_path(zoo, recipe.experiment)
    stored = read(zoo, recipe.experiment)
    if stored is None:
        if layout.runs(zoo, recipe.experiment) or layout.run_table_path(zoo, recipe.experiment).exists():
            raise errors.MismatchError(
                f"{path.parent} holds runs without a recipe, so new runs cannot be proved to belong to them; "
                "choose another --experiment or --zoo"
            )
        files.write_json(path, recipe.to_json())
    elif stored != recipe:
        raise errors.MismatchError(
            f"{path} was begun with another recipe.\n{_differences(stored, recipe)}\n"
            f"stored:\n{_pretty(stored)}\nasked for:\n{_pretty(recipe)}\n"
            "Use the stored one, or choose another --experiment or --zoo."
        )


def _pretty(recipe: Recipe) -> str:
    return json.dumps(recipe.to_json(), indent=2)


def _differences(stored: Recipe, asked: Recipe) -> str:
    old, new = _flat(stored.to_json()), _flat(asked.to_json())
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return "\n".join(f"  {key}: stored {old.get(key)!r}, asked for {new.get(key)!r}" for key in keys)


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat
