"""Batches of one size, blocks within a limit of memory, and products that are streamed."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, examples, gradient_products, influence_functions
from tests.estimators import models


@pytest.mark.parametrize(("num", "batch_size"), [(1, 5), (7, 7), (7, 100), (7, 3), (8, 3), (130, 128)])
def test_even_batches_have_one_size_and_every_example_once(num, batch_size):
    data = examples.Examples(np.arange(num), np.zeros(num), np.arange(num) + 5)
    found = list(gradient_products.even_batches(data, batch_size))
    assert len({len(batch) for batch, _ in found}) == 1
    assert len(found[0][0]) <= batch_size
    assert len(found) == -(-num // batch_size)
    np.testing.assert_array_equal(np.concatenate([batch.ids[:count] for batch, count in found]), data.ids)
    with pytest.raises(errors.InvalidArgumentError, match="batch_size 0"):
        list(gradient_products.even_batches(data, 0))


def test_blocks_keep_to_the_limit_and_use_it():
    for limit in (20.0, 200.0, 5000.0):
        blocks = gradient_products.choose_blocks(10**5, 4, 10**6, limit)
        assert blocks.megabytes <= limit
        assert blocks.megabytes >= 0.5 * limit
    assert gradient_products.choose_blocks(10**5, 4, 16, 5000.0).train == 16


def test_gradients_are_compiled_once_for_each_kind_of_batch():
    case = models.ALL["transposed_dense"]()
    train = (case.inputs, case.labels)
    fitted = influence_functions.InfluenceFunctions(case.target, "identity", batch_size=3).fit(train)
    fitted.scores(train, train)
    fitted.scores(train, (case.inputs[::-1], case.labels[::-1]))
    # Batches of three training examples, and all seven test examples.
    assert fitted.fitted().gradients["loss"].experimental_get_tracing_count() == 2


def test_the_memory_that_is_taken_is_a_block_and_not_the_training_set():
    """No array of n P numbers, nor of the test set's gradients, is passed on."""
    case = models.ALL["mlp"]()
    seen = []

    def gradients(inputs, labels):
        seen.append(len(labels))
        return tf.ones([len(labels), 3], tf.float64) * tf.cast(labels, tf.float64)[:, None]

    data, out = examples.Examples(case.inputs, case.labels), np.zeros((7, 4))
    vectors = tf.constant([[1.0, 0, 0], [1, 1, 1], [0, 2, 0], [0, 0, 3]], tf.float64)
    gradient_products.fill(gradients, data, vectors, -0.5, out, 2)
    np.testing.assert_allclose(out, -0.5 * case.labels[:, None] * np.array([1.0, 3, 2, 3]))
    assert seen == [2, 2, 2, 2]
