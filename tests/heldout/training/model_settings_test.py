"""Settings of single networks: JSON and back, refusals, names of folders."""

import dataclasses

import pytest

from heldout.experiments import label_noise, training_config
from heldout.training import model_settings
from zoo import errors

_NOISE = label_noise.LabelNoise("symmetric", share=0.2, seed=4)


def settings(**members):
    return model_settings.ModelSettings("digits", "conv5_4", **members)


_FULL = settings(
    training=training_config.TrainingConfig(num_epochs=30, optimizer="adam", stop_accuracy=1.0, augmentation=("flip",)),
    architecture_options={"pooling": "average"},
    noise=_NOISE,
    train_split=1000,
    val_split=0.1,
    data_split_seed=1,
    random_data="sphere",
    mc_sample_seed=2,
    standardise=False,
    seed=3,
    eval_every=5,
    checkpoint_epochs=(0, 7, 30),
    fingerprint={"name": "digits"},
)


@pytest.mark.parametrize("value", [settings(), _FULL])
def test_json_and_back(value):
    assert model_settings.ModelSettings.from_json(value.to_json()) == value


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"train_split": 1.5}, "--train_split=1.5"),
        ({"val_split": -1}, "--val_split=-1"),
        ({"train_split": None, "val_split": None}, "one of them must be an amount"),
        ({"random_data": "waves"}, "--random_data=waves: expected one of none, uniform"),
        ({"standardise": 1}, "--standardise=1: expected true or false"),
        ({"architecture_options": [1]}, r"--model_options=\[1\]: expected an object"),
        ({"eval_every": 0}, "--eval_every=0: expected a whole number of epochs"),
        ({"checkpoint_epochs": (3, 2)}, r"--checkpoint_epochs=\(3, 2\): expected ascending epochs from 0 to 10"),
        ({"checkpoint_epochs": (11,)}, r"--checkpoint_epochs=\(11,\)"),
        ({"seed": -1}, "--seed=-1: expected a whole number from 0"),
        ({"data_split_seed": True}, "--data_split_seed=True"),
        ({"mc_sample_seed": 1.0}, "--mc_sample_seed=1.0"),
    ],
)
def test_what_cannot_be_is_refused(members, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        settings(**members)


@pytest.mark.parametrize("member", ["dataset", "architecture"])
def test_names_are_texts(member):
    with pytest.raises(errors.InvalidValueError, match="expected the name of"):
        dataclasses.replace(settings(), **{member: ""})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this program reads 1"),
        ({"further": 1}, "members further are missing or unknown"),
        ({"seed": "0"}, "--seed=0: expected a whole number"),
        ({"training": 3}, "train the network again"),
        ({"label_noise": {}}, "label noise {}"),
        ({"checkpoint_epochs": None}, "train the network again"),
    ],
)
def test_damaged_settings_are_refused_with_the_file_named(change, message):
    with pytest.raises(errors.DamagedFileError, match=message) as caught:
        model_settings.ModelSettings.from_json(settings().to_json() | change, "x/settings.json")
    assert "x/settings.json" in str(caught.value)


def test_missing_members_are_refused():
    stored = settings().to_json()
    del stored["seed"]
    with pytest.raises(errors.DamagedFileError, match="members seed are missing"):
        model_settings.ModelSettings.from_json(stored)


def test_networks_that_differ_in_more_than_their_seed_have_other_folders():
    changes = [
        {"noise": _NOISE},
        {"noise": dataclasses.replace(_NOISE, seed=5)},
        {"data_split_seed": 1},
        {"val_split": 10},
        {"random_data": "normal", "mc_sample_seed": 1},
        {"random_data": "normal"},
        {"training": training_config.TrainingConfig(momentum=0.8)},
        {"eval_every": 2},
        {"checkpoint_epochs": (0,)},
        {"architecture_options": {"batch_norm": True}},
    ]
    names = [settings(**change).setting_name() for change in [{}, *changes]]
    assert len(set(names)) == len(names)
    assert settings(seed=1).setting_name() == settings().setting_name()
    assert settings(fingerprint={"name": "digits"}).setting_name() == settings().setting_name()


def test_names_say_what_matters():
    assert _FULL.setting_name().startswith("noise-symmetric-0.2_flip_lr-0.1_epochs-30_")
    assert (_FULL.model_name(), _FULL.data_name()) == ("conv5_4", "digits-sphere")
    of_file = dataclasses.replace(settings(), dataset="npz:/data/my set.npz", architecture="mine.nets:make")
    assert (of_file.model_name(), of_file.data_name()) == ("mine.nets-make", "npz-my-set.npz-515728")
    elsewhere = dataclasses.replace(of_file, dataset="npz:/other/my set.npz")
    assert elsewhere.data_name() != of_file.data_name()
    counted = dataclasses.replace(settings(), noise=label_noise.LabelNoise("pair", count=300))
    assert counted.noise_text() == "pair-300"


def test_the_seed_of_labels_is_that_of_the_noise():
    assert (settings().label_seed, _FULL.label_seed) == (0, 4)


def test_a_network_is_evaluated_every_so_often_and_where_a_checkpoint_is():
    value = settings(eval_every=4, checkpoint_epochs=(3,))
    assert [epoch for epoch in range(11) if value.is_evaluated(epoch)] == [0, 3, 4, 8, 10]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("0,1,5", (0, 1, 5)),
        ("every:10", (0, 10, 20, 30)),
        ("log:4", (0, 1, 3, 10, 30)),
        ("5,every:15,log:1", (0, 1, 5, 15, 30)),
        ("log:100", tuple(range(31))),
    ],
)
def test_epochs_of_checkpoints(text, expected):
    found = model_settings.parse_epochs(text, 30)
    if text == "log:100":
        assert set(found) <= set(expected)
        assert {0, 1, 2, 30} <= set(found)
    else:
        assert found == expected


@pytest.mark.parametrize("text", ["x", "1.5", "every:0", "log:", "often:3", "-1", "every:2:3"])
def test_epochs_that_are_none_are_refused(text):
    with pytest.raises(errors.InvalidValueError, match="is neither an epoch nor every:10 nor log:8"):
        model_settings.parse_epochs(text, 30)


def test_epochs_beyond_the_last_are_refused():
    with pytest.raises(errors.InvalidValueError, match="epoch 31 lies beyond the last one, 30"):
        model_settings.parse_epochs("31", 30)
