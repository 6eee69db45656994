"""The manifest of a folder of records, read with nothing in it believed."""

import json

import numpy as np
import pytest

from heldout.datasets import dataset, record_manifest
from zoo import errors


def _labels():
    label = {"train": np.array([0, 1, 1]), "test": np.array([1])}
    missing = {"train": np.array([2]), "test": np.array([], np.int64)}
    sizes = np.array([10, 20]), np.array([2, 1]), np.zeros(2, np.int64)
    return record_manifest.Labels(
        "tiny", "0123", label, missing, ("train-00000-of-00001", "test-00000-of-00001"), *sizes
    )


def _manifest(**changes):
    manifest = record_manifest.Manifest(
        _labels(), (8, 8, 3), ("a", "b"), 5, {"grey": {"train": [1], "test": []}}, "digest"
    )
    return manifest.to_json() | changes


def test_members(tmp_path):
    (tmp_path / "records.json").write_text(json.dumps(_manifest()))
    found = record_manifest.read_manifest(tmp_path)
    assert found["missing"] == {"train": [2], "test": []}
    assert found["left_out"] == {"train": [], "test": []}
    assert (found["record_order"], found["shuffle_seed"]) == ("shuffled", 5)
    assert found["train_label_sha256"] == dataset.label_sha256(np.array([0, 1, 1]))
    assert found["shards"] == [
        {"name": "train-00000-of-00001", "size": 10, "num_records": 2},
        {"name": "test-00000-of-00001", "size": 20, "num_records": 1},
    ]


def test_labels_come_back(tmp_path):
    record_manifest.write_labels(tmp_path / "labels.npz", _labels())
    found = record_manifest.read_labels(tmp_path / "labels.npz")
    assert (found.format, found.version, found.shard_name) == ("tiny", "0123", _labels().shard_name)
    for split in ("train", "test"):
        np.testing.assert_array_equal(found.label[split], _labels().label[split])
        np.testing.assert_array_equal(found.missing[split], _labels().missing[split])


def test_no_manifest_is_none(tmp_path):
    assert record_manifest.read_manifest(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2, expected 1; build the records again"),
        ({"version": 7}, "records.json: version: missing or not as expected; restore the file"),
        ({"class_names": None, "image_shape": None}, "class_names, image_shape: missing or not as expected"),
        ({"image_shape": [8, 8]}, "format and image_shape: missing or not as expected"),
        ({"image_shape": [8, 8, "3"]}, "format and image_shape: missing or not as expected"),
        ({"format": "cifar"}, "format and image_shape: missing or not as expected"),
    ],
)
def test_manifests_that_are_none(tmp_path, changes, message):
    (tmp_path / "records.json").write_text(json.dumps(_manifest(**changes)))
    with pytest.raises(errors.DamagedFileError, match=message):
        record_manifest.read_manifest(tmp_path)
    (tmp_path / "records.json").write_text("{")
    with pytest.raises(errors.DamagedFileError, match="not valid JSON"):
        record_manifest.read_manifest(tmp_path)
