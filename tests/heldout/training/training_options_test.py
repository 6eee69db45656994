"""Whole trainings with wrong labels, balanced subsets, margins and failures, on real worker processes."""

import dataclasses

import numpy as np
import pytest

from heldout import subsets
from heldout.evaluation import margins
from heldout.experiments import label_noise, recipes, training_config
from heldout.training import failures, run_results, zoo_training
from tests import cases
from tests.heldout.training import zoo_training_test
from zoo import aux_arrays, errors, files, layout

_NOISE = label_noise.LabelNoise("symmetric", share=0.25, seed=9)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return cases.tiny_digits_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def config(zoo, dataset, **options):
    return zoo_training_test.config(zoo, dataset, **({"run_ids": (0, 1)} | options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset):
    """A zoo with everything at once, and what its training returned."""
    wanted = config(
        tmp_path_factory.mktemp("zoo"), dataset, noise=_NOISE, subset_sampling="class_balanced", margins=True
    )
    return wanted, zoo_training.train_runs(wanted)


def test_noisy_labels_are_those_of_the_table_and_the_folder(trained):
    wanted, summary = trained
    expected = label_noise.apply(_NOISE, cases.tiny_digits())
    np.testing.assert_array_equal(summary.table.train_label, expected.train.label)
    np.testing.assert_array_equal(summary.table.test_label, expected.test.label)
    with np.load(layout.labels_path(wanted.zoo, "e")) as stored:
        np.testing.assert_array_equal(stored["train_label"], expected.train.label)
        np.testing.assert_array_equal(stored["clean_train_label"], cases.tiny_digits().train.label)
        assert stored["is_changed"].sum() == 15


def test_right_means_right_by_the_noisy_label(trained):
    # A positive margin is more than half of the probability, so the prediction; by the clean label it would not fit.
    wanted, _ = trained
    clean, label = cases.tiny_digits().train.label, label_noise.apply(_NOISE, cases.tiny_digits()).train.label
    for run in layout.runs(wanted.zoo, "e"):
        aux = aux_arrays.read(run.aux_arrays_path)
        assert np.all(aux.train_correctness()[aux.train_margin() > 0])
        expected = subsets.balanced_indices("e", 0.7, run.run_id, label)
        np.testing.assert_array_equal(aux.index_train, expected)
        assert not np.array_equal(expected, subsets.balanced_indices("e", 0.7, run.run_id, clean))
    train, test = margins.collect(wanted.zoo, "e")
    assert np.isfinite(train).all()
    assert np.isfinite(test).all()


def test_the_recipe_says_it_and_the_same_call_does_nothing(trained):
    wanted, _ = trained
    recipe = recipes.read(wanted.zoo, "e")
    assert (recipe.noise, recipe.subset_sampling) == (_NOISE, "class_balanced")
    before = {p: p.stat().st_mtime_ns for p in layout.experiment_directory(wanted.zoo, "e").rglob("*") if p.is_file()}
    assert zoo_training.train_runs(wanted).num_skipped == 2
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.parametrize(
    "change",
    [{"noise": None}, {"noise": dataclasses.replace(_NOISE, seed=8)}, {"subset_sampling": "uniform"}],
    ids=["clean", "seed", "sampling"],
)
def test_other_labels_or_subsets_are_another_recipe(trained, change):
    wanted, _ = trained
    with pytest.raises(errors.MismatchError, match="begun with another recipe"):
        zoo_training.train_runs(dataclasses.replace(wanted, **change))


def test_noise_changes_nothing_but_labels(tmp_path, dataset):
    # Subset, initial weights and order are the same: without an example changed, so is every bit.
    plain = zoo_training.train_runs(config(tmp_path / "plain", dataset, run_ids=(0,)))
    none = label_noise.LabelNoise("pair", count=0, seed=3)
    noisy = zoo_training.train_runs(config(tmp_path / "noisy", dataset, run_ids=(0,), noise=none))
    records = [summary.trained[0].run.aux_arrays_path.read_bytes() for summary in (plain, noisy)]
    assert records[0] == records[1]
    assert not layout.labels_path(tmp_path / "plain", "e").exists()


def test_a_recipe_of_an_earlier_version_continues(tmp_path, dataset):
    zoo_training.train_runs(config(tmp_path, dataset, run_ids=(0,)))
    stored = files.read_json(layout.recipe_path(tmp_path, "e"))
    assert stored["schema_version"] == 1
    assert not {"label_noise", "subset_sampling"} & set(stored)
    assert len(zoo_training.train_runs(config(tmp_path, dataset)).trained) == 1


def test_noise_without_a_known_map_is_refused_before_anything_is_written(tmp_path, dataset):
    with pytest.raises(errors.InvalidValueError, match=r"no map of classes is known for npz:tiny\.npz"):
        zoo_training.train_runs(config(tmp_path / "z", dataset, noise=label_noise.LabelNoise("asymmetric", count=1)))
    assert not (tmp_path / "z").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_failures": -1}, "--max_failures=-1: expected 0"), ({"subset_sampling": "any"}, "--subset_sampling=any")],
)
def test_bad_requests_are_refused(tmp_path, dataset, options, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        zoo_training.train_runs(config(tmp_path / "z", dataset, **options))


_WILD = training_config.TrainingConfig(num_epochs=2, batch_size=10, learning_rate=1e30)


def test_training_stops_after_so_many_failures_in_a_row(tmp_path, dataset):
    wild = config(tmp_path, dataset, training=_WILD, run_ids=tuple(range(12)), max_failures=3, workers=1)
    summary = zoo_training.train_runs(wild)
    assert summary.stopped
    assert [result.run.run_id for result in summary.failed] == [0, 1, 2]
    noted = failures.current(tmp_path, "e")
    assert [failure.run_id for failure in noted] == [0, 1, 2]
    assert all(failure.epoch == 1 and failure.loss is None and "loss is nan" in failure.reason for failure in noted)


def test_without_a_limit_all_are_tried(tmp_path, dataset):
    summary = zoo_training.train_runs(
        config(tmp_path, dataset, training=_WILD, run_ids=tuple(range(7)), max_failures=0, workers=1)
    )
    assert len(summary.failed) == 7
    assert not summary.stopped


def test_only_failures_without_a_success_between_them_stop_a_training():
    runs = [layout.Run("z", "e", 0.7, i) for i in range(4)]
    results = [
        run_results.RunResult(run, failure, 0.0) for run, failure in zip(runs, ("a", None, "b", "c"), strict=True)
    ]
    assert [failures.too_many(results[:size], 2) for size in range(5)] == [False] * 4 + [True]
