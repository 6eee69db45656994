"""What may be differentiated by inputs, and what is refused."""

import keras
import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from estimators import errors, examples, targets
from estimators.jacobian import functions, gram
from tests.estimators import models
from tests.estimators.jacobian import networks


@pytest.mark.parametrize("make", [models.tiny_sonnet, networks.BatchNormalised])
def test_models_are_called_as_if_not_training(make):
    model = make()
    inputs = networks.images(dtype=np.float64 if make is networks.BatchNormalised else np.float32)[:, :4, :4]
    function = functions.of(model, inputs)
    np.testing.assert_allclose(function.predict(inputs), model(inputs, is_training=False), rtol=1e-6)
    with pytest.raises(errors.InvalidTargetError, match="depends on the others in its batch"):
        functions.of(model, inputs, predict=lambda x: model(x, is_training=True))


def test_batch_statistics_make_the_jacobian_of_an_example_wrong():
    model, inputs = networks.BatchNormalised(), networks.images()
    function = functions.of(model, inputs)
    truth = networks.dense_jacobians(function.predict, inputs)
    np.testing.assert_allclose(gram.make_jacobians(function)(inputs)[1], truth, rtol=1e-9, atol=1e-12)
    training = functions.Function(lambda x: model(x, is_training=True), (8, 8, 2), 4, tf.float64)
    found = gram.make_jacobians(training)(inputs)[1].numpy()
    assert np.abs(found - truth).max() > 0.1 * np.abs(truth).max()


def test_keras_models_targets_and_functions_are_alike():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Input((4, 4, 2)), keras.layers.Conv2D(3, 3), keras.layers.BatchNormalization()]
    model = keras.Sequential([*layers, keras.layers.Dropout(0.5), keras.layers.Flatten(), keras.layers.Dense(3)])
    inputs = networks.images(dtype=np.float32)[:, :4, :4]
    found = [functions.of(what, inputs) for what in (model, targets.of(model), lambda x: model(x, training=False))]
    rows = [gram.make(function)(inputs)[1].numpy() for function in found]
    for other in rows[1:]:
        np.testing.assert_allclose(other, rows[0], rtol=1e-6)
    assert (found[0].num_outputs, found[0].input_shape, found[0].input_size) == (3, (4, 4, 2), 32)


@pytest.mark.parametrize("layer", [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)])
def test_models_that_are_training_are_refused(layer):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(5), layer, keras.layers.Dense(3)])
    inputs = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    assert functions.of(model, inputs).num_outputs == 3
    with pytest.raises(errors.InvalidTargetError, match="give predict="):
        functions.of(model, inputs, predict=lambda x: model(x, training=True))


def test_a_compiled_model_is_differentiated_as_any_other():
    inner = tf.function(lambda x: tf.tanh(x) @ np.eye(3))
    inputs = np.random.default_rng(0).normal(size=(4, 3))
    found = gram.make_jacobians(functions.of(inner, inputs))(inputs)[1]
    np.testing.assert_allclose(found, np.stack([np.diag(1 - np.tanh(x) ** 2) for x in inputs]), rtol=1e-12)


def test_outputs_of_any_shape_are_rows():
    inputs = np.random.default_rng(0).normal(size=(4, 3))
    assert functions.of(lambda x: tf.reduce_sum(x, axis=1), inputs).num_outputs == 1
    assert functions.of(lambda x: tf.reshape(x, [-1, 3, 1]), inputs).num_outputs == 3
    half = functions.of(lambda x: tf.cast(x, tf.float16), inputs)
    assert half.predict(tf.constant(inputs)).dtype == tf.float32


def test_pixels_have_a_jacobian_that_is_larger_by_the_deviation():
    function, images, _ = networks.case("convolutional")
    mean, deviation = np.array([0.4, 0.5]), np.array([0.2, 0.25])
    pixels = function.of_pixels(mean, deviation)
    found = gram.make_jacobians(pixels)(images * deviation + mean)[1].numpy()
    standardised = gram.make_jacobians(function)(images)[1].numpy().reshape([7, 4, 8, 8, 2])
    np.testing.assert_allclose(found.reshape([7, 4, 8, 8, 2]), standardised / deviation, rtol=1e-8, atol=1e-12)
    assert pixels.unit == "pixel in [0, 1]"
    with pytest.raises(errors.InvalidArgumentError, match="deviations above 0"):
        function.of_pixels(0.5, 0.0)
    with pytest.raises(errors.InvalidArgumentError, match="of 3 channels"):
        function.of_pixels([0.5] * 3, 0.2)


def test_what_cannot_be_differentiated_is_refused():
    inputs = np.random.default_rng(0).normal(size=(4, 3))
    random = tf.random.Generator.from_seed(0)
    refused = {
        "two evaluations of the same examples differ": lambda x: x + random.normal(x.shape, dtype=x.dtype),
        "depends on the others": lambda x: x - tf.reduce_mean(x, axis=0),
        "no derivative by the inputs": lambda x: tf.cast(x > 0, tf.float32),
        r"have shape \(1, 3\)": lambda x: tf.reduce_sum(x, axis=0, keepdims=True),
        "predictions are a dict": lambda x: {"logits": x},
    }
    for message, predict in refused.items():
        with pytest.raises(errors.InvalidTargetError, match=message):
            functions.of(predict, inputs)
    with pytest.raises(errors.InvalidTargetError, match="depends on the others"):
        functions.of(lambda x: x - tf.reduce_mean(x, axis=0), inputs[:1])
    kernel = np.zeros((3, 3, 2, 2))
    with pytest.raises(
        errors.InvalidTargetError, match="TensorFlow cannot differentiate this model by inputs of shape"
    ):
        functions.of(lambda x: tf.nn.conv2d(x, kernel, 1, "SAME", dilations=2), networks.images())
    with pytest.raises(errors.InvalidTargetError, match="cannot be called"):
        functions.of(tf.Module(), inputs)
    with pytest.raises(errors.NotFiniteError, match="a prediction of the first examples is not finite"):
        functions.of(lambda x: tf.math.log(x - 100), inputs)
    with pytest.raises(errors.InvalidArgumentError, match="inputs of dtype uint8"):
        functions.of(lambda x: x, np.zeros((3, 2), np.uint8))
    with pytest.raises(errors.InvalidArgumentError, match="inputs are a dict"):
        functions.of(lambda x: x, {"a": inputs})
    with pytest.raises(errors.InvalidArgumentError, match=r"inputs of shape \(0, 2\)"):
        functions.of(lambda x: x, np.zeros((0, 2)))


def test_examples_must_fit_the_function():
    function, inputs, labels = networks.case("convolutional")
    assert functions.checked(function, examples.Examples(inputs, labels)).labels.dtype == np.int64
    with pytest.raises(errors.MismatchError, match="inputs of shape"):
        functions.checked(function, (inputs[:, :4], labels))
    with pytest.raises(errors.MismatchError, match="inputs of dtype float32: the function takes float64"):
        functions.checked(function, (inputs.astype(np.float32), labels))


def test_sonnet_models_of_linear_layers():
    model = snt.Linear(3)
    inputs = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    model(inputs)
    rows = gram.make_jacobians(functions.of(model, inputs))(inputs)[1]
    np.testing.assert_allclose(rows, np.stack([model.w.numpy().T] * 4), rtol=1e-6)
