"""A run of a zoo whose module is built once and given the weights of one checkpoint after the other."""

from collections.abc import Callable
import contextlib
from typing import Any

import numpy as np
import tensorflow as tf

from heldout.evaluation import judging, run_sources
from heldout.experiments import recipes
from heldout.models import registry as models
from scripts.attribution import source_config
from zoo import aux_arrays, checkpoints, errors, layout


class RunModel:
    """The module of a run, with the data set behind it.

    Attributes:
        run: where it lies.
        data: the data set, with the labels that were trained with.
        module: the network; its weights are those of the last `restore`.
        recipe: of its experiment; None for a published one.
    """

    def __init__(
        self,
        source: source_config.SourceConfig,
        scope: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        """Builds the module; nothing is restored yet.

        Args:
            source: with a run.
            scope: in which variables are made.

        Raises:
            MissingFileError, MismatchError, InvalidValueError: nothing tells what the run was made of, or the data set
                is not that of the run.
        """
        assert source.run is not None
        self.run = layout.run_from_directory(source.run)
        self._made_of = run_sources.source_of(self.run, source.dataset, source.architecture)
        experiment = self.run.experiment
        self.data = recipes.load_dataset(self.run.zoo, experiment, self._made_of.dataset, source.data_dir)
        recipes.check_dataset(self.run.zoo, experiment, self.data)
        self.recipe = recipes.read(self.run.zoo, experiment)
        with scope():
            self.module = models.build(
                self._made_of.architecture,
                self.data.num_classes,
                self.data.image_shape,
                self._made_of.architecture_options,
                dtype=tf.as_dtype(self._made_of.dtype),
            )
        self._normalise = judging.normaliser(self.data, self._made_of.dtype)

    @property
    def name(self) -> str:
        """experiment/ratio/run."""
        return f"{self.run.experiment}/{layout.ratio_name(self.run.subset_ratio)}/{self.run.run_id}"

    @property
    def dtype(self) -> str:
        """Of inputs and weights."""
        return self._made_of.dtype

    @property
    def architecture(self) -> str:
        """Its name."""
        return self._made_of.architecture

    def restore(self, epoch: int | None = None) -> checkpoints.CheckpointState:
        """Sets the weights of a checkpoint; of the last one for None.

        Raises:
            MissingFileError, DamagedFileError, MismatchError: of the checkpoint.
        """
        prefix = layout.latest_checkpoint(self.run) if epoch is None else self.run.checkpoint_prefix(epoch)
        return checkpoints.restore(self.module, prefix)

    def subset_mask(self) -> np.ndarray:
        """[N] bool, by original index: what the run was trained on.

        Raises:
            MissingFileError, DamagedFileError: of its record.
            MismatchError: the record is of a data set of another size.
        """
        aux = aux_arrays.read(self.run.aux_arrays_path)
        sizes = (len(self.data.train), len(self.data.test))
        if (aux.num_train, aux.num_test) != sizes:
            raise errors.MismatchError(
                f"{self.run.aux_arrays_path} records {aux.num_train} training and {aux.num_test} test examples, data "
                f"set {self.data.name} has {sizes[0]} and {sizes[1]}; give the --dataset of the run"
            )
        return aux.subset_mask()

    def logits(self, images: tf.Tensor) -> tf.Tensor:
        """Logits of images as the data set stores them."""
        return self.logits_of_inputs(self._normalise(images))

    def logits_of_inputs(self, inputs: tf.Tensor) -> tf.Tensor:
        """Logits of images as the network takes them."""
        return self.module(inputs, is_training=False)
