"""The recipe of an experiment: everything that its runs share, stored beside them as `recipe.json`.

Runs of one experiment differ in subset ratio and run id only. A zoo therefore refuses runs of another recipe.
"""

import dataclasses
import json
import os
from typing import Any, Self

from heldout import subsets
from heldout.datasets import dataset as dataset_lib
from heldout.datasets import registry as datasets
from heldout.experiments import label_noise, training_config, training_files
from heldout.running import settings
from zoo import errors, files, layout, registry

# A recipe has the first version that knows its members: 1 knows nothing of noise and sampling, 2 nothing of rankings.
SCHEMA_VERSION = 3
_WITHOUT_RANKING = 2
_FIRST_VERSION = 1

_FINGERPRINT_TEXTS = ("name", "version", "train_label_sha256", "test_label_sha256")
# Of a fingerprint: what must agree for a data set to be the one that was trained on.
_IDENTITY = ("name", "num_train", "num_test", "train_label_sha256", "test_label_sha256")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What was trained, on what, and how.

    Attributes:
        experiment: name of the experiment; part of every seed.
        dataset: fingerprint of the data set, as `Dataset.fingerprint()` gives it: name, version, sizes, label digests.
        architecture: a name of heldout/models/registry.py, or "module:callable".
        architecture_options: keyword arguments of the architecture.
        training: optimisation.
        dataset_flag: what --dataset was when the experiment was begun, with an absolute path for npz files; a hint
            where to find the data, not part of what makes recipes equal.
        seed_scheme: how seeds follow from names; see subsets.py.
        noise: which training labels are wrong on purpose; None for none. The label digest in `dataset` is then that of
            the changed labels, which are the training labels for everything that is done with the runs.
        clean_label_sha256: digest of the labels before the change; None without noise.
        subset_sampling: "uniform", "class_balanced" over the labels that are trained with, or "ranked".
        ranking_sha256: digest of the ranking that subsets follow (subset_rankings.py); None where they follow none.
    """

    experiment: str
    dataset: dict[str, Any]
    architecture: str
    architecture_options: dict[str, Any]
    training: training_config.TrainingConfig
    dataset_flag: str = dataclasses.field(compare=False)
    seed_scheme: str = subsets.SEED_SCHEME
    noise: label_noise.LabelNoise | None = None
    clean_label_sha256: str | None = None
    subset_sampling: str = subsets.UNIFORM
    ranking_sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` is its inverse. What earlier programs do not know is only there if it is used."""
        further: dict[str, Any] = {}
        if self.noise is not None:
            further["label_noise"] = self.noise.to_json() | {"clean_train_label_sha256": self.clean_label_sha256}
        if self.subset_sampling != subsets.UNIFORM:
            further["subset_sampling"] = self.subset_sampling
        version = _WITHOUT_RANKING if further else _FIRST_VERSION
        if self.ranking_sha256 is not None:
            version, further["ranking_sha256"] = SCHEMA_VERSION, self.ranking_sha256
        stored = {
            "schema_version": version,
            "experiment": self.experiment,
            "dataset": self.dataset,
            "architecture": self.architecture,
            "architecture_options": self.architecture_options,
            "training": self.training.to_json(),
            "dataset_flag": self.dataset_flag,
            "seed_scheme": self.seed_scheme,
        }
        return stored | further

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Self:
        """Checks and converts what `to_json` wrote.

        Raises:
            DamagedFileError: members are missing or of a wrong type; `where` names the file.
        """
        version = value.get("schema_version")
        if version not in range(_FIRST_VERSION, SCHEMA_VERSION + 1):
            raise errors.DamagedFileError(
                f"{where}: schema version {version!r}, this program reads {_FIRST_VERSION} to {SCHEMA_VERSION}; "
                "use the version of Heldout that wrote the zoo"
            )
        types = {"experiment": str, "dataset": dict, "architecture": str, "architecture_options": dict}
        types |= {"training": dict, "dataset_flag": str, "seed_scheme": str}
        for key, kind in types.items():
            if not isinstance(value.get(key), kind):
                raise errors.DamagedFileError(f"{where}: member {key!r} should be a {kind.__name__}")
        for key in _FINGERPRINT_TEXTS:
            if not isinstance(value["dataset"].get(key), str):
                raise errors.DamagedFileError(f"{where}: member 'dataset' should have {key!r}, a text")
        members = {key: value[key] for key in types}
        try:
            members["training"] = training_config.TrainingConfig.from_json(members["training"])
            members |= _further_members(value)
        except errors.InvalidValueError as error:
            raise errors.DamagedFileError(f"{where}: {error}") from error
        return cls(**members)


def _further_members(value: dict[str, Any]) -> dict[str, Any]:
    """Noise and sampling of a recipe; a recipe without them, as earlier programs wrote it, has neither."""
    sampling, ranking = value.get("subset_sampling", subsets.UNIFORM), value.get("ranking_sha256")
    known = (*subsets.SAMPLINGS, subsets.RANKED)
    if sampling not in known:
        raise errors.InvalidValueError(f"member 'subset_sampling' is {sampling!r}, expected one of {', '.join(known)}")
    if not isinstance(ranking, str if sampling == subsets.RANKED else type(None)):
        raise errors.InvalidValueError(
            f"member 'ranking_sha256' is {ranking!r} with 'subset_sampling' {sampling!r}, expected a text with "
            f"{subsets.RANKED!r} and nothing with the others"
        )
    members = {"subset_sampling": sampling, "ranking_sha256": ranking}
    stored = value.get("label_noise")
    if stored is None:
        return members
    digest = stored.get("clean_train_label_sha256") if isinstance(stored, dict) else None
    if not isinstance(digest, str):
        raise errors.InvalidValueError("member 'label_noise' should have 'clean_train_label_sha256', a text")
    noise = label_noise.LabelNoise.from_json({k: v for k, v in stored.items() if k != "clean_train_label_sha256"})
    return members | {"noise": noise, "clean_label_sha256": digest}


def read(zoo: files.PathLike, experiment: str) -> Recipe | None:
    """The stored recipe, or None where the experiment has none (a published zoo)."""
    path = layout.recipe_path(zoo, experiment)
    if not path.exists():
        return None
    return Recipe.from_json(files.read_json(path), str(path))


def adopt(zoo: files.PathLike, recipe: Recipe) -> None:
    """Stores the recipe with its experiment, or checks it against the one that is there.

    A recipe without runs is replaced, unless a training of it goes on. Two programs may still come here in the same
    moment: those who train hold theirs against the stored one by `check_kept`.

    Raises:
        MismatchError: the experiment was begun with another recipe, or its runs carry none; prints both.
    """
    path = layout.recipe_path(zoo, recipe.experiment)
    stored = read(zoo, recipe.experiment)
    if stored == recipe:
        return
    has_runs = bool(layout.runs(zoo, recipe.experiment)) or layout.run_table_path(zoo, recipe.experiment).exists()
    in_progress = training_files.in_progress(zoo, recipe.experiment)
    if not has_runs and (stored is None or not in_progress):
        # A recipe without runs is one that could not be trained: nothing depends on it.
        files.write_json(path, recipe.to_json())
    elif stored is None:
        raise errors.MismatchError(
            f"{path.parent} holds runs without a recipe, so new runs cannot be proved to belong to them; "
            "choose another --experiment or --zoo"
        )
    else:
        going_on = "" if has_runs else f"Its first runs are being trained, says {in_progress[0]}.\n"
        raise errors.MismatchError(
            f"{path} was begun with another recipe.\n"
            f"stored:    {json.dumps(stored.to_json())}\nasked for: {json.dumps(recipe.to_json())}\n"
            f"They differ in\n{differences(stored, recipe)}\n{going_on}"
            "Use what is stored, or choose another --experiment or --zoo."
        )


def check_kept(zoo: files.PathLike, recipe: Recipe, shown: str | None = None) -> None:
    """To be asked by those who train, before they write: whether the recipe is still that of its experiment.

    Args:
        zoo: folder of experiments.
        recipe: as it was adopted.
        shown: where the recipe lies, if it is only a copy that lies in the folder.

    Raises:
        MismatchError: another program has replaced it, or it is gone; what is not written yet must not be.
    """
    if read(zoo, recipe.experiment) != recipe:
        raise errors.MismatchError(
            f"{shown or layout.recipe_path(zoo, recipe.experiment)}: is no longer the recipe of this training: another "
            "program has replaced it, or it was deleted; nothing more is written. Train again under another "
            "--experiment or --zoo"
        )


def default_dataset(zoo: files.PathLike, experiment: str) -> str | None:
    """The --dataset to use for an experiment when none is given.

    Args:
        zoo: folder of experiments.
        experiment: name of one.

    Returns:
        What the recipe says, if it is a known name or its file is still there; for a published experiment without a
        recipe its data set, if the loader knows it; else None.
    """
    recipe = read(zoo, experiment)
    if recipe is not None:
        file_name = recipe.dataset_flag.removeprefix("npz:")
        return recipe.dataset_flag if file_name == recipe.dataset_flag or os.path.exists(file_name) else None
    published = registry.PUBLISHED.get(experiment)
    known = published is not None and published.dataset in datasets.names()
    return published.dataset if published is not None and known else None


def load_dataset(zoo: files.PathLike, experiment: str, name: str, data_dir: str | None = None) -> dataset_lib.Dataset:
    """The data set behind an experiment, with the labels that its runs were trained with.

    Args:
        zoo: folder of experiments.
        experiment: name of one.
        name: of the data set, as for `heldout.datasets.registry.load`.
        data_dir: where it lies.

    Returns:
        The data set as `registry.load` gives it, with wrong labels where the recipe has them. It is the one behind the
        runs only if `check_dataset` accepts it.

    Raises:
        MismatchError: the recipe changes labels, and these are not the clean ones that it means.
        As `registry.load`.
    """
    return _as_trained(zoo, experiment, datasets.load(name, data_dir))


def open_dataset(zoo: files.PathLike, experiment: str, name: str, data_dir: str | None = None) -> datasets.AnyDataset:
    """As `load_dataset`; image records stay on disk as in training."""
    return _as_trained(zoo, experiment, datasets.open_for_training(name, data_dir))


def _as_trained(zoo: files.PathLike, experiment: str, dataset: label_noise.AnyDataset) -> label_noise.AnyDataset:
    """The data set with the labels that the recipe says."""
    recipe = read(zoo, experiment)
    if recipe is None or recipe.noise is None:
        return dataset
    found = dataset_lib.label_sha256(dataset.train.label)
    if found != recipe.clean_label_sha256:
        raise errors.MismatchError(
            f"data set {dataset.name}: its training labels have the digest {found}, but the labels that {experiment} "
            f"changed had {recipe.clean_label_sha256}: another data set, or its labels in another order; give the "
            "--dataset of the training"
        )
    return label_noise.apply(recipe.noise, dataset)


def check_dataset(zoo: files.PathLike, experiment: str, dataset: datasets.AnyDataset) -> None:
    """Refuses a data set that is not the one behind the runs of an experiment.

    Raises:
        MismatchError: name, sizes or label order differ from the recipe's, or the name from that of a published
            experiment.
    """
    recipe, published = read(zoo, experiment), registry.PUBLISHED.get(experiment)
    if recipe is not None:
        found = dataset.fingerprint()
        for key in _IDENTITY:
            if recipe.dataset.get(key) != found[key]:
                raise errors.MismatchError(
                    f"data set {dataset.name}: {key} is {found[key]}, but {experiment} was trained on "
                    f"{recipe.dataset['name']} with {recipe.dataset.get(key)}: another data set, or its labels in "
                    "another order; give the --dataset of the training"
                )
    elif published is not None and not dataset.name.startswith("npz:") and dataset.name != published.dataset:
        raise errors.MismatchError(
            f"data set {dataset.name}: {experiment} was trained on {published.dataset}; "
            f"give --dataset={published.dataset}"
        )


def check_random_subsets(zoo: files.PathLike, experiment: str) -> None:
    """To be asked by what compares runs with an example and runs without it: whether chance alone tells them apart.

    Raises:
        InvalidValueError: subsets follow a ranking, so that runs without an example lack others of its kind, too.
    """
    recipe = read(zoo, experiment)
    if recipe is not None and recipe.ranking_sha256 is not None:
        raise errors.InvalidValueError(
            f"--experiment={experiment}: its subsets follow a ranking of the examples, so its runs tell nothing of "
            "single ones; give an experiment of train_runs"
        )


def differences(stored: Recipe, asked: Recipe) -> str:
    """One line for each value that two recipes do not share."""
    return settings.differences(stored.to_json(), asked.to_json(), ignored=("dataset_flag",))
