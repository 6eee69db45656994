"""Training of single networks: against the loop alone, early ends, checkpoints, kills at any epoch."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from heldout.datasets import digits
from heldout.evaluation import judging
from heldout.experiments import label_noise, training_config
from heldout.training import (
    batches,
    learners,
    model_data,
    model_files,
    model_runs,
    model_settings,
    model_state,
    model_training,
    training_loop,
)
from zoo import errors

_EVERY_EPOCH = model_training.Options(resume_minutes=0)


class KilledError(Exception):
    """In the place of a kill."""


def settings(architecture="mlp", options=None, **members):
    training = {"num_epochs": 5, "batch_size": 40, "learning_rate": 0.05, **members.pop("training", {})}
    defaults = {"noise": label_noise.LabelNoise("symmetric", share=0.2), "train_split": 200, "val_split": 60}
    return model_settings.ModelSettings(
        "digits",
        architecture,
        training_config.TrainingConfig(**training),
        {"hidden_sizes": [16]} if options is None else options,
        **(defaults | members),
    )


@pytest.fixture(scope="module")
def dataset():
    full = digits.load()
    small = dataclasses.replace(full.test, images=full.test.images[:100], label=full.test.label[:100])
    return dataclasses.replace(full, test=small)


def train(value, dataset, root, options=None, seeds=(0,), die_after=None):
    """Trains networks under root/<seed>; dies as a kill would, where it is told to."""
    data = model_data.of_dataset(value, dataset)
    requests = [
        model_training.Request(dataclasses.replace(value, seed=seed), pathlib.Path(root) / str(seed)) for seed in seeds
    ]
    told = []

    def report(message):
        told.append(message)
        if message["epoch"] == die_after:
            raise KilledError

    trainer = model_training.ModelTrainer(value, data, options or model_training.Options(resume_minutes=60))
    try:
        return trainer.train(requests, report), told
    except KilledError:
        return None, told


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def weights(folder, checkpoint=-1):
    run = model_runs.ModelRun.open(folder)
    module = run.build()
    run.restore(module, run.checkpoints()[checkpoint])
    return learners.read_values(module)


def test_the_weights_are_those_of_the_loop_alone(dataset, tmp_path):
    value = settings(eval_every=2)
    train(value, dataset, tmp_path)
    data = model_data.of_dataset(value, dataset)
    learner = learners.SingleLearner(model_runs.build(value, 10, (8, 8, 1)))
    loop = training_loop.Trainer(
        learner,
        data.train.images,
        data.train.label,
        judging.normaliser(data.dataset),
        value.training,
        jit_compile=True,  # a small dense network on a CPU
    )
    draw = batches.RunDraw(model_training.name_of(0), np.arange(200))
    loop.train([draw], [model_training.initial_values(value, 10, (8, 8, 1))])
    module = model_runs.build(value, 10, (8, 8, 1))
    learner.copy_to(0, module)
    for key, expected in learners.read_values(module).items():
        np.testing.assert_array_equal(weights(tmp_path / "0")[key], expected)


def test_the_history_holds_what_plain_arithmetic_finds(dataset, tmp_path):
    value = settings(eval_every=2, checkpoint_epochs=(0, 3), training={"schedule": "cosine", "warmup_epochs": 2.0})
    (result,), _ = train(value, dataset, tmp_path)
    run = model_runs.ModelRun.open(tmp_path / "0")
    history = run.history()
    assert history["epoch"].tolist() == [0, 2, 3, 4, 5]
    assert [(item.epoch, item.step) for item in run.checkpoints()] == [(0, 0), (3, 15), (5, 25)]
    data = model_data.of_dataset(value, dataset)
    module = run.build()
    for checkpoint in run.checkpoints():
        run.restore(module, checkpoint)
        row = history[history["epoch"] == checkpoint.epoch][0]
        assert row["step"] == checkpoint.step
        for name in ("train", "val", "test"):
            split = data.split(name)
            logits = module(tf.constant(data.normalise(split.images)), is_training=False).numpy().astype(np.float64)
            chosen = logits[np.arange(len(split)), split.label]
            np.testing.assert_allclose(row[f"{name}_loss"], np.mean(np.log(np.exp(logits).sum(1)) - chosen), rtol=1e-5)
            assert row[f"{name}_error"] == np.mean(logits.argmax(1) != split.label)
            if name == "train":
                assert row["train_clean_error"] == np.mean(logits.argmax(1) != split.clean_label)
    # Step 10 is the last of the warm-up, which has the whole rate of the cosine at its begin; in the end it vanishes.
    assert history["learning_rate"][1] == pytest.approx(0.05)
    assert history["learning_rate"][-1] == pytest.approx(0.05 * (1 + np.cos(np.pi * 14 / 15)) / 2)
    assert np.isnan(history["learning_rate"][0])
    assert result == json.loads((tmp_path / "0" / "result.json").read_text())
    assert (result["outcome"], result["reason"]) == ("finished", "5 epochs done")
    assert result["test_error"] == history["test_error"][-1]


def test_checkpoints_are_read_by_tensorflow_alone(dataset, tmp_path):
    train(settings(), dataset, tmp_path)
    run = model_runs.ModelRun.open(tmp_path / "0")
    (last,), module = run.checkpoints(), run.build()
    epoch = tf.Variable(-1, dtype=tf.int64)
    tf.train.Checkpoint(model=module, epoch=epoch).restore(str(last.prefix)).expect_partial()
    assert int(epoch) == 5
    for key, expected in weights(tmp_path / "0").items():
        np.testing.assert_array_equal(learners.read_values(module)[key], expected)


@pytest.mark.parametrize(
    ("architecture", "options", "training", "side_by_side"),
    [
        ("mlp", None, {"schedule": "cosine"}, 1),
        ("mlp", None, {"optimizer": "adam", "learning_rate": 0.01}, 2),
        ("conv5_2", {"batch_norm": True}, {"augmentation": ("crop", "flip"), "crop_padding": 1, "l1": 1e-4}, 2),
    ],
)
def test_killed_after_any_epoch_it_ends_as_if_undisturbed(
    dataset, tmp_path, architecture, options, training, side_by_side
):
    value = settings(architecture, options, training=training | {"num_epochs": 4}, checkpoint_epochs=(0, 2))
    how = model_training.Options(resume_minutes=0, side_by_side=side_by_side)
    undisturbed, _ = train(value, dataset, tmp_path / "undisturbed", how, seeds=(0, 1))
    found = None
    for die_after in (2, None):
        found, told = train(value, dataset, tmp_path / "killed", how, seeds=(0, 1), die_after=die_after)
    assert found == undisturbed
    # What was done was not done again: of each group the last epoch was left.
    assert {message["epoch"] for message in told} <= {1, 2, 3, 4}
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    assert not list((tmp_path / "killed").rglob("resume"))


def test_the_state_is_taken_up_where_it_was_left(dataset, tmp_path):
    train(settings(), dataset, tmp_path, _EVERY_EPOCH, die_after=3)
    assert model_state.read(tmp_path / "0").epoch == 3
    assert model_files.read_result(tmp_path / "0") is None
    _, told = train(settings(), dataset, tmp_path, _EVERY_EPOCH)
    assert [message["epoch"] for message in told] == [4, 5]


def test_without_a_state_it_begins_anew_with_the_same_end(dataset, tmp_path):
    train(settings(), dataset, tmp_path / "undisturbed")
    train(settings(), dataset, tmp_path / "killed", die_after=3)  # saves once an hour
    _, told = train(settings(), dataset, tmp_path / "killed")
    assert len(told) == 5
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


def test_again_it_does_nothing(dataset, tmp_path):
    first, _ = train(settings(), dataset, tmp_path)
    before = contents(tmp_path)
    (tmp_path / "0" / "resume").mkdir()  # as a kill at the very end leaves it
    again, told = train(settings(), dataset, tmp_path)
    assert (again, told) == (first, [])
    assert contents(tmp_path) == before
    assert not (tmp_path / "0" / "resume").exists()


def test_another_setting_in_the_folder_is_refused(dataset, tmp_path):
    train(settings(), dataset, tmp_path)
    with pytest.raises(errors.MismatchError, match="val_split: stored 60, asked for 50"):
        train(settings(val_split=50), dataset, tmp_path)


def test_the_state_of_another_network_is_refused(dataset, tmp_path):
    train(settings(), dataset, tmp_path, _EVERY_EPOCH, die_after=2)
    state = model_state.read(tmp_path / "0")
    model_state.write(tmp_path / "0", dataclasses.replace(state, values={"model/w": np.zeros(2)}))
    with pytest.raises(errors.DamagedFileError, match="is of another network than the settings beside it"):
        train(settings(), dataset, tmp_path)


def test_seeds_side_by_side_equal_each_alone_up_to_rounding(dataset, tmp_path):
    value = settings("conv5_2", {}, training={"num_epochs": 2})
    train(value, dataset, tmp_path / "alone", seeds=(0, 3))
    how = model_training.Options(side_by_side=2)
    _, told = train(value, dataset, tmp_path / "together", how, seeds=(0, 3))
    assert [len(message["networks"]) for message in told] == [2, 2]
    for seed in ("0", "3"):
        alone, together = (weights(tmp_path / name / seed) for name in ("alone", "together"))
        for key, expected in alone.items():
            np.testing.assert_allclose(together[key], expected, atol=1e-4)
    assert not np.array_equal(weights(tmp_path / "alone" / "0")[key], weights(tmp_path / "alone" / "3")[key])


def test_a_training_ends_at_an_accuracy_on_the_labels_it_is_trained_with(dataset, tmp_path):
    value = settings(training={"num_epochs": 60, "stop_accuracy": 0.9}, eval_every=4)
    (result,), _ = train(value, dataset, tmp_path)
    assert result["outcome"] == "stopped_early"
    history = model_files.read_history(tmp_path / "0")
    assert result["train_error"] <= 0.1
    assert (history["train_error"][:-1] > 0.1).all()
    assert result["epoch"] % 4 == 0
    assert result["epoch"] < 60
    assert model_files.checkpoint_epochs(tmp_path / "0") == [result["epoch"]]


def test_a_training_ends_at_a_loss_between_evaluations(dataset, tmp_path):
    value = settings(training={"num_epochs": 60, "stop_loss": 1.0}, eval_every=50)
    (result,), told = train(value, dataset, tmp_path)
    assert (result["outcome"], result["epoch"]) == ("stopped_early", told[-1]["epoch"])
    assert result["running_loss"] <= 1
    assert result["epoch"] % 50
    assert "the training loss is" in result["reason"]


def test_side_by_side_each_ends_when_it_is_time_for_it(dataset, tmp_path):
    value = settings(training={"num_epochs": 60, "stop_loss": 0.8})
    how = model_training.Options(side_by_side=3)
    results, told = train(value, dataset, tmp_path, how, seeds=(0, 1, 2))
    epochs = [result["epoch"] for result in results]
    assert len(set(epochs)) > 1
    assert told[-1]["epoch"] == max(epochs)
    for seed, result in enumerate(results):
        assert model_files.read_history(tmp_path / str(seed))["epoch"][-1] == result["epoch"]


def test_a_loss_that_is_no_number_ends_it_and_is_said(dataset, tmp_path):
    value = settings(training={"learning_rate": 1e20})
    (result,), told = train(value, dataset, tmp_path)
    assert result["outcome"] == "diverged"
    assert "a smaller --learning_rate may help" in result["reason"]
    assert len(told) == result["epoch"]
    assert result["train_loss"] is None
    assert model_files.read_result(tmp_path / "0") == result


def test_tensorboard_has_every_evaluation_once_also_after_a_kill(dataset, tmp_path):
    from tensorboard.backend.event_processing import event_accumulator

    how = model_training.Options(resume_minutes=0, tensorboard=True)
    train(settings(), dataset, tmp_path, how, die_after=3)
    train(settings(), dataset, tmp_path, how)
    reader = event_accumulator.EventAccumulator(str(tmp_path / "0" / "tensorboard"), {"tensors": 0})
    reader.Reload()
    history = model_files.read_history(tmp_path / "0")
    events = reader.Tensors("test/error")
    assert [event.step for event in events] == history["epoch"].tolist()
    found = [float(tf.make_ndarray(event.tensor_proto)) for event in events]
    np.testing.assert_allclose(found, history["test_error"], rtol=1e-6)
    assert {"learning_rate", "train/clean_error", "val/loss", "running/loss"} <= set(reader.Tags()["tensors"])


def test_what_an_architecture_without_a_batched_form_cannot_is_refused(dataset):
    value = settings("tests.heldout.small_models:OwnModel", {}, training={"mixed_precision": "bfloat16"})
    data = model_data.of_dataset(value, dataset)
    with pytest.raises(errors.InvalidValueError, match="has no batched form, which --mixed_precision needs"):
        model_training.ModelTrainer(value, data)


def test_a_model_of_ones_own_trains_one_seed_after_the_other(dataset, tmp_path):
    value = settings("tests.heldout.small_models:OwnModel", {}, training={"num_epochs": 1})
    how = model_training.Options(side_by_side=2)
    results, told = train(value, dataset, tmp_path, how, seeds=(0, 1))
    assert [result["outcome"] for result in results] == ["finished", "finished"]
    assert [len(message["networks"]) for message in told] == [1, 1]
