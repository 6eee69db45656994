"""The files of a network's folder that need no TensorFlow."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from heldout.training import model_files, model_settings
from zoo import errors, files

_SETTINGS = model_settings.ModelSettings("digits", "conv5_4", seed=2)


def test_the_folder_names_all(tmp_path):
    folder = model_files.directory(tmp_path, "first", _SETTINGS)
    assert folder == tmp_path / "first" / "conv5_4" / "digits" / _SETTINGS.setting_name() / "seed-2"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b"])
def test_names_that_are_no_folders_are_refused(tmp_path, name):
    with pytest.raises(errors.InvalidValueError, match=f"--name={name}: expected letters"):
        model_files.directory(tmp_path, name, _SETTINGS)


def test_settings_are_adopted_once_and_then_held_to(tmp_path):
    assert not model_files.is_model_run(tmp_path)
    model_files.adopt_settings(tmp_path, _SETTINGS)
    model_files.adopt_settings(tmp_path, _SETTINGS)
    assert model_files.is_model_run(tmp_path)
    assert model_files.read_settings(tmp_path) == _SETTINGS
    with pytest.raises(errors.MismatchError, match="val_split: stored 0, asked for 5") as caught:
        model_files.adopt_settings(tmp_path, dataclasses.replace(_SETTINGS, val_split=5))
    assert str(tmp_path / "settings.json") in str(caught.value)


def test_only_the_result_of_the_same_network_counts(tmp_path):
    seen = dataclasses.replace(_SETTINGS, fingerprint={"num_train": 3})
    assert model_files.finished_result(tmp_path, _SETTINGS) is None
    model_files.adopt_settings(tmp_path, seen)
    row = np.zeros(len(model_files.HISTORY_COLUMNS))
    files.write_json(tmp_path / "result.json", model_files.result_of("finished", "1 epoch done", row))
    assert model_files.finished_result(tmp_path, _SETTINGS)["outcome"] == "finished"
    with pytest.raises(errors.MismatchError, match="dataset: stored 'digits', asked for 'mnist'"):
        model_files.finished_result(tmp_path, dataclasses.replace(_SETTINGS, dataset="mnist"))


def test_a_folder_without_settings_is_no_network(tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"settings.json: no such file; expected the folder of a network"):
        model_files.read_settings(tmp_path)


def test_checkpoints_are_found_in_order_and_nothing_else(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("epoch-10.index", "epoch-2.index", "epoch-0.index", "epoch-3.data-00000-of-00001", "epoch-04.index"):
        (folder / name).touch()
    assert model_files.checkpoint_epochs(tmp_path) == [0, 2, 10]
    assert model_files.checkpoint_epochs(tmp_path / "nowhere") == []
    assert model_files.checkpoint_prefix(tmp_path, 2) == folder / "epoch-2"


def test_a_history_comes_back_to_the_last_bit(tmp_path):
    rows = np.random.default_rng(0).normal(size=(3, len(model_files.HISTORY_COLUMNS)))
    rows[:, 0], rows[:, 1], rows[1, 4] = [0, 5, 10], [0, 50, 100], np.nan
    model_files.write_history(tmp_path, rows)
    found = model_files.read_history(tmp_path)
    assert found.dtype.names == model_files.HISTORY_COLUMNS
    np.testing.assert_array_equal(np.array(found.tolist()), rows)
    assert found["epoch"].dtype == np.int64


@pytest.mark.parametrize("text", ["", "epoch,step\n1,2\n", None])
def test_a_damaged_history_is_refused(tmp_path, text):
    rows = np.zeros((1, len(model_files.HISTORY_COLUMNS)))
    model_files.write_history(tmp_path, rows)
    path = tmp_path / "history.csv"
    path.write_text(path.read_text().replace("0.0", "x", 1) if text is None else text)
    with pytest.raises(errors.DamagedFileError, match=r"history.csv: not a history of evaluations"):
        model_files.read_history(tmp_path)


def test_without_a_history_it_says_so(tmp_path):
    with pytest.raises(errors.MissingFileError, match="has not been evaluated yet"):
        model_files.read_history(tmp_path)


def test_a_result_has_the_last_row_and_nothing_that_is_no_number(tmp_path):
    row = np.arange(len(model_files.HISTORY_COLUMNS), dtype=float)
    row[-1] = np.inf
    result = model_files.result_of(model_files.DIVERGED, "why", row)
    assert (result["epoch"], result["step"], result["learning_rate"], result["test_error"]) == (0, 1, 2.0, None)
    assert model_files.read_result(tmp_path) is None
    files.write_json(tmp_path / "result.json", result)
    assert model_files.read_result(tmp_path) == result


@pytest.mark.parametrize("change", [{"schema_version": 2}, {"outcome": "well"}])
def test_a_damaged_result_is_refused(tmp_path, change):
    result = model_files.result_of(model_files.FINISHED, "why", np.zeros(len(model_files.HISTORY_COLUMNS)))
    files.write_json(tmp_path / "result.json", result | change)
    with pytest.raises(errors.DamagedFileError, match=r"result.json: schema version .* expected 1 and one of finished"):
        model_files.read_result(tmp_path)


def test_no_tensorflow_is_needed():
    code = "import sys; from heldout.training import model_files, model_data; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
