"""Trained networks opened from their folders."""

import dataclasses

import numpy as np
import pytest

from heldout.experiments import training_config
from heldout.training import learners, model_data, model_files, model_runs, model_settings, model_training
from zoo import errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    settings = model_settings.ModelSettings(
        "digits",
        "mlp",
        training_config.TrainingConfig(num_epochs=2, batch_size=50),
        {"hidden_sizes": [8]},
        train_split=100,
        checkpoint_epochs=(0,),
    )
    path = tmp_path_factory.mktemp("network") / "seed-0"
    trainer = model_training.ModelTrainer(settings, model_data.load(settings))
    trainer.train([model_training.Request(settings, path)], lambda told: None)
    return path


def test_a_network_is_opened_with_all_that_is_known_of_it(folder):
    run = model_runs.ModelRun.open(folder)
    assert model_runs.is_model_run(folder)
    assert not model_runs.is_model_run(folder.parent)
    assert [(item.epoch, item.step) for item in run.checkpoints()] == [(0, 0), (2, 4)]
    data, module = run.data(), run.build()
    assert len(data.train) == 100
    run.restore(module, run.checkpoints()[0])
    initial = model_training.initial_values(run.settings, 10, (8, 8, 1))
    for key, value in learners.read_values(module).items():
        np.testing.assert_array_equal(value, initial[key])
    assert run.history()["epoch"].tolist() == [0, 1, 2]


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(errors.MissingFileError, match="expected the folder of a network"):
        model_runs.ModelRun.open(tmp_path)
    settings = model_files.read_settings(folder)
    model_files.adopt_settings(tmp_path / "begun", settings)
    with pytest.raises(errors.MissingFileError, match="no checkpoint; train the network to its end"):
        model_runs.ModelRun.open(tmp_path / "begun").checkpoints()
    model_files.adopt_settings(tmp_path / "blind", dataclasses.replace(settings, fingerprint=None))
    with pytest.raises(errors.DamagedFileError, match="does not say what the data were"):
        model_runs.ModelRun.open(tmp_path / "blind")
