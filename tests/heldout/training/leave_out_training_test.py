"""Networks without some training examples: against networks trained on what is left alone, and after kills."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from heldout.datasets import digits
from heldout.experiments import label_noise
from heldout.models import registry as models
from heldout.training import leave_out_config, leave_out_data, leave_out_files, leave_out_training
from zoo import checkpoints, errors

_CONV = {"architecture": "lenet", "architecture_options": {}}


def config(**members):
    defaults = {
        "classes": (3, 8),
        "num_train": 60,
        "num_val": 30,
        "architecture_options": {"hidden_sizes": [16]},
        "learning_rate": 0.1,
        "num_steps": 25,
    }
    return leave_out_config.LeaveOutConfig("digits", **(defaults | members))


def trainer(settings, **options):
    data = leave_out_data.of_dataset(settings, digits.load())
    return leave_out_training.LeaveOutTrainer(settings, data, **options), data


def predict(module, inputs):
    return module(tf.constant(inputs), is_training=False).numpy()


def alone(settings, data, folder, left_out=()):
    """One network, trained on what is left alone, written out; (module, predictions of training, of validation)."""
    dtype = tf.as_dtype(settings.dtype)
    module = models.build(
        settings.architecture, data.num_outputs, data.image_shape, settings.architecture_options, dtype
    )
    checkpoints.restore(module, leave_out_files.checkpoint_prefix(folder, 0))
    start = [tf.constant(variable) for variable in module.trainable_variables]
    kept = ~np.isin(data.train_index, left_out)
    inputs, target = tf.constant(data.train_inputs[kept]), data.targets(data.train_label)[kept]
    for _ in range(settings.num_steps):
        with tf.GradientTape() as tape:
            residual = module(inputs, is_training=False) - target
            loss = tf.reduce_mean(tf.reduce_sum(residual**2, axis=1)) / 2
            pairs = zip(module.trainable_variables, start, strict=True)
            loss += settings.l2 / 2 * sum(tf.reduce_sum((variable - first) ** 2) for variable, first in pairs)
        gradients = tape.gradient(loss, module.trainable_variables)
        for variable, gradient in zip(module.trainable_variables, gradients, strict=True):
            variable.assign_sub(settings.learning_rate * gradient)
    predictions = [predict(module, one) for one in (data.train_inputs, data.val_inputs)]
    return module, *predictions


def changes(settings, data, folder, group):
    """The effects of one group, from two networks trained alone."""
    full, *of_full = alone(settings, data, folder)
    without, *of_without = alone(settings, data, folder, group)
    weights = zip(without.trainable_variables, full.trainable_variables, strict=True)
    train, val = (one - other for one, other in zip(of_without, of_full, strict=True))
    return {
        "squared_weight_change": sum(float(np.sum((one.numpy() - other.numpy()) ** 2)) for one, other in weights),
        "squared_prediction_change": np.mean(np.sum(val**2, axis=1)),
        "squared_train_prediction_change": np.mean(np.sum(train**2, axis=1)),
        "self_effect": train[np.isin(data.train_index, group)].mean(axis=0),
        "prediction_change": val,
    }


@pytest.mark.parametrize(
    ("members", "runs_per_group"),
    [
        ({"dtype": "float64"}, 3),
        ({"dtype": "float64"}, 1),
        ({"dtype": "float64", "classes": (3, 8, 5), "l2": 0.5}, 3),
        ({"dtype": "float64", "classes": (3, 8, 5), "l2": 0.5}, 1),
        ({**_CONV, "num_steps": 3}, 2),
    ],
)
def test_effects_are_those_of_networks_trained_alone(tmp_path, members, runs_per_group):
    settings = config(**members)
    found, data = trainer(settings, runs_per_group=runs_per_group)
    assert found.runs_per_group == runs_per_group
    index = data.train_index.tolist()
    groups = [(index[4],), (index[0], index[7], index[59]), (index[30],)][:runs_per_group]
    found.train_full(tmp_path)
    effects = leave_out_files.read_effects(found.train_block(tmp_path, groups))
    assert effects.groups == tuple(groups)
    exact = settings.dtype == "float64"
    for place, group in enumerate(groups):
        for name, value in changes(settings, data, tmp_path, group).items():
            # Changes are small differences; what is stored of them as float32 has its rounding.
            rtol = (1e-9 if name.startswith("squared") else 1e-6) if exact else 2e-2
            np.testing.assert_allclose(getattr(effects, name)[place], value, rtol=rtol, atol=0 if exact else 1e-5)


@pytest.mark.parametrize("runs_per_group", [1, 4])
def test_predictions_in_float32_are_those_of_a_network_on_the_59_left(tmp_path, runs_per_group):
    settings = config(record_steps=(0, 10, 25))
    found, data = trainer(settings, runs_per_group=runs_per_group)
    found.train_full(tmp_path)
    full = leave_out_files.read_full_run(tmp_path, settings.sha256)
    groups = [(one,) for one in data.train_index[:runs_per_group].tolist()]
    effects = leave_out_files.read_effects(found.train_block(tmp_path, groups))
    _, _, without = alone(settings, data, tmp_path, groups[-1])
    np.testing.assert_allclose(full["val_prediction"] + effects.prediction_change[-1], without, rtol=1e-5, atol=1e-6)
    # The steps kept of the full network begin with its initialisation and end with its end.
    module, train, val = alone(dataclasses.replace(settings, num_steps=10, record_steps=()), data, tmp_path)
    assert full["record_steps"].tolist() == [0, 10, 25]
    np.testing.assert_allclose(full["record_train_prediction"][1], train, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(full["record_val_prediction"][1], val, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(full["record_val_prediction"][2], full["val_prediction"])
    # Both checkpoints restore; that of the end predicts what is stored.
    checkpoints.restore(module, leave_out_files.checkpoint_prefix(tmp_path, 25))
    np.testing.assert_allclose(predict(module, data.val_inputs), full["val_prediction"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        full["train_loss"], np.mean((full["train_prediction"] - data.train_label[:, None]) ** 2) / 2
    )


def test_networks_of_both_types_begin_with_the_same_values(tmp_path):
    for dtype in ("float32", "float64"):
        found, _ = trainer(config(dtype=dtype, num_steps=200), runs_per_group=1)
        found.train_full(tmp_path / dtype)
    of_float32, of_float64 = (leave_out_files.read_full_run(tmp_path / name) for name in ("float32", "float64"))
    np.testing.assert_allclose(of_float32["val_prediction"], of_float64["val_prediction"], rtol=1e-4, atol=1e-5)
    other, _ = trainer(config(seed=1, num_steps=200), runs_per_group=1)
    other.train_full(tmp_path / "other")
    of_other = leave_out_files.read_full_run(tmp_path / "other")
    assert np.abs(of_other["val_prediction"] - of_float64["val_prediction"]).max() > 1e-3


def test_an_architecture_without_a_batched_form_is_trained_one_after_the_other():
    settings = config(architecture="vit", architecture_options={})
    found, _ = trainer(settings, runs_per_group=5)
    assert found.runs_per_group == 1


def test_training_begins_with_a_checkpoint_where_one_is_named(tmp_path):
    first, data = trainer(config(seed=3), runs_per_group=1)
    first.train_full(tmp_path / "a")
    prefix = leave_out_files.checkpoint_prefix(tmp_path / "a", 25)
    second, _ = trainer(config(init_checkpoint=str(prefix), init_sha256="0", num_steps=5), runs_per_group=1)
    second.train_full(tmp_path / "b")
    longer, _ = trainer(config(seed=3, num_steps=30), runs_per_group=1)
    longer.train_full(tmp_path / "c")
    ends = [leave_out_files.read_full_run(tmp_path / name)["val_prediction"] for name in "bc"]
    np.testing.assert_array_equal(*ends)
    assert leave_out_files.read_full_run(tmp_path / "a")["train_index"].tolist() == data.train_index.tolist()


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(errors.InvalidValueError, match="--arch=conv5: has batch normalisation"):
        trainer(config(architecture="conv5", architecture_options={"batch_norm": True, "width": 2}))
    found, data = trainer(config(), runs_per_group=1)
    with pytest.raises(errors.MissingFileError, match="has no full network yet"):
        found.train_block(tmp_path, [(int(data.train_index[0]),)])
    found.train_full(tmp_path)
    index = data.train_index.tolist()
    stranger = next(one for one in range(10**4) if one not in index)
    for group in ((stranger,), (10**6,), (), (index[0], index[0]), tuple(index)):
        with pytest.raises(errors.InvalidValueError, match="expected some, not all, of the 60"):
            found.train_block(tmp_path, [group])
    for groups in ([], [(index[0],), (index[1],)]):
        with pytest.raises(errors.InvalidValueError, match=f"{len(groups)} groups in a block: expected 1 to 1"):
            found.train_block(tmp_path, groups)
    wild, _ = trainer(config(learning_rate=1e6), runs_per_group=1)
    with pytest.raises(errors.InvalidValueError, match=r"--learning_rate=1000000.0: the training diverged within 25"):
        wild.train_full(tmp_path / "wild")
    assert not (tmp_path / "wild" / leave_out_files.FULL_RUN_NAME).exists()


def test_wrong_labels_are_trained_with(tmp_path):
    settings = config(noise=label_noise.LabelNoise("symmetric", share=0.1, seed=1))
    found, data = trainer(settings, runs_per_group=1)
    assert np.sum(data.train_label != data.clean_train_label) == 6
    found.train_full(tmp_path)
    _, train, _ = alone(settings, data, tmp_path)
    full = leave_out_files.read_full_run(tmp_path)
    np.testing.assert_allclose(full["train_prediction"], train, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(full["train_label"], data.train_label)


def test_a_block_does_not_depend_on_those_before_it(tmp_path):
    settings = config()
    first, data = trainer(settings, runs_per_group=2)
    groups = [[(one,) for one in data.train_index[start : start + 2].tolist()] for start in (0, 2)]
    first.train_full(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    paths = [first.train_block(tmp_path / "a", block) for block in groups]
    again, _ = trainer(settings, runs_per_group=2)
    other = again.train_block(tmp_path / "b", groups[1])
    assert other.name == paths[1].name
    assert other.read_bytes() == paths[1].read_bytes()


def test_large_networks_form_their_gradient_part_by_part(tmp_path, monkeypatch):
    settings = config(**_CONV, num_steps=4, dtype="float64")
    whole, data = trainer(settings, runs_per_group=1)
    assert whole.examples_per_part == 60
    whole.train_full(tmp_path / "whole")
    monkeypatch.setattr(leave_out_training, "_PART_BYTES", whole._step_cost.memory_of_activations * 25 // 60)
    parts, _ = trainer(settings, runs_per_group=1)
    # The last of three parts is smaller.
    assert parts.examples_per_part == 25
    parts.train_full(tmp_path / "parts")
    group = (int(data.train_index[30]),)
    effects = [
        leave_out_files.read_effects(one.train_block(tmp_path / name, [group]))
        for name, one in (("whole", whole), ("parts", parts))
    ]
    for name in ("squared_weight_change", "squared_prediction_change"):
        np.testing.assert_allclose(*(getattr(one, name) for one in effects), rtol=1e-9)
    ends = [leave_out_files.read_full_run(tmp_path / name)["train_prediction"] for name in ("whole", "parts")]
    np.testing.assert_allclose(*ends, rtol=1e-12)


def test_groups_are_stored_in_ascending_order(tmp_path):
    found, data = trainer(config(), runs_per_group=2)
    found.train_full(tmp_path)
    low, high = data.train_index[[3, 8]].tolist()
    paths = [found.train_block(tmp_path, [group, (low,)]) for group in ((high, low), (low, high))]
    assert paths[0] == paths[1]
    assert leave_out_files.read_effects(paths[0]).groups == ((low, high), (low,))
