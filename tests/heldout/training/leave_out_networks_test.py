"""Networks before their first step: whole checkpoints, bodies with a new head, and networks of keras.applications."""

import json

import numpy as np
import pytest
import tensorflow as tf

from heldout.datasets import digits
from heldout.models import registry as models
from heldout.training import (
    learners,
    leave_out_config,
    leave_out_data,
    leave_out_files,
    leave_out_networks,
    leave_out_training,
)
from tests.heldout.training import leave_out_training_test as truth
from zoo import checkpoints, errors

config = truth.config


def data_of(settings):
    return leave_out_data.of_dataset(settings, digits.load())


def values(module):
    return learners.read_values(module)


@pytest.fixture
def letters(tmp_path):
    """A trained network of 7 classes on the same images, and the prefix of its checkpoint."""
    tf.random.set_seed(11)
    module = models.build("mlp", 7, (8, 8, 1), {"hidden_sizes": [16]})
    checkpoints.write(module, tmp_path / "body" / "ckpt", 1, 1)
    return values(module), str(tmp_path / "body" / "ckpt")


@pytest.mark.parametrize("classes", [(3, 8), (3, 8, 5)])
def test_the_body_is_that_of_the_checkpoint_and_the_head_that_of_the_seed(letters, classes):
    stored, prefix = letters
    settings = config(classes=classes, seed=4, init_checkpoint=prefix, init_sha256="0", init_body=True)
    found = values(leave_out_networks.initialised(settings, data_of(settings)))
    drawn = values(leave_out_networks.initialised(config(classes=classes, seed=4), data_of(settings)))
    head = {"model/layers/3/w", "model/layers/3/b"}
    assert leave_out_networks.head_keys(settings, data_of(settings)) == head
    for key, value in found.items():
        np.testing.assert_array_equal(value, (drawn if key in head else stored)[key], err_msg=key)
    assert {found[key].shape[-1] for key in head} == {1 if len(classes) == 2 else 3}


def test_a_body_of_another_network_is_refused_by_name(tmp_path):
    module = models.build("mlp", 7, (8, 8, 1), {"hidden_sizes": [17, 4]})
    checkpoints.write(module, tmp_path / "ckpt", 1, 1)
    settings = config(init_checkpoint=str(tmp_path / "ckpt"), init_sha256="0", init_body=True)
    with pytest.raises(errors.MismatchError) as caught:
        leave_out_networks.initialised(settings, data_of(settings))
    # The head of the model stands where the file has a layer of the body, so it is not looked at.
    assert "2 only in the file: model/layers/5/b, model/layers/5/w" in str(caught.value)
    assert "2 of another shape: model/layers/1/b (model (16,), file (17,)), model/layers/1/w" in str(caught.value)


def test_a_head_of_as_many_outputs_is_drawn_anew(tmp_path):
    whole = config(seed=1)
    checkpoints.write(leave_out_networks.initialised(whole, data_of(whole)), tmp_path / "ckpt", 1, 1)
    settings = config(seed=2, init_checkpoint=str(tmp_path / "ckpt"), init_sha256="0", init_body=True)
    found = values(leave_out_networks.initialised(settings, data_of(settings)))
    first = values(leave_out_networks.initialised(whole, data_of(whole)))
    same = {key for key, value in found.items() if np.array_equal(value, first[key])}
    # Biases begin at zero whatever the seed.
    assert same == {"model/layers/1/w", "model/layers/1/b", "model/layers/3/b"}


def test_a_pretrained_network_is_trained_as_one_alone_is(tmp_path, letters):
    settings = config(init_checkpoint=letters[1], init_body=True, init_sha256="0", learning_rate=0.05)
    data = data_of(settings)
    trainer = leave_out_training.LeaveOutTrainer(settings, data, runs_per_group=3)
    assert trainer.runs_per_group == 3
    trainer.train_full(tmp_path)
    group = (int(data.train_index[4]),)
    effects = leave_out_files.read_effects(trainer.train_block(tmp_path, [group]))
    for name, value in truth.changes(settings, data, tmp_path, group).items():
        np.testing.assert_allclose(getattr(effects, name)[0], value, rtol=2e-2, atol=1e-5)
    start = models.build("mlp", 1, (8, 8, 1), {"hidden_sizes": [16]})
    checkpoints.restore(start, leave_out_files.checkpoint_prefix(tmp_path, 0))
    np.testing.assert_array_equal(values(start)["model/layers/1/w"], letters[0]["model/layers/1/w"])


def test_batch_normalisation_with_averages_of_a_checkpoint_is_accepted(tmp_path):
    options = {"batch_norm": True, "width": 2}
    module = models.build("conv5", 7, (8, 8, 1), options)
    module(tf.random.stateless_uniform([20, 8, 8, 1], [0, 1]), is_training=True)
    checkpoints.write(module, tmp_path / "ckpt", 1, 1)
    members = {"architecture": "conv5", "architecture_options": options}
    settings = config(**members, init_checkpoint=str(tmp_path / "ckpt"), init_sha256="0", init_body=True)
    found = values(leave_out_networks.initialised(settings, data_of(settings)))
    body = {key: value for key, value in values(module).items() if found[key].shape == value.shape}
    assert len(found) - len(body) == 2
    for key, value in body.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    with pytest.raises(errors.InvalidValueError, match="--arch=conv5: has batch normalisation, which needs averages"):
        leave_out_networks.initialised(config(**members), data_of(settings))


def test_the_setting_counts_only_where_it_is_used():
    plain = config(init_checkpoint="a", init_sha256="1")
    assert "init_body" not in plain.to_json()
    used = config(init_checkpoint="a", init_sha256="1", init_body=True)
    assert used.sha256 != plain.sha256
    assert leave_out_config.LeaveOutConfig.from_json(json.loads(json.dumps(used.to_json()))) == used
    with pytest.raises(errors.InvalidValueError, match="--init_body: takes the body of a network from --init_checkp"):
        config(init_body=True)
