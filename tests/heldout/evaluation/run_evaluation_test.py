"""Rebuilding runs: what they were made of, and what refuses to be compared."""

import numpy as np
import pytest
import tensorflow as tf

from heldout.evaluation import judging, run_evaluation, run_sources
from heldout.experiments import recipes
from heldout.models import registry
from heldout.training import run_training
from tests import cases
from zoo import aux_arrays, checkpoints, errors, files, layout


@pytest.fixture
def trained(tmp_path):
    data = cases.tiny_digits()
    recipe = cases.tiny_recipe(data)
    run = layout.Run(tmp_path / "zoo", "e", 0.7, 0)
    recipes.adopt(run.zoo, recipe)
    run_training.RunTrainer(recipe, data).train_group([run])
    return run, cases.tiny_digits_npz(tmp_path / "tiny.npz")


@pytest.mark.parametrize(("split", "parts"), [("train", {"in subset", "held out"}), ("test", {"test"})])
def test_all_predictions_of_a_trained_run_match(trained, split, parts):
    run, dataset = trained
    result = run_evaluation.evaluate(run, split, dataset=dataset)
    assert not result.disagreements
    assert result.num_predictions == {"train": 60, "test": 20}[split]
    assert set(result.accuracy) == parts
    assert result.epoch == 2


def test_other_weights_disagree_and_every_difference_is_listed(trained):
    run, dataset = trained
    module = registry.build("mlp", 10, (8, 8, 1), {"hidden_sizes": [8]})
    checkpoints.write(module, run.checkpoint_prefix(9), 9, 9)
    result = run_evaluation.evaluate(run, "train", dataset=dataset)
    data, aux = cases.tiny_digits(), aux_arrays.read(run.aux_arrays_path)
    logits = module(tf.constant(data.normalise(data.train.images)), is_training=False).numpy()
    differing = np.flatnonzero((np.argmax(logits, 1) == data.train.label) != aux.train_correctness())
    assert len(differing) > 10
    assert [item.index for item in result.disagreements] == differing.tolist()
    first = result.disagreements[0]
    assert first.prediction == np.argmax(logits[first.index])
    assert first.part == ("in subset" if aux.subset_mask()[first.index] else "held out")
    largest = np.sort(logits[first.index])
    np.testing.assert_allclose(first.margin, largest[-1] - largest[-2], rtol=1e-5)
    assert not run_evaluation.evaluate(run, "train", dataset=dataset, epoch=2).disagreements


def test_a_published_folder_tells_architecture_and_data_set(tmp_path):
    run = layout.Run(tmp_path, "cifar100-inception", 0.5, 0)
    source = run_sources.source_of(run, None, None)
    assert (source.dataset, source.architecture) == ("cifar100", "small_inception")


def test_a_published_folder_is_rebuilt_and_checked(tmp_path):
    # The architecture follows from the folder's name; tiny images stand in for CIFAR-10.
    data = cases.tiny_digits()
    run = layout.Run(tmp_path, "cifar10-inception", 0.5, 3)
    module = registry.build("small_inception", 10, data.image_shape)
    checkpoint = tf.train.Checkpoint(model=module, epoch=tf.Variable(4, dtype=tf.int64))
    checkpoint.write(str(run.checkpoint_prefix(4)))
    evaluator = judging.Evaluator(module, data)
    mask = np.arange(60) % 2 == 0
    correct = [evaluator.judge(split).correct for split in ("train", "test")]
    aux = aux_arrays.from_masks(mask, *correct)
    aux_arrays.write(run.aux_arrays_path, aux)
    result = run_evaluation.evaluate(run, "train", dataset=cases.tiny_digits_npz(tmp_path / "tiny.npz"))
    assert (result.num_predictions, result.disagreements, result.epoch) == (60, [], 4)


def test_an_unknown_experiment_asks_for_architecture_and_data_set(tmp_path):
    run = layout.Run(tmp_path, "mine", 0.5, 0)
    with pytest.raises(errors.InvalidValueError, match="give --dataset and --arch"):
        run_sources.source_of(run, None, None)
    with pytest.raises(errors.InvalidValueError, match=r"give --arch$"):
        run_sources.source_of(run, "digits", None)
    source = run_sources.source_of(run, "digits", "lenet")
    assert (source.dataset, source.architecture, source.dtype) == ("digits", "lenet", "float32")


def test_a_data_set_whose_file_is_gone_has_to_be_given(trained):
    # The recipe remembers where the file was, but it is gone.
    with pytest.raises(errors.InvalidValueError, match=r"give --dataset$"):
        run_evaluation.evaluate(trained[0], "test")


def test_a_data_set_of_another_size_is_refused(trained):
    with pytest.raises(errors.MismatchError, match="records 60 training and 20 test examples"):
        run_evaluation.evaluate(trained[0], "test", dataset="digits")


def test_labels_in_another_order_are_refused(trained, tmp_path):
    data = cases.tiny_digits()
    path = tmp_path / "reversed.npz"
    np.savez(
        path,
        train__image=data.train.images[::-1],
        train__label=data.train.label[::-1],
        test__image=data.test.images,
        test__label=data.test.label,
        __num_classes=10,
        __data_scale=16.0,
    )
    with pytest.raises(errors.MismatchError, match="another order"):
        run_evaluation.evaluate(trained[0], "test", dataset=f"npz:{path}")


def test_another_architecture_is_refused_with_the_differences(trained):
    with pytest.raises(errors.MismatchError, match="only in the model"):
        run_evaluation.evaluate(trained[0], "test", dataset=trained[1], architecture="lenet")


def test_a_missing_checkpoint_is_named(trained):
    run, dataset = trained
    with pytest.raises(errors.MissingFileError, match="ckpt-7"):
        run_evaluation.evaluate(run, "test", dataset=dataset, epoch=7)
    for path in run.checkpoints_directory.iterdir():
        path.unlink()
    with pytest.raises(errors.MissingFileError, match="no complete checkpoint"):
        run_evaluation.evaluate(run, "test", dataset=dataset)


def test_a_float64_run_is_rebuilt_in_float64(tmp_path):
    data = cases.tiny_digits()
    recipe = cases.tiny_recipe(data, dtype="float64")
    run = layout.Run(tmp_path / "zoo", "e", 0.7, 0)
    files.write_json(layout.recipe_path(run.zoo, "e"), recipe.to_json())
    run_training.RunTrainer(recipe, data).train_group([run])
    result = run_evaluation.evaluate(run, "train", dataset=cases.tiny_digits_npz(tmp_path / "tiny.npz"))
    assert not result.disagreements
