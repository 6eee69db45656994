"""Runs whose subsets follow a ranking: what they are trained on, how they begin, and what refuses them."""

import dataclasses
import warnings

import numpy as np
import pytest

from heldout import subsets
from heldout.experiments import recipes, subset_rankings
from heldout.scoring import datamodel_files, score_config, score_files
from heldout.training import failures, run_results, run_training, train_runs_config, zoo_training
from tests import cases
from tests.heldout.training import zoo_training_test
from zoo import aux_arrays, errors, layout


@pytest.fixture(scope="module")
def data():
    return cases.tiny_digits()


@pytest.fixture(scope="module")
def ranking():
    """Of every second example the value is its position."""
    index = np.arange(0, 60, 2)
    return subset_rankings.SubsetRanking(index, index.astype(float))


def recipe_of(data, ranking, **training):
    plain = cases.tiny_recipe(data, **training)
    return dataclasses.replace(plain, subset_sampling="ranked", ranking_sha256=ranking.sha256())


def run(zoo, kind, seed_id=0, ratio=0.2):
    return layout.Run(zoo, "e", ratio, subset_rankings.run_id(kind, seed_id))


def test_a_run_is_trained_on_its_end_of_the_ranking_alone(tmp_path, data, ranking):
    trainer = run_training.RunTrainer(recipe_of(data, ranking), data, ranking=ranking)
    trainer.train_group([run(tmp_path, kind) for kind in ("highest", "lowest")])
    for kind, expected in (("highest", range(36, 60, 2)), ("lowest", range(0, 24, 2))):
        aux = aux_arrays.read(run(tmp_path, kind).aux_arrays_path)
        np.testing.assert_array_equal(np.sort(aux.index_train), expected)


def test_runs_of_one_seed_begin_with_the_same_weights(tmp_path, data, ranking):
    """At a rate of next to nothing they end with those weights, too."""
    trainer = run_training.RunTrainer(
        recipe_of(data, ranking, learning_rate=1e-30), data, ranking=ranking, margins=True
    )
    wanted = [run(tmp_path, *name) for name in (("highest", 1), ("lowest", 1), ("highest", 2))]
    trainer.train_group(wanted)
    margin = [aux_arrays.read(one.aux_arrays_path).test_margin() for one in wanted]
    np.testing.assert_array_equal(margin[0], margin[1])
    assert not np.array_equal(margin[0], margin[2])


def test_runs_of_the_same_examples_are_two_runs(tmp_path, data, ranking):
    """All values are positive, so the highest are the largest: equal records would pass for copies."""
    trainer = run_training.RunTrainer(recipe_of(data, ranking), data, ranking=ranking, margins=True)
    wanted = [run(tmp_path, kind) for kind in ("highest", "largest")]
    trainer.train_group(wanted)
    first, other = (aux_arrays.read(one.aux_arrays_path) for one in wanted)
    np.testing.assert_array_equal(first.index_train, other.index_train)
    assert not np.array_equal(first.test_margin(), other.test_margin())


def test_a_run_may_be_trained_on_all_examples(tmp_path, data):
    ranking = subset_rankings.SubsetRanking(np.arange(60), np.zeros(60))
    ratio = subset_rankings.ratio_of(60, 60)
    trainer = run_training.RunTrainer(recipe_of(data, ranking), data, ranking=ranking)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        (result,) = trainer.train_group([run(tmp_path, "random", 0, ratio)])
    assert np.isnan(result.accuracy_heldout)
    assert aux_arrays.read(result.run.aux_arrays_path).subset_mask().all()


def test_a_trainer_wants_the_ranking_of_the_recipe(data, ranking):
    recipe = recipe_of(data, ranking)
    other = subset_rankings.SubsetRanking(ranking.train_index, -ranking.value)
    for one, given in ((recipe, None), (recipe, other), (cases.tiny_recipe(data), ranking)):
        with pytest.raises(errors.MismatchError, match="give the ranking of the recipe"):
            run_training.RunTrainer(one, data, ranking=given)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, ranking):
    """Runs of two ratios, the smaller of the whole pool, with their configuration."""
    folder = tmp_path_factory.mktemp("ranked")
    config = zoo_training_test.config(
        folder / "zoo",
        cases.tiny_digits_npz(folder / "tiny.npz"),
        subset_ratios=(0.2, 0.5),
        run_ids=(0, 1),
        subset_sampling="ranked",
        ranking=ranking,
        margins=True,
        workers=1,
    )
    return config, zoo_training.train_runs(config)


def test_a_whole_training_follows_the_ranking_and_goes_on(trained, ranking):
    config, summary = trained
    assert len(summary.trained) == 4
    assert not summary.problems
    stored = recipes.read(config.zoo, "e")
    assert (stored.subset_sampling, stored.ranking_sha256) == ("ranked", ranking.sha256())
    for one in layout.runs(config.zoo, "e"):
        expected = ranking.subset_indices(("e", one.subset_ratio, one.run_id), 60)
        np.testing.assert_array_equal(np.sort(aux_arrays.read(one.aux_arrays_path).index_train), expected)
    again = zoo_training.train_runs(dataclasses.replace(config, run_ids=(0, 1, 2)))
    assert (len(again.trained), again.num_skipped) == (2, 4)


def test_another_ranking_is_another_recipe(trained, ranking):
    config, _ = trained
    other = subset_rankings.SubsetRanking(ranking.train_index, -ranking.value)
    with pytest.raises(errors.MismatchError, match="ranking_sha256: other content than what was stored"):
        zoo_training.train_runs(dataclasses.replace(config, ranking=other))


def test_what_compares_single_examples_refuses_such_runs(trained, tmp_path):
    config, _ = trained
    with pytest.raises(errors.InvalidValueError, match="its subsets follow a ranking"):
        score_files.compute_scores(score_config.ScoreConfig(config.zoo, "e", output=str(tmp_path / "scores")))
    with pytest.raises(errors.InvalidValueError, match="its subsets follow a ranking"):
        datamodel_files.fit_datamodels(datamodel_files.DatamodelConfig(config.zoo, "e"))


def test_a_failure_names_the_seed_and_who_tries_again(tmp_path, data, ranking):
    result = run_results.RunResult(run(tmp_path, "lowest", 4), "the training loss is nan", float("nan"), epoch=2)
    failure = failures.describe(recipe_of(data, ranking), result)
    assert int(failure.seed, 16) == subsets.seed(("e", 0.2, 4), "initialisation")
    assert failure.retry == "the same command of train_on_most_influential"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranking": None}, "--subset_sampling=ranked: expected one of uniform, class_balanced, or ranked with a"),
        ({"subset_sampling": "uniform"}, "--subset_sampling=uniform: expected"),
        ({"store": "gs://bucket/zoo"}, "--zoo=gs://bucket/zoo: subsets follow a ranking in a folder only"),
    ],
)
def test_configurations_that_contradict_themselves_are_refused(trained, change, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        train_runs_config.check(dataclasses.replace(trained[0], **change))
