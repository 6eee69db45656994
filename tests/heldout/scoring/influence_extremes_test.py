"""Lists, bins and largest values against full sorts of the whole matrix, however its rows were seen."""

import dataclasses
import itertools

import numpy as np
import pytest

from heldout.scoring import influence_extremes as extremes

_FIELDS = [field.name for field in dataclasses.fields(extremes.Strongest)]


def ranked(values, support, k, sign):
    """The k largest values of one sign of a vector and where they stand, by one full sort."""
    places = np.flatnonzero(sign * values > 0)
    chosen = places[np.lexsort((places, -support[places], -sign * values[places]))][:k]
    missing = k - len(chosen)
    return np.append(values[chosen], np.full(missing, np.nan)), np.append(chosen, np.full(missing, -1))


def sorted_lists(matrix, support, k):
    """The `Strongest` of every row of a matrix."""
    found = [(*ranked(line, support, k, 1), *ranked(line, support, k, -1)) for line in matrix]
    columns = [np.array(column).reshape(len(matrix), k) for column in zip(*found, strict=True)]
    return extremes.Strongest(*columns)


def largest_of(matrix):
    sizes = np.where(np.isnan(matrix), -1, np.abs(matrix)).max(axis=0, initial=-1)
    return np.where(sizes < 0, np.nan, sizes)


def bins_of(matrix):
    """Counts of the nearest of the points b / 500 - 1."""
    values = matrix[~np.isnan(matrix)].astype(np.float64)
    points = (np.arange(extremes.NUM_BINS) - extremes.HALF_BINS) / extremes.HALF_BINS
    nearest = np.array([np.argmin(np.abs(points - value)) for value in values], np.int64)
    return np.bincount(nearest, minlength=extremes.NUM_BINS)


def random_matrix(num_rows, num_columns, seed=0, levels=12):
    """Few different values, so that most are equal to others; every seventh row is missing."""
    generator = np.random.default_rng([seed, num_rows, num_columns])
    matrix = (generator.integers(-levels, levels + 1, (num_rows, num_columns)) / levels).astype(np.float32)
    matrix[3::7] = np.nan
    return matrix, generator.integers(0, 4, num_rows)


def tallied(matrix, support, k, parts=None, rows_at_a_time=5):
    """One Tally for each part, a sequence of rows ascending, and the lists of all rows."""
    rows = extremes.Strongest.empty(len(matrix), k)
    tallies = []
    for part in [range(len(matrix))] if parts is None else parts:
        tally = extremes.Tally(matrix.shape[1], k, support)
        for start, stop in strips(part, rows_at_a_time):
            tally.add(matrix[start:stop], start, rows, start)
        tallies.append(tally)
    return tallies, rows


def strips(part, rows_at_a_time):
    """Runs of consecutive rows, of a limited length."""
    part = list(part)
    while part:
        length = 1
        while length < min(len(part), rows_at_a_time) and part[length] == part[0] + length:
            length += 1
        yield part[0], part[0] + length
        part = part[length:]


def assert_lists(found, expected):
    for name in _FIELDS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def assert_truth(tally, rows, matrix, support, k):
    assert_lists(tally.columns.finished(), sorted_lists(matrix.T, support, k))
    assert_lists(rows.finished(), sorted_lists(matrix, np.zeros(matrix.shape[1]), k))
    np.testing.assert_array_equal(tally.bin_counts, bins_of(matrix))
    np.testing.assert_array_equal(tally.largest, largest_of(matrix))


def test_by_hand():
    matrix = np.array([[0.5, -0.25, 0], [0.5, 0.75, -1], [np.nan] * 3, [0.5, 0.75, 0]], np.float32)
    (tally,), rows = tallied(matrix, np.array([1, 1, 9, 5]), 2)
    columns, nan = tally.columns.finished(), np.nan
    np.testing.assert_array_equal(columns.helpful, np.array([[0.5, 0.5], [0.75, 0.75], [nan, nan]]))
    np.testing.assert_array_equal(columns.helpful_index, [[3, 0], [3, 1], [-1, -1]])
    np.testing.assert_array_equal(columns.harmful, [[nan, nan], [-0.25, nan], [-1, nan]])
    np.testing.assert_array_equal(columns.harmful_index, [[-1, -1], [0, -1], [1, -1]])
    lists = rows.finished()
    np.testing.assert_array_equal(lists.helpful, [[0.5, nan], [0.75, 0.5], [nan, nan], [0.75, 0.5]])
    np.testing.assert_array_equal(lists.helpful_index, [[0, -1], [1, 0], [-1, -1], [1, 0]])
    np.testing.assert_array_equal(lists.harmful_index, [[1, -1], [2, -1], [-1, -1], [-1, -1]])
    np.testing.assert_array_equal(tally.largest, [0.5, 0.75, 1])
    assert {int(b): int(tally.bin_counts[b]) for b in np.flatnonzero(tally.bin_counts)} == {
        0: 1,
        375: 1,
        500: 2,
        750: 3,
        875: 2,
    }


def test_dtypes():
    matrix, support = random_matrix(20, 6)
    (tally,), rows = tallied(matrix, support, 3)
    for lists in (tally.columns, tally.columns.finished(), rows.finished(), rows.finished().resumed()):
        assert [getattr(lists, name).dtype for name in _FIELDS] == [np.float32, np.int32, np.float32, np.int32]
        assert lists.helpful.shape in ((6, 3), (20, 3))
    assert tally.largest.dtype == np.float32
    assert (tally.bin_counts.dtype, tally.bin_counts.shape) == (np.int64, (extremes.NUM_BINS,))


@pytest.mark.parametrize("k", [1, 2, 5, 40])
@pytest.mark.parametrize(
    ("num_rows", "num_columns"), [(1, 1), (2, 9), (30, 1), (33, 7), (17, 64), (50, 65), (9, 513), (300, 12)]
)
def test_equals_full_sorts(num_rows, num_columns, k):
    """Also where the lists are longer than there are rows, columns, or values of one sign."""
    matrix, support = random_matrix(num_rows, num_columns)
    (tally,), rows = tallied(matrix, support, k)
    assert_truth(tally, rows, matrix, support, k)


@pytest.mark.parametrize("rows_at_a_time", [1, 2, 3, 4, 8, 100])
def test_number_of_rows_at_a_time_does_not_matter(rows_at_a_time):
    matrix, support = random_matrix(60, 19, seed=1)
    (tally,), rows = tallied(matrix, support, 6, rows_at_a_time=rows_at_a_time)
    assert_truth(tally, rows, matrix, support, 6)


def test_values_that_differ():
    """Without ties, over the whole range of magnitudes."""
    generator = np.random.default_rng(4)
    matrix = (generator.choice([-1, 1], (80, 31)) * 10.0 ** generator.uniform(-9, 0, (80, 31))).astype(np.float32)
    (tally,), rows = tallied(matrix, np.zeros(80, int), 7)
    assert_truth(tally, rows, matrix, np.zeros(80, int), 7)


def test_all_equal():
    """Only support and index decide; the support rises, so that later rows drive out earlier ones."""
    for value in (1.0, -1.0):
        matrix = np.full((25, 10), value, np.float32)
        for support in (np.arange(25), np.arange(25)[::-1].copy(), np.zeros(25, int), np.arange(25) // 5):
            (tally,), rows = tallied(matrix, support, 4)
            assert_truth(tally, rows, matrix, support, 4)


def test_zeros_and_missing_values_are_in_no_list():
    matrix = np.zeros((6, 5), np.float32)
    matrix[1], matrix[2] = -0.0, np.nan
    (tally,), rows = tallied(matrix, np.arange(6), 3)
    assert_truth(tally, rows, matrix, np.arange(6), 3)
    for lists in (tally.columns.finished(), rows.finished()):
        assert np.isnan(lists.helpful).all()
        assert (lists.harmful_index == -1).all()
    assert tally.bin_counts[extremes.HALF_BINS] == tally.bin_counts.sum() == 25
    assert (tally.largest == 0).all()


def test_nothing_seen():
    matrix = np.full((4, 3), np.nan, np.float32)
    for tally in (extremes.Tally(3, 2, np.zeros(4, int)), tallied(matrix, np.zeros(4, int), 2)[0][0]):
        assert tally.bin_counts.sum() == 0
        assert np.isnan(tally.largest).all()
        assert np.isnan(tally.columns.finished().helpful).all()
    assert_lists(extremes.Strongest.empty(3, 2).finished(), tally.columns.finished())


def test_every_bin_has_its_values():
    """All quotients of small counts, and the points halfway between bins, which go to the even one."""
    centres = ((np.arange(extremes.NUM_BINS) - extremes.HALF_BINS) / extremes.HALF_BINS).astype(np.float32)
    (tally,), _ = tallied(np.tile(centres, (3, 1)), np.zeros(3, int), 1)
    np.testing.assert_array_equal(tally.bin_counts, np.full(extremes.NUM_BINS, 3))
    quotients = np.array([[a / b - c / d for a in range(8) for c in range(7)] for b, d in ((7, 6), (9, 11))])
    quotients = quotients[:, (np.abs(quotients) <= 1).all(axis=0)].astype(np.float32)
    (tally,), _ = tallied(quotients, np.zeros(2, int), 1)
    np.testing.assert_array_equal(tally.bin_counts, bins_of(quotients))
    halves = np.array([[0.125, 0.375, -0.125, 0.875]], np.float32) + np.float32(1 / 1000)
    halves = halves[np.abs(halves * np.float32(500) % 1) == 0.5][None]
    (tally,), _ = tallied(halves, np.zeros(1, int), 1)
    expected = np.rint(halves.astype(np.float64) * 500).astype(int)[0] + 500
    np.testing.assert_array_equal(tally.bin_counts, np.bincount(expected, minlength=extremes.NUM_BINS))


PARTS = {
    "halves": [range(30), range(30, 61)],
    "alternating": [range(0, 61, 2), range(1, 61, 2)],
    "one without rows": [range(20), range(0), range(20, 61)],
    "one with missing rows only": [[3, 10, 17], [row for row in range(61) if row not in (3, 10, 17)]],
    "strips of eight over three": [[row for row in range(61) if row // 8 % 3 == part] for part in range(3)],
    "a single row": [[40], list(range(40)), list(range(41, 61))],
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("k", [1, 6, 70])
def test_sharing_and_order_of_merging_do_not_matter(name, k):
    matrix, support = random_matrix(61, 23, seed=2)
    for order in itertools.permutations(range(len(PARTS[name]))):
        tallies, rows = tallied(matrix, support, k, PARTS[name])
        first, *others = [tallies[place] for place in order]
        for other in others:
            first.merge(other)
        assert_truth(first, rows, matrix, support, k)


def test_merged_first_among_the_others():
    """((a b) (c d)) instead of (((a b) c) d)."""
    matrix, support = random_matrix(64, 11, seed=3)
    (a, b, c, d), rows = tallied(matrix, support, 5, [range(start, 64, 4) for start in range(4)])
    d.merge(a)
    c.merge(b)
    d.merge(c)
    assert_truth(d, rows, matrix, support, 5)


def test_rows_after_a_merge():
    """Entries that came by merging raise the bar for the rows that follow, and no more than that."""
    matrix, support = random_matrix(50, 13, seed=4)
    (first, second), rows = tallied(matrix, support, 4, [range(15), range(15, 30)])
    first.merge(second)
    first.add(matrix[30:], 30, rows, 30)
    assert_truth(first, rows, matrix, support, 4)


def test_rows_stand_elsewhere_than_in_the_matrix():
    """A tile's lists begin at its own first row; other lists are left alone."""
    matrix, support = random_matrix(40, 9, seed=5)
    rows = extremes.Strongest.empty(12, 3)
    tally = extremes.Tally(9, 3, support)
    tally.add(matrix[24:30], 24, rows, 2)
    tally.add(matrix[30:34], 30, rows, 8)
    expected = np.full((12, 9), np.nan, np.float32)
    expected[2:12] = matrix[24:34]
    assert_lists(rows.finished(), sorted_lists(expected, np.zeros(9), 3))
    seen = np.full_like(matrix, np.nan)
    seen[24:34] = matrix[24:34]
    assert_lists(tally.columns.finished(), sorted_lists(seen.T, support, 3))


def test_finished_lists_are_resumed():
    matrix, support = random_matrix(61, 23, seed=6)
    tallies, _ = tallied(matrix, support, 4, [range(30), range(30, 61)])
    parts = [tally.columns.finished() for tally in tallies]
    copies = [dataclasses.replace(part, **{name: getattr(part, name).copy() for name in _FIELDS}) for part in parts]
    whole = extremes.Strongest.empty(23, 4)
    for part in parts:
        whole.merge(part.resumed(), support)
    assert_lists(whole.finished(), sorted_lists(matrix.T, support, 4))
    resumed = parts[0].resumed()
    resumed.merge(parts[1].resumed(), support)
    assert_lists(resumed.finished(), whole.finished())
    for part, copy in zip(parts, copies, strict=True):
        assert_lists(part, copy)


def test_shorter_lists_merge_into_longer_ones():
    """The first three of a list are the list of three."""
    matrix, support = random_matrix(45, 8, seed=7)
    (long,), _ = tallied(matrix, support, 9)
    short = extremes.Strongest.empty(8, 3)
    short.merge(long.columns, support)
    assert_lists(short.finished(), sorted_lists(matrix.T, support, 3))
