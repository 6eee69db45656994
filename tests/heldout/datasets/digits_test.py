"""The digits of scikit-learn: sizes, the documented split, and what happens when they change."""

import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from heldout.datasets import digits
from zoo import errors


def test_every_fifth_image_is_a_test_example():
    loaded = digits.load()
    assert (len(loaded.train), len(loaded.test)) == (1438, 359)
    assert loaded.image_shape == (8, 8, 1)
    assert loaded.class_names == tuple("0123456789")
    images, target = sklearn_datasets.load_digits(return_X_y=True)
    for position in (0, 3, 4, 5, 1794):
        split = loaded.test if position % 5 == 4 else loaded.train
        row = position // 5 if position % 5 == 4 else position // 5 * 4 + position % 5
        np.testing.assert_array_equal(split.images[row].ravel(), images[position])
        assert split.label[row] == target[position]


def test_inputs_fill_the_unit_interval():
    loaded = digits.load()
    inputs = loaded.normalise(loaded.train.images)
    assert inputs.min() == 0
    assert inputs.max() == 1


def test_another_order_is_noticed(monkeypatch):
    bunch = sklearn_datasets.load_digits()
    bunch.images, bunch.target = bunch.images[::-1], bunch.target[::-1]
    monkeypatch.setattr(sklearn_datasets, "load_digits", lambda: bunch)
    with pytest.raises(errors.MismatchError, match="digits train"):
        digits.load()
