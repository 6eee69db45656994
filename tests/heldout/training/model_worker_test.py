"""The worker of single networks, in this process."""

import pytest

from heldout.experiments import training_config
from heldout.training import model_files, model_settings, model_worker
from zoo import errors

_SETTINGS = model_settings.ModelSettings(
    "digits", "mlp", training_config.TrainingConfig(num_epochs=1), {"hidden_sizes": [4]}, train_split=60
)


def perform(folders, **setup):
    defaults = {"data_dir": None, "overwrite": False}
    options = model_worker.model_training.Options()
    requests = [model_worker.model_training.Request(_SETTINGS, folder) for folder in folders]
    return model_worker._train(_SETTINGS, requests, options, {}, defaults | setup, lambda told: None)


def test_what_is_no_network_is_not_overwritten(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(errors.InvalidValueError, match="is not the folder of a network; delete it by hand"):
        perform([tmp_path], overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_network_is_overwritten_where_that_is_asked_for(tmp_path):
    perform([tmp_path / "a"])
    (tmp_path / "a" / "resume").mkdir()
    stamps = [path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.csv")]
    perform([tmp_path / "a"], overwrite=True)
    assert [path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.csv")] > stamps
    assert model_files.read_result(tmp_path / "a")["outcome"] == "finished"
    assert perform([tmp_path / "new"], overwrite=True)[0]["outcome"] == "finished"
