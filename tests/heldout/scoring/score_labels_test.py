"""Where the labels of scores come from: recipe, flag, table; what is refused, and what is said."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from heldout.datasets import registry
from heldout.experiments import recipes, training_config
from heldout.scoring import saved_scores, score_config, score_files
from tests import cases
from zoo import aux_arrays, errors, layout, run_table, run_table_update

N, M = 60, 20


def write_runs(zoo, experiment):
    for run_id in range(6):
        generator = np.random.default_rng(run_id)
        mask = np.isin(np.arange(N), generator.permutation(N)[: N // 2])
        run = layout.Run(zoo, experiment, 0.5, run_id)
        aux_arrays.write(
            run.aux_arrays_path, aux_arrays.from_masks(mask, generator.random(N) < 0.7, generator.random(M) < 0.7)
        )


@pytest.fixture
def data_path(tmp_path):
    path = tmp_path / "data" / "tiny.npz"
    path.parent.mkdir()
    cases.tiny_digits_npz(path)
    return path


@pytest.fixture
def config(tmp_path, data_path):
    """An experiment with a recipe, as training leaves it, but for its run table."""
    name = f"npz:{data_path}"
    fingerprint = registry.load(name).fingerprint()
    training = training_config.TrainingConfig(num_epochs=1, batch_size=10)
    zoo = tmp_path / "zoo"
    recipes.adopt(zoo, recipes.Recipe("own", fingerprint, "mlp", {}, training, dataset_flag=name))
    write_runs(zoo, "own")
    return score_config.ScoreConfig(str(zoo), "own", num_draws=5)


@pytest.fixture
def loads(monkeypatch):
    """The names of the data sets that are loaded."""
    names, load = [], registry.load

    def counted(name, *arguments):
        names.append(name)
        return load(name, *arguments)

    monkeypatch.setattr(registry, "load", counted)
    return names


def table_path(config):
    return layout.run_table_path(config.zoo, config.experiment)


def label_of(config):
    return saved_scores.load(config.directory).train_label


def test_deleting_the_run_table_loses_no_labels(config, loads):
    truth = cases.tiny_digits().train.label
    assert not score_files.compute_scores(config).up_to_date
    np.testing.assert_array_equal(label_of(config), truth)
    table_path(config).unlink()
    summary = score_files.compute_scores(config)
    assert (summary.up_to_date, summary.notes) == (True, ())
    np.testing.assert_array_equal(run_table.read(table_path(config)).train_label, truth)
    assert len(loads) == 2


def test_naming_the_data_set_of_the_recipe_changes_nothing(config, data_path):
    score_files.compute_scores(config)
    assert score_files.compute_scores(dataclasses.replace(config, dataset=f"npz:{data_path}")).up_to_date


def test_without_the_data_scores_are_computed_and_a_note_says_so(config, data_path):
    away = data_path.rename(data_path.with_name("away.npz"))
    for up_to_date in (False, True):
        summary = score_files.compute_scores(config)
        assert summary.up_to_date == up_to_date
        (note,) = summary.notes
        assert "carry no labels: own was trained on npz:tiny.npz" in note
        assert f"{data_path}: no such file; give its new place as --dataset" in note
        assert label_of(config) is None
    away.rename(data_path)
    summary = score_files.compute_scores(config)
    assert (summary.up_to_date, summary.notes) == (False, ())
    assert label_of(config) is not None


def test_a_data_set_that_is_not_prepared_is_a_note(config, tmp_path):
    path = layout.recipe_path(config.zoo, "own")
    path.write_text(path.read_text().replace(f"npz:{tmp_path}/data/tiny.npz", "mnist"))
    (note,) = score_files.compute_scores(dataclasses.replace(config, data_dir=str(tmp_path))).notes
    assert "mnist is not prepared there" in note


def test_published_experiments_stay_without_labels_unless_asked(tmp_path, loads):
    write_runs(tmp_path, "cifar10-inception")
    config = score_config.ScoreConfig(str(tmp_path), "cifar10-inception", num_draws=5)
    assert score_files.compute_scores(config).notes == ()
    assert (label_of(config), loads) == (None, [])


@pytest.mark.parametrize("has_labels", [False, True])
def test_another_data_set_is_refused_before_its_labels_are_stored(config, tmp_path, has_labels):
    if has_labels:
        score_files.compute_scores(config)
        before = table_path(config).read_bytes()
    other = tmp_path / "tiny.npz"
    with np.load(tmp_path / "data/tiny.npz") as stored:
        np.savez(other, **{**stored, "train__label": np.roll(stored["train__label"], 1)})
    wrong = dataclasses.replace(config, dataset=f"npz:{other}", output=str(tmp_path / "other"))
    with pytest.raises(errors.MismatchError, match=r"own was trained on npz:tiny\.npz"):
        score_files.compute_scores(wrong)
    assert not (tmp_path / "other").exists()
    if has_labels:
        assert table_path(config).read_bytes() == before
    else:
        assert run_table.read(table_path(config)).train_label is None


def test_a_published_experiment_refuses_the_labels_of_another_data_set(tmp_path):
    write_runs(tmp_path, "cifar10-inception")
    config = score_config.ScoreConfig(str(tmp_path), "cifar10-inception", num_draws=5, dataset="digits")
    with pytest.raises(errors.MismatchError, match="was trained on cifar10"):
        score_files.compute_scores(config)
    assert run_table.read(table_path(config)).train_label is None


def contradict(config):
    """Stores wrong labels, and names a data set with the right ones for an experiment without a recipe."""
    layout.recipe_path(config.zoo, "own").unlink()
    data = registry.load(config.dataset)
    run_table_update.update(config.zoo, "own", train_label=np.roll(data.train.label, 1), test_label=data.test.label)


def test_the_message_of_a_contradiction_says_how_to_recover(config, data_path, loads):
    config = dataclasses.replace(config, dataset=f"npz:{data_path}")
    contradict(config)
    loads.clear()
    with pytest.raises(errors.MismatchError, match=r"stored labels are the wrong ones, delete .*run_table\.npz and"):
        score_files.compute_scores(config)
    assert len(loads) == 1
    table_path(config).unlink()
    assert score_files.compute_scores(config).notes == ()
    assert len(loads) == 2


def test_the_only_copy_of_the_runs_is_not_to_be_deleted(config, data_path):
    config = dataclasses.replace(config, dataset=f"npz:{data_path}")
    contradict(config)
    shutil.rmtree(pathlib.Path(config.zoo) / "own" / "0.5" / "3")
    with pytest.raises(errors.MismatchError, match="only copy of some runs, so do not delete it"):
        score_files.compute_scores(config)
