"""The animation of points in the plane: against gradient descent on the linearised network itself, and its files."""

import dataclasses
import json

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from heldout.datasets import digits, gaussians
from heldout.experiments import label_noise
from heldout.training import leave_out_config, leave_out_data, leave_out_networks
from scripts.unique_information import synthetic_config, synthetic_figure, synthetic_frames, synthetic_worker
from zoo import errors

_STEPS = (1, 3, 40)
_GRID = 5


def experiment(**members):
    defaults = {
        "num_train": 12,
        "num_val": 9,
        "noise": label_noise.LabelNoise("symmetric", count=1),
        "architecture_options": {"hidden_sizes": [7]},
        "learning_rate": 0.2,
        "num_steps": 40,
    }
    return leave_out_config.LeaveOutConfig("gaussians", **(defaults | members))


@pytest.fixture(scope="module")
def found():
    return synthetic_worker.frames(experiment(), None, list(_STEPS), _GRID)


def explicit(config, points, steps, kept):
    """Gradient descent on the linearised network and some training examples: weights and predictions by step."""
    data = leave_out_data.of_dataset(config, gaussians.load())
    module = leave_out_networks.cast(leave_out_networks.initialised(config, data), config, data, "float64")
    variables = module.trainable_variables

    def linearised(inputs):
        inputs = tf.constant(np.asarray(inputs, np.float64).reshape(-1, 1, 1, 2))
        with tf.GradientTape(persistent=True) as tape:
            outputs = tf.unstack(module(inputs, is_training=False)[:, 0])
        rows = [tf.concat([tf.reshape(one, [-1]) for one in tape.gradient(y, variables)], 0) for y in outputs]
        return np.stack(rows), np.stack(outputs)

    jacobian, start = linearised(data.train_inputs[kept])
    target = data.train_label[kept]
    others, others_start = linearised(points)
    weights, by_step = np.zeros(jacobian.shape[1]), {}
    for step in range(1, max(steps) + 1):
        weights = weights - config.learning_rate * jacobian.T @ (start + jacobian @ weights - target) / len(kept)
        if step in steps:
            by_step[step] = weights, others_start + others @ weights
    return by_step


def test_scores_and_predictions_are_those_of_explicit_descent(found):
    config = experiment()
    data = leave_out_data.of_dataset(config, gaussians.load())
    grid = np.stack(np.meshgrid(*found.grid), axis=-1).reshape(-1, 2)
    points = np.concatenate([grid, data.train_inputs.reshape(-1, 2), data.val_inputs.reshape(-1, 2)])
    everything = explicit(config, points, _STEPS, np.arange(12))
    for place, step in enumerate(_STEPS):
        predicted = everything[step][1]
        np.testing.assert_allclose(found.grid_prediction[place].ravel(), predicted[: len(grid)], atol=1e-9)
        np.testing.assert_allclose(found.train_prediction[place], predicted[len(grid) : len(grid) + 12], atol=1e-9)
    for example in (0, 5, 11):
        without = explicit(config, data.val_inputs, _STEPS, np.delete(np.arange(12), example))
        for place, step in enumerate(_STEPS):
            change = without[step][0] - everything[step][0]
            of_predictions = without[step][1] - everything[step][1][-9:]
            np.testing.assert_allclose(found.weights[place, example], change @ change / 2, rtol=1e-6)
            expected = np.mean(of_predictions**2) / 2
            np.testing.assert_allclose(found.predictions[place, example], expected, rtol=1e-6)
    assert found.change_error < 1e-6
    assert np.sum(found.train_label != found.clean_train_label) == 1


def test_frames_return_from_their_file(tmp_path, found):
    synthetic_frames.write(tmp_path / "a.npz", found)
    again = synthetic_frames.read(tmp_path / "a.npz")
    for field in dataclasses.fields(found):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(found, field.name))
    with np.load(tmp_path / "a.npz") as stored:
        np.savez(tmp_path / "b.npz", **{**stored, "schema_version": 2})
    with pytest.raises(errors.DamagedFileError, match="of another schema version than 1"):
        synthetic_frames.read(tmp_path / "b.npz")


@pytest.mark.parametrize("measure", synthetic_config.MEASURES)
def test_every_step_has_a_frame_and_the_animation_has_all(tmp_path, found, measure):
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "frame-007.png").touch()
    paths = synthetic_figure.draw(folder, found, measure)
    assert sorted(folder.iterdir()) == paths
    assert [path.name for path in paths] == ["frame-000.png", "frame-001.png", "frame-002.png"]
    pictures = [np.asarray(Image.open(path).convert("RGB")).astype(int) for path in paths]
    assert all(np.abs(pictures[0] - other).mean() > 0.1 for other in pictures[1:])
    synthetic_figure.animate(tmp_path / "a.gif", paths)
    with Image.open(tmp_path / "a.gif") as animation:
        assert (animation.n_frames, animation.info["loop"], animation.size) == (3, 0, (900, 450))
        for number, picture in enumerate(pictures):
            animation.seek(number)
            shown = np.asarray(animation.convert("RGB")).astype(int)
            assert np.abs(shown - picture).mean() < 4
            assert animation.info["duration"] == (2000 if number == 2 else 150)


def test_steps_are_in_equal_ratios_and_end_with_the_last():
    config = synthetic_config.AnimationConfig(experiment(num_steps=1000), num_frames=4)
    assert config.steps == (1, 10, 100, 1000)
    assert dataclasses.replace(config, experiment=experiment(num_steps=3), num_frames=40).steps == (1, 2, 3)
    assert dataclasses.replace(config, num_frames=1).steps == (1, 1000)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"measure": "loss"}, "--measure=loss: expected one of predictions, weights"),
        ({"num_frames": 0}, "--num_frames=0: expected at least 1"),
        ({"grid_size": 1}, "--grid_size=1: expected at least 2"),
    ],
)
def test_values_out_of_range_are_refused(members, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        synthetic_config.AnimationConfig(experiment(), **members)


def test_a_folder_holds_one_animation(tmp_path):
    config = synthetic_config.AnimationConfig(experiment())
    assert not synthetic_config.check_outdir(tmp_path, config)
    synthetic_config.write(tmp_path, config, {"last_step": 40})
    assert not synthetic_config.check_outdir(tmp_path, config)
    (tmp_path / synthetic_config.ANIMATION_NAME).touch()
    assert synthetic_config.check_outdir(tmp_path, config)
    assert json.loads((tmp_path / synthetic_config.CONFIG_NAME).read_text())["last_step"] == 40
    other = dataclasses.replace(config, experiment=experiment(seed=3), num_frames=7)
    with pytest.raises(errors.MismatchError) as caught:
        synthetic_config.check_outdir(tmp_path, other)
    assert "experiment.seed: stored 0, asked for 3\n  num_frames: stored 40, asked for 7\n" in str(caught.value)
    assert "sha256" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "load"),
    [
        (experiment(), digits.load),
        (leave_out_config.LeaveOutConfig("digits", classes=(3, 8), num_train=10, num_val=5), digits.load),
    ],
)
def test_data_that_are_no_points_are_refused(config, load):
    data = leave_out_data.of_dataset(dataclasses.replace(config, noise=None), load())
    with pytest.raises(errors.InvalidValueError, match=r"has images of 8 x 8 x 1 in (2|10) classes, expected points"):
        synthetic_frames.points(data)


def test_steps_that_diverge_are_refused_with_a_rate_that_does_not():
    with pytest.raises(
        errors.InvalidValueError, match=r"--learning_rate=100: steps of .* diverge.*take a rate below"
    ) as refused:
        synthetic_worker.frames(experiment(learning_rate=100.0), None, [1], _GRID)
    assert "continuous" not in str(refused.value)
    rate = float(str(refused.value).split()[-1])
    synthetic_worker.frames(experiment(learning_rate=0.99 * rate), None, [1], _GRID)
