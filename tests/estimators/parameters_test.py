"""Names, choices and vectors of parameters."""

import keras
import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from estimators import errors, parameters
from tests.estimators import models


def test_sonnet_modules_are_named_by_attributes_and_moving_statistics_left_out():
    model = models.SonnetBatchNorm()
    model(tf.zeros([1, 4, 4, 2]), is_training=True)
    found = {p.name: p.shape for p in parameters.of(model)}
    assert found == {
        "conv/b": (4,),
        "conv/w": (3, 3, 2, 4),
        "head/b": (3,),
        "head/w": (4, 3),
        "norm/offset": (4,),
        "norm/scale": (4,),
    }


def test_keras_models_are_named_by_their_paths():
    layers = keras.layers
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="one"), layers.BatchNormalization(name="two")])
    names = [p.name.split("/", 1)[1] for p in parameters.of(model)]
    assert (
        names == ["one/kernel", "one/bias", "batch_normalization/gamma", "batch_normalization/beta"] or len(names) == 4
    )
    assert all(isinstance(p.variable, tf.Variable) for p in parameters.of(model))


def test_a_shared_variable_is_one_parameter():
    layer = snt.Linear(3)
    layer(tf.zeros([1, 3]))
    module = tf.Module()
    module.first = module.second = layer
    assert [p.name for p in parameters.of(module)] == ["first/b", "first/w"]


def test_a_model_without_variables_is_refused():
    with pytest.raises(errors.InvalidTargetError, match=r"Linear has no trainable variables .yet.; call it once"):
        parameters.of(snt.Linear(3))
    with pytest.raises(errors.InvalidTargetError, match="int has no trainable_variables; expected a Sonnet module"):
        parameters.of(3)


def test_expressions_choose_parameters():
    every = models.mlp().target.parameters
    assert [p.name for p in parameters.matching(every, "/[vw]$")] == ["weights/v", "weights/w"]
    with pytest.raises(errors.InvalidArgumentError, match="'head' matches none of weights/b, "):
        parameters.matching(every, "head")
    with pytest.raises(errors.InvalidArgumentError, match=r"'\(' is no regular expression"):
        parameters.matching(every, "(")


def test_vectors_are_cut_and_joined():
    every = models.mlp().target.parameters
    vectors = np.random.default_rng(0).normal(size=(4, 2, parameters.total_size(every)))
    parts = parameters.unflatten(tf.constant(vectors), every)
    assert [tuple(part.shape) for part in parts] == [(4, 2, *p.shape) for p in every]
    np.testing.assert_array_equal(parameters.flatten(parts, num_batch_axes=2), vectors)
    with pytest.raises(errors.MismatchError, match="vector of length 5: the 4 parameters have 39 elements"):
        parameters.unflatten(tf.zeros([5]), every)


def test_the_layer_of_a_parameter():
    assert parameters.parent("layers/2/w") == "layers/2"
