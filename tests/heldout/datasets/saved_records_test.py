"""Image records handed to another process."""

import numpy as np
import pytest

from heldout.datasets import indexed_records, registry, saved_records
from tests import cases
from tests.heldout.datasets import record_cases
from zoo import errors


def test_place_and_labels_are_handed_on(tmp_path):
    record_cases.write_imagenet(tmp_path / "imagenet", num_train=12, num_test=4)
    records = indexed_records.open_records(tmp_path / "imagenet")
    other = records.with_train_label((records.train_label + 1) % 10)
    registry.save(other, tmp_path / "saved")
    found = registry.open_saved(tmp_path / "saved")
    np.testing.assert_array_equal(found.train_label, other.train_label)
    np.testing.assert_array_equal(found.test_label, records.test_label)
    # What is trained with are the labels handed on, not those in the records.
    (batch,) = found.train_batches(np.ones(12, bool), 12, seed=0, epoch=0).as_numpy_iterator()
    np.testing.assert_array_equal(batch[1], other.train_label[batch[0]])
    assert sum(path.stat().st_size for path in (tmp_path / "saved").iterdir()) < 5000


def test_records_that_changed_meanwhile_are_refused(tmp_path):
    record_cases.write_imagenet(tmp_path / "imagenet", num_train=12, num_test=4)
    saved_records.save(indexed_records.open_records(tmp_path / "imagenet"), tmp_path / "saved")
    for path in (tmp_path / "imagenet").iterdir():
        path.unlink()
    record_cases.write_imagenet(tmp_path / "imagenet", num_train=13, num_test=4)
    with pytest.raises(errors.MismatchError, match="the records have changed: version"):
        registry.open_saved(tmp_path / "saved")


def test_data_sets_in_memory_are_handed_on_as_ever(tmp_path):
    data = cases.tiny_digits()
    registry.save(data, tmp_path / "saved")
    np.testing.assert_array_equal(registry.open_saved(tmp_path / "saved").train.images, data.train.images)


def test_small_tiny_records_are_held_in_memory_and_others_are_not(tmp_path):
    record_cases.write_imagenet(tmp_path / "imagenet", num_train=12, num_test=4)
    found = registry.open_for_training(f"records:{tmp_path / 'imagenet'}")
    assert isinstance(found, indexed_records.IndexedRecords)
    assert registry.open_for_training("digits").name == "digits"
