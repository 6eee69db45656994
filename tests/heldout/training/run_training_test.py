"""Runs from names to files: published format, reproducible, the same alone as in a group."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from heldout import subsets
from heldout.datasets import digits
from heldout.evaluation import judging
from heldout.models import registry
from heldout.training import run_training
from tests import cases
from zoo import aux_arrays, checkpoints, errors, layout


@pytest.fixture(scope="module")
def data():
    return cases.tiny_digits()


def runs(zoo, ids, ratio=0.7):
    return [layout.Run(zoo, "e", ratio, run_id) for run_id in ids]


def test_a_run_is_written_in_the_published_format(tmp_path, data):
    trainer = run_training.RunTrainer(cases.tiny_recipe(data), data)
    (result,) = trainer.train_group(runs(tmp_path, [3]))
    assert result.failure is None
    names = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert names == [
        "e/0.7/3/aux_arrays.npz",
        "e/0.7/3/checkpoints/ckpt-2.data-00000-of-00001",
        "e/0.7/3/checkpoints/ckpt-2.index",
    ]
    with np.load(result.run.aux_arrays_path, allow_pickle=False) as stored:
        expected = subsets.subset_indices("e", 0.7, 3, 60)
        np.testing.assert_array_equal(np.sort(stored["subsample_idx"]), expected)
        np.testing.assert_array_equal(np.sort(stored["index_train"]), expected)
        assert stored["correctness_removed"].shape == (18,)
        assert stored["correctness_test"].shape == (20,)
    reader = tf.train.load_checkpoint(str(result.run.checkpoint_prefix(2)))
    assert reader.get_tensor("epoch/.ATTRIBUTES/VARIABLE_VALUE") == 2
    assert reader.get_tensor("global_step/.ATTRIBUTES/VARIABLE_VALUE") == 2 * (42 // 10)


def test_recorded_correctness_is_that_of_the_restored_model(tmp_path, data):
    recipe = cases.tiny_recipe(data, num_epochs=5)
    (result,) = run_training.RunTrainer(recipe, data).train_group(runs(tmp_path, [0]))
    module = registry.build("mlp", 10, data.image_shape, recipe.architecture_options)
    checkpoints.restore(module, result.run.checkpoint_prefix(5))
    aux = aux_arrays.read(result.run.aux_arrays_path)
    for split, recorded in ((data.train, aux.train_correctness()), (data.test, aux.test_correctness())):
        logits = module(tf.constant(data.normalise(split.images)), is_training=False).numpy()
        np.testing.assert_array_equal(np.argmax(logits, 1) == split.label, recorded)
    assert result.accuracy_in == np.mean(aux.correctness_train)
    assert result.accuracy_heldout == np.mean(aux.correctness_heldout)
    assert result.accuracy_test == np.mean(aux.correctness_test)
    assert 0.3 < result.accuracy_in < 1


def test_the_same_name_gives_the_same_weights_in_another_process_state(tmp_path, data):
    values = []
    for attempt in range(2):
        tf.random.set_seed(attempt)
        tf.random.uniform([attempt + 1])
        trainer = run_training.RunTrainer(cases.tiny_recipe(data), data)
        (result,) = trainer.train_group(runs(tmp_path / str(attempt), [5]))
        listing = checkpoints.read_listing(result.run.checkpoint_prefix(2))
        reader = tf.train.load_checkpoint(str(result.run.checkpoint_prefix(2)))
        values.append({key: reader.get_tensor(f"{key}/.ATTRIBUTES/VARIABLE_VALUE") for key in listing})
    assert values[0].keys() == {f"model/layers/{i}/{v}" for i in (1, 3) for v in "wb"}
    for key, value in values[0].items():
        np.testing.assert_array_equal(value, values[1][key])


def test_runs_differ_in_their_initial_values(data):
    trainer = run_training.RunTrainer(cases.tiny_recipe(data), data)
    first, second = (trainer.initial_values(("e", 0.7, run_id)) for run_id in (0, 1))
    assert not np.array_equal(first["model/layers/1/w"], second["model/layers/1/w"])


def test_a_model_that_cannot_begin_again_is_refused(data):
    recipe = cases.tiny_recipe(data, "tests.heldout.small_models:FromNumPy", {})
    with pytest.raises(errors.InvalidValueError, match=r"FromNumPy'.* under one TensorFlow seed, .* not with NumPy"):
        run_training.RunTrainer(recipe, data)


def test_a_whole_float32_run_keeps_99_percent_of_its_bits_in_a_group(tmp_path):
    data = digits.load()
    recipe = cases.tiny_recipe(data, options={"hidden_sizes": [64, 32]}, num_epochs=10, batch_size=64)
    group = run_training.RunTrainer(recipe, data)
    group.train_group(runs(tmp_path / "group", range(4)))
    bits = []
    for run_id in range(4):
        single = run_training.RunTrainer(recipe, data)
        single.train_group(runs(tmp_path / "single", [run_id]))
        for name in ("group", "single"):
            aux = aux_arrays.read(runs(tmp_path / name, [run_id])[0].aux_arrays_path)
            bits.append(np.concatenate([aux.train_correctness(), aux.test_correctness()]))
    for together, alone in zip(bits[::2], bits[1::2], strict=True):
        assert 0.5 < np.mean(alone) < 1
        assert np.mean(together == alone) >= 0.99


@pytest.mark.parametrize(("hidden_size", "expected"), [(8, 8), (20_000, 1)])
def test_groups_are_chosen_by_what_a_step_costs(data, hidden_size, expected):
    # Batches of 10 images of 64 pixels: 740 or 14.8 million multiply-adds in a step per hidden unit.
    trainer = run_training.RunTrainer(cases.tiny_recipe(data, options={"hidden_sizes": [hidden_size]}), data)
    assert trainer.largest_group() == expected
    assert trainer.largest_group(5) == 5


def test_runs_can_be_trained_in_mixed_precision(tmp_path, data):
    accuracies = []
    for mixed_precision in ("none", "bfloat16"):
        recipe = cases.tiny_recipe(data, num_epochs=20, mixed_precision=mixed_precision)
        trainer = run_training.RunTrainer(recipe, data)
        (result,) = trainer.train_group(runs(tmp_path / mixed_precision, [0]))
        accuracies.append(result.accuracy_in)
        module = registry.build("mlp", 10, data.image_shape, {"hidden_sizes": [8]})
        checkpoints.restore(module, result.run.checkpoint_prefix(20))
        assert {variable.dtype for variable in module.variables} == {tf.float32}
    assert min(accuracies) > 0.7
    assert abs(accuracies[0] - accuracies[1]) < 0.2


def test_mixed_precision_needs_a_batched_form(tmp_path, data):
    recipe = cases.tiny_recipe(data, "tests.heldout.small_models:OwnModel", {}, mixed_precision="bfloat16")
    with pytest.raises(ValueError, match="OwnModel knows no --mixed_precision; leave the flag out"):
        run_training.RunTrainer(recipe, data).train_group(runs(tmp_path, [0]))


def test_a_model_without_a_batched_form_trains_alone(tmp_path, data):
    architecture = "tests.heldout.small_models:OwnModel"
    recipe = cases.tiny_recipe(data, architecture, {}, num_epochs=1, batch_size=20)
    trainer = run_training.RunTrainer(recipe, data)
    assert trainer.largest_group(8) == 1
    with pytest.raises(ValueError, match="one run at a time"):
        trainer.train_group(runs(tmp_path, [0, 1]))
    (result,) = trainer.train_group(runs(tmp_path, [0]))
    module = registry.build(architecture, 10, data.image_shape)
    assert checkpoints.restore(module, result.run.checkpoint_prefix(1)).epoch == 1


def test_a_diverged_run_fails_and_leaves_no_files_while_others_finish(tmp_path, data):
    class Poisoned(run_training.RunTrainer):
        def initial_values(self, name):
            values = super().initial_values(name)
            return {k: v * np.nan for k, v in values.items()} if name[2] == 1 else values

    results = Poisoned(cases.tiny_recipe(data), data).train_group(runs(tmp_path, [0, 1, 2]))
    assert [result.failure is None for result in results] == [True, False, True]
    assert "training loss is nan" in results[1].failure
    assert not results[1].run.directory.exists()
    assert results[2].run.aux_arrays_path.exists()


def test_a_run_that_diverges_in_its_last_step_fails_too(tmp_path, data):
    # The loss before the only update is finite; the weights after it are not fit to predict.
    recipe = cases.tiny_recipe(data, num_epochs=1, batch_size=1000, learning_rate=1e38)
    (result,) = run_training.RunTrainer(recipe, data).train_group(runs(tmp_path, [0]))
    assert "not finite" in result.failure
    assert np.isfinite(result.loss)
    assert not result.run.directory.exists()


def test_normaliser_equals_the_data_sets_own(data):
    split = data.train.images[:5]
    normalised = judging.normaliser(data)(tf.constant(split)).numpy()
    assert normalised.dtype == np.float32
    np.testing.assert_array_equal(normalised, data.normalise(split))


def test_bytes_per_run_is_about_what_a_run_takes(tmp_path, data):
    trainer = run_training.RunTrainer(cases.tiny_recipe(data, options={"hidden_sizes": [256]}), data)
    (result,) = trainer.train_group(runs(tmp_path, [0]))
    taken = sum(p.stat().st_size for p in result.run.directory.rglob("*") if p.is_file())
    assert 0.8 * taken < trainer.bytes_per_run() < 1.2 * taken


def test_margins_are_those_of_the_restored_model(tmp_path, data):
    recipe = cases.tiny_recipe(data, num_epochs=3)
    (plain,) = run_training.RunTrainer(recipe, data).train_group(runs(tmp_path / "plain", [0]))
    (result,) = run_training.RunTrainer(recipe, data, margins=True).train_group(runs(tmp_path / "margins", [0]))
    module = registry.build("mlp", 10, data.image_shape, recipe.architecture_options)
    checkpoints.restore(module, result.run.checkpoint_prefix(3))
    aux = aux_arrays.read(result.run.aux_arrays_path)
    for split, margin in ((data.train, aux.train_margin()), (data.test, aux.test_margin())):
        logits = module(tf.constant(data.normalise(split.images)), is_training=False).numpy().astype(float)
        probability = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[np.arange(len(split)), split.label]
        np.testing.assert_allclose(margin, np.log(probability / (1 - probability)), rtol=2e-3, atol=2e-3)
    # Nothing else of the record depends on them.
    with np.load(plain.run.aux_arrays_path) as without, np.load(result.run.aux_arrays_path) as stored:
        assert set(stored.files) - set(without.files) == {"margin_train", "margin_removed", "margin_test"}
        for key in without.files:
            np.testing.assert_array_equal(without[key], stored[key])


def test_margins_are_counted_in_what_a_run_takes(data):
    trainers = [run_training.RunTrainer(cases.tiny_recipe(data), data, margins=margins) for margins in (False, True)]
    assert trainers[1].bytes_per_run() - trainers[0].bytes_per_run() == 2 * 80


def test_a_balanced_experiment_trains_on_balanced_subsets(tmp_path, data):
    recipe = dataclasses.replace(cases.tiny_recipe(data), subset_sampling="class_balanced")
    (result,) = run_training.RunTrainer(recipe, data).train_group(runs(tmp_path, [1], 0.5))
    index = aux_arrays.read(result.run.aux_arrays_path).index_train
    assert len(index) == 30
    of_class = np.bincount(data.train.label, minlength=10)
    assert np.all(np.abs(np.bincount(data.train.label[index], minlength=10) - of_class / 2) < 1)
    np.testing.assert_array_equal(index, subsets.balanced_indices("e", 0.5, 1, data.train.label))


def test_a_failure_tells_its_epoch_and_ends_a_group_without_hope(tmp_path, data):
    recipe = cases.tiny_recipe(data, num_epochs=6, learning_rate=1e25)
    epochs = []
    trainer = run_training.RunTrainer(recipe, data)
    results = trainer.train_group(runs(tmp_path, [0, 1]), lambda epoch, losses: epochs.append((epoch, losses)))
    assert np.isnan(epochs[-1][1]).all()
    assert len(epochs) < 6
    for number, result in enumerate(results):
        first = next(epoch for epoch, losses in epochs if not np.isfinite(losses[number]))
        assert result.epoch == first + 1
        assert "training loss is nan" in result.failure


def test_a_group_goes_on_while_one_of_its_runs_does(tmp_path, data):
    class Poisoned(run_training.RunTrainer):
        def initial_values(self, name):
            values = super().initial_values(name)
            return {k: v * np.nan for k, v in values.items()} if name[2] == 1 else values

    epochs = []
    trainer = Poisoned(cases.tiny_recipe(data, num_epochs=3), data)
    results = trainer.train_group(runs(tmp_path, [0, 1]), lambda epoch, _: epochs.append(epoch))
    assert epochs == [0, 1, 2]
    assert [result.epoch for result in results] == [None, 1]
