"""Trained networks opened from their folders: module, checkpoints and data.

run = model_runs.ModelRun.open(folder)
module, data = run.build(), run.data(data_dir)
for checkpoint in run.checkpoints():
    run.restore(module, checkpoint)
"""

import dataclasses
import pathlib
from typing import Self

import numpy as np
import tensorflow as tf

from heldout.models import registry as models
from heldout.training import batches, model_data, model_files, model_settings
from zoo import checkpoints, errors, files


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights of a network at one time of its training.

    Attributes:
        epoch: epochs done; 0 for the initial values.
        step: steps done.
        prefix: what its file names begin with.
    """

    epoch: int
    step: int
    prefix: pathlib.Path


@dataclasses.dataclass(frozen=True)
class ModelRun:
    """A network that was trained, or is being trained.

    Attributes:
        directory: its folder.
        settings: what decides it, with a fingerprint of its data.
    """

    directory: pathlib.Path
    settings: model_settings.ModelSettings

    @classmethod
    def open(cls, directory: files.PathLike) -> Self:
        """Opens a folder as train_model writes it.

        Raises:
            MissingFileError: it is not the folder of a network.
            DamagedFileError: its settings are unsound.
        """
        settings = model_files.read_settings(directory)
        if settings.fingerprint is None:
            path = pathlib.Path(directory) / model_files.SETTINGS_NAME
            raise errors.DamagedFileError(f"{path}: does not say what the data were; train the network again")
        return cls(pathlib.Path(directory), settings)

    def checkpoints(self) -> list[Checkpoint]:
        """All there are, ascending by epoch.

        Raises:
            MissingFileError: there is none.
        """
        epochs = model_files.checkpoint_epochs(self.directory)
        if not epochs:
            raise errors.MissingFileError(
                f"{self.directory / model_files.CHECKPOINTS_NAME}: no checkpoint; train the network to its end"
            )
        fingerprint = self.settings.fingerprint or {}
        steps = batches.steps_per_epoch(self.settings.training, int(fingerprint["num_trained_on"]))
        return [
            Checkpoint(epoch, epoch * steps, model_files.checkpoint_prefix(self.directory, epoch)) for epoch in epochs
        ]

    def build(self) -> tf.Module:
        """A module of the network's architecture whose variables all exist, with values of no meaning.

        Raises:
            InvalidValueError: as `heldout.models.registry.build`.
        """
        fingerprint = self.settings.fingerprint or {}
        height, width, channels = fingerprint["image_shape"]
        return build(self.settings, int(fingerprint["num_classes"]), (height, width, channels))

    def restore(self, module: tf.Module, checkpoint: Checkpoint) -> None:
        """Sets all variables of a module from a checkpoint, or none.

        Raises:
            MissingFileError, DamagedFileError, MismatchError: as `zoo.checkpoints.restore`.
        """
        checkpoints.restore(module, checkpoint.prefix)

    def data(self, data_dir: str | None = None) -> model_data.ModelData:
        """The data that the network was trained on.

        Args:
            data_dir: as for `heldout.datasets.registry.load`.

        Raises:
            MismatchError: what is there is not that.
            MissingFileError, DamagedFileError: as `heldout.datasets.registry.load`.
        """
        return model_data.load(self.settings, data_dir)

    def history(self) -> np.ndarray:
        """Its evaluations, see `model_files.read_history`."""
        return model_files.read_history(self.directory)


def build(settings: model_settings.ModelSettings, num_classes: int, image_shape: tuple[int, int, int]) -> tf.Module:
    """A freshly initialised module of settings, see `heldout.models.registry.build`."""
    return models.build(
        settings.architecture,
        num_classes,
        image_shape,
        settings.architecture_options,
        dtype=tf.as_dtype(settings.training.dtype),
    )


def is_model_run(directory: files.PathLike) -> bool:
    """As `model_files.is_model_run`, which programs ask that shall start without TensorFlow."""
    return model_files.is_model_run(directory)
