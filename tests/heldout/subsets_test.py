"""Stateless draws: recomputable for ever, uniform, independent between purposes."""

import hashlib

import numpy as np
import pytest

from heldout import subsets
from zoo import errors


def test_seed_follows_the_documented_formula():
    digest = hashlib.sha256(b"heldout-1/mnist-mlp/0.7/1234/subset").digest()
    assert subsets.seed(("mnist-mlp", 0.7, 1234), "subset") == int.from_bytes(digest[:16], "little")


def test_subset_of_a_run_never_changes():
    # Recorded once; a change would break every zoo that is trained in part.
    indices = subsets.subset_indices("mnist-mlp", 0.7, 1234, 60000)
    assert indices.dtype == np.int64
    assert len(indices) == 42000
    assert hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest() == (
        "0a7ed3cc322e6f8300618bea10a5e82e64e17f782772566d82e7667a39a49b27"
    )


def test_subset_is_sorted_unique_and_in_range():
    indices = subsets.subset_indices("e", 0.3, 0, 101)
    assert len(indices) == 30
    assert np.all(np.diff(indices) > 0)
    assert indices[0] >= 0
    assert indices[-1] < 101


def test_every_example_is_drawn_equally_often():
    num_runs, num_train, ratio = 2000, 50, 0.5
    counts = np.zeros(num_train)
    for run_id in range(num_runs):
        counts[subsets.subset_indices("uniform", ratio, run_id, num_train)] += 1
    # Binomial standard deviation; the largest of 50 deviations stays below 4 of them with probability 0.997.
    assert np.max(np.abs(counts - num_runs * ratio)) < 4 * np.sqrt(num_runs * ratio * (1 - ratio))


@pytest.mark.parametrize(
    "other",
    [("e", 0.5, 1, "subset"), ("e", 0.6, 0, "subset"), ("f", 0.5, 0, "subset"), ("e", 0.5, 0, "order/0")],
)
def test_every_part_of_the_name_makes_another_draw(other):
    assert subsets.seed(("e", 0.5, 0), "subset") != subsets.seed(other[:3], other[3])


def test_permutation_holds_every_position_once():
    np.testing.assert_array_equal(np.sort(subsets.permutation(7, 1000)), np.arange(1000))


def test_random_integers_fill_their_range():
    drawn = subsets.random_integers(5, (1000, 2), 9)
    assert drawn.dtype == np.int32
    assert set(np.unique(drawn)) == set(range(9))


@pytest.mark.parametrize(
    ("ratio", "num_train"), [(0.0, 100), (1.0, 100), (-0.1, 100), (float("nan"), 100), (0.001, 100)]
)
def test_ratios_that_leave_a_side_empty_are_refused(ratio, num_train):
    with pytest.raises(errors.InvalidValueError, match="ratio"):
        subsets.subset_indices("e", ratio, 0, num_train)
