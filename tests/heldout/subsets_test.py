"""Stateless draws: recomputable for ever, uniform, independent between purposes."""

import hashlib
import time

import numpy as np
import pytest

from heldout import subsets
from tests.reference import subsets as reference
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


def test_balanced_subsets_take_their_share_of_each_class():
    label = np.repeat([0, 1, 2], [10, 20, 70])
    for ratio, expected in ((0.7, [7, 14, 49]), (0.3, [3, 6, 21]), (0.5, [5, 10, 35])):
        assert subsets.class_sizes(ratio, label).tolist() == expected
        indices = subsets.balanced_indices("e", ratio, 3, label)
        assert indices.dtype == np.int64
        assert np.all(np.diff(indices) > 0)
        assert np.bincount(label[indices]).tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_balanced_subsets_have_the_size_of_others(seed):
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 7, 101)
    counts = np.bincount(label)
    for ratio in (0.05, 0.1, 0.29, 0.5, 0.7, 0.9, 1 / 3):
        sizes = subsets.class_sizes(ratio, label)
        assert sizes.sum() == subsets.subset_size(ratio, 101)
        assert np.all(np.abs(sizes - ratio * counts) < 1)


def test_what_is_missing_goes_to_the_largest_remainders():
    # A quarter of 2, 6 and 9 examples is 0.5, 1.5 and 2.25; of all 17 together it is 4.
    assert subsets.class_sizes(0.25, np.repeat([0, 1, 2], [2, 6, 9])).tolist() == [1, 1, 2]
    # Equal remainders: the lower class.
    assert subsets.class_sizes(0.5, np.repeat([0, 1, 2, 3], [3, 3, 3, 3])).tolist() == [2, 2, 1, 1]
    # Shares of 4.5 and 1.5, which are equal in decimals only: 0.3 in binary is a little less.
    assert subsets.class_sizes(0.3, np.repeat([0, 1], [15, 5])).tolist() == [5, 1]


def test_a_class_that_is_not_there_gets_nothing():
    assert subsets.class_sizes(0.5, np.array([0, 0, 2, 2])).tolist() == [1, 0, 1]


def test_balanced_subsets_never_change():
    # Recorded once, as for uniform ones.
    indices = subsets.balanced_indices("mnist-mlp", 0.7, 1234, np.arange(60000) % 10)
    assert hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest() == (
        "e60e7ed90643edeb3eed81a9d540dc693fced44f3f10e8c572eb21a262ba4590"
    )


@pytest.mark.parametrize("labels", [[0], [3], [0, 1], [0, 2, 5], list(range(40))])
def test_balanced_subsets_are_drawn_as_defined(labels):
    # Classes of all sizes, without examples among them too.
    label = np.random.default_rng(len(labels)).choice(labels, size=301)
    for run_id, ratio in enumerate((0.01, 0.3, 0.5, 0.99)):
        found = subsets.balanced_indices("e", ratio, run_id, label)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, reference.balanced_indices("e", ratio, run_id, label))


def test_many_classes_take_little_longer_than_two():
    seconds = {2: [], 2000: []}
    for run_id in range(3):
        for num_classes, taken in seconds.items():
            label = np.arange(200_000) % num_classes
            began = time.process_time()
            subsets.balanced_indices("e", 0.5, run_id, label)
            taken.append(time.process_time() - began)
    assert min(seconds[2000]) < 10 * min(seconds[2])  # a pass over all labels for each class: about a hundred times


def test_every_example_is_in_a_balanced_subset_equally_often():
    num_runs, label = 2000, np.repeat([0, 1], [10, 30])
    counts = np.zeros(40)
    for run_id in range(num_runs):
        counts[subsets.balanced_indices("uniform", 0.5, run_id, label)] += 1
    assert np.max(np.abs(counts - num_runs * 0.5)) < 4 * np.sqrt(num_runs * 0.25)


def test_sampling_by_name():
    label = np.arange(60) % 3
    run = ("e", 0.5, 2)
    np.testing.assert_array_equal(subsets.draw("uniform", run, label), subsets.subset_indices(*run, 60))
    np.testing.assert_array_equal(subsets.draw("class_balanced", run, label), subsets.balanced_indices(*run, label))
