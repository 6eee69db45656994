"""The data of a single network: training, validation and test examples, with labels as they are and as trained with.

The training split of a data set is divided by `data_split_seed`; of the part that is trained on, some labels are
changed by `label_seed`; validation and test labels stay clean. Inputs of the network are x / scale, then
(x - mean) / std per channel, where the data set brings mean and std or the settings ask for it:

    cifar10    mean .4914 .4822 .4465    std .2023 .1994 .2010
    cifar100   mean .5071 .4865 .4409    std .2009 .1984 .2023
    others     of their whole training split, so that no seed decides them
"""

import dataclasses
from typing import Any

import numpy as np

from heldout.datasets import dataset as dataset_lib
from heldout.datasets import random_images, registry
from heldout.experiments import data_split, label_noise
from heldout.training import model_settings
from zoo import errors

_KNOWN = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2009, 0.1984, 0.2023)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class ModelSplit:
    """Some examples.

    Attributes:
        images: [n, H, W, C] as stored, uint8 or float32.
        label: int64 [n], trained with.
        clean_label: int64 [n], as the data set has them.
        ids: int64 [n], positions in the data set's own split, ascending.
    """

    images: np.ndarray
    label: np.ndarray
    clean_label: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True, eq=False)
class ModelData:
    """The data of a network.

    Attributes:
        train, val, test: its examples; `val` may be empty.
        dataset: what they come from, with clean labels, scale, mean and std; its train split holds both `train` and
            `val`.
    """

    train: ModelSplit
    val: ModelSplit
    test: ModelSplit
    dataset: dataset_lib.Dataset

    @property
    def num_classes(self) -> int:
        """K."""
        return self.dataset.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.dataset.image_shape

    def normalise(self, images: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
        """Inputs of the network, of `dtype`, from images [..., H, W, C] as stored."""
        return self.dataset.normalise(images, dtype)

    def split(self, name: str) -> ModelSplit:
        """The examples called "train", "val" or "test".

        Raises:
            InvalidValueError: for any other name.
        """
        if name not in ("train", "val", "test"):
            raise errors.InvalidValueError(f"split {name!r} is unknown; use train, val or test")
        found: ModelSplit = getattr(self, name)
        return found

    def fingerprint(self) -> dict[str, Any]:
        """What the data were, as JSON: sizes, digests of labels, and what turns images into inputs."""
        data = self.dataset
        return data.fingerprint() | {
            "num_trained_on": len(self.train),
            "num_validating": len(self.val),
            "num_changed_labels": int(np.sum(self.train.label != self.train.clean_label)),
            "trained_label_sha256": dataset_lib.label_sha256(self.train.label),
            "scale": float(data.scale),
            "mean": None if data.mean is None else [float(value) for value in data.mean],
            "std": None if data.std is None else [float(value) for value in data.std],
        }


def load(settings: model_settings.ModelSettings, data_dir: str | None = None) -> ModelData:
    """The data of a network, from its data set.

    Args:
        settings: where they have a fingerprint, the data must have it too.
        data_dir: as for `registry.load`.

    Raises:
        MismatchError: the data are not those that the network was trained on.
        InvalidValueError, MissingFileError, DamagedFileError: as `registry.load` and `of_dataset`.
    """
    data = of_dataset(settings, registry.load(settings.dataset, data_dir))
    if settings.fingerprint is not None and data.fingerprint() != dict(settings.fingerprint):
        found, expected = data.fingerprint(), settings.fingerprint
        names = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
        raise errors.MismatchError(
            f"--dataset={settings.dataset}: not the data that the network was trained on: {', '.join(names)} differ "
            f"(found {[found.get(name) for name in names]}, expected {[expected.get(name) for name in names]}); name "
            "the data it was trained on with --data_dir"
        )
    return data


def of_dataset(settings: model_settings.ModelSettings, dataset: dataset_lib.Dataset) -> ModelData:
    """The same from a data set in memory.

    Raises:
        InvalidValueError: the split, the noise or the random images do not go with the data set.
    """
    if settings.random_data != random_images.NONE:
        dataset = random_images.replaced(dataset, settings.random_data, settings.mc_sample_seed)
    if settings.standardise and dataset.mean is None and dataset.std is None:
        dataset = _standardised(dataset, known=settings.random_data == random_images.NONE)
    clean, images = dataset.train.label, dataset.train.images
    num_train, num_val = data_split.sizes(settings.train_split, settings.val_split, len(clean))
    train, val = data_split.draw(settings.data_split_seed, num_train, num_val, len(clean))
    label = clean[train]
    if settings.noise is not None:
        noise = settings.noise.for_dataset(dataset.name)
        label = label_noise.noisy_labels(noise, clean, dataset.num_classes, among=train)[train]
    test = dataset.test
    return ModelData(
        ModelSplit(images[train], label, clean[train], train),
        ModelSplit(images[val], clean[val], clean[val], val),
        ModelSplit(test.images, test.label, test.label, test.index),
        dataset,
    )


def _standardised(dataset: dataset_lib.Dataset, known: bool) -> dataset_lib.Dataset:
    if known and dataset.name in _KNOWN:
        mean, std = _KNOWN[dataset.name]
        return dataclasses.replace(dataset, mean=mean, std=std)
    means, stds = random_images.channel_statistics(dataset.train.images)
    # A channel of one value has nothing to be scaled by.
    stds = np.where(stds == 0, dataset.scale, stds)
    return dataclasses.replace(
        dataset,
        mean=tuple(float(value) for value in means / dataset.scale),
        std=tuple(float(value) for value in stds / dataset.scale),
    )
