"""Folders of arrays: filled part by part, gone on with, read as memory maps; damaged and half-made ones."""

import json

import numpy as np
import pytest

from scripts.unique_information import array_store, linearised_problem
from zoo import errors

_OF = {"weights": "abc", "size": 3}


def begun(folder, parts=1):
    draft = array_store.Draft(folder, _OF)
    matrix = draft.matrix("train", (4, 2), np.float32)
    for start in range(draft.done("train"), 2 * parts, 2):
        matrix[start : start + 2] = start // 2 + 1
        draft.mark("train", matrix, start + 2)
    return draft


@pytest.fixture
def folder(tmp_path):
    draft = begun(tmp_path / "a", 2)
    draft.put("label", np.array([3, 4]))
    draft.finish({"form": "dual", "seconds": 1.5})
    return tmp_path / "a"


def test_what_was_written_is_read(folder):
    stored = array_store.read(folder, verify=True)
    assert stored.made_of == _OF
    assert stored.facts == {"form": "dual", "seconds": 1.5}
    np.testing.assert_array_equal(stored.arrays["train"], [[1, 1], [1, 1], [2, 2], [2, 2]])
    assert isinstance(stored.arrays["train"], np.memmap)
    assert not stored.arrays["train"].flags.writeable
    np.testing.assert_array_equal(stored.arrays["label"], [3, 4])
    assert array_store.is_complete(folder, _OF)
    assert not array_store.is_complete(folder, _OF | {"size": 4})
    assert {path.name for path in folder.iterdir()} == {"contents.json", "train.npy", "label.npy"}


def test_what_was_begun_is_gone_on_with(tmp_path, folder):
    begun(tmp_path / "b", 1)
    with pytest.raises(errors.MissingFileError, match=r"contents.json: no such file.*the same command goes on"):
        array_store.read(tmp_path / "b")
    draft = array_store.Draft(tmp_path / "b", _OF)
    assert draft.done("train") == 2
    begun(tmp_path / "b", 2).put("label", np.array([3, 4]))
    array_store.Draft(tmp_path / "b", _OF).finish({"form": "dual", "seconds": 1.5})
    names = ("contents.json", "train.npy", "label.npy")
    assert all((folder / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_arrays_of_other_settings_are_deleted_and_nothing_else(folder):
    (folder / "mine.npy").touch()
    draft = array_store.Draft(folder, {"weights": "other"})
    assert draft.done("train") == 0
    assert {path.name for path in folder.iterdir()} == {"begun.json", "mine.npy"}


def test_an_array_of_another_shape_is_begun_anew(tmp_path):
    draft = begun(tmp_path, 1)
    draft.matrix("train", (3, 2), np.float32)
    assert draft.done("train") == 0


def test_damaged_folders_are_refused(folder):
    with pytest.raises(errors.MissingFileError, match=r"expected a folder that compute_ntk"):
        array_store.read(folder / "none")
    with pytest.raises(errors.DamagedFileError, match=r"holds train, label, expected a kernel or features"):
        linearised_problem.read(folder)
    content = (folder / "train.npy").read_bytes()
    (folder / "train.npy").write_bytes(content[:-1] + b"x")
    array_store.read(folder)
    with pytest.raises(errors.DamagedFileError, match=r"train.npy: the SHA-256 is not that of contents.json"):
        array_store.read(folder, verify=True)
    np.save(folder / "train.npy", np.zeros(3))
    with pytest.raises(errors.DamagedFileError, match=r"train.npy: float64 \[3\], expected float32 \[4, 2\]"):
        array_store.read(folder)
    (folder / "train.npy").write_bytes(b"x")
    with pytest.raises(errors.DamagedFileError, match=r"train.npy: cannot be read"):
        array_store.read(folder)
    contents = json.loads((folder / "contents.json").read_text())
    for changed in ({"schema_version": 2}, {"made_of": 1}, {"arrays": {"../train": {}}}):
        (folder / "contents.json").write_text(json.dumps(contents | changed))
        with pytest.raises(errors.DamagedFileError, match=r"contents.json: schema version .*expected version 1"):
            array_store.read(folder)
