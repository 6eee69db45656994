"""Training and validation splits from a seed of their own."""

import numpy as np
import pytest

from heldout.experiments import data_split
from zoo import errors


@pytest.mark.parametrize(
    ("text", "amount"), [("49000", 49000), ("0.98", 0.98), (".5", 0.5), ("1.0", 1.0), ("rest", None), ("0", 0)]
)
def test_an_amount_is_a_share_or_a_number(text, amount):
    found = data_split.parse("train_split", text)
    assert found == amount
    assert type(found) is type(amount)


@pytest.mark.parametrize("text", ["", "all", "-1", "1.5", "1e3"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(errors.InvalidValueError, match=r"--val_split=.*expected a number of examples like 49000"):
        data_split.parse("val_split", text)


@pytest.mark.parametrize("amount", [-1, 1.5, True, "1"])
def test_what_is_no_amount_is_refused_as_a_value_too(amount):
    with pytest.raises(errors.InvalidValueError, match=r"--train_split=.*expected a share"):
        data_split.check("train_split", amount)


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [(None, 0, (100, 0)), (None, 0.1, (90, 10)), (60, None, (60, 40)), (0.5, 20, (50, 20)), (1.0, 0, (100, 0))],
)
def test_sizes(train, val, expected):
    assert data_split.sizes(train, val, 100) == expected


@pytest.mark.parametrize(("train", "val"), [(None, None), (0, 5), (None, 1.0), (60, 50), (120, None)])
def test_splits_that_do_not_fit_are_refused(train, val):
    with pytest.raises(errors.InvalidValueError, match="--train_split="):
        data_split.sizes(train, val, 100)


def test_splits_are_disjoint_ascending_and_of_the_sizes_asked_for():
    train, val = data_split.draw(3, 70, 20, 100)
    assert (len(train), len(val)) == (70, 20)
    assert not set(train) & set(val)
    for part in (train, val):
        assert (np.diff(part) > 0).all()
    assert min(train.min(), val.min()) >= 0
    assert max(train.max(), val.max()) < 100


def test_the_validation_examples_do_not_depend_on_how_many_are_trained_on():
    np.testing.assert_array_equal(data_split.draw(3, 70, 20, 100)[1], data_split.draw(3, 40, 20, 100)[1])


def test_another_seed_is_another_split_and_the_same_the_same():
    first, again, other = (data_split.draw(seed, 500, 500, 1000)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    # Two independent halves share 250 examples, with a standard deviation of 8.
    assert abs(len(np.intersect1d(first, other)) - 250) < 5 * 8


def test_every_example_validates_as_often_as_others():
    counts = np.zeros(50)
    for seed in range(2000):
        counts[data_split.draw(seed, 40, 10, 50)[1]] += 1
    assert np.abs(counts - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)
