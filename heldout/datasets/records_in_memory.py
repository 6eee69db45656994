"""Image records that fit into memory, as a data set like any other."""

import math
import re

import numpy as np

from heldout.datasets import dataset, indexed_records, record_format
from zoo import errors, files

LARGEST_BYTES = 2 << 30
_BATCH_SIZE = 64


def num_bytes(records: indexed_records.IndexedRecords) -> int:
    """Size of all images as `hold` keeps them."""
    itemsize = 1 if records.format.name == "tiny" else 4
    return (records.num_train + records.num_test) * math.prod(records.image_shape) * itemsize


def load(folder: files.PathLike) -> dataset.Dataset:
    """The records of a folder as `hold` keeps them."""
    return hold(indexed_records.open_records(folder))


def hold(records: indexed_records.IndexedRecords) -> dataset.Dataset:
    """All images as evaluation sees them, in original order: tiny records as bytes, imagenet as float32.

    Raises:
        InvalidValueError: they take more than 2 GiB, or an example is missing.
        DamagedFileError: a record or an image cannot be read.
    """
    size = num_bytes(records)
    if size > LARGEST_BYTES:
        raise errors.InvalidValueError(
            f"{records.name}: its images take {files.size_text(size)} in memory, and at most "
            f"{files.size_text(LARGEST_BYTES)} are held there; use a smaller data set"
        )
    records.check_complete()
    is_tiny = records.format.name == "tiny"
    train, test = (_split(records, split) for split in record_format.SPLITS)
    return dataset.Dataset(
        records.name,
        records.version,
        train,
        test,
        records.class_names,
        scale=indexed_records.BYTE_SCALE if is_tiny else 1.0,
        mean=records.format.mean,
        std=records.format.std,
    )


def _split(records: indexed_records.IndexedRecords, split: str) -> dataset.Split:
    import tensorflow as tf  # seconds; nothing is held without it

    dtype = np.uint8 if records.format.name == "tiny" else np.float32
    images = np.empty((len(records.label[split]), *records.image_shape), dtype)
    try:
        for index, _, image in records.evaluation_batches(split, _BATCH_SIZE, normalised=False).as_numpy_iterator():
            images[index] = image
    except tf.errors.OpError as error:
        # The rest names nodes of TensorFlow's graph.
        reason = re.sub(r"{{.*?}}\s*", "", error.message).partition("\n")[0]
        raise errors.DamagedFileError(
            f"{records.folder}: the {split} records cannot be read ({reason.strip()}); restore them, or build them "
            "again"
        ) from error
    return dataset.Split(images, records.label[split])
