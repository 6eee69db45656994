"""Networks of keras.applications behind our head: held against Keras itself, weights in files, draws, refusals."""

import dataclasses
import hashlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from heldout.datasets import dataset as dataset_lib
from heldout.datasets import digits
from heldout.models import registry
from heldout.training import leave_out_config, leave_out_data, leave_out_files, leave_out_networks, leave_out_training
from tests.heldout.training import leave_out_training_test as truth
from zoo import checkpoints, errors

_NAME = "keras:MobileNetV2"
_SHAPE = (32, 32, 3)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A body with averages that are not those of the beginning, as Keras saves it; and the path of the file."""
    keras.utils.set_random_seed(5)
    body = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(None, None, 3), pooling="avg")
    generator = np.random.default_rng(0)
    for variable in body.variables:
        if "variance" in variable.name:
            variable.assign(generator.uniform(0.5, 2, variable.shape))
        elif "mean" in variable.name:
            variable.assign(generator.normal(size=variable.shape))
    path = tmp_path_factory.mktemp("weights") / "body.weights.h5"
    body.save_weights(path)
    return body, str(path)


def build(weights=None, **options):
    return registry.build(_NAME, 3, _SHAPE, {"weights": weights, **options} if weights else options)


def images(channels=3, count=4):
    return tf.constant(np.random.default_rng(1).uniform(size=(count, 32, 32, channels)), tf.float32)


def test_logits_are_those_of_keras_on_preprocessed_pixels(saved):
    body, path = saved
    module = build(path)
    inputs = keras.applications.mobilenet_v2.preprocess_input(255 * images())
    expected = body(inputs, training=False) @ module.head.w + module.head.b
    np.testing.assert_allclose(module(images(), is_training=False), expected, rtol=1e-5, atol=1e-6)
    assert module.is_pretrained
    assert module.has_batch_norm


def test_grey_images_are_three_equal_channels(saved):
    module = registry.build(_NAME, 3, (32, 32, 1), {"weights": saved[1]})
    grey = images(channels=1)
    expected = module(tf.concat([grey] * 3, axis=-1), is_training=False)
    np.testing.assert_array_equal(module(grey, is_training=False), expected)


def test_variables_are_named_alike_whatever_was_built_before_and_go_through_a_checkpoint(tmp_path, saved):
    one, other = build(saved[1]), build()
    keys = list(checkpoints.model_variables(one))
    assert list(checkpoints.model_variables(other)) == keys
    assert len(keys) == len(saved[0].variables) + 2
    assert len(one.trainable_variables) == len(saved[0].trainable_variables) + 2
    assert not other.is_pretrained
    checkpoints.write(one, tmp_path / "ckpt", 0, 0)
    checkpoints.restore(other, tmp_path / "ckpt")
    np.testing.assert_array_equal(other(images(), is_training=False), one(images(), is_training=False))


def test_draws_follow_the_seed_and_leave_pythons_generator_alone():
    found = []
    for seed in (0, 0, 1):
        tf.random.set_seed(seed)
        found.append(build())
    values = [[variable.numpy() for variable in module.trainable_variables] for module in found]
    for one, other in zip(values[0], values[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(not np.array_equal(one, other) for one, other in zip(values[0], values[2], strict=True))


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        ("keras:ResNet", {}, errors.InvalidValueError, "keras.applications has no such network; it has ConvNeXtBase"),
        (_NAME, {"depth": 3}, errors.InvalidValueError, "it takes weights, weights_sha256, pooling"),
        (_NAME, {"pooling": "sum"}, errors.InvalidValueError, "pooling 'sum': expected one of avg, max"),
        (_NAME, {"weights": "gone.h5"}, errors.MissingFileError, "weights 'gone.h5': no such file"),
        (_NAME, {"weights_sha256": "0"}, errors.InvalidValueError, "is the digest of a file, which weights must name"),
    ],
)
def test_what_cannot_be_built_is_refused(name, options, kind, message):
    with pytest.raises(kind, match=message):
        registry.build(name, 3, _SHAPE, options)


def test_weights_of_others_and_damaged_files_are_refused(tmp_path, saved):
    with pytest.raises(errors.InvalidValueError, match=r"keras:MobileNet with weights .* cannot be loaded"):
        registry.build("keras:MobileNet", 3, _SHAPE, {"weights": saved[1]})
    (tmp_path / "no.weights.h5").write_bytes(b"nothing")
    with pytest.raises(errors.InvalidValueError, match=r"with weights .*no.weights.h5': cannot be loaded"):
        build(str(tmp_path / "no.weights.h5"))
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(errors.InvalidValueError, match=r"expected a file that ends in \.weights\.h5"):
        build(str(tmp_path / "no.npz"))
    with pytest.raises(errors.MismatchError, match="expected 0000; name the file that it is of"):
        build(saved[1], weights_sha256="0000")
    with open(saved[1], "rb") as stream:
        build(saved[1], weights_sha256=hashlib.sha256(stream.read()).hexdigest())


def test_images_of_another_kind_are_refused():
    with pytest.raises(errors.InvalidValueError, match=r"images of 2 channels in float32: networks of keras\."):
        registry.build(_NAME, 3, (32, 32, 2))
    with pytest.raises(errors.InvalidValueError, match="images of 3 channels in float64"):
        registry.build(_NAME, 3, _SHAPE, dtype=tf.float64)


def test_images_that_are_too_small_are_refused_before_anything_is_compiled():
    with pytest.raises(errors.InvalidValueError, match="images of 8 x 8 pixels: too small for this network"):
        registry.build(_NAME, 3, (8, 8, 3))


def large_digits():
    """Digits of 32 x 32 pixels."""
    data = digits.load()
    splits = {
        name: dataset_lib.Split(np.repeat(np.repeat(data.split(name).images, 4, axis=1), 4, axis=2), label)
        for name, label in (("train", data.train.label), ("test", data.test.label))
    }
    return dataclasses.replace(data, **splits)


def test_pretrained_networks_are_retrained_without_examples(tmp_path, saved):
    settings = leave_out_config.LeaveOutConfig(
        "digits",
        classes=(3, 8),
        num_train=10,
        num_val=6,
        architecture=_NAME,
        architecture_options={"weights": saved[1]},
        learning_rate=1e-3,
        num_steps=3,
    )
    data = leave_out_data.of_dataset(settings, large_digits())
    trainer = leave_out_training.LeaveOutTrainer(settings, data, runs_per_group=5)
    assert trainer.runs_per_group == 1
    trainer.train_full(tmp_path)
    group = (int(data.train_index[2]),)
    effects = leave_out_files.read_effects(trainer.train_block(tmp_path, [group]))
    for name, value in truth.changes(settings, data, tmp_path, group).items():
        np.testing.assert_allclose(getattr(effects, name)[0], value, rtol=5e-2, atol=1e-5)


def test_batch_normalisation_without_weights_is_refused():
    settings = leave_out_config.LeaveOutConfig("digits", num_train=10, num_val=6, architecture=_NAME)
    data = leave_out_data.of_dataset(settings, large_digits())
    with pytest.raises(errors.InvalidValueError, match=f"--arch={_NAME}: has batch normalisation"):
        leave_out_networks.initialised(settings, data)
