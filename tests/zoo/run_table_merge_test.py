"""Merged tables against the whole that was cut; what must not be merged."""

import dataclasses

import numpy as np
import pytest

from heldout.scoring import influence_matrix, scores
from zoo import errors, run_table, run_table_merge


@pytest.fixture(scope="module")
def whole():
    generator = np.random.default_rng(0)
    arrays = [generator.random((24, size)) < 0.5 for size in (40, 40, 17)]
    ids, ratios = np.tile(np.arange(12), 2), np.repeat([0.3, 0.7], 12)
    return run_table.from_arrays("e", ids, ratios, *arrays, np.arange(40) % 3, np.arange(17) % 3)


def parts_of(whole, seed=1):
    side = np.random.default_rng(seed).random(whole.num_runs) < 0.4
    return whole.take(np.flatnonzero(side)), whole.take(np.flatnonzero(~side))


@pytest.mark.parametrize("order", [1, -1])
def test_two_halves_are_the_whole_and_so_are_their_scores(whole, order):
    halves = parts_of(whole)[::order]
    found = run_table_merge.merged(halves, ["a", "b"])
    for field in dataclasses.fields(whole):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(whole, field.name), err_msg=field.name)
    for ratio in whole.subset_ratios:
        for ours, theirs in (
            (scores.memorization(found, ratio), scores.memorization(whole, ratio)),
            (influence_matrix.subset_influence(found, ratio), influence_matrix.subset_influence(whole, ratio)),
        ):
            for name, expected in vars(theirs).items():
                np.testing.assert_array_equal(getattr(ours, name), expected)


def test_a_run_that_both_have_counts_once(whole):
    first, second = parts_of(whole)
    found = run_table_merge.merged([whole, first, second], ["w", "a", "b"])
    assert found.digest() == whole.digest()


def test_of_a_run_that_both_have_the_first_row_is_taken(whole):
    other = dataclasses.replace(whole, source_size=whole.source_size + 9, source_mtime_ns=whole.source_mtime_ns + 7)
    np.testing.assert_array_equal(run_table_merge.merged([other, whole], ["a", "b"]).source_size, other.source_size)
    found = run_table_merge.merged([whole, other], ["a", "b"])
    np.testing.assert_array_equal(found.source_mtime_ns, whole.source_mtime_ns)


def test_labels_come_from_whoever_has_them(whole):
    first, second = parts_of(whole)
    bare = dataclasses.replace(first, train_label=None, test_label=None)
    np.testing.assert_array_equal(run_table_merge.merged([bare, second], ["a", "b"]).train_label, whole.train_label)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiment": "other"}, "experiment is e in a, but other in b; only zoos of one experiment"),
        ({"train_label": np.zeros(40, np.int64)}, "b: .*train_label"),
    ],
)
def test_tables_of_other_things_are_refused(whole, changes, message):
    first, second = parts_of(whole)
    with pytest.raises(errors.MismatchError, match=message):
        run_table_merge.merged([first, dataclasses.replace(second, **changes)], ["a", "b"])


@pytest.mark.parametrize(
    ("num_train", "num_test", "message"),
    [(39, 17, "num_train is 40 in a, but 39"), (40, 18, "num_test is 17 in a, but 18")],
)
def test_other_sizes_are_refused(whole, num_train, num_test, message):
    arrays = [np.zeros((2, size), bool) for size in (num_train, num_train, num_test)]
    other = run_table.from_arrays("e", np.arange(2) + 50, np.full(2, 0.3), *arrays)
    with pytest.raises(errors.MismatchError, match=f"{message} in b"):
        run_table_merge.merged([whole, other], ["a", "b"])


@pytest.mark.parametrize("field", run_table.BIT_FIELDS)
def test_a_run_with_two_contents_is_named(whole, field):
    bits = getattr(whole, field).copy()
    bits[13, 0] ^= 4
    other = dataclasses.replace(whole, **{field: bits})
    message = rf"run 0\.7/1 is in a and in b, with different {field.removesuffix('_bits')};"
    with pytest.raises(errors.MismatchError, match=message):
        run_table_merge.merged([whole, other], ["a", "b"])
