"""Influence from a matrix, from class-wise files and from lists of pairs, against the matrix itself."""

import dataclasses
import pathlib

import numpy as np
import pytest

from heldout.scoring import influence_sources, published_formats
from tests.heldout.report import simulated
from tests.heldout.scoring import scored_zoos
from zoo import errors

PATH = pathlib.Path("a")
LEAST = 0.2, 0.1


@pytest.fixture(scope="module")
def ratio():
    return simulated.saved().ratios[0.5]


def whole(ratio):
    return influence_sources.WholeMatrix(PATH, ratio.memorization.values, ratio.subset_influence)


def within(ratio, folder):
    path = folder / "classes.npz"
    labels = simulated.TRAIN_LABEL, simulated.TEST_LABEL
    scored_zoos.class_influence(path, ratio.subset_influence, ratio.memorization.values, *labels)
    return influence_sources.WithinClasses(path, published_formats.read_class_influence(path))


def plain_pairs(ratio, same_class):
    """Pairs that reach `LEAST`, one by one."""
    return {
        (i, j)
        for i, row in enumerate(ratio.subset_influence)
        for j, value in enumerate(row)
        if value >= LEAST[0] and ratio.memorization.values[i] >= LEAST[1] and (i % 3 == j % 3 or not same_class)
    }


def listed(ratio, **changes):
    index = np.array(sorted(plain_pairs(ratio, False))).T
    pairs = published_formats.HighInfluencePairs(
        *index, ratio.subset_influence[tuple(index)].astype(float), ratio.memorization.values[index[0]]
    )
    return influence_sources.ListedPairs(PATH, dataclasses.replace(pairs, **changes))


def as_set(index):
    return set(zip(*index.tolist(), strict=True))


def all_pairs():
    return np.indices((simulated.NUM_TRAIN, simulated.NUM_TEST)).reshape(2, -1)


def test_a_whole_matrix(ratio):
    source, index = whole(ratio), all_pairs()
    np.testing.assert_array_equal(source.values(*index), ratio.subset_influence.ravel())
    known = index[0] != simulated.NEVER_HELD_OUT
    np.testing.assert_array_equal(source.covers(*index), known)
    assert source.num_pairs == known.sum()
    assert source.shape == (simulated.NUM_TRAIN, simulated.NUM_TEST)
    assert as_set(source.high_pairs(*LEAST)) == plain_pairs(ratio, False)
    assert len(plain_pairs(ratio, False)) > 5


def test_a_whole_matrix_is_searched_in_blocks(ratio, monkeypatch):
    monkeypatch.setattr(influence_sources, "_SEARCH_BYTES", 1)
    assert as_set(whole(ratio).high_pairs(*LEAST)) == plain_pairs(ratio, False)


def test_more_pairs_than_a_selection_may_have_are_refused(ratio, tmp_path, monkeypatch):
    for source in (whole(ratio), within(ratio, tmp_path)):
        number = source.high_pairs(*LEAST).shape[1]
        monkeypatch.setattr(influence_sources, "MAX_PAIRS", number)
        assert source.high_pairs(*LEAST).shape[1] == number
        monkeypatch.setattr(influence_sources, "MAX_PAIRS", number - 1)
        message = rf"{source.path}: more than {number - 1} pairs reach pairs_influence 0\.2 and pairs_memorization 0\.1"
        with pytest.raises(errors.InvalidValueError, match=message):
            source.high_pairs(*LEAST)
        monkeypatch.undo()


def test_a_class_wise_file(ratio, tmp_path):
    source, index = within(ratio, tmp_path), all_pairs()
    same = simulated.TRAIN_LABEL[index[0]] == simulated.TEST_LABEL[index[1]]
    wanted = np.where(same, ratio.subset_influence.ravel(), np.nan)
    np.testing.assert_array_equal(source.values(*index), wanted)
    np.testing.assert_array_equal(source.covers(*index), same)
    assert source.num_pairs == same.sum()
    assert source.shape == (simulated.NUM_TRAIN, simulated.NUM_TEST)
    assert as_set(source.high_pairs(*LEAST)) == plain_pairs(ratio, True)
    assert plain_pairs(ratio, True)


@pytest.mark.parametrize("least", [0.15, 0.35, 0.7])  # float32 has larger and smaller numbers for them
def test_what_just_reaches_a_threshold_is_high_whatever_holds_it(ratio, tmp_path, least):
    """A list has float64, which was made of float32."""
    values = ratio.subset_influence.copy()
    values[3, 6], values[3, 9] = np.float32(least), np.nextafter(np.float32(least), np.float32(0))
    ratio = dataclasses.replace(ratio, subset_influence=values)
    chosen = np.array([[3, 3], [6, 9]])
    pairs = published_formats.HighInfluencePairs(
        *chosen, values[tuple(chosen)].astype(np.float64), ratio.memorization.values[chosen[0]]
    )
    for source in (whole(ratio), within(ratio, tmp_path), influence_sources.ListedPairs(PATH, pairs)):
        found = as_set(source.high_pairs(least, -1.0))
        assert (3, 6) in found
        assert (3, 9) not in found


def test_a_list(ratio):
    source, index = listed(ratio), all_pairs()
    high = plain_pairs(ratio, False)
    inside = np.array([pair in high for pair in zip(*index.tolist(), strict=True)])
    np.testing.assert_array_equal(source.values(*index), np.where(inside, ratio.subset_influence.ravel(), np.nan))
    assert source.covers(*index).all()
    assert (source.shape, source.num_pairs) == (None, len(high))
    assert as_set(source.high_pairs(*LEAST)) == high
    assert as_set(source.high_pairs(0.5, 0.1)) == {p for p in high if ratio.subset_influence[p] >= 0.5}
    assert as_set(source.high_pairs(0.2, 0.5)) == {p for p in high if ratio.memorization.values[p[0]] >= 0.5}
    assert source.draw(3, np.random.default_rng(0)) is None


def test_draws_are_even_over_the_pairs_with_a_value(ratio, tmp_path):
    number = 60_000
    for source in (whole(ratio), within(ratio, tmp_path)):
        drawn = source.draw(number, np.random.default_rng(0))
        assert drawn.shape == (2, number)
        assert source.covers(*drawn).all()
        counts = np.bincount(drawn[0] * simulated.NUM_TEST + drawn[1])
        counts = counts[counts > 0]
        expected = number / source.num_pairs
        # A class-wise file has values of the example that no run held out, too: NaN, but of its class.
        assert len(counts) == source.num_pairs
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_draws_from_nothing(ratio):
    nothing = np.full(simulated.NUM_TRAIN, np.nan)
    empty = influence_sources.WholeMatrix(PATH, nothing, ratio.subset_influence)
    assert empty.draw(5, np.random.default_rng(0)).shape == (2, 0)
    none = published_formats.ClassInfluence(
        np.zeros(2, int), np.zeros(0, int), np.zeros(2), {0: np.arange(2)}, {0: np.zeros(0, int)}, {0: np.zeros((2, 0))}
    )
    assert influence_sources.WithinClasses(PATH, none).draw(5, np.random.default_rng(0)).shape == (2, 0)


def test_indices_of_another_data_set_are_refused(ratio, tmp_path):
    for source in (whole(ratio), within(ratio, tmp_path)):
        with pytest.raises(errors.MismatchError, match="has 60 training examples, but training example 60 is asked"):
            source.values(np.array([60]), np.array([0]))
        with pytest.raises(errors.MismatchError, match="has 24 test examples, but test example 30 is asked"):
            source.covers(np.array([0]), np.array([30]))
