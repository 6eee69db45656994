"""Data sets prepared by TensorFlow Datasets (TFDS), in the order in which they are stored.

Nothing is downloaded. The records are read front to back, never shuffled or interleaved, so that position is the
index which the published zoos use. Versions are pinned, and the order is proved as far as it can be:

- where the digest of the labels is recorded here, the labels must have it;
- where records carry an id (CIFAR), every id must be the one that belongs at its place. TFDS stores a split in the
  order of md5(split name + position in the original files), so this needs no copy of the data;
- otherwise the sizes, and for balanced data sets the number of examples of each class, must be right. That does not
  prove the order: record the fingerprint at first use and compare later.
"""

from collections.abc import Iterator
import dataclasses
import hashlib
import os
from typing import Any

import numpy as np

from heldout.datasets import dataset
from zoo import errors

_BUFFER_BYTES = 1 << 20
_BATCH_SIZE = 500
_SCALE = 255.0


@dataclasses.dataclass(frozen=True)
class Pinned:
    """What is known beforehand about one data set.

    Attributes:
        version: the TFDS version that is read.
        num_train, num_test: sizes of the splits.
        num_classes: K.
        balanced: whether every class has equally many examples in each split.
        train_label_sha256, test_label_sha256: `dataset.label_sha256` in stored order; None where it is not known.
        has_id: whether records carry "<split>_<position in the original files>" as `id`.
        folder: where TFDS keeps it below its folder of data, where that is not the name.
        is_transposed: whether TFDS has rows and columns of the images exchanged; they are given upright.
    """

    version: str
    num_train: int
    num_test: int
    num_classes: int
    balanced: bool
    train_label_sha256: str | None = None
    test_label_sha256: str | None = None
    has_id: bool = False
    folder: str | None = None
    is_transposed: bool = False


# The digests of MNIST were computed from the prepared data. Those of CIFAR's training splits follow from the labels
# published in original order with the C-scores (Jiang et al. 2021), put into the order that `stored_order` computes.
PINNED: dict[str, Pinned] = {
    "mnist": Pinned(
        "3.0.1",
        60000,
        10000,
        10,
        balanced=False,
        train_label_sha256="0e44ecaf2547dac741c83ddf0bcf9e3ced796f00dcc8784057618b7001d89aff",
        test_label_sha256="d515834c278b04a6887dcb28e527fe6a2e43826cb9fbebc4c9eefb19c499bbe1",
    ),
    "cifar10": Pinned(
        "3.0.2",
        50000,
        10000,
        10,
        balanced=True,
        train_label_sha256="44f381ab83e32edf40c7c31d79ff88b388b4404b7e80a827af0c6c75c1873f62",
        has_id=True,
    ),
    "cifar100": Pinned(
        "3.0.2",
        50000,
        10000,
        100,
        balanced=True,
        train_label_sha256="b3bb78bc1057b3db7054bcc77e05dbb15b661acc4be7e263b585f71e631dbb58",
        has_id=True,
    ),
    "fashion_mnist": Pinned("3.0.1", 60000, 10000, 10, balanced=True),
    "svhn_cropped": Pinned("3.1.0", 73257, 26032, 10, balanced=False),
    # TFDS names 37 classes, of which the 26 letters are those from 1.
    "emnist_letters": Pinned("3.1.0", 88800, 14800, 37, balanced=False, folder="emnist/letters", is_transposed=True),
}


def data_directory(data_dir: str | None = None) -> str:
    """The folder of prepared data sets: the argument, else $DATA_DIR, else the default of TFDS."""
    for choice in (data_dir, os.environ.get("DATA_DIR"), os.environ.get("TFDS_DATA_DIR")):
        if choice:
            return os.path.expanduser(choice)
    return os.path.join(os.path.expanduser("~"), "tensorflow_datasets")


def stored_order(split_name: str, num_examples: int) -> np.ndarray:
    """Position in the original files of each stored example, int64 [num_examples], for data sets keyed by position."""
    keys = [hashlib.md5(f"{split_name}{position}".encode()).digest() for position in range(num_examples)]
    return np.array(sorted(range(num_examples), key=keys.__getitem__), np.int64)


def load(name: str, data_dir: str | None = None) -> dataset.Dataset:
    """Reads a prepared data set into memory.

    Args:
        name: a key of `PINNED`.
        data_dir: see `data_directory`.

    Returns:
        Images uint8 [n, H, W, C] with scale 255, labels in stored order, names of classes as TFDS gives them.

    Raises:
        InvalidValueError: the name is not pinned here.
        MissingFileError: it is not prepared in the folder; the message holds the command that prepares it.
        DamagedFileError: its files cannot be read.
        MismatchError: its labels, ids or sizes are not those of the known data set in the known order.
    """
    if name not in PINNED:
        raise errors.InvalidValueError(f"dataset {name!r} is not among the TFDS data sets {', '.join(PINNED)}")
    pinned = PINNED[name]
    root = data_directory(data_dir)
    directory = prepared_directory(root, pinned.folder or name, pinned.version)
    builder = _open_builder(directory)
    train = _read_split(builder, directory, "train", pinned, pinned.num_train, pinned.train_label_sha256)
    test = _read_split(builder, directory, "test", pinned, pinned.num_test, pinned.test_label_sha256)
    class_names = tuple(builder.info.features["label"].names)
    return dataset.Dataset(name, pinned.version, train, test, class_names, _SCALE)


def prepared_directory(root: str, name: str, version: str) -> str:
    """The folder of one version of a data set that TFDS has prepared.

    Args:
        root: folder of prepared data sets.
        name: as TFDS has it.
        version: of the data set.

    Raises:
        MissingFileError: it is not there; the message holds the command that prepares it.
    """
    directory = os.path.join(root, name, version)
    if not os.path.exists(os.path.join(directory, "dataset_info.json")):
        raise errors.MissingFileError(
            f"{directory}: {name} is not prepared there. Prepare it, on a machine with network access, with\n"
            f"""  python -c "import tensorflow_datasets as tfds; tfds.load('{name}:{version}', """
            f"""data_dir='{root}')"\n"""
            "or point --data_dir or $DATA_DIR at the folder that holds it"
        )
    return directory


def _open_builder(directory: str) -> Any:
    import tensorflow_datasets as tfds  # brings TensorFlow, seconds; the registry is on the path of quick programs

    try:
        builder = tfds.builder_from_directory(directory)
        for split_name in ("train", "test"):
            if not builder.info.splits[split_name].num_examples:
                raise ValueError(f"split {split_name!r} is empty")
        image, label = builder.info.features["image"], builder.info.features["label"]
        if len(image.shape) != 3 or None in image.shape or np.dtype(image.np_dtype) != np.uint8 or not label.names:
            raise ValueError(f"features {image} and {label}, expected uint8 images of one size and class labels")
    except Exception as error:  # damaged metadata surfaces as many unrelated exceptions
        raise errors.DamagedFileError(
            f"{directory}: not a readable TFDS data set ({error}); delete the folder and prepare it again"
        ) from error
    return builder


def _read_split(
    builder: Any, directory: str, split_name: str, pinned: Pinned, num_expected: int, label_sha256: str | None
) -> dataset.Split:
    import tensorflow as tf  # see _open_builder

    num_examples = builder.info.splits[split_name].num_examples
    features = builder.info.features
    images = np.empty((num_examples, *features["image"].shape), np.uint8)
    label = np.empty(num_examples, np.int64)
    ids: list[bytes] = []
    start = 0
    try:
        for batch in _batches(builder, split_name):
            rows = slice(start, start + len(batch["label"]))
            images[rows], label[rows] = batch["image"], batch["label"]
            ids.extend(batch["id"].tolist() if "id" in batch else ())
            start = rows.stop
    except (tf.errors.OpError, ValueError) as error:
        raise errors.DamagedFileError(
            f"{directory}: the {split_name} records cannot be read ({error}); delete the folder and prepare it again"
        ) from error
    if start != num_examples:
        raise errors.DamagedFileError(
            f"{directory}: found {start} {split_name} records, expected {num_examples} as in dataset_info.json; "
            "delete the folder and prepare it again"
        )
    if label.min() < 0 or label.max() >= len(features["label"].names):
        raise errors.DamagedFileError(
            f"{directory}: {split_name} labels span {label.min()}..{label.max()}, expected classes "
            f"0..{len(features['label'].names) - 1}; delete the folder and prepare it again"
        )
    _check_order(f"{directory} {split_name}", split_name, label, ids, pinned, num_expected, label_sha256)
    return dataset.Split(images.swapaxes(1, 2).copy() if pinned.is_transposed else images, label)


def _batches(builder: Any, split_name: str) -> Iterator[dict[str, np.ndarray]]:
    """Decoded batches of one split, in stored order.

    Whole batches are parsed at once and the files read one after the other; on MNIST this takes 0.4 of the time of
    `builder.as_dataset`, which parses record by record.
    """
    import tensorflow as tf  # see _open_builder

    image = builder.info.features["image"]
    names = {"image": tf.string, "label": tf.int64}
    if "id" in builder.info.features:
        names["id"] = tf.string
    specification = {name: tf.io.FixedLenFeature([], dtype) for name, dtype in names.items()}

    def decode(records: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(records, specification)

        def decode_image(encoded: tf.Tensor) -> tf.Tensor:
            decoded = tf.io.decode_image(encoded, channels=image.shape[-1], expand_animations=False)
            return tf.ensure_shape(decoded, image.shape)

        return {**parsed, "image": tf.map_fn(decode_image, parsed["image"], fn_output_signature=tf.uint8)}

    paths = [os.fspath(path) for path in builder.info.splits[split_name].filepaths]
    records = tf.data.TFRecordDataset(paths, buffer_size=_BUFFER_BYTES).batch(_BATCH_SIZE)
    return records.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).as_numpy_iterator()


def _check_order(
    where: str,
    split_name: str,
    label: np.ndarray,
    ids: list[bytes],
    pinned: Pinned,
    num_expected: int,
    label_sha256: str | None,
) -> None:
    if label_sha256 is not None:
        dataset.check_label_order(where, label, label_sha256)
    if len(label) != num_expected:
        raise errors.MismatchError(
            f"{where}: found {len(label)} examples, expected {num_expected}; delete the folder and prepare it again"
        )
    counts = np.bincount(label, minlength=pinned.num_classes)
    if pinned.balanced and (len(counts) != pinned.num_classes or np.ptp(counts) != 0):
        raise errors.MismatchError(
            f"{where}: between {counts.min()} and {counts.max()} examples in {len(counts)} classes, expected "
            f"{num_expected // pinned.num_classes} in each of {pinned.num_classes}; delete the folder and prepare it "
            "again"
        )
    if pinned.has_id:
        if len(ids) != len(label):
            raise errors.MismatchError(
                f"{where}: {len(ids)} of {len(label)} records carry an id, expected all, since without them the order "
                "cannot be proved; delete the folder and prepare it again"
            )
        expected = [f"{split_name}_{position:05d}".encode() for position in stored_order(split_name, num_expected)]
        wrong = next((place for place, pair in enumerate(zip(ids, expected, strict=True)) if pair[0] != pair[1]), None)
        if wrong is not None:
            raise errors.MismatchError(
                f"{where}: the examples are not in the order in which TFDS stores them: place {wrong} holds "
                f"{ids[wrong].decode(errors='replace')}, expected {expected[wrong].decode()}; delete the folder and "
                "prepare it again"
            )
