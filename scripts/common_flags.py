"""Flags that several programs share, so that a name means the same everywhere.

A program passes the names of those it reads to `cli.launch`, which explains them in --help and refuses the others.
"""

from absl import flags

ZOO = flags.DEFINE_string("zoo", None, "Folder that holds experiments: <zoo>/<experiment>/<subset_ratio>/<run_id>/.")
EXPERIMENT = flags.DEFINE_string("experiment", None, "Name of the experiment; may be left out where the zoo has one.")
DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Data set: digits (bundled), mnist, fashion_mnist, svhn_cropped, cifar10, cifar100 (prepared by TensorFlow "
    "Datasets), or npz:PATH.",
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where TensorFlow Datasets keeps its data. Without it $DATA_DIR, else its own default."
)
DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "gpu", "tpu"], "Where to compute.")
