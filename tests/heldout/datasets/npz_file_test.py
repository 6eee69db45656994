"""Your own arrays in an npz file: every promise of the format, every error, and damaged bytes."""

import numpy as np
import pytest

from heldout.datasets import dataset, npz_file
from zoo import errors


def _arrays(**changes):
    generator = np.random.default_rng(0)
    arrays = {
        "train__image": generator.integers(0, 256, (6, 4, 3, 2)).astype(np.uint8),
        "train__label": np.array([0, 1, 2, 2, 1, 0], np.int32),
        "test__image": generator.integers(0, 256, (3, 4, 3, 2)).astype(np.uint8),
        "test__label": np.array([1, 0, 1], np.uint8),
    }
    arrays |= changes
    return {name: values for name, values in arrays.items() if values is not None}


def _load(tmp_path, save=np.savez, **changes):
    save(tmp_path / "own.npz", **_arrays(**changes))
    return npz_file.load(tmp_path / "own.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_defaults(tmp_path, save):
    loaded, arrays = _load(tmp_path, save), _arrays()
    for name in ("train", "test"):
        np.testing.assert_array_equal(loaded.split(name).images, arrays[f"{name}__image"])
        np.testing.assert_array_equal(loaded.split(name).label, arrays[f"{name}__label"])
        assert loaded.split(name).label.dtype == np.int64
    assert loaded.class_names == ("0", "1", "2")
    assert loaded.scale == 1
    assert loaded.name == "npz:own.npz"


def test_uncompressed_images_stay_on_disk(tmp_path):
    assert isinstance(_load(tmp_path).train.images, np.memmap)


def test_the_version_changes_with_the_content(tmp_path):
    first = _load(tmp_path).version
    assert _load(tmp_path).version == first
    assert _load(tmp_path, test__image=np.ones((3, 4, 3, 2), np.uint8)).version != first


def test_images_without_a_channel_axis_get_one(tmp_path):
    images = np.arange(72, dtype=np.uint8).reshape(6, 4, 3)
    loaded = _load(tmp_path, train__image=images, test__image=images[:3])
    assert loaded.image_shape == (4, 3, 1)
    np.testing.assert_array_equal(loaded.train.images[..., 0], images)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_images_become_float32(tmp_path, dtype):
    images = np.random.default_rng(1).normal(size=(6, 4, 3, 2)).astype(dtype)
    loaded = _load(tmp_path, train__image=images, test__image=images[:3])
    assert loaded.train.images.dtype == np.float32
    np.testing.assert_array_equal(loaded.train.images, images.astype(np.float32))


def test_rows_are_put_back_into_their_original_order(tmp_path):
    arrays = _arrays()
    shuffled = np.array([4, 0, 5, 2, 1, 3], np.uint16)
    loaded = _load(
        tmp_path,
        train__image=arrays["train__image"][shuffled],
        train__label=arrays["train__label"][shuffled],
        train__index=shuffled,
    )
    np.testing.assert_array_equal(loaded.train.images, arrays["train__image"])
    np.testing.assert_array_equal(loaded.train.label, arrays["train__label"])


def test_an_index_in_order_changes_nothing(tmp_path):
    assert isinstance(_load(tmp_path, train__index=np.arange(6)).train.images, np.memmap)


def test_options(tmp_path):
    loaded = _load(
        tmp_path, __num_classes=np.int64(4), __data_scale=np.float64(255), __class_names=np.array(["a", "b", "c", "d"])
    )
    assert loaded.num_classes == 4
    assert loaded.class_names == ("a", "b", "c", "d")
    inputs = loaded.normalise(loaded.train.images)
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs, loaded.train.images / np.float32(255))


_NAN_IMAGES = np.zeros((6, 4, 3, 2), np.float32)
_NAN_IMAGES[4, 1, 1, 0] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__image": None}, "train__image"),
        ({"test__label": None}, "test__label"),
        ({"train__image": np.zeros((6, 4), np.uint8)}, r"train__image: found shape \(6, 4\)"),
        ({"train__image": np.zeros((6, 4, 3, 2), np.int16)}, "int16"),
        ({"train__image": np.zeros((6, 4, 3, 2), bool)}, "bool"),
        ({"train__image": _NAN_IMAGES}, "train__image: image 4 holds NaN"),
        ({"train__image": np.full((6, 4, 3, 2), 1e300)}, "image 0 holds NaN, infinity or a number beyond float32"),
        ({"train__image": np.zeros((0, 4, 3, 2), np.uint8), "train__label": np.zeros(0, int)}, "empty axis"),
        ({"test__image": np.zeros((3, 5, 3, 2), np.uint8)}, "both splits must agree"),
        ({"train__label": np.zeros(5, int)}, "one label per image"),
        ({"train__label": np.zeros(6)}, "expected one axis of integers"),
        ({"train__label": np.zeros((6, 1), int)}, "expected one axis of integers"),
        ({"train__label": np.full(6, 2**63, np.uint64)}, "too large"),
        ({"train__label": np.full(6, 2**62)}, "4611686018427387905 classes, expected at most"),
        ({"train__label": np.array([0, 1, 2, -1, 1, 0])}, "train labels span -1..2"),
        ({"train__index": np.array([0, 1, 2, 3, 4, 4])}, r"train__index.*exactly once"),
        ({"train__index": np.array([1, 2, 3, 4, 5, 6])}, r"train__index.*exactly once"),
        ({"train__index": np.arange(5)}, "5 entries for 6 images"),
        ({"train__index": np.arange(6.0)}, "expected one axis of integers"),
        ({"__num_classes": np.int64(2)}, "__num_classes is 2, expected 3 or more"),
        ({"__num_classes": np.int64(10**12)}, "1000000000000 classes, expected at most"),
        ({"__num_classes": np.float64(3)}, "one whole number"),
        ({"__num_classes": np.array([3, 3])}, "one whole number"),
        ({"__data_scale": np.float64(0)}, "scale 0.0"),
        ({"__data_scale": np.float64("nan")}, "scale nan"),
        ({"__data_scale": np.array("wide")}, "one number above 0"),
        ({"__class_names": np.array(["a", "b"])}, "expected 3 texts"),
        ({"__class_names": np.array([1, 2, 3])}, "expected 3 texts"),
    ],
)
def test_files_that_do_not_keep_to_the_format(tmp_path, changes, message):
    with pytest.raises(errors.DamagedFileError, match=message) as caught:
        _load(tmp_path, **changes)
    assert "own.npz" in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(errors.MissingFileError, match="none"):
        npz_file.load(tmp_path / "none.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_bytes_raise_the_projects_error_or_change_nothing_that_is_checked(tmp_path, save):
    path = tmp_path / "own.npz"
    save(path, **_arrays(train__index=np.arange(6), __num_classes=np.int64(3)))
    sound = path.read_bytes()
    expected = dataset.label_sha256(npz_file.load(path).train.label)
    generator = np.random.default_rng(5)
    num_refused = 0
    for _ in range(200):
        data = bytearray(sound)
        if generator.random() < 0.2:
            data = data[: generator.integers(len(data))]
        for _ in range(generator.integers(1, 4)):
            if data:
                data[generator.integers(len(data))] = generator.integers(256)
        path.write_bytes(data)
        try:
            loaded = npz_file.load(path)
        except errors.DamagedFileError:
            num_refused += 1
            continue
        assert dataset.label_sha256(loaded.train.label) == expected
    assert num_refused > 50
