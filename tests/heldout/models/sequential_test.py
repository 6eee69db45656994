"""A list of layers as a module: forward pass, variables and checkpoint keys."""

import numpy as np
import sonnet as snt
import tensorflow as tf

from heldout.models import layers, sequential


def _model():
    return sequential.SequentialClassifier([layers.Flatten(), snt.Linear(4), layers.Relu(), snt.Linear(3)])


def test_it_computes_the_layers_in_order():
    model = _model()
    images = np.random.default_rng(0).normal(size=(5, 2, 2, 1))
    logits = model(tf.constant(images), is_training=True).numpy()
    first, second = model.layers[1], model.layers[3]
    hidden = np.maximum(images.reshape(5, 4) @ first.w.numpy() + first.b.numpy(), 0)
    np.testing.assert_allclose(logits, hidden @ second.w.numpy() + second.b.numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(model(tf.constant(images), is_training=False), logits)


def test_variables_are_found_and_checkpointed_under_the_position_of_their_layer(tmp_path):
    model = _model()
    model(tf.zeros([1, 2, 2, 1]), is_training=False)
    assert len(model.trainable_variables) == 4
    prefix = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    keys = {name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for name, _ in tf.train.list_variables(prefix)}
    assert keys >= {f"model/layers/{position}/{name}" for position in (1, 3) for name in "wb"}
    other = _model()
    other(tf.zeros([1, 2, 2, 1]), is_training=False)
    tf.train.Checkpoint(model=other).read(prefix).assert_consumed()
    np.testing.assert_array_equal(other.layers[3].w, model.layers[3].w)
