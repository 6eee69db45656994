"""Shards of records as others write them: by TensorFlow alone."""

import pathlib

import numpy as np
import tensorflow as tf

from tests.heldout.datasets import image_cases


def feature(value):
    """A value as a tf.train.Feature."""
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=np.atleast_1d(value).tolist()))


def example(**features):
    """A serialised tf.train.Example; "__" in a name stands for "/"."""
    named = {name.replace("__", "/"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString(deterministic=True)


def imagenet_example(image, label, index):
    """A record of the published form, which holds more than is read, and labels from 1."""
    return example(
        image__encoded=image,
        image__class__label=label + 1,
        index=index,
        image__filename=f"file_{index}.JPEG".encode(),
        image__height=90,
        image__colorspace=b"RGB",
        image__object__bbox__label=np.array([7, 8]),
    )


def tiny_example(image, label, index):
    """A record as of Tiny-ImageNet."""
    return example(image_raw=image, label=label, index=index)


def write_shard(path, records):
    """A TFRecord file."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def write_imagenet(folder, num_train=40, num_test=10, num_shards=4, size=(40, 48)):
    """A folder of the published form: digits enlarged to JPEG of `size` (width, height), dealt to shards at random.

    Returns:
        For each split the list of (encoded image, label) by index.
    """
    generator, listed = np.random.default_rng(3), {}
    for split, prefix, count, shards in (
        ("train", "train", num_train, num_shards),
        ("test", "validation", num_test, 2),
    ):
        rows = []
        for number in range(count):
            pixels, label = image_cases.digit(number, split)
            rows.append((image_cases.encoded(image_cases.coloured(pixels), "jpeg", size), label))
        for number, part in enumerate(np.array_split(generator.permutation(count), shards)):
            records = [imagenet_example(*rows[index], index) for index in part]
            write_shard(pathlib.Path(folder) / f"{prefix}-{number:05d}-of-{shards:05d}", records)
        listed[split] = rows
    return listed
