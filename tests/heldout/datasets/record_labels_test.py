"""Labels of a folder of records: cached beside foreign shards, checked beside a manifest."""

import dataclasses
import errno
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from heldout.datasets import record_format, record_labels, record_manifest
from tests.heldout.datasets import record_cases
from zoo import errors, npz

_ROOT = pathlib.Path(__file__).parents[3]
_TINY = record_format.FORMATS["tiny"]


def _write(folder, train=((4, 0), (5, 1), (6, 2)), test=((7, 1), (8, 0))):
    for name, pairs in (("train", train), ("test", test)):
        records = [record_cases.tiny_example(b"image", label, index) for label, index in pairs]
        record_cases.write_shard(folder / f"{name}-00000-of-00001", records)
    return record_format.shards(folder)


def _cached(folder, cache=None):
    heard = []
    shards = record_format.shards(folder)
    labels = record_labels.cached(folder, shards, _TINY, cache, lambda *numbers: heard.append(numbers))
    return labels, heard


def test_a_scan_finds_both_splits(tmp_path):
    shards = _write(tmp_path)
    heard = []
    labels = record_labels.scanned(shards, _TINY, lambda done, total: heard.append((done, total)))
    assert labels.label["train"].tolist() == [4, 5, 6]
    assert labels.label["test"].tolist() == [8, 7]
    assert labels.shard_num_records.tolist() == [3, 2]
    assert labels.shard_name == ("train-00000-of-00001", "test-00000-of-00001")
    assert heard == [(shards[0].size, sum(s.size for s in shards)), (sum(s.size for s in shards),) * 2]


def test_what_a_scan_finds_is_kept_until_a_shard_changes(tmp_path):
    _write(tmp_path)
    first, heard = _cached(tmp_path)
    assert heard
    second, heard = _cached(tmp_path)
    assert not heard
    assert (second.version, second.label["train"].tolist()) == (first.version, [4, 5, 6])
    _write(tmp_path, train=((4, 0), (5, 1), (9, 2)))  # of the same size
    os.utime(tmp_path / "train-00000-of-00001", (time.time() + 5,) * 2)
    third, heard = _cached(tmp_path)
    assert heard
    assert third.label["train"].tolist() == [4, 5, 9]
    assert third.version != first.version
    assert not _cached(tmp_path)[1]


def test_members_of_the_file(tmp_path):
    _write(tmp_path)
    _cached(tmp_path)
    with np.load(tmp_path / "labels.npz") as stored:
        assert stored["train_label"].tolist() == [4, 5, 6]
        assert stored["test_label"].tolist() == [8, 7]
        assert stored["train_label"].dtype == np.int64
        assert stored["train_missing"].tolist() == []


_OPEN = """
import sys
from heldout.datasets import record_format, record_labels
shards, heard = record_format.shards(sys.argv[1]), []
known, cache = record_format.FORMATS["tiny"], sys.argv[2] if len(sys.argv) > 2 else None
labels = record_labels.cached(shards[0].path.parent, shards, known, cache, lambda *numbers: heard.append(numbers))
print(labels.version, "scanned" if heard else "kept")
"""


def test_a_read_only_folder_is_cached_where_the_caller_says(tmp_path):
    """For real: a folder that is mounted read-only, which stops root as well."""
    folder, cache = tmp_path / "records", tmp_path / "cache"
    _write(folder)
    start = f"{sys.executable} -c '{_OPEN}' {folder}"
    script = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} || exit 77\n"
    script += f"{start}\n{start}\n{start} {cache}\n{start} {cache}\n"
    try:
        command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT)
    except FileNotFoundError:
        pytest.skip("needs Linux with unprivileged mount namespaces (util-linux's unshare)")
    if result.returncode == 77 or "unshare" in result.stderr:
        pytest.skip("needs Linux with unprivileged mount namespaces (util-linux's unshare)")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [state for _, state in lines] == ["scanned", "scanned", "scanned", "kept"], result.stderr
    assert len({version for version, _ in lines}) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["test-00000-of-00001", "train-00000-of-00001"]
    assert [path.name[:7] for path in cache.iterdir()] == ["labels-"]


def test_other_errors_in_writing_are_not_passed_over(tmp_path, monkeypatch):
    def fail(path, labels):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _write(tmp_path)
    monkeypatch.setattr(record_manifest, "write_labels", fail)
    with pytest.raises(OSError, match="No space left"):
        _cached(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    _write(tmp_path)
    labels, _ = _cached(tmp_path)
    path = tmp_path / "labels.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    npz.write(path, arrays | {"schema_version": np.array(2)})
    with pytest.raises(
        errors.DamagedFileError, match="schema version 2, expected 1; move the file elsewhere, it is made"
    ):
        _cached(tmp_path)
    for name, wrong in (("train_label", np.zeros(3)), ("shard_size", np.zeros(1, int)), ("version", np.array(["a"]))):
        npz.write(path, arrays | {name: wrong})
        with pytest.raises(
            errors.DamagedFileError, match=f"{name} has shape .*, which no scan of records writes; move"
        ):
            _cached(tmp_path)
    np.savez(path, mine=np.zeros(3))
    with pytest.raises(errors.DamagedFileError, match="it lacks schema_version"):
        _cached(tmp_path)
    record_manifest.write_labels(path, dataclasses.replace(labels, format="imagenet"))
    assert _cached(tmp_path)[1], "labels of another format are found anew"


def _manifest(folder):
    labels = record_labels.scanned(record_format.shards(folder), _TINY)
    record_manifest.write_labels(folder / "labels.npz", labels)
    names = tuple(str(number) for number in range(10))
    manifest = record_manifest.Manifest(labels, (8, 8, 3), names, None, {}, "digest")
    return labels, manifest.to_json()


def test_beside_a_manifest_everything_must_agree(tmp_path):
    shards = _write(tmp_path)
    labels, manifest = _manifest(tmp_path)
    assert record_labels.of_manifest(tmp_path, shards, manifest).version == labels.version
    with pytest.raises(errors.DamagedFileError, match=r"its test labels are not those of records.json; restore both"):
        record_labels.of_manifest(tmp_path, shards, manifest | {"test_label_sha256": "0"})
    with pytest.raises(errors.DamagedFileError, match=f"is of version {labels.version}, records.json of 0; restore"):
        record_labels.of_manifest(tmp_path, shards, manifest | {"version": "0"})
    with open(shards[1].path, "ab") as stream:
        stream.write(b"x")
    with pytest.raises(
        errors.DamagedFileError, match=r"not those of records.json: test-00000-of-00001 have another size"
    ):
        record_labels.of_manifest(tmp_path, record_format.shards(tmp_path), manifest)
    (tmp_path / "labels.npz").unlink()
    with pytest.raises(errors.MissingFileError, match=r"labels.npz: no such file"):
        record_labels.of_manifest(tmp_path, shards, manifest)
