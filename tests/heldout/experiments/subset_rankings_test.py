"""Subsets that follow a ranking, held against what one writes down by hand."""

import collections
import itertools

import numpy as np
import pytest

from heldout import subsets
from heldout.experiments import subset_rankings
from zoo import errors, layout, npz, run_scan

# Six of ten examples have a value; by hand, from the highest value: 4, 2, 9, 0, 7, 5.
_INDEX = np.array([0, 2, 4, 5, 7, 9])
_VALUE = np.array([0.0, 2.0, 3.0, -9.0, -0.5, 1.0])


@pytest.fixture
def ranking():
    return subset_rankings.SubsetRanking(_INDEX, _VALUE)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("highest", [2, 4, 9]),
        ("lowest", [0, 5, 7]),
        ("largest", [2, 4, 5]),
        ("smallest", [0, 7, 9]),
    ],
)
def test_a_kind_keeps_its_end_of_the_ranking(ranking, kind, expected):
    for seed_id in (0, 3):
        run = ("e", 0.3, subset_rankings.run_id(kind, seed_id))
        np.testing.assert_array_equal(ranking.subset_indices(run, 10), expected)


@pytest.mark.parametrize("kinds", [("highest", "lowest"), ("largest", "smallest")])
def test_to_drop_one_end_is_to_keep_the_other_also_among_equals(kinds):
    ranking = subset_rankings.SubsetRanking(np.arange(8), np.array([1.0, 1, -1, 1, 0, 0, -1, 1]))
    for size in range(1, 8):
        kept, dropped = (
            ranking.subset_indices(("e", count / 8, subset_rankings.run_id(kind, 0)), 8)
            for kind, count in zip(kinds, (size, 8 - size), strict=True)
        )
        np.testing.assert_array_equal(np.sort(np.concatenate([kept, dropped])), np.arange(8))
    np.testing.assert_array_equal(ranking.order("highest")[:4], [0, 1, 3, 7])


def test_random_subsets_are_those_of_the_pool_each_as_likely(ranking):
    drawn = collections.Counter()
    for seed_id in range(3000):
        run = ("e", 0.2, subset_rankings.run_id("random", seed_id))
        drawn[tuple(ranking.subset_indices(run, 10).tolist())] += 1
    pairs = list(itertools.combinations(_INDEX.tolist(), 2))
    assert set(drawn) == set(pairs)
    # Each of 15 pairs 200 times, with a standard deviation of 13.7: five of them to either side.
    assert all(abs(drawn[pair] - 200) < 69 for pair in pairs)


def test_runs_of_one_seed_begin_alike_whatever_their_kind():
    names = {subset_rankings.seed_name(("e", 0.3, subset_rankings.run_id(k, 7))) for k in subset_rankings.KINDS}
    assert names == {("e", 0.3, 7)}
    ids = [subset_rankings.run_id(kind, i) for i in range(3) for kind in subset_rankings.KINDS]
    assert ids == list(range(15))
    assert [subset_rankings.kind_of(i) for i in ids[:5]] == list(subset_rankings.KINDS)


def test_a_random_subset_is_that_of_its_seed(ranking):
    run = ("e", 0.3, subset_rankings.run_id("random", 2))
    order = subsets.permutation(subsets.seed(("e", 0.3, 2), "subset"), 6)
    np.testing.assert_array_equal(ranking.subset_indices(run, 10), np.sort(_INDEX[order[:3]]))


@pytest.mark.parametrize("num_train", [2, 7, 10, 60, 1438, 50000])
def test_every_number_of_examples_has_a_ratio_of_its_own(tmp_path, num_train):
    sizes = range(1, num_train + 1) if num_train < 2000 else [1, 2, 3, 499, 25001, 49998, 49999, 50000]
    ratios = {size: subset_rankings.ratio_of(size, num_train) for size in sizes}
    assert len(set(ratios.values())) == len(ratios)
    for size, ratio in ratios.items():
        assert round(ratio * num_train) == size
        assert layout.parse_ratio(layout.ratio_name(ratio)) == ratio
        run_scan._check_subset_size(layout.Run(tmp_path, "e", ratio, 0), size, num_train)


def test_ratios_are_as_short_as_can_be():
    assert [subset_rankings.ratio_of(size, 1438) for size in (719, 1438, 1366, 1)] == [0.5, 0.9999, 0.95, 0.001]


@pytest.mark.parametrize("size", [0, 11])
def test_no_ratio_stands_for_what_cannot_be(size):
    with pytest.raises(errors.InvalidValueError, match=f"{size} of 10 examples: expected 1 to 10"):
        subset_rankings.ratio_of(size, 10)


@pytest.mark.parametrize("index", [[0, 0], [1, 0], [-1, 0], [3], [[0, 1]]])
def test_positions_that_rank_nothing_are_refused(index):
    index = np.array(index)
    with pytest.raises(errors.InvalidValueError, match="at least two ascending int64"):
        subset_rankings.SubsetRanking(index, np.zeros(index.shape))


@pytest.mark.parametrize("value", [[0.0], [0.0, np.nan], [np.inf, 0.0], [1, 2]])
def test_values_that_rank_nothing_are_refused(value):
    with pytest.raises(errors.InvalidValueError, match="expected finite float64"):
        subset_rankings.SubsetRanking(np.array([0, 1]), np.array(value))


def test_another_data_set_and_too_small_a_pool_are_refused(ranking):
    with pytest.raises(errors.InvalidValueError, match="names training example 9, but there are 9"):
        ranking.subset_size(0.5, 9)
    with pytest.raises(errors.InvalidValueError, match="is 7, expected 1 to 6"):
        ranking.subset_size(0.7, 10)
    with pytest.raises(errors.InvalidValueError, match="is 0, expected 1 to 6"):
        ranking.subset_size(0.04, 10)


def test_a_ranking_comes_back_and_is_proved_by_its_digest(tmp_path, ranking):
    path = tmp_path / "subset_ranking.npz"
    subset_rankings.write(path, ranking)
    found = subset_rankings.read(path, ranking.sha256())
    np.testing.assert_array_equal(found.train_index, ranking.train_index)
    np.testing.assert_array_equal(found.value, ranking.value)
    other = subset_rankings.SubsetRanking(_INDEX, _VALUE + 1)
    with pytest.raises(errors.MismatchError, match="but the recipe beside it was begun with"):
        subset_rankings.read(path, other.sha256())
    npz.write(path, {"train_index": _INDEX, "value": np.full(6, np.inf)})
    with pytest.raises(errors.DamagedFileError, match=r"subset_ranking\.npz: value has"):
        subset_rankings.read(path, ranking.sha256())
    with pytest.raises(errors.MissingFileError):
        subset_rankings.read(tmp_path / "none.npz", ranking.sha256())
