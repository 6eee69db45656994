"""The network that is linearised, at its weights w0, with training and validation examples; imports TensorFlow."""

import dataclasses
import os
import pathlib
import re
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import artifacts, examples, parameters, targets
from estimators.linearized import linear_models
from heldout.datasets import registry
from heldout.training import leave_out_data, leave_out_files, leave_out_networks
from scripts.attribution import model_sources, source_config
from scripts.unique_information import network_source, scoring_config
from zoo import checkpoints, errors, layout

_BATCH = 256
_NUM_PROBED = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network at w0.

    Attributes:
        target: what is differentiated.
        train: training examples; labels are targets y [n, k].
        val: validation (of a run or a user's model, test) examples.
        train_label: [n], as the data have them.
        val_label: [m].
        identity: what decides weights and examples, as JSON.
        clean_train_label: [n], before some were changed; None where that is not known.
        start_weights: [P], where linearised training begins; None where at w0.
        epsilon: relative rounding of the gradients.
    """

    target: targets.Target
    train: examples.Examples
    val: examples.Examples
    train_label: np.ndarray
    val_label: np.ndarray
    identity: dict[str, Any]
    clean_train_label: np.ndarray | None = None
    start_weights: np.ndarray | None = None

    @property
    def epsilon(self) -> float:
        """Relative rounding of gradients."""
        return float(np.finfo(self.target.dtype.as_numpy_dtype).eps)

    @property
    def num_outputs(self) -> int:
        """K."""
        return int(self.train.labels.shape[1])

    def outputs(self, data: examples.Examples) -> np.ndarray:
        """What the linearised network says where its training begins, [n, k] float64."""
        if self.start_weights is not None:
            model = linear_models.of(self.target, "checkpoint")
            parts = [model.predict(batch.inputs, self.start_weights) for batch in data.batches(_BATCH)]
            return np.concatenate(parts).astype(np.float64)
        parts = [
            np.asarray(self.target.predict(tf.nest.map_structure(tf.convert_to_tensor, batch.inputs)), np.float64)
            for batch in data.batches(_BATCH)
        ]
        return np.concatenate(parts).reshape(len(data), -1)


def load(source: network_source.NetworkSource, config: scoring_config.LinearisationConfig) -> Network:
    """Builds the network and gives it its weights.

    Args:
        source: which network.
        config: at which checkpoint, by which parameters, in which type.

    Raises:
        MissingFileError, DamagedFileError, MismatchError: of checkpoints and data.
        InvalidValueError: the settings do not go with the network.
        EstimatorError: the network cannot be differentiated.
    """
    return _of_experiment(source, config) if source.experiment is not None else _of_other(source, config)


def _of_experiment(source: network_source.NetworkSource, config: scoring_config.LinearisationConfig) -> Network:
    experiment = source.experiment
    assert experiment is not None
    data = leave_out_data.of_dataset(experiment, registry.load(experiment.dataset, source.data_dir))
    module = _module(source, config, data, config.checkpoint)
    target = targets.of(module, loss="squared_error", parameters=config.head)
    dtype = target.dtype.as_numpy_dtype
    # The type of the experiment rounds inputs and targets first, as it does where the network is trained.
    arrays = {name: getattr(data, f"{name}_inputs").astype(dtype) for name in ("train", "val")}
    train = examples.Examples(arrays["train"], data.targets(data.train_label).astype(dtype), data.train_index)
    val = examples.Examples(arrays["val"], data.targets(data.val_label).astype(dtype), data.val_index)
    identity = _identity(target, train, val) | {"all_weights": _all_weights(module)}
    start_weights = None
    if config.start == "first":
        first = targets.of(_module(source, config, data, "first"), loss="squared_error", parameters=config.head)
        start_weights = parameters.flatten([tf.convert_to_tensor(variable) for variable in first.variables]).numpy()
        identity["start_weights"] = artifacts.weights_fingerprint(first)
    return Network(
        target, train, val, data.train_label, data.val_label, identity, data.clean_train_label, start_weights
    )


def _module(
    source: network_source.NetworkSource,
    config: scoring_config.LinearisationConfig,
    data: leave_out_data.LeaveOutData,
    checkpoint: str,
) -> tf.Module:
    """The network of an experiment, with the weights of a checkpoint."""
    experiment = source.experiment
    assert experiment is not None
    module = leave_out_networks.initialised(experiment, data)
    prefix = _checkpoint(source, checkpoint)
    if prefix is not None:
        checkpoints.restore(module, prefix)
    dtype = experiment.dtype if config.kernel_dtype == "auto" else config.kernel_dtype
    return module if dtype == experiment.dtype else leave_out_networks.cast(module, experiment, data, dtype)


def _checkpoint(source: network_source.NetworkSource, name: str) -> str | None:
    """The prefix of a checkpoint; None for the initialisation."""
    assert source.experiment is not None
    if name == "first":
        prefix = None if source.folder is None else leave_out_files.checkpoint_prefix(source.folder, 0)
        return None if prefix is None or not _is_there(prefix) else str(prefix)
    if name != "last" and not re.fullmatch("[0-9]{1,15}", name):
        return os.path.abspath(os.path.expanduser(name))
    if source.folder is None:
        raise errors.InvalidValueError(
            f"--checkpoint={name}: is one of a folder of ground_truth_effects; name it with --experiment"
        )
    step = source.experiment.num_steps if name == "last" else int(name)
    prefix = leave_out_files.checkpoint_prefix(source.folder, step)
    if not _is_there(prefix):
        there = sorted(int(path.stem.removeprefix("step-")) for path in prefix.parent.glob("step-*.index"))
        raise errors.MissingFileError(
            f"--checkpoint={name}: there is no {prefix}; there are checkpoints after {there or 'no'} steps"
        )
    return str(prefix)


def _is_there(prefix: pathlib.Path) -> bool:
    return os.path.isfile(f"{prefix}{layout.CHECKPOINT_DATA_SUFFIX}")


def _all_weights(module: tf.Module) -> str:
    """Digest of all trained weights, also of those that are no parameters of the target."""
    return artifacts.weights_fingerprint(targets.of(module))


def _of_other(source: network_source.NetworkSource, config: scoring_config.LinearisationConfig) -> Network:
    assert source.other is not None
    if config.checkpoint != "first":
        raise errors.InvalidValueError(
            f"--checkpoint={config.checkpoint}: is one of an experiment; --model brings its own weights, and --epoch "
            "names a checkpoint of --run"
        )
    loaded = model_sources.load(dataclasses.replace(source.other, parameters=config.head))
    target = loaded.target
    first = np.asarray(target.predict(_tensors(loaded.train.take(slice(0, _NUM_PROBED)))), np.float64)
    num_outputs = int(np.prod(first.shape[1:]))
    train, val = (
        examples.Examples(data.inputs, _targets(source.other, data, num_outputs), data.ids)
        for data in (loaded.train, loaded.test)
    )
    # Weights that are no parameters show in what the network says.
    identity = _identity(target, train, val) | {"predictions": [f"{value:.3g}" for value in first.ravel()]}
    return Network(target, train, val, np.asarray(loaded.train.labels), np.asarray(loaded.test.labels), identity)


def _tensors(data: examples.Examples) -> Any:
    return tf.nest.map_structure(tf.convert_to_tensor, data.inputs)


def _targets(source: source_config.SourceConfig, data: examples.Examples, num_outputs: int) -> np.ndarray:
    """Y [n, k] of labels: numbers as they are, or one-hot rows of classes where there are several outputs."""
    labels = np.asarray(data.labels)
    if labels.ndim == 1 and num_outputs > 1 and labels.dtype.kind in "iu":
        if labels.min() < 0 or labels.max() >= num_outputs:
            raise errors.InvalidValueError(
                f"{source.model or source.run}: labels from {labels.min()} to {labels.max()} beside {num_outputs} "
                f"outputs; expected classes from 0 to {num_outputs - 1}, or targets [n, {num_outputs}]"
            )
        return np.eye(num_outputs, dtype=np.float32)[labels]
    if labels.size != len(labels) * num_outputs or labels.dtype.kind not in "biuf":
        raise errors.InvalidValueError(
            f"{source.model or source.run}: labels of shape {list(labels.shape)} and type {labels.dtype} beside "
            f"{num_outputs} outputs; expected numbers [n, {num_outputs}]"
        )
    return labels.reshape(len(labels), num_outputs).astype(np.float64 if labels.dtype == np.float64 else np.float32)


def _identity(target: targets.Target, train: examples.Examples, val: examples.Examples) -> dict[str, Any]:
    return {
        "weights": artifacts.weights_fingerprint(target),
        "num_parameters": target.num_parameters,
        "train_examples": train.fingerprint(),
        "val_examples": val.fingerprint(),
    }
