"""Names of shards and bytes of records, held against TensorFlow's own reader and writer."""

import numpy as np
import pytest
import tensorflow as tf

from heldout.datasets import record_format
from tests.heldout.datasets import record_cases
from zoo import errors


def _touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"xyz")


def test_names_of_shards():
    imagenet, tiny = record_format.FORMATS["imagenet"], record_format.FORMATS["tiny"]
    assert record_format.shard_name(imagenet, "train", 7, 1024) == "train-00007-of-01024"
    assert record_format.shard_name(imagenet, "test", 127, 128) == "validation-00127-of-00128"
    assert record_format.shard_name(tiny, "test", 0, 8) == "test-00000-of-00008"


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"),
        (
            "tiny-train.tfrecord-00000-of-00002",
            "tiny-train.tfrecord-00001-of-00002",
            "tiny-val.tfrecord-00000-of-00001",
        ),
        ("x_train.tfrecords-00000-of-00002", "x_train.tfrecords-00001-of-00002", "x_test.tfrecords-00000-of-00001"),
    ],
)
def test_shards_are_found_by_their_names(tmp_path, names):
    _touch(tmp_path, *names, "labels.npz", "strain-00000-of-00001", "train-0-of-1")
    found = record_format.shards(tmp_path)
    assert [(shard.split, shard.path.name, shard.size) for shard in found] == [
        ("train", names[0], 3),
        ("train", names[1], 3),
        ("test", names[2], 3),
    ]


def test_missing_shards_are_named(tmp_path):
    with pytest.raises(errors.MissingFileError, match="gone: no such folder; give the folder that holds the shards"):
        record_format.shards(tmp_path / "gone")
    with pytest.raises(errors.MissingFileError, match="holds no train shards, expected files named like train-00000"):
        record_format.shards(tmp_path)
    _touch(tmp_path, "train-00000-of-00008", "train-00004-of-00008")
    names = "train-00001-of-00008, train-00002-of-00008, train-00003-of-00008, train-00005-of-00008, "
    with pytest.raises(
        errors.MissingFileError, match=f"lacks {names}train-00006-of-00008 and 1 more; restore the train"
    ):
        record_format.shards(tmp_path)


def test_shards_beyond_their_number_are_named(tmp_path):
    _touch(tmp_path, "train-00000-of-00001", "train-00001-of-00001", "test-00000-of-00001")
    with pytest.raises(errors.MissingFileError, match="holds train-00001-of-00001, beyond the number of shards"):
        record_format.shards(tmp_path)


def test_two_sets_of_shards_are_refused(tmp_path):
    _touch(tmp_path, "train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")
    with pytest.raises(
        errors.DamagedFileError, match=r"several sets of train shards, train-\*-of-00001 and train-\*-of"
    ):
        record_format.shards(tmp_path)


def test_unknown_format():
    with pytest.raises(errors.InvalidValueError, match="format 'cifar' is unknown; use one of imagenet, tiny"):
        record_format.format_of("cifar")


@pytest.mark.parametrize("name", ["imagenet", "tiny"])
@pytest.mark.parametrize(("label", "index"), [(0, 0), (127, 128), (999, 1281166), (5, 2**62)])
def test_records_are_what_tensorflow_writes(tmp_path, name, label, index):
    known = record_format.FORMATS[name]
    image = np.random.default_rng(0).bytes(70000)
    record = record_format.encode(known, image, label, index, "näme.JPEG")
    (tmp_path / "own").write_bytes(record_format.framed(record))
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        writer.write(record)
    assert (tmp_path / "own").read_bytes() == (tmp_path / "theirs").read_bytes()
    parsed = tf.train.Example.FromString(record).features.feature
    assert parsed[known.image].bytes_list.value[:] == [image]
    assert parsed[known.label].int64_list.value[:] == [label + (name == "imagenet")]
    assert parsed["index"].int64_list.value[:] == [index]
    if name == "imagenet":
        assert parsed["image/filename"].bytes_list.value[:] == ["näme.JPEG".encode()]
    assert len(parsed) == (4 if name == "imagenet" else 3)


def test_features_are_those_of_the_published_form():
    record = tf.train.Example.FromString(record_cases.imagenet_example(b"x", 4, 2)).features.feature
    known = record_format.FORMATS["imagenet"]
    assert {known.image, known.label, known.index, known.filename} <= set(record)


def test_many_names_are_shortened():
    assert record_format.named(range(3)) == "0, 1, 2"
    assert record_format.named(range(8)) == "0, 1, 2, 3, 4 and 3 more"
