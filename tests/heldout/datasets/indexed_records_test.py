"""Reading records: exactly the chosen ones, the same whatever the threads, and as NumPy sees them."""

import dataclasses
import hashlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from heldout.datasets import dataset, image_decoding, indexed_records, records_in_memory
from tests.heldout.datasets import image_cases, record_cases
from zoo import errors

_NUM_TRAIN, _NUM_TEST = 40, 10


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder of the published form, and what was written to it."""
    folder = tmp_path_factory.mktemp("data") / "imagenet"
    return folder, record_cases.write_imagenet(folder, _NUM_TRAIN, _NUM_TEST)


@pytest.fixture(scope="module")
def records(published):
    return indexed_records.open_records(published[0])


def _batches(pipeline):
    return list(pipeline.as_numpy_iterator())


def _indices(pipeline):
    return [index.tolist() for index, _, _ in _batches(pipeline)]


def test_a_folder_of_the_published_form(records, published):
    label = {split: np.array([label for _, label in rows]) for split, rows in published[1].items()}
    np.testing.assert_array_equal(records.train_label, label["train"])
    np.testing.assert_array_equal(records.test_label, label["test"])
    assert records.image_shape == (224, 224, 3)
    assert records.fingerprint() == {
        "name": "records:imagenet",
        "version": records.version,
        "num_train": 40,
        "num_test": 10,
        "num_classes": 10,
        "image_shape": [224, 224, 3],
        "train_label_sha256": dataset.label_sha256(label["train"]),
        "test_label_sha256": dataset.label_sha256(label["test"]),
    }
    assert indexed_records.identify(published[0]) == ("records:imagenet", records.version)


@pytest.mark.parametrize("split", ["train", "test"])
def test_evaluation_sees_every_example_once(records, published, split):
    rows = published[1][split]
    batches = _batches(records.evaluation_batches(split, 7))
    index, label, image = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    assert sorted(index) == list(range(len(rows)))
    np.testing.assert_array_equal(label, [rows[i][1] for i in index])
    assert (image.dtype, image.shape[1:]) == (np.float32, (224, 224, 3))
    for i, found in zip(index[:5], image, strict=False):
        square = image_decoding.centre_square(tf.constant(rows[i][0]), (224, 224, 3))
        expected = (square.numpy() - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("share", "batch_size", "shuffle_records"), [(0.7, 4, 8192), (0.3, 5, 3), (1.0, 40, 1)])
def test_training_sees_the_subset_once(records, share, batch_size, shuffle_records):
    mask = np.random.default_rng(1).permutation(_NUM_TRAIN) < share * _NUM_TRAIN
    batches = _batches(records.train_batches(mask, batch_size, 5, 0, shuffle_records))
    index = np.concatenate([index for index, _, _ in batches])
    assert len(batches) == mask.sum() // batch_size
    assert all(len(index) == batch_size for index, _, _ in batches)
    assert len(set(index)) == len(index)
    assert mask[index].all()
    np.testing.assert_array_equal(np.concatenate([label for _, label, _ in batches]), records.train_label[index])
    assert batches[0][2].shape == (batch_size, 224, 224, 3)
    assert batches[0][2].dtype == np.float32


def test_epochs_follow_from_seed_and_number(records):
    mask = np.ones(_NUM_TRAIN, bool)
    first = _batches(records.train_batches(mask, 8, 5, 0))
    again = _batches(records.train_batches(mask, 8, 5, 0))
    for one, other in zip(first, again, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    orders = {str(_indices(records.train_batches(mask, 8, seed, epoch))) for seed in (5, 2**127) for epoch in (0, 1)}
    assert len(orders) == 4
    later = _batches(records.train_batches(mask, 8, 5, 1))
    by_index = [
        dict(zip(np.concatenate([b[0] for b in part]), np.concatenate([b[2] for b in part]), strict=True))
        for part in (first, later)
    ]
    assert all(np.abs(by_index[0][i] - by_index[1][i]).max() > 0.01 for i in range(_NUM_TRAIN))


def test_the_window_of_an_example_does_not_depend_on_the_others(records):
    every, one = np.ones(_NUM_TRAIN, bool), np.zeros(_NUM_TRAIN, bool)
    one[[7, 30]] = True
    images = []
    for mask in (every, one):
        for index, _, image in _batches(records.train_batches(mask, 2, 5, 3)):
            images += [found for i, found in zip(index, image, strict=True) if i == 30]
    assert len(images) == 2
    np.testing.assert_array_equal(*images)


def epoch_digest(folder):
    """SHA-256 of every byte of one epoch."""
    records, digest = indexed_records.open_records(folder), hashlib.sha256()
    for batch in records.train_batches(np.arange(40) % 4 > 0, 6, 11, 2, 10).as_numpy_iterator():
        for array in batch:
            digest.update(array.tobytes())
    return digest.hexdigest()


_ONE_THREAD = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
from tests.heldout.datasets import indexed_records_test
print(indexed_records_test.epoch_digest(sys.argv[1]))
"""


def test_batches_do_not_depend_on_the_global_seed(published):
    """Which training sets for every run, the one before this included."""
    found = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        found.append(epoch_digest(published[0]))
    assert found[0] == found[1]


def test_batches_do_not_depend_on_the_number_of_threads(published):
    command = [sys.executable, "-c", _ONE_THREAD, str(published[0])]
    root = pathlib.Path(__file__).parents[3]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert result.stdout.strip() == epoch_digest(published[0])
    assert "AutoGraph" not in result.stderr


def test_training_without_augmentation_gives_the_images_of_evaluation(records):
    expected = {}
    for index, _, image in _batches(records.evaluation_batches("train", 40)):
        expected |= dict(zip(index, image, strict=True))
    for index, _, image in _batches(records.train_batches(np.ones(40, bool), 8, 5, 0, augment=False)):
        for i, found in zip(index, image, strict=True):
            np.testing.assert_array_equal(found, expected[i])


def test_shuffling_reaches_across_shards(tmp_path):
    """With a buffer as large as the data every order can occur: places are uniform in the mean over epochs."""
    for split, count in (("train", 60), ("test", 1)):
        rows = [record_cases.tiny_example(bytes(64 * 64 * 3), 0, index) for index in range(count)]
        record_cases.write_shard(tmp_path / f"{split}-00000-of-00001", rows)
    records = indexed_records.open_records(tmp_path)
    places = np.array([np.argsort(_indices(records.train_batches(np.ones(60, bool), 60, 9, e))[0]) for e in range(16)])
    # Each place has mean 29.5 and deviation 17.3; the bound is five standard errors of the mean over 16 epochs.
    assert np.abs(places.mean(axis=0) - 29.5).max() < 5 * 17.3 / np.sqrt(16)
    assert _indices(records.train_batches(np.ones(60, bool), 60, 9, 0, 1))[0] == list(range(60))


def test_wrong_arguments_are_refused(records):
    mask = np.ones(40, bool)
    for wrong in (mask[:39], mask.astype(int), mask[None]):
        with pytest.raises(errors.InvalidValueError, match=r"mask: found shape .*, expected \(40,\) and bool"):
            records.train_batches(wrong, 4, 0, 0)
    for sizes in ((0, 4), (4, 0)):
        with pytest.raises(errors.InvalidValueError, match=r"batch_size .* and shuffle_records .: must be at least 1"):
            records.train_batches(mask, sizes[0], 0, 0, sizes[1])
    with pytest.raises(
        errors.InvalidValueError, match="selects 40 examples, fewer than a batch of 41; lower the batch"
    ):
        records.train_batches(mask, 41, 0, 0)
    with pytest.raises(errors.InvalidValueError, match="split 'validation' is unknown; use 'train' or 'test'"):
        records.evaluation_batches("validation", 4)
    with pytest.raises(errors.InvalidValueError, match="batch_size 0: must be at least 1"):
        records.evaluation_batches("test", 0)


def test_formats(published):
    assert indexed_records.open_records(published[0], "imagenet").num_train == 40
    with pytest.raises(errors.MismatchError, match="are of the format imagenet, asked for was tiny; leave the format"):
        indexed_records.open_records(published[0], "tiny")
    with pytest.raises(errors.InvalidValueError, match="format 'jpeg' is unknown"):
        indexed_records.open_records(published[0], "jpeg")


def _tiny(folder, train):
    """Tiny records of 64 x 64 pixels; `train` are their stored bytes."""
    record_cases.write_shard(
        folder / "train-00000-of-00001", [record_cases.tiny_example(image, i, i) for i, image in enumerate(train)]
    )
    record_cases.write_shard(folder / "val-00000-of-00001", [record_cases.tiny_example(train[0], 0, 0)])


def test_tiny_records_hold_pixels_or_files(tmp_path):
    pixels = np.asarray(tf.image.resize(image_cases.coloured(image_cases.digit(0)[0]), (64, 64))).astype(np.uint8)
    _tiny(tmp_path, [pixels.tobytes(), image_cases.encoded(pixels, "png"), image_cases.encoded(pixels, "jpeg")])
    records = indexed_records.open_records(tmp_path)
    assert records.num_classes == 3
    for pipeline in (records.evaluation_batches("train", 3), records.train_batches(np.ones(3, bool), 3, 0, 0)):
        ((index, label, image),) = _batches(pipeline)
        np.testing.assert_array_equal(label, index)
        by_index = image[np.argsort(index)]
        np.testing.assert_allclose(by_index[0], pixels / 255, atol=1e-6)
        np.testing.assert_array_equal(by_index[1], by_index[0])
        assert np.abs(by_index[2] - by_index[0]).mean() < 0.05
    loaded = records_in_memory.load(tmp_path)
    assert loaded.train.images.dtype == np.uint8
    np.testing.assert_array_equal(loaded.train.images[0], pixels)
    assert loaded.fingerprint() == records.fingerprint()


def test_imagenet_in_memory_is_what_evaluation_sees(records, published):
    loaded = records_in_memory.load(published[0])
    assert loaded.fingerprint() == records.fingerprint()
    for index, label, image in _batches(records.evaluation_batches("test", 10)):
        np.testing.assert_allclose(loaded.normalise(loaded.test.images[index]), image, atol=1e-5)
        np.testing.assert_array_equal(loaded.test.label[index], label)


def test_damaged_images_are_an_error_of_the_data(tmp_path):
    _tiny(tmp_path, [b"no image"])
    with pytest.raises(
        errors.DamagedFileError, match=r"the train records cannot be read \(Unknown image file.*; restore"
    ):
        records_in_memory.load(tmp_path)
    _tiny(tmp_path, [bytes(64 * 64 * 3)])
    shard = tmp_path / "train-00000-of-00001"
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(errors.DamagedFileError, match=r"the train records cannot be read .*corrupted record"):
        records_in_memory.load(tmp_path)


def test_what_does_not_fit_into_memory_is_refused(records, monkeypatch):
    assert records_in_memory.num_bytes(records) == 50 * 224 * 224 * 3 * 4
    monkeypatch.setattr(records_in_memory, "LARGEST_BYTES", 30_000_000)
    with pytest.raises(errors.InvalidValueError, match=r"take 30.1 MB in memory, and at most 30.0 MB are held there"):
        records_in_memory.hold(records)


def test_examples_without_a_record(published):
    whole = indexed_records.open_records(published[0])
    gaps = {"train": np.array([3, 5]), "test": np.array([], np.int64)}
    fields = {name: getattr(whole, name) for name in ("name", "version", "format", "shards", "label", "class_names")}
    records = indexed_records.IndexedRecords(**fields, missing=gaps, image_shape=whole.image_shape)
    mask = np.ones(40, bool)
    with pytest.raises(errors.InvalidValueError, match="selects 2 examples without a record: 3, 5; clear them in"):
        records.train_batches(mask, 4, 0, 0)
    mask[[3, 5]] = False
    assert len(_indices(records.train_batches(mask, 19, 0, 0))) == 2
    with pytest.raises(
        errors.InvalidValueError, match=r"2 train examples have no record \(indices 3, 5\), expected one for each"
    ):
        records_in_memory.hold(records)
    records = dataclasses.replace(records, missing=gaps | {"train": np.array([3])})
    message = r"1 train example has no record \(index 3\), .* in another folder; or build .* without --index_file"
    with pytest.raises(errors.InvalidValueError, match=message):
        records.check_complete()


def test_opening_needs_no_tensorflow(published):
    program = f"import sys; from heldout.datasets import indexed_records as r; r.identify({str(published[0])!r})"
    program += "; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
