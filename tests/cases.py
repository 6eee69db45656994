"""The small inputs that tests share: one tiny data set of real images, and a quick recipe for it."""

import numpy as np

from heldout.datasets import dataset as dataset_lib
from heldout.datasets import digits
from heldout.experiments import recipes, training_config


def tiny_digits(num_train=60, num_test=20):
    """The first images of scikit-learn's digits as a data set of its own."""
    full = digits.load()
    parts = {"train": (full.train, num_train), "test": (full.test, num_test)}
    splits = {name: dataset_lib.Split(part.images[:size], part.label[:size]) for name, (part, size) in parts.items()}
    return dataset_lib.Dataset("npz:tiny.npz", "1", class_names=full.class_names, scale=full.scale, **splits)


def tiny_digits_npz(path, num_train=60, num_test=20):
    """Writes `tiny_digits` as an npz data set and returns its --dataset name."""
    data = tiny_digits(num_train, num_test)
    arrays = {}
    for name, split in (("train", data.train), ("test", data.test)):
        arrays |= {f"{name}__image": split.images, f"{name}__label": split.label}
    np.savez(path, **arrays, __num_classes=10, __data_scale=data.scale)
    return f"npz:{path}"


def tiny_recipe(data, architecture="mlp", options=None, **training):
    """A recipe that trains in milliseconds."""
    defaults = {"num_epochs": 2, "batch_size": 10}
    config = training_config.TrainingConfig(**(defaults | training))
    options = {"hidden_sizes": [8]} if options is None else options
    return recipes.Recipe("e", data.fingerprint(), architecture, options, config, dataset_flag="npz:gone.npz")
