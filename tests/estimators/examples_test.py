"""Batches, identities and fingerprints of examples."""

import numpy as np
import pytest

from estimators import errors, examples


def _examples():
    return examples.Examples({"a": np.arange(10.0).reshape(5, 2), "b": np.arange(5)}, np.arange(5), np.arange(5) * 10)


def test_batches_cover_all_examples_in_order():
    batches = list(_examples().batches(2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate([b.ids for b in batches]), [0, 10, 20, 30, 40])
    np.testing.assert_array_equal(batches[2].inputs["a"], [[8.0, 9.0]])


def test_a_pair_becomes_examples_named_by_position():
    made = examples.of((np.zeros((3, 2)), np.zeros(3)))
    np.testing.assert_array_equal(made.ids, [0, 1, 2])
    assert examples.of(made) is made


def test_memory_maps_are_read_in_parts(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(6, 2))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    taken = examples.Examples(mapped, np.arange(6)).take(np.array([5, 1]))
    np.testing.assert_array_equal(taken.inputs, [[10.0, 11.0], [2.0, 3.0]])
    assert not isinstance(taken.inputs, np.memmap)


@pytest.mark.parametrize("change", ["inputs", "labels", "ids", "dtype"])
def test_fingerprints_tell_examples_apart(change):
    inputs, labels, ids = np.arange(6.0).reshape(3, 2), np.arange(3), np.arange(3)
    first = examples.Examples(inputs, labels, ids).fingerprint()
    assert first == examples.Examples(inputs.copy(), labels, ids).fingerprint()
    changed = {"inputs": inputs, "labels": labels, "ids": ids}
    if change == "dtype":
        changed["inputs"] = inputs.astype(np.float32)
    else:
        changed[change] = changed[change] + 1
    assert examples.Examples(**changed).fingerprint() != first


def test_unequal_lengths_and_empty_batches_are_refused():
    with pytest.raises(errors.MismatchError, match=r"inputs of \[3\] examples beside labels of 2"):
        examples.Examples(np.zeros((3, 1)), np.zeros(2))
    with pytest.raises(errors.MismatchError, match=r"ids of shape \(3,\) beside 2 examples"):
        examples.Examples(np.zeros((2, 1)), np.zeros(2), np.arange(3))
    with pytest.raises(errors.InvalidArgumentError, match="no examples"):
        examples.Examples(np.zeros((0, 1)), np.zeros(0))
    with pytest.raises(errors.InvalidArgumentError, match="batch_size 0: must be at least 1"):
        list(_examples().batches(0))
