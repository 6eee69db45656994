"""Photographs of differing sizes, held to small folders that TFDS itself writes: order, sizes, crops, damage."""

import dataclasses
import json

import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets

from heldout.datasets import resized_tfds
from zoo import errors

_SIDE = 16


def _photograph(number):
    """Smooth images of several shapes, the number in their colours."""
    height, width = ((20, 30), (40, 24), (16, 16), (33, 50))[number % 4]
    rows, columns = np.mgrid[:height, :width]
    channels = (rows * 4, columns * 4, np.full((height, width), 8 * number))
    return np.stack(channels, axis=-1).astype(np.uint8)


def _write(root, name, version, splits, num_classes):
    features = tensorflow_datasets.features.FeaturesDict(
        {
            "image": tensorflow_datasets.features.Image(shape=(None, None, 3), encoding_format="png"),
            "image/filename": tensorflow_datasets.features.Text(),
            "label": tensorflow_datasets.features.ClassLabel(names=[f"kind {number}" for number in range(num_classes)]),
        }
    )

    def examples(number_of_examples):
        for number in range(number_of_examples):
            image = _photograph(number)
            yield number, {"image": image, "image/filename": f"{number}.png", "label": number % num_classes}

    tensorflow_datasets.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        data_dir=str(root),
        features=features,
        split_datasets={split: examples(number) for split, number in splits.items()},
    )
    return root / name / version


def _pin(monkeypatch, name, **changes):
    pinned = dataclasses.replace(resized_tfds.PINNED[name], **changes)
    monkeypatch.setitem(resized_tfds.PINNED, name, pinned)


@pytest.fixture
def cats(tmp_path, monkeypatch):
    _pin(monkeypatch, "cats_vs_dogs", num_examples={"train": 22})
    _write(tmp_path, "cats_vs_dogs", "4.0.1", {"train": 22}, 2)
    return tmp_path


def _stored(root, name, version, split):
    builder = tensorflow_datasets.builder_from_directory(str(root / name / version))
    config = tensorflow_datasets.ReadConfig(interleave_cycle_length=1)
    return list(builder.as_dataset(split=split, shuffle_files=False, read_config=config).as_numpy_iterator())


def test_a_split_without_tests_is_divided_by_place(cats):
    data = resized_tfds.load(f"cats_vs_dogs_{_SIDE}", str(cats))
    stored = _stored(cats, "cats_vs_dogs", "4.0.1", "train")
    assert (data.name, data.version, data.scale) == (f"cats_vs_dogs_{_SIDE}", "4.0.1", 255)
    assert data.image_shape == (_SIDE, _SIDE, 3)
    assert data.class_names == ("kind 0", "kind 1")
    places = {"test": [4, 9, 14, 19], "train": [place for place in range(22) if place % 5 != 4]}
    for split, expected in places.items():
        np.testing.assert_array_equal(data.split(split).label, [stored[place]["label"] for place in expected])
        # The third channel of an image is 8 times its number.
        numbers = [int(stored[place]["image/filename"].split(b".")[0]) for place in expected]
        np.testing.assert_array_equal(data.split(split).images[:, 3, 3, 2], 8 * np.array(numbers))


def test_images_are_scaled_to_their_shorter_side_and_cropped_around_their_middle(cats):
    data = resized_tfds.load(f"cats_vs_dogs_{_SIDE}", str(cats))
    stored = _stored(cats, "cats_vs_dogs", "4.0.1", "train")
    for found, place in zip(data.test.images, [4, 9, 14, 19], strict=True):
        image = stored[place]["image"]
        height, width = image.shape[:2]
        factor = _SIDE / min(height, width)
        size = (round(height * factor), round(width * factor))
        # Pillow's bilinear filter is antialiased, too; it rounds after each of its two passes.
        scaled = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
        top, left = ((one - _SIDE) // 2 for one in size)
        expected = scaled[top : top + _SIDE, left : left + _SIDE].astype(int)
        assert np.abs(found.astype(int) - expected).max() <= 2
        assert found[-1, 0, 0] > found[0, 0, 0]
        assert found[0, -1, 1] > found[0, 0, 1]


def test_splits_of_tfds_are_used_where_there_are(tmp_path, monkeypatch):
    _pin(monkeypatch, "cassava", num_examples={"train": 10, "test": 5})
    _write(tmp_path, "cassava", "0.1.0", {"train": 10, "test": 5, "validation": 3}, 5)
    data = resized_tfds.load("cassava_8", str(tmp_path))
    assert (len(data.train), len(data.test), data.num_classes) == (10, 5, 5)
    test = [example["label"] for example in _stored(tmp_path, "cassava", "0.1.0", "test")]
    np.testing.assert_array_equal(data.test.label, test)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cats_vs_dogs_224", ("cats_vs_dogs", 224)),
        ("cassava_8", ("cassava", 8)),
        ("cats_vs_dogs", None),
        ("cassava_08", None),
        ("mnist_28", None),
    ],
)
def test_names_say_data_and_side(name, expected):
    assert resized_tfds.split_name(name) == expected


@pytest.mark.parametrize("name", ["cats_vs_dogs_7", "cats_vs_dogs_2000"])
def test_sides_out_of_range_are_refused(name, tmp_path):
    with pytest.raises(errors.InvalidValueError, match=rf"dataset '{name}': .* expected a side from 8 to 248"):
        resized_tfds.load(name, str(tmp_path))


def test_what_is_not_the_known_data_is_refused(cats, monkeypatch):
    with pytest.raises(errors.MissingFileError, match=r"tfds.load\('cassava:0.1.0', data_dir="):
        resized_tfds.load("cassava_16", str(cats))
    for changes in ({"num_examples": {"train": 21}}, {"num_classes": 3}):
        with monkeypatch.context() as patched:
            _pin(patched, "cats_vs_dogs", **changes)
            with pytest.raises(errors.MismatchError, match=r"found \{'train': 22\} examples of 2 classes, expected"):
                resized_tfds.load("cats_vs_dogs_16", str(cats))


def _damage_metadata(directory):
    (directory / "dataset_info.json").write_text("{")


def _truncate(directory):
    path = next(directory.glob("*.tfrecord*"))
    path.write_bytes(path.read_bytes()[:-30])


def _drop_half(directory):
    """Ends behind a whole record: the length of the first one stands in its first 8 bytes."""
    path = next(directory.glob("*.tfrecord*"))
    content = path.read_bytes()
    path.write_bytes(content[: int.from_bytes(content[:8], "little") + 16])


def _no_splits(directory):
    value = json.loads((directory / "dataset_info.json").read_text())
    value["splits"] = []
    (directory / "dataset_info.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_damage_metadata, "not a readable TFDS data set"),
        (_no_splits, "not a readable TFDS data set"),
        (_truncate, "the train records cannot be read"),
        (_drop_half, "found 1 train records, 0 of them with an unknown label, expected 22"),
    ],
)
def test_damage_is_named(cats, damage, message):
    damage(cats / "cats_vs_dogs" / "4.0.1")
    with pytest.raises(errors.DamagedFileError, match=message):
        resized_tfds.load("cats_vs_dogs_16", str(cats))
