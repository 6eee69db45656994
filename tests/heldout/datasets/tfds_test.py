"""TFDS data sets, held to small prepared folders that TFDS itself writes: order, digests, ids, sizes, damage."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets

from heldout.datasets import dataset, tfds
from zoo import errors

_NUM_TRAIN, _NUM_TEST = 60, 20


def _write(root, name="mnist", version="3.0.1", num_classes=10, with_id=False, shape=(28, 28, 1), image_dtype="uint8"):
    """Prepares a small data set as TFDS does: examples keyed by position and stored in the order of their hashes."""
    generator = np.random.default_rng(0)

    def examples(split_name, num_examples):
        for position in range(num_examples):
            example = {
                "image": generator.integers(0, 256, shape).astype(image_dtype),
                "label": position * 7 % num_classes,
            }
            yield position, example | ({"id": f"{split_name}_{position:05d}"} if with_id else {})

    features = {
        "image": tensorflow_datasets.features.Image(shape=shape, dtype=np.dtype(image_dtype)),
        "label": tensorflow_datasets.features.ClassLabel(names=[f"class {number}" for number in range(num_classes)]),
    }
    if with_id:
        features["id"] = tensorflow_datasets.features.Text()
    tensorflow_datasets.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        data_dir=str(root),
        features=tensorflow_datasets.features.FeaturesDict(features),
        split_datasets={"train": examples("train", _NUM_TRAIN), "test": examples("test", _NUM_TEST)},
    )
    return root / name / version


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    _write(root)
    return root


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    _write(root, "cifar10", "3.0.2", with_id=True, shape=(4, 4, 3))
    return root


def _original_labels(split_name, num_examples):
    return tfds.stored_order(split_name, num_examples) * 7 % 10


def _pin(monkeypatch, name, **changes):
    settings = {"num_train": _NUM_TRAIN, "num_test": _NUM_TEST, "num_classes": 10, "balanced": True}
    version = tfds.PINNED[name].version
    monkeypatch.setitem(tfds.PINNED, name, tfds.Pinned(version, **(settings | changes)))


def _reference(root, name, version, split_name):
    builder = tensorflow_datasets.builder_from_directory(str(root / name / version))
    read_config = tensorflow_datasets.ReadConfig(interleave_cycle_length=1)
    return list(builder.as_dataset(split=split_name, shuffle_files=False, read_config=read_config).as_numpy_iterator())


@pytest.mark.parametrize(("fixture", "name", "version"), [("mnist", "mnist", "3.0.1"), ("cifar", "cifar10", "3.0.2")])
def test_examples_come_in_the_order_of_tfds(request, monkeypatch, fixture, name, version):
    root = request.getfixturevalue(fixture)
    _pin(monkeypatch, name)
    loaded = tfds.load(name, str(root))
    assert loaded.class_names == tuple(f"class {number}" for number in range(10))
    assert (loaded.name, loaded.version, loaded.scale) == (name, version, 255)
    for split_name in ("train", "test"):
        reference = _reference(root, name, version, split_name)
        split = loaded.split(split_name)
        np.testing.assert_array_equal(split.images, [example["image"] for example in reference])
        np.testing.assert_array_equal(split.label, [example["label"] for example in reference])


def test_stored_order_is_that_in_which_tfds_stores(cifar):
    ids = [example["id"].decode() for example in _reference(cifar, "cifar10", "3.0.2", "train")]
    assert ids == [f"train_{position:05d}" for position in tfds.stored_order("train", _NUM_TRAIN)]


def test_stored_order_of_cifar_is_pinned():
    # The recorded digests were computed with this order: another hash, salt or key would change it.
    assert tfds.stored_order("train", 50000)[:4].tolist() == [16399, 1680, 47917, 17307]


def test_letters_lie_in_a_folder_of_their_own_and_are_given_upright(tmp_path, monkeypatch):
    _write(tmp_path, "letters", "3.1.0", shape=(6, 5, 1))
    (tmp_path / "emnist").mkdir()
    (tmp_path / "letters").rename(tmp_path / "emnist" / "letters")
    settings = {"folder": "emnist/letters", "is_transposed": True, "balanced": False}
    assert {name: getattr(tfds.PINNED["emnist_letters"], name) for name in settings} == settings
    _pin(monkeypatch, "emnist_letters", **settings)
    loaded = tfds.load("emnist_letters", str(tmp_path))
    reference = _reference(tmp_path / "emnist", "letters", "3.1.0", "train")
    assert (loaded.name, loaded.image_shape) == ("emnist_letters", (5, 6, 1))
    np.testing.assert_array_equal(loaded.train.images[3, :, :, 0], reference[3]["image"][:, :, 0].T)
    with pytest.raises(errors.MissingFileError, match=r"tfds.load\('emnist/letters:3.1.0'"):
        tfds.load("emnist_letters", str(tmp_path / "gone"))


def test_several_files_are_read_one_after_the_other(tmp_path, monkeypatch):
    directory = _write(tmp_path)
    record = directory / "mnist-train.tfrecord-00000-of-00001"
    records = list(tf.data.TFRecordDataset(str(record)).as_numpy_iterator())
    record.unlink()
    for shard, part in enumerate((records[:25], records[25:])):
        with tf.io.TFRecordWriter(str(directory / f"mnist-train.tfrecord-{shard:05d}-of-00002")) as writer:
            for serialized in part:
                writer.write(serialized)
    info = json.loads((directory / "dataset_info.json").read_text())
    next(split for split in info["splits"] if split["name"] == "train")["shardLengths"] = ["25", "35"]
    (directory / "dataset_info.json").write_text(json.dumps(info))
    _pin(monkeypatch, "mnist")
    expected = _original_labels("train", _NUM_TRAIN)
    np.testing.assert_array_equal(tfds.load("mnist", str(tmp_path)).train.label, expected)


def test_another_mnist_is_refused_by_the_recorded_digest(mnist):
    with pytest.raises(errors.MismatchError, match=r"mnist.3\.0\.1 train: the labels.*expected\s+0e44ecaf"):
        tfds.load("mnist", str(mnist))


@pytest.mark.parametrize("split_name", ["train", "test"])
def test_the_digest_sees_the_order_alone(mnist, monkeypatch, split_name):
    label = _original_labels(split_name, _NUM_TRAIN if split_name == "train" else _NUM_TEST)
    _pin(monkeypatch, "mnist", **{f"{split_name}_label_sha256": dataset.label_sha256(label)})
    tfds.load("mnist", str(mnist))
    _pin(monkeypatch, "mnist", **{f"{split_name}_label_sha256": dataset.label_sha256(label[::-1])})
    with pytest.raises(errors.MismatchError, match=f"{split_name}: the labels are not the known ones"):
        tfds.load("mnist", str(mnist))


def test_another_size_is_refused(mnist, monkeypatch):
    _pin(monkeypatch, "mnist", num_test=21)
    with pytest.raises(errors.MismatchError, match="test: found 20 examples, expected 21"):
        tfds.load("mnist", str(mnist))


def test_unbalanced_classes_are_refused(mnist, monkeypatch):
    _pin(monkeypatch, "mnist", num_classes=12)
    with pytest.raises(errors.MismatchError, match="between 0 and 6 examples in 12 classes, expected 5 in each of 12"):
        tfds.load("mnist", str(mnist))


def test_too_many_classes_are_refused(mnist, monkeypatch):
    _pin(monkeypatch, "mnist", num_classes=5)
    with pytest.raises(errors.MismatchError, match="in 10 classes, expected 12 in each of 5"):
        tfds.load("mnist", str(mnist))


def test_ids_out_of_order_are_refused(cifar, monkeypatch):
    _pin(monkeypatch, "cifar10", has_id=True)
    tfds.load("cifar10", str(cifar))
    in_order = np.arange
    monkeypatch.setattr(tfds, "stored_order", lambda _, num_examples: in_order(num_examples))
    with pytest.raises(errors.MismatchError, match=r"place 0 holds train_000\d+, expected train_00000"):
        tfds.load("cifar10", str(cifar))


def test_records_without_the_ids_that_prove_the_order_are_refused(mnist, monkeypatch):
    _pin(monkeypatch, "mnist")
    tfds.load("mnist", str(mnist))
    _pin(monkeypatch, "mnist", has_id=True)
    with pytest.raises(errors.MismatchError, match="train: 0 of 60 records carry an id, expected all"):
        tfds.load("mnist", str(mnist))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist"])
def test_missing_data_names_the_command(tmp_path, name):
    version = tfds.PINNED[name].version
    with pytest.raises(errors.MissingFileError) as caught:
        tfds.load(name, str(tmp_path))
    assert f"tfds.load('{name}:{version}', data_dir='{tmp_path}')" in str(caught.value)


def test_unpinned_names(tmp_path):
    with pytest.raises(errors.InvalidValueError, match="'kmnist' is not among"):
        tfds.load("kmnist", str(tmp_path))


def test_folder_by_argument_then_environment_then_default(monkeypatch):
    monkeypatch.delenv("DATA_DIR", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert tfds.data_directory() == "/home/somebody/tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", "/tfds")
    assert tfds.data_directory() == "/tfds"
    monkeypatch.setenv("DATA_DIR", "~/data")
    assert tfds.data_directory() == "/home/somebody/data"
    assert tfds.data_directory("/argument") == "/argument"


def _damage_metadata(directory):
    (directory / "dataset_info.json").write_text("{")


def _damage_features(directory):
    (directory / "features.json").write_text("[]")


def _truncate_records(directory):
    path = directory / "mnist-train.tfrecord-00000-of-00001"
    path.write_bytes(path.read_bytes()[:-100])


def _flip_a_byte(directory):
    path = directory / "mnist-train.tfrecord-00000-of-00001"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _drop_records(directory):
    os.truncate(directory / "mnist-train.tfrecord-00000-of-00001", 0)


def _change_test_split(directory, **changes):
    info = json.loads((directory / "dataset_info.json").read_text())
    next(split for split in info["splits"] if split["name"] == "test").update(changes)
    (directory / "dataset_info.json").write_text(json.dumps(info))


def _rename_a_split(directory):
    _change_test_split(directory, name="validation")


def _empty_a_split(directory):
    _change_test_split(directory, shardLengths=["0"])


def _delete_records(directory):
    (directory / "mnist-test.tfrecord-00000-of-00001").unlink()


def _label_beyond_the_classes(directory):
    example = tf.train.Example()
    example.features.feature["label"].int64_list.value.append(-3)
    example.features.feature["image"].bytes_list.value.append(tf.io.encode_png(np.zeros((28, 28, 1), np.uint8)).numpy())
    with tf.io.TFRecordWriter(str(directory / "mnist-test.tfrecord-00000-of-00001")) as writer:
        for _ in range(_NUM_TEST):
            writer.write(example.SerializeToString())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_damage_metadata, "not a readable TFDS data set"),
        (_damage_features, "not a readable TFDS data set"),
        (_rename_a_split, "not a readable TFDS data set"),
        (_empty_a_split, "split 'test' is empty"),
        (_truncate_records, "train records cannot be read"),
        (_flip_a_byte, "train records cannot be read"),
        (_drop_records, "found 0 train records, expected 60"),
        (_delete_records, "test records cannot be read"),
        (_label_beyond_the_classes, "test labels span -3..-3"),
    ],
)
def test_damage_is_named(tmp_path, monkeypatch, damage, message):
    directory = _write(tmp_path)
    _pin(monkeypatch, "mnist")
    damage(directory)
    with pytest.raises(errors.DamagedFileError, match=message):
        tfds.load("mnist", str(tmp_path))


def test_images_of_another_kind_are_refused(tmp_path, monkeypatch):
    _write(tmp_path, image_dtype="uint16")
    _pin(monkeypatch, "mnist")
    with pytest.raises(errors.DamagedFileError, match="expected uint8 images"):
        tfds.load("mnist", str(tmp_path))
