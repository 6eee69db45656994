"""The data of networks that are trained with and without some training examples; needs no TensorFlow."""

import dataclasses
from typing import Any

import numpy as np

from heldout.datasets import dataset as dataset_lib
from heldout.experiments import label_noise
from heldout.training import leave_out_config, leave_out_draw
from zoo import errors


@dataclasses.dataclass(frozen=True, eq=False)
class LeaveOutData:
    """Inputs and labels.

    Attributes:
        train_index: int64 [n], ascending positions in the training split of the data set.
        val_index: int64 [m], ascending positions in the split that validation examples come from.
        train_inputs: floats [n, H, W, C], x / scale.
        val_inputs: floats [m, H, W, C].
        train_label: int64 [n], trained with, as places in the classes of the experiment.
        clean_train_label: int64 [n], as the data set has them.
        val_label: int64 [m].
        num_outputs: k: 1 for two classes, else their number.
        dataset_fingerprint: of the data set that they come from.
    """

    train_index: np.ndarray
    val_index: np.ndarray
    train_inputs: np.ndarray
    val_inputs: np.ndarray
    train_label: np.ndarray
    clean_train_label: np.ndarray
    val_label: np.ndarray
    num_outputs: int
    dataset_fingerprint: dict[str, Any]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.train_inputs.shape[1:]
        return height, width, channels

    def targets(self, label: np.ndarray) -> np.ndarray:
        """What is regressed on, [B, k] of the type of the inputs: 0 or 1 for two classes, one-hot for more."""
        dtype = self.train_inputs.dtype
        if self.num_outputs == 1:
            return label[:, None].astype(dtype)
        return np.eye(self.num_outputs, dtype=dtype)[label]

    def fingerprint(self) -> dict[str, Any]:
        """What the data were, as JSON."""
        return self.dataset_fingerprint | {
            "drawn_train_sha256": dataset_lib.label_sha256(self.train_index),
            "drawn_val_sha256": dataset_lib.label_sha256(self.val_index),
            "trained_label_sha256": dataset_lib.label_sha256(self.train_label),
            "num_changed_labels": int(np.sum(self.train_label != self.clean_train_label)),
            "num_outputs": self.num_outputs,
        }


def of_dataset(config: leave_out_config.LeaveOutConfig, dataset: dataset_lib.Dataset) -> LeaveOutData:
    """The data of an experiment.

    Args:
        config: where it has a fingerprint, the data must have it too.
        dataset: the one that it names.

    Raises:
        InvalidValueError: classes, numbers or noise do not go with the data set.
        MismatchError: the data are not those of the fingerprint.
    """
    drawn = leave_out_draw.draw(
        dataset,
        config.classes,
        config.num_train,
        config.num_val,
        config.data_seed,
        config.val_split,
        coarse_labels=config.coarse_labels,
        class_counts=dict(config.class_counts),
    )
    clean = drawn.numbered(dataset.train.label)
    label = clean[drawn.train_index]
    if config.noise is not None:
        label = _noisy(config.noise, clean[drawn.pool], drawn)
    dtype = np.dtype(config.dtype)
    num_classes = drawn.num_classes
    val = dataset.split(drawn.val_split)
    data = LeaveOutData(
        train_index=drawn.train_index,
        val_index=drawn.val_index,
        train_inputs=_inputs(dataset, dataset.train.images[drawn.train_index], dtype),
        val_inputs=_inputs(dataset, val.images[drawn.val_index], dtype),
        train_label=label,
        clean_train_label=clean[drawn.train_index],
        val_label=drawn.numbered(val.label[drawn.val_index]),
        num_outputs=1 if num_classes == 2 else num_classes,
        dataset_fingerprint=dataset.fingerprint(),
    )
    if config.fingerprint is not None and data.fingerprint() != dict(config.fingerprint):
        raise errors.MismatchError(
            f"--dataset={config.dataset}: not the data of the experiment: found {data.fingerprint()}, expected "
            f"{dict(config.fingerprint)}; name the data that it was begun with"
        )
    return data


def _noisy(noise: label_noise.LabelNoise, pool_label: np.ndarray, drawn: leave_out_draw.ClassDraw) -> np.ndarray:
    """Labels of the drawn examples, changed: shares are of these, maps are of places in the classes."""
    noise = noise.for_dataset(f"classes numbered 0 to {drawn.num_classes - 1}")
    among = np.flatnonzero(np.isin(drawn.pool, drawn.train_index))
    return label_noise.noisy_labels(noise, pool_label, drawn.num_classes, among=among)[among]


def _inputs(dataset: dataset_lib.Dataset, images: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values in [0, 1], without mean and standard deviation."""
    return dataclasses.replace(dataset, mean=None, std=None).normalise(images, dtype)
