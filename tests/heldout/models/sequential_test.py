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


class _Doubled(sequential.Block):
    def __call__(self, inputs, is_training):
        return inputs * (2 if is_training else 1)


def test_batch_normalisation_and_blocks_hear_of_training_and_others_do_not():
    images = np.random.default_rng(0).normal(3, 2, size=(50, 4)).astype(np.float32)
    norm = snt.BatchNorm(create_scale=True, create_offset=True)
    outputs = sequential.apply([norm, _Doubled(), layers.Relu()], tf.constant(images), is_training=True)
    standardised = (images - images.mean(axis=0)) / np.sqrt(images.var(axis=0) + 1e-5)
    np.testing.assert_allclose(outputs, np.maximum(2 * standardised, 0), rtol=1e-4, atol=1e-4)
    # The averages of one batch are the statistics of that batch.
    evaluated = sequential.apply([norm, _Doubled()], tf.constant(images), is_training=False)
    np.testing.assert_allclose(evaluated, standardised, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(sequential.apply([], tf.constant(images), is_training=True), images)


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
