"""What a model makes of a split: ties, gaps, logits that are no numbers, examples in memory and on disk."""

import dataclasses

import numpy as np
import sonnet as snt
import tensorflow as tf

from heldout.datasets import indexed_records, records_in_memory
from heldout.evaluation import judging
from heldout.models import registry
from tests import cases
from tests.heldout.datasets import record_cases


class Table(snt.Module):
    """Gives the image with the number i in its first pixel the logits of row i."""

    def __init__(self, logits):
        super().__init__()
        self.logits = tf.constant(logits)

    def __call__(self, images, is_training):
        return tf.gather(self.logits, tf.cast(images[:, 0, 0, 0], tf.int32))


def judged(logits, label, num_train=4):
    data = cases.tiny_digits()
    images = np.zeros((num_train, 8, 8, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(num_train)
    train = dataclasses.replace(data.train, images=images, label=np.array(label))
    data = dataclasses.replace(data, train=train, scale=1.0)
    return judging.Evaluator(Table(np.array(logits, np.float32)), data).judge("train")


def test_ties_go_to_the_first_class():
    found = judged([[1, 1, 0], [0, 1, 0], [2, 2, 2], [0, 5, 3]], [0, 1, 1, 2])
    assert found.predicted.tolist() == [0, 1, 0, 1]
    assert found.correct.tolist() == [True, True, False, False]
    assert found.gap.tolist() == [0, 1, 0, 2]
    assert found.finite


def test_margins_are_log_odds():
    found = judged([[2, 1, 0], [0, 0, 0], [0, 9, 0], [0, 0, 0]], [0, 1, 1, 2])
    probability = np.exp(2) / (np.exp(2) + np.exp(1) + 1)
    np.testing.assert_allclose(found.margin[0], np.log(probability / (1 - probability)), rtol=1e-3)
    np.testing.assert_allclose(found.margin[1], np.log(1 / 2), rtol=1e-3)


def test_logits_that_are_no_numbers_are_told():
    found = judged([[1, 0, 0], [np.nan, 0, 0], [0, np.inf, 0], [0, 0, 1]], [0, 0, 1, 2])
    assert not found.finite
    assert np.isnan(found.margin).tolist() == [False, True, True, False]


def test_splits_larger_than_a_batch_come_in_order(monkeypatch):
    data = cases.tiny_digits()
    module = registry.build("mlp", 10, data.image_shape, {"hidden_sizes": [8]})
    whole = judging.Evaluator(module, data)
    expected = whole.judge("train")
    monkeypatch.setattr(judging, "_BATCH_SIZE", 7)
    parts = judging.Evaluator(module, data)
    found = parts.judge("train")
    np.testing.assert_array_equal(found.predicted, expected.predicted)
    np.testing.assert_allclose(found.gap, expected.gap, atol=1e-5)
    assert len(parts.judge("test").label) == 20
    assert whole.num_traces == 1
    assert parts.num_traces <= 2  # one more for the last, smaller batch


def test_what_a_batch_says_stays_with_its_examples(monkeypatch):
    logits, label = [[np.inf, 0, 0], [2, 1, 0], [0, 0, 1], [0, 3, 1]], [0, 1, 2, 1]
    whole = judged(logits, label)
    monkeypatch.setattr(judging, "_BATCH_SIZE", 2)
    found = judged(logits, label)
    assert not found.finite  # the last batch is
    np.testing.assert_array_equal(found.margin, whole.margin)
    # Log odds of the labels: 1 - log(e^2 + e^0) and 1 - log 2.
    np.testing.assert_allclose(found.margin[1:3], [1 - np.log(np.exp(2) + 1), 1 - np.log(2)], rtol=1e-3)


def test_records_are_judged_as_the_same_images_in_memory(tmp_path):
    record_cases.write_imagenet(tmp_path / "imagenet", num_train=12, num_test=5)
    records = indexed_records.open_records(tmp_path / "imagenet")
    held = records_in_memory.hold(records)
    module = registry.build("mlp", 10, records.image_shape, {"hidden_sizes": [4]})
    for split in ("train", "test"):
        from_disk = judging.Evaluator(module, records).judge(split)
        in_memory = judging.Evaluator(module, held).judge(split)
        np.testing.assert_array_equal(from_disk.label, in_memory.label)
        np.testing.assert_array_equal(from_disk.predicted, in_memory.predicted)
        np.testing.assert_allclose(from_disk.gap, in_memory.gap, atol=1e-3)
