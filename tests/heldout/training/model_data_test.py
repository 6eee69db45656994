"""The data of single networks, and that each of the four seeds does its own job only."""

import dataclasses

import numpy as np
import pytest

from heldout.datasets import dataset as dataset_lib
from heldout.datasets import digits
from heldout.experiments import label_noise, training_config
from heldout.training import batches, model_data, model_settings, model_training
from zoo import errors

_SETTINGS = model_settings.ModelSettings(
    "digits",
    "mlp",
    noise=label_noise.LabelNoise("symmetric", share=0.25, seed=0),
    val_split=200,
    random_data="normal",
)


@pytest.fixture(scope="module")
def data():
    return model_data.load(_SETTINGS)


def with_seed(name, value):
    if name == "label_seed":
        return dataclasses.replace(_SETTINGS, noise=dataclasses.replace(_SETTINGS.noise, seed=value))
    return dataclasses.replace(_SETTINGS, **{name: value})


def decided(settings):
    """What each seed decides, as arrays, each apart from what the others do."""
    found = model_data.load(settings)
    train, count = found.train, len(found.train)
    initial = model_training.initial_values(settings, 10, (8, 8, 1))
    config = training_config.TrainingConfig(batch_size=50, augmentation=("crop", "flip"))
    draw = batches.RunDraw(model_training.name_of(settings.seed), np.arange(count))
    drawn = batches.epoch_batches(config, [draw], 3)
    return {
        "data_split_seed": [train.ids, found.val.ids],
        "label_seed": [(train.label - train.clean_label) % 10],
        "mc_sample_seed": [found.dataset.train.images, found.dataset.test.images],
        "seed": [*initial.values(), drawn.indices, drawn.shifts, drawn.flips],
    }


def test_each_seed_does_its_own_job_only():
    before = decided(_SETTINGS)
    for name in before:
        after = decided(with_seed(name, 7))
        for of, arrays in before.items():
            if (name, of) == ("data_split_seed", "label_seed"):
                continue  # of other examples, see below
            same = all(one.tobytes() == other.tobytes() for one, other in zip(arrays, after[of], strict=True))
            assert same == (of != name), f"--{name} changed what --{of} decides" if of != name else f"--{name} is idle"


def test_the_split_decides_of_no_example_what_its_label_becomes():
    """Only how many of its own examples are to change can differ, which moves the end of the one order of all."""
    found = []
    for seed in (0, 7):
        train = model_data.load(with_seed("data_split_seed", seed)).train
        new = np.full(1438, -1)
        new[train.ids] = train.label
        clean = np.full(1438, -1)
        clean[train.ids] = train.clean_label
        found.append((new, clean))
    common = (found[0][0] >= 0) & (found[1][0] >= 0)
    changed = [new[common] != clean[common] for new, clean in found]
    assert np.mean(changed[0] != changed[1]) < 0.02
    both = changed[0] & changed[1]
    assert both.sum() > 100
    np.testing.assert_array_equal(found[0][0][common][both], found[1][0][common][both])


def test_exactly_so_many_training_labels_are_changed_and_no_others(data):
    train = data.train
    assert len(train) == 1238
    assert np.sum(train.label != train.clean_label) == round(0.25 * 1238)
    for split in (data.val, data.test):
        np.testing.assert_array_equal(split.label, split.clean_label)


def test_ids_are_positions_in_the_data_set(data):
    full = digits.load()
    for split, whole in ((data.train, full.train), (data.val, full.train), (data.test, full.test)):
        np.testing.assert_array_equal(split.clean_label, whole.label[split.ids])
        assert split.ids.dtype == np.int64
    real = model_data.load(dataclasses.replace(_SETTINGS, random_data="none"))
    np.testing.assert_array_equal(real.train.images, full.train.images[real.train.ids])
    assert not set(data.train.ids) & set(data.val.ids)
    assert (data.num_classes, data.image_shape) == (10, (8, 8, 1))
    assert data.split("val") is data.val


def test_inputs_have_mean_0_and_deviation_1_unless_pixels_are_asked_for():
    real = dataclasses.replace(_SETTINGS, random_data="none")
    inputs = model_data.load(real)
    values = inputs.normalise(inputs.dataset.train.images, np.float64)
    np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-9)
    pixels = model_data.load(dataclasses.replace(real, standardise=False))
    values = pixels.normalise(pixels.train.images)
    assert (values.min(), values.max(), values.dtype) == (0, 1, np.float32)


def test_cifar_is_standardised_by_the_published_constants():
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3)).astype(np.uint8)
    split = dataset_lib.Split(images, np.arange(20) % 10)
    cifar = dataset_lib.Dataset("cifar10", "1", split, split, tuple("0123456789"), scale=255.0)
    settings = model_settings.ModelSettings("cifar10", "mlp")
    found = model_data.of_dataset(settings, cifar)
    assert found.dataset.mean == (0.4914, 0.4822, 0.4465)
    assert found.dataset.std == (0.2023, 0.1994, 0.2010)
    expected = (images / 255 - [0.4914, 0.4822, 0.4465]) / [0.2023, 0.1994, 0.2010]
    np.testing.assert_allclose(found.normalise(images), expected, atol=1e-5)


def test_a_channel_of_one_value_is_not_divided_by_zero():
    split = dataset_lib.Split(np.full((6, 2, 2, 1), 5, np.uint8), np.arange(6) % 2)
    flat = dataset_lib.Dataset("flat", "1", split, split, ("a", "b"), scale=255.0)
    found = model_data.of_dataset(model_settings.ModelSettings("flat", "mlp"), flat)
    np.testing.assert_allclose(found.normalise(split.images), 0, atol=1e-7)


def test_other_data_than_those_trained_on_are_refused(data):
    stored = dataclasses.replace(_SETTINGS, fingerprint=data.fingerprint())
    assert model_data.load(stored).fingerprint() == data.fingerprint()
    changed = dataclasses.replace(_SETTINGS, fingerprint=data.fingerprint() | {"version": "0.9"})
    with pytest.raises(errors.MismatchError, match=r"--dataset=digits: .* version differ \(found \['1.0.0'\]"):
        model_data.load(changed)


def test_there_are_three_splits(data):
    with pytest.raises(errors.InvalidValueError, match="split 'validation' is unknown; use train, val or test"):
        data.split("validation")
