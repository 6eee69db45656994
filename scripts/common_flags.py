"""Flags that several programs share, so that a name means the same everywhere.

A program passes the names of those it reads to `cli.launch`, which explains them in --help and refuses the others.
"""

import os

from absl import flags

# For --zoo and --dest alike: the zoo that one works on.
DEFAULT_ZOO = os.environ.get("HELDOUT_ZOO") or None
ZOO = flags.DEFINE_string(
    "zoo",
    DEFAULT_ZOO,
    "Folder that holds experiments: <zoo>/<experiment>/<subset_ratio>/<run_id>/. Without it $HELDOUT_ZOO.",
)
EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "Name of the experiment; may be left out where the zoo, or --registry, has one."
)
DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Data set: digits (bundled), gaussians (points in the plane), mnist, fashion_mnist, svhn_cropped, emnist_letters, "
    "cifar10, cifar100, cats_vs_dogs_SIDE, cassava_SIDE (prepared by TensorFlow Datasets), npz:PATH, or records:PATH.",
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where TensorFlow Datasets keeps its data. Without it $DATA_DIR, else its own default."
)
DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "gpu", "tpu"], "Where to compute.")
