"""Targets of Sonnet, Keras and plain modules."""

import keras
import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from estimators import errors, targets
from tests.estimators import models


def test_models_are_called_in_inference_mode():
    sonnet_model = models.SonnetBatchNorm()
    images = tf.random.stateless_normal([4, 4, 4, 2], [1, 2])
    sonnet_model(images, is_training=True)
    np.testing.assert_array_equal(targets.of(sonnet_model).predict(images), sonnet_model(images, is_training=False))
    dropout = keras.Sequential([keras.Input((5,)), keras.layers.Dropout(0.9), keras.layers.Dense(2)])
    x = tf.ones([3, 5])
    np.testing.assert_array_equal(targets.of(dropout).predict(x), dropout(x, training=False))


def test_modules_whose_call_takes_no_switch_are_called_plainly():
    linear = snt.Linear(3)
    linear(tf.zeros([1, 2]))
    np.testing.assert_array_equal(targets.of(linear).predict(tf.ones([2, 2])), linear(tf.ones([2, 2])))


def test_a_compiled_call_keeps_its_switch():
    class Compiled(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(2.0)

        @tf.function
        def __call__(self, x, training):
            return self.w * x if training else -self.w * x

    np.testing.assert_array_equal(targets.of(Compiled()).predict(tf.ones([2])), [-2.0, -2.0])


def test_losses_and_measured_outputs_follow_from_predictions():
    case = models.regression()
    predictions = case.target.predict(case.inputs).numpy()[:, 0]
    np.testing.assert_allclose(case.target.losses(case.inputs, case.labels), 0.5 * (predictions - case.labels) ** 2)
    np.testing.assert_allclose(case.target.measurements(case.inputs, case.labels), predictions)


def test_weight_decay_by_parameter():
    model = models.mlp().target
    module = tf.Module()
    module.parts = model.variables
    decayed = targets.of(module, predict=model.predict, weight_decay=lambda p: 0.5 if len(p.shape) > 1 else 0.0)
    vector = decayed.weight_decay_vector()
    assert vector.shape == (decayed.num_parameters,)
    assert vector.sum() == 0.5 * (20 + 12)
    kept = decayed.restricted([p for p in decayed.parameters if len(p.shape) > 1])
    assert kept.weight_decay == (0.5, 0.5)
    turned = decayed.restricted(decayed.parameters[::-1])
    assert turned.weight_decay == decayed.weight_decay[::-1] != decayed.weight_decay
    with pytest.raises(errors.InvalidArgumentError, match=r"weight_decay -1.0 of parts/0: must be a number from 0 up"):
        targets.of(module, predict=model.predict, weight_decay=-1.0)


def test_what_cannot_be_called_needs_a_function():
    module = tf.Module()
    module.w = tf.Variable(1.0)
    with pytest.raises(errors.InvalidTargetError, match="Module cannot be called; give predict="):
        targets.of(module)
    assert targets.of(module, predict=lambda x: x * module.w).predict(tf.constant(3.0)) == 3.0


def test_parameters_by_expression():
    assert [p.name for p in targets.of(models.tiny_sonnet(), parameters="head/").parameters] == ["head/b", "head/w"]
