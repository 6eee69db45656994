"""Training options: ranges, JSON, refusals."""

import pytest

from heldout.experiments import training_config
from zoo import errors


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_epochs", 0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("momentum", 1.0),
        ("weight_decay", -1.0),
        ("schedule", "triangle"),
        ("warmup_epochs", 11.0),
        ("step_epochs", (3,)),
        ("step_factor", 0.0),
        ("augmentation", ("rotate",)),
        ("augmentation", ("crop", "crop")),
        ("augmentation", ("flip", "crop")),
        ("crop_padding", 0),
        ("crop_padding", 10**10),
        ("num_epochs", 10**12),
        ("dtype", "float16"),
        ("mixed_precision", "float16"),
        ("optimizer", "lbfgs"),
        ("adam_beta1", 1.0),
        ("adam_beta2", -0.1),
        ("adam_epsilon", 0.0),
        ("l1", -1.0),
        ("warmup_initial", -0.1),
        ("stop_accuracy", 1.1),
        ("stop_loss", -1.0),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(errors.InvalidValueError, match=f"--{name}="):
        training_config.TrainingConfig(**{name: value})


@pytest.mark.parametrize("epochs", [(), (3, 2), (2, 2), (-3,), (0,), (10,)])
def test_step_schedule_wants_ascending_epochs(epochs):
    with pytest.raises(errors.InvalidValueError, match="--step_epochs"):
        training_config.TrainingConfig(schedule="step", step_epochs=epochs)


def test_json_round_trip():
    config = training_config.TrainingConfig(schedule="step", step_epochs=(2, 5), augmentation=("crop", "flip"))
    assert training_config.TrainingConfig.from_json(config.to_json()) == config


def test_mixed_precision_is_named_only_where_there_is_some():
    assert "mixed_precision" not in training_config.TrainingConfig().to_json()  # as recipes have always been
    config = training_config.TrainingConfig(mixed_precision="bfloat16")
    assert training_config.TrainingConfig.from_json(config.to_json()) == config
    with pytest.raises(errors.InvalidValueError, match="bfloat16 with --dtype=float32"):
        training_config.TrainingConfig(mixed_precision="bfloat16", dtype="float64")


def test_unknown_member_is_refused():
    with pytest.raises(errors.InvalidValueError, match="dropout"):
        training_config.TrainingConfig.from_json({"dropout": 0.5})


@pytest.mark.parametrize(
    "value",
    [
        {"num_epochs": "ten"},
        {"num_epochs": 2.5},
        {"num_epochs": True},
        {"nesterov": "no"},
        {"learning_rate": None},
        {"schedule": "step", "step_epochs": ["a"]},
        {"augmentation": "crop"},
    ],
)
def test_member_of_a_wrong_type_is_refused(value):
    with pytest.raises(errors.InvalidValueError, match="expected"):
        training_config.TrainingConfig.from_json(value)


def test_a_whole_number_may_stand_for_a_rate():
    assert training_config.TrainingConfig(learning_rate=1).learning_rate == 1


def test_later_options_are_named_only_where_they_are_used():
    later = {"optimizer": "adam", "adam_beta1": 0.8, "l1": 0.1, "warmup_initial": 0.01, "stop_accuracy": 0.999}
    assert not set(later) & set(training_config.TrainingConfig().to_json())
    config = training_config.TrainingConfig(**later)
    assert {name: config.to_json()[name] for name in later} == later
    assert training_config.TrainingConfig.from_json(config.to_json()) == config


def test_adam_knows_no_nesterov():
    with pytest.raises(errors.InvalidValueError, match="--nesterov=True: expected false with --optimizer=adam"):
        training_config.TrainingConfig(nesterov=True, optimizer="adam")
