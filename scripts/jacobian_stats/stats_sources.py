"""The model that statistics are of, with its checkpoints and examples: of train_model, of a zoo, or a user's own.

Here models become functions of inputs; nothing else in the programs knows what kind of model it is.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import pathlib
import re
from typing import Any

import numpy as np
import tensorflow as tf

from heldout.datasets import dataset as dataset_lib
from heldout.datasets import random_images
from heldout.experiments import label_noise
from heldout.training import model_data, model_files, model_runs
from scripts.attribution import model_sources, run_models, source_config
from scripts.jacobian_stats import stats_config, stats_files, stats_rows, stats_weights
from zoo import checkpoints, errors, layout

Scope = Callable[[], contextlib.AbstractContextManager[Any]]
_OWN_EPOCH = 0
# Of a data set's pixels.
_PIXEL_RANGE = (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights of one moment of a training.

    Attributes:
        epoch: how many epochs had been done.
        step: how many steps; None where nothing tells.
        prefix: what the file names begin with; None for a user's own model.
        digest: changes with the weights.
    """

    epoch: int
    step: int | None
    prefix: pathlib.Path | None
    digest: str


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples of a split in their order.

    Attributes:
        images: [n, ...] as stored; may be a memory map.
        ids: int64 [n], positions in the data set's own split.
        label: int64 [n], what is trained with.
        clean_label: int64 [n], before some were changed on purpose.
    """

    images: Any
    ids: np.ndarray
    label: np.ndarray
    clean_label: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model whose weights can be those of any of its checkpoints.

    Attributes:
        group: names of model, data set and setting, parts of the path of results.
        seed: what tells it from others of the group.
        home: its folder, where results may lie beside it; None for models that have none.
        facts: what is known of it, as JSON, for people and tables.
        checkpoints: ascending by epoch.
        restore: sets the weights.
        split: its examples by the name of the split.
        model: the module, or what else has the weights.
        predict: inputs -> logits.
        normalise: stored images -> inputs, as NumPy arrays.
        mean, deviation: inputs are (pixels in [0, 1] - mean) / deviation, for each channel; None where they are no
            images.
        pixel_range: where all pixels lie; None where nothing says so: random images, and inputs of a user's own.
        objection: why its last checkpoint is not that of a finished training; empty where it is, or may be taken.
    """

    group: tuple[str, str, str]
    seed: str
    home: pathlib.Path | None
    facts: Mapping[str, Any]
    checkpoints: Sequence[Checkpoint]
    restore: Callable[[Checkpoint], None]
    split: Callable[[str], Split]
    model: Any
    predict: Callable[[tf.Tensor], tf.Tensor]
    normalise: Callable[[np.ndarray], np.ndarray]
    mean: np.ndarray | None
    deviation: np.ndarray | None
    pixel_range: tuple[float, float] | None = None
    objection: str = ""

    def chosen_checkpoints(self, texts: Sequence[str]) -> list[Checkpoint]:
        """Those that the texts name, ascending by epoch, each once.

        Raises:
            InvalidValueError: one is not there, or is named by the end of a training that has not reached its end.
        """
        of_end = [text for text in texts if text in ("all", "last") or text.startswith("order:-")]
        if of_end and self.objection:
            raise errors.InvalidValueError(
                f"--checkpoint={of_end[0]}: {self.objection}, or take the checkpoints that are there with --unfinished"
            )
        found = {one.epoch: one for text in texts for one in self._of_text(text)}
        return [found[epoch] for epoch in sorted(found)]

    def _of_text(self, text: str) -> Sequence[Checkpoint]:
        if text in ("all", "first", "last"):
            return {"all": self.checkpoints, "first": self.checkpoints[:1], "last": self.checkpoints[-1:]}[text]
        kind, _, number = text.rpartition(":")
        value = int(number)
        if kind == "order":
            if -len(self.checkpoints) <= value < len(self.checkpoints):
                return [self.checkpoints[value]]
        else:
            named = [one for one in self.checkpoints if (one.step if kind == "step" else one.epoch) == value]
            if named:
                return named
        there = [f"{one.epoch}" if one.step is None else f"{one.epoch} (step {one.step})" for one in self.checkpoints]
        raise errors.InvalidValueError(
            f"--checkpoint={text}: there is none; there are those of the epochs {', '.join(there)}"
        )


def load(source: stats_config.SourceConfig, scope: Scope = contextlib.nullcontext) -> Source:
    """Builds the model; its weights are unknown before the first `restore`.

    Args:
        source: where it is.
        scope: in which its variables are made, such as `strategy.scope`.

    Raises:
        MissingFileError, DamagedFileError, MismatchError: the run or its data set.
        InvalidValueError: the user's own model is not what it must be, or the run has no checkpoint.
        EstimatorError: the model cannot be differentiated.
    """
    if source.run is None:
        return _of_user(source, scope)
    found = _of_model_run(source, scope) if model_runs.is_model_run(source.run) else _of_zoo(source, scope)
    if not found.checkpoints:
        raise errors.MissingFileError(f"--run={source.run}: has no complete checkpoint; train it to its end")
    return found


def _of_model_run(source: stats_config.SourceConfig, scope: Scope) -> Source:
    assert source.run is not None
    if source.architecture is not None:
        text = f"--arch={source.architecture}: --run={source.run} knows its own; leave the flag out"
        raise errors.InvalidValueError(text)
    run = model_runs.ModelRun.open(source.run)
    # The same data may lie elsewhere now; a fingerprint says whether they are the same.
    named = source.dataset or run.settings.dataset
    data = model_data.load(dataclasses.replace(run.settings, dataset=named), source.data_dir)
    with scope():
        module = run.build()
    found = run.checkpoints()
    prefixes = {one.prefix: one for one in found}

    def restore(checkpoint: Checkpoint) -> None:
        assert checkpoint.prefix is not None
        run.restore(module, prefixes[checkpoint.prefix])

    def split(name: str) -> Split:
        if name not in ("train", "val", "test"):
            raise errors.InvalidValueError(f"--dataset_split={name}: a run of train_model has train, val and test")
        part = data.split(name)
        if not len(part):
            raise errors.InvalidValueError(f"--dataset_split={name}: this run has no such examples")
        return Split(part.images, part.ids, part.label, part.clean_label)

    mean, deviation = _channels(data.dataset)
    home = pathlib.Path(run.directory).resolve()
    model, dataset, setting, seed = home.parts[-4:]
    settings = run.settings.to_json()
    result = model_files.read_result(run.directory)
    outcome = stats_files.UNFINISHED if result is None else result["outcome"]
    is_real = run.settings.random_data == random_images.NONE
    return Source(
        (model, dataset, setting),
        seed.removeprefix("seed-"),
        home,
        {"kind": "train_model", "model": model, "dataset": dataset, stats_files.OUTCOME: outcome}
        | _of_settings(settings),
        [Checkpoint(one.epoch, one.step, one.prefix, stats_weights.digest(one.prefix)) for one in found],
        restore,
        split,
        module,
        lambda inputs: module(inputs, is_training=False),
        data.normalise,
        mean,
        deviation,
        _PIXEL_RANGE if is_real else None,
        "" if source.unfinished else _objection(home, outcome),
    )


def _objection(home: pathlib.Path, outcome: str) -> str:
    """Why the last checkpoint of a network is not that of a finished training; empty where it is."""
    if outcome == stats_files.UNFINISHED:
        return f"{home}: has no {model_files.RESULT_NAME}, so its training has not ended; train it to its end"
    return f"{home}: its training diverged; leave it out" if outcome == model_files.DIVERGED else ""


def _of_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What tables tell of a training."""
    training = settings["training"]
    return {
        "width": settings["model_options"].get("width", _width(settings["model"])),
        "learning_rate": training["learning_rate"],
        "epochs": training["num_epochs"],
        "label_noise": settings.get("label_noise"),
        "augmentation": training.get("augmentation"),
        "seeds": {
            **{name: settings[name] for name in ("data_split_seed", "seed")},
            "label_seed": (settings["label_noise"] or {}).get("seed"),
            "random_data_seed": settings["mc_sample_seed"],
        },
        "settings": settings,
    }


def _of_zoo(source: stats_config.SourceConfig, scope: Scope) -> Source:
    run_source = source_config.SourceConfig(
        run=source.run, architecture=source.architecture, dataset=source.dataset, data_dir=source.data_dir
    )
    model = run_models.RunModel(run_source, scope)
    run, data, recipe = model.run, model.data, model.recipe
    clean = label_noise.read_clean_label(layout.labels_path(run.zoo, run.experiment), data.train.label)
    clean = data.train.label if clean is None else clean

    def split(name: str) -> Split:
        if name == "val":
            raise errors.InvalidValueError(
                "--dataset_split=val: a run of a zoo has train (its subset), heldout, all_train and test"
            )
        if name == "test":
            return Split(data.test.images, data.test.index, data.test.label, data.test.label)
        mask = np.ones(len(data.train), bool) if name == "all_train" else model.subset_mask() == (name == "train")
        ids = np.flatnonzero(mask)
        return Split(stats_rows.Rows(data.train.images, ids), ids, data.train.label[ids], clean[ids])

    training = None if recipe is None else recipe.training
    width = None if recipe is None else recipe.architecture_options.get("width")
    facts = {
        "kind": "zoo",
        "model": model.architecture,
        "dataset": data.name,
        "experiment": run.experiment,
        "subset_ratio": run.subset_ratio,
        "width": _width(model.architecture) if width is None else width,
        "learning_rate": None if training is None else training.learning_rate,
        "epochs": None if training is None else training.num_epochs,
        "label_noise": None if recipe is None or recipe.noise is None else recipe.noise.to_json(),
        "augmentation": None if training is None else training.to_json().get("augmentation"),
        "seeds": {"run_id": run.run_id},
        "settings": {
            "experiment": run.experiment,
            "subset_ratio": run.subset_ratio,
            "recipe": None if recipe is None else recipe.to_json(),
            "dataset": data.fingerprint(),
        },
    }
    mean, deviation = _channels(data)
    return Source(
        (_folder(model.architecture), _folder(data.name), f"{run.experiment}-{layout.ratio_name(run.subset_ratio)}"),
        str(run.run_id),
        None,
        facts,
        zoo_checkpoints(run),
        lambda checkpoint: restore_module(model.module, checkpoint),
        split,
        model.module,
        model.logits_of_inputs,
        lambda images: data.normalise(images, model.dtype),
        mean,
        deviation,
        _PIXEL_RANGE,
    )


def zoo_checkpoints(run: layout.Run) -> list[Checkpoint]:
    """Those of a run of a zoo."""
    found = []
    for epoch in layout.checkpoint_epochs(run):
        prefix = run.checkpoint_prefix(epoch)
        found.append(Checkpoint(epoch, stats_weights.step(prefix), prefix, stats_weights.digest(prefix)))
    return found


def restore_module(module: tf.Module, checkpoint: Checkpoint) -> None:
    """Sets the weights of a module to those of a checkpoint of a zoo.

    Raises:
        MissingFileError, DamagedFileError, MismatchError: of the checkpoint.
    """
    assert checkpoint.prefix is not None
    checkpoints.restore(module, checkpoint.prefix)


def _of_user(source: stats_config.SourceConfig, scope: Scope) -> Source:
    assert source.model is not None
    given = source_config.SourceConfig(model=source.model, dataset=source.dataset, data_dir=source.data_dir)
    found = model_sources.load(given, scope)
    data, predict, mean, deviation = found.pictures, found.target.predict, None, None
    normalise: Callable[[np.ndarray], np.ndarray] = np.asarray
    if data is not None:
        dtype = found.target.dtype.as_numpy_dtype if found.target.dtype == tf.float64 else np.float32
        normalise = lambda images: data.normalise(images, dtype)  # noqa: E731
        mean, deviation = _channels(data)
        shift, factor = (tf.constant(x, dtype) for x in (mean, deviation))
        of_stored, scale = found.target.predict, data.scale
        # The target takes images as they are stored.
        predict = lambda inputs: of_stored((inputs * factor + shift) * scale)  # noqa: E731

    def split(name: str) -> Split:
        if name not in ("train", "test"):
            raise errors.InvalidValueError(f"--dataset_split={name}: a model of one's own has train and test")
        part = getattr(found, name)
        if not hasattr(part.inputs, "shape"):
            raise errors.InvalidValueError(
                f"--model={source.model}: its inputs are a {type(part.inputs).__name__}; Jacobians are taken by one "
                "array [N, ...]: return a function of it"
            )
        label = np.asarray(part.labels)
        return Split(part.inputs, part.ids, label, label)

    # A data set says in its fingerprint what it is.
    examples = None if data is not None else [found.train.fingerprint(), found.test.fingerprint()]
    name = re.sub(r"\.(keras|h5)$", "", pathlib.Path(source.model).name)
    facts = {
        "kind": "own",
        "model": source.model,
        "dataset": None if data is None else data.name,
        "width": None,
        "learning_rate": None,
        "epochs": None,
        "label_noise": None,
        "augmentation": None,
        "seeds": {},
        "settings": {"model": dict(found.description), "examples": examples},
    }
    return Source(
        (_folder(name), _folder("own" if data is None else data.name), "given"),
        "0",
        None,
        facts,
        [Checkpoint(_OWN_EPOCH, None, None, stats_weights.digest_of_own(found))],
        lambda checkpoint: None,
        split,
        found.target,
        predict,
        normalise,
        mean,
        deviation,
        None if data is None else _PIXEL_RANGE,
    )


def _channels(data: dataset_lib.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """(mean, deviation): inputs are (pixels in [0, 1] - mean) / deviation, for each channel."""
    ones = np.ones(data.image_shape[2])
    mean = 0 * ones if data.mean is None else np.asarray(data.mean, np.float64)
    return mean, ones if data.std is None else np.asarray(data.std, np.float64)


def _width(model: str) -> int | None:
    """32 of conv5_32."""
    found = re.fullmatch(r".*_(\d+)", model)
    return int(found[1]) if found else None


def _folder(name: str) -> str:
    """A name as that of a folder."""
    return re.sub(r"[^\w.+=-]+", "-", name).strip("-.") or "model"
