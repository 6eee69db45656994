"""Checkpoints written without TensorFlow are what TensorFlow reads and writes."""

import numpy as np
import pytest
import tensorflow as tf

from tests.zoo.archive import checkpoint_files
from zoo import checkpoint_bundle, checkpoints, layout

W = np.arange(40, dtype=np.float32).reshape(-1, 1)
B = -np.arange(5, dtype=np.float32)


def model_of(w, b):
    model = tf.Module()
    model.layer = tf.Module()
    model.layer.w, model.layer.b = tf.Variable(w), tf.Variable(b)
    return model


@pytest.fixture
def prefix(tmp_path):
    prefix = tmp_path / "e" / "ckpt-3"
    checkpoint_files.write(prefix, W, B, epoch=3, global_step=1 << 40)
    return prefix


def assert_restored(model):
    np.testing.assert_array_equal(model.layer.w, W)
    np.testing.assert_array_equal(model.layer.b, B)


def test_our_reader_restores_them(prefix):
    model = model_of(0 * W, 0 * B)
    assert checkpoints.restore(model, prefix) == checkpoints.CheckpointState(3, 1 << 40)
    assert_restored(model)


def test_tensorflow_restores_them(prefix):
    """By the graph of objects, which our reader does not look at."""
    model, epoch, step = model_of(0 * W, 0 * B), tf.Variable(0, dtype=tf.int64), tf.Variable(0, dtype=tf.int64)
    restored = tf.train.Checkpoint(model=model, epoch=epoch, global_step=step).read(str(prefix))
    restored.assert_consumed()
    assert_restored(model)
    assert (int(epoch), int(step)) == (3, 1 << 40)


def test_they_hold_what_tensorflow_writes(prefix, tmp_path):
    checkpoints.write(model_of(W, B), tmp_path / "other", epoch=3, global_step=1 << 40)
    ours, theirs = (
        checkpoint_bundle.read_index_file(path.with_name(path.name + layout.CHECKPOINT_INDEX_SUFFIX))
        for path in (prefix, tmp_path / "other")
    )
    assert ours.num_shards == theirs.num_shards == 1
    assert list(ours.entries) == list(theirs.entries)
    for name, entry in ours.entries.items():
        assert (entry.dtype, entry.shape) == (theirs.entries[name].dtype, theirs.entries[name].shape)
        if entry.dtype != "string":
            assert (entry.size, entry.crc32c) == (theirs.entries[name].size, theirs.entries[name].crc32c)
