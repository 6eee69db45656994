"""A data set in memory: checks, normalisation, fingerprint, batches, and the folder that workers open."""

import dataclasses
import hashlib
import json
import struct

import numpy as np
import pytest

from heldout.datasets import dataset
from zoo import errors


def _split(num_examples=7, seed=0, dtype=np.uint8, shape=(4, 3, 2)):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (num_examples, *shape)).astype(dtype)
    return dataset.Split(images, generator.integers(0, 3, num_examples))


def _dataset(**changes):
    settings = {
        "name": "tiny",
        "version": "1.0.0",
        "train": _split(),
        "test": _split(5, seed=1),
        "class_names": ("a", "b", "c"),
        "scale": 255.0,
    }
    return dataset.Dataset(**(settings | changes))


def test_label_digest_is_that_of_little_endian_int64_and_sees_the_order():
    expected = hashlib.sha256(struct.pack("<3q", 2, 0, 1)).hexdigest()
    assert dataset.label_sha256(np.array([2, 0, 1])) == expected
    assert dataset.label_sha256(np.array([2, 0, 1], ">i4")) == expected
    assert dataset.label_sha256(np.array([2, 9, 0, 9, 1, 9])[::2]) == expected
    assert dataset.label_sha256(np.array([0, 2, 1])) != expected


def test_position_is_the_index():
    split = _split(6)
    assert len(split) == 6
    np.testing.assert_array_equal(split.index, [0, 1, 2, 3, 4, 5])
    assert split.index.dtype == np.int64


@pytest.mark.parametrize(
    ("images", "label", "message"),
    [
        (np.zeros((2, 3, 3), np.uint8), np.zeros(2, np.int64), "images: found shape"),
        (np.zeros((0, 3, 3, 1), np.uint8), np.zeros(0, np.int64), "images: found shape"),
        (np.zeros((2, 3, 3, 1)), np.zeros(2, np.int64), "float64"),
        (np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3, np.int64), "label: found shape"),
        (np.zeros((2, 3, 3, 1), np.uint8), np.zeros(2, np.int32), "int32"),
    ],
)
def test_bad_splits(images, label, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        dataset.Split(images, label)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": _split(shape=(3, 3, 2))}, "both splits must agree"),
        ({"test": _split(dtype=np.float32)}, "both splits must agree"),
        ({"class_names": ("a", "b")}, "train labels span 0..2, expected 0..1"),
        ({"test": dataset.Split(np.zeros((1, 4, 3, 2), np.uint8), np.array([-1]))}, "test labels span -1"),
        ({"scale": 0.0}, "scale 0.0"),
        ({"scale": float("nan")}, "scale nan"),
        ({"mean": (0.5,)}, "mean .* 2 finite values"),
        ({"mean": (0.5, float("inf"))}, "mean .* 2 finite values"),
        ({"std": (0.5, 0.0)}, "std .* all above 0"),
    ],
)
def test_bad_datasets(changes, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        _dataset(**changes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("stored", [np.uint8, np.float32])
def test_normalise_computes_the_formula_in_exactly_the_dtype(dtype, stored):
    # A scale that arrived as a float64 array without axes, as it does from an npz file, must not widen the result.
    tiny = _dataset(
        train=_split(dtype=stored),
        test=_split(dtype=stored),
        scale=np.asarray(255.0),
        mean=(0.4, 0.6),
        std=(np.float64(0.2), 0.3),
    )
    inputs = tiny.normalise(tiny.train.images[2:4], dtype)
    assert inputs.dtype == dtype
    expected = (tiny.train.images[2:4].astype(np.float64) / 255 - [0.4, 0.6]) / [0.2, 0.3]
    np.testing.assert_allclose(inputs, expected, atol=20 * np.finfo(dtype).eps)


def test_normalise_leaves_the_stored_images_alone():
    floats = _split(dtype=np.float32)
    before = floats.images.copy()
    inputs = _dataset(train=floats, test=floats).normalise(floats.images)
    assert not np.shares_memory(inputs, floats.images)
    np.testing.assert_array_equal(floats.images, before)


def test_normalise_to_integers_is_refused():
    with pytest.raises(errors.InvalidValueError, match="dtype uint8"):
        _dataset().normalise(np.zeros((1, 4, 3, 2)), np.uint8)


def test_fingerprint_survives_json_and_sees_content():
    tiny = _dataset()
    fingerprint = tiny.fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert fingerprint["num_train"] == 7
    assert fingerprint["num_test"] == 5
    assert fingerprint["num_classes"] == 3
    assert fingerprint["image_shape"] == [4, 3, 2]
    reordered = _dataset(train=dataset.Split(tiny.train.images, tiny.train.label[::-1].copy()))
    assert reordered.fingerprint() != fingerprint


def test_unknown_split():
    with pytest.raises(errors.InvalidValueError, match="'validation' is unknown"):
        _dataset().split("validation")


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_come_once_and_in_stored_order(batch_size):
    tiny = _dataset()
    batches = list(tiny.to_tf_data("train", batch_size).as_numpy_iterator())
    index, images, label = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert len(batches[0][0]) == min(batch_size, 7)
    np.testing.assert_array_equal(index, np.arange(7))
    np.testing.assert_array_equal(label, tiny.train.label)
    np.testing.assert_array_equal(images, tiny.normalise(tiny.train.images))
    assert (index.dtype, images.dtype, label.dtype) == (np.int64, np.float32, np.int64)


def test_batch_size_must_be_positive():
    with pytest.raises(errors.InvalidValueError, match="batch_size 0"):
        _dataset().to_tf_data("test", 0)


def test_save_and_open(tmp_path):
    tiny = _dataset(mean=(0.25, 0.5), std=(np.float32(0.5), 0.3))
    tiny.save(tmp_path / "new" / "saved")
    opened = dataset.Dataset.open(tmp_path / "new" / "saved")
    assert isinstance(opened.train.images, np.memmap)
    assert not opened.train.images.flags.writeable
    for field in dataclasses.fields(dataset.Dataset):
        if field.name not in ("train", "test"):
            assert getattr(opened, field.name) == getattr(tiny, field.name)
    for name in ("train", "test"):
        np.testing.assert_array_equal(opened.split(name).images, tiny.split(name).images)
        np.testing.assert_array_equal(opened.split(name).label, tiny.split(name).label)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["saved"]


def test_save_does_not_replace(tmp_path):
    with pytest.raises(errors.InvalidValueError, match="exists already"):
        _dataset().save(tmp_path)


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        _dataset().save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["dataset.json", "train_images.npy", "test_label.npy"])
def test_open_names_the_missing_file(tmp_path, name):
    _dataset().save(tmp_path / "saved")
    (tmp_path / "saved" / name).unlink()
    with pytest.raises(errors.MissingFileError, match=name):
        dataset.Dataset.open(tmp_path / "saved")


@pytest.mark.parametrize(
    "change",
    [
        {"scale": "wide"},
        {"scale": -1},
        {"class_names": 3},
        {"class_names": [1, 2, 3]},
        {"mean": [0.5]},
        {"schema_version": 2},
        {"train_label_sha256": "0" * 64},
        {"name": None},
    ],
)
def test_open_refuses_a_changed_description(tmp_path, change):
    _dataset().save(tmp_path / "saved")
    path = tmp_path / "saved" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(errors.DamagedFileError, match="saved"):
        dataset.Dataset.open(tmp_path / "saved")


def test_open_refuses_a_description_without_a_member(tmp_path):
    _dataset().save(tmp_path / "saved")
    (tmp_path / "saved" / "dataset.json").write_text("{}")
    with pytest.raises(errors.DamagedFileError, match="saved"):
        dataset.Dataset.open(tmp_path / "saved")


def test_open_refuses_pickles(tmp_path):
    _dataset().save(tmp_path / "saved")
    np.save(tmp_path / "saved" / "train_label.npy", np.array([{}] * 7, object), allow_pickle=True)
    with pytest.raises(errors.DamagedFileError, match=r"train_label\.npy"):
        dataset.Dataset.open(tmp_path / "saved")


def test_open_survives_damaged_arrays(tmp_path):
    _dataset().save(tmp_path / "saved")
    path = tmp_path / "saved" / "train_label.npy"
    sound = path.read_bytes()
    generator = np.random.default_rng(3)
    for _ in range(150):
        data = bytearray(sound)
        if generator.random() < 0.3:
            data = data[: generator.integers(len(data))]
        for _ in range(generator.integers(1, 4)):
            if data:
                data[generator.integers(len(data))] = generator.integers(256)
        path.write_bytes(data)
        try:
            opened = dataset.Dataset.open(tmp_path / "saved")
        except errors.DamagedFileError:
            continue
        assert dataset.label_sha256(opened.train.label) == dataset.label_sha256(_dataset().train.label)


def test_check_label_order():
    label = np.array([0, 1, 2])
    dataset.check_label_order("here", label, dataset.label_sha256(label))
    with pytest.raises(errors.MismatchError, match="here: the labels are not the known ones"):
        dataset.check_label_order("here", label[::-1], dataset.label_sha256(label))
