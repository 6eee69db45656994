"""Counts by words against the product of unpacked matrices in whole numbers."""

import concurrent.futures
import itertools

import numpy as np
import pytest

from heldout.scoring import joint_counts, run_words
from zoo import packed_bits, run_table

_NUM_RUNS = [1, 63, 64, 65, 255, 256, 257]


def make_table(mask, test, ratio=0.5):
    num_runs = len(mask)
    return run_table.from_arrays(
        "demo", np.arange(num_runs), np.full(num_runs, ratio), mask, np.zeros(mask.shape, bool), test
    )


def random_arrays(num_runs, num_train, num_test, seed=0):
    """Membership and correctness; of both there are examples of all runs and of none."""
    generator = np.random.default_rng([seed, num_runs, num_train, num_test])
    mask = generator.random((num_runs, num_train)) < 0.6
    test = generator.random((num_runs, num_test)) < generator.uniform(0, 1, num_test)
    mask[:, 0], test[:, -1] = True, True
    if num_train > 2 and num_test > 2:
        mask[:, 1], test[:, 1] = False, False
    return mask, test


def truth(mask, test):
    return mask.T.astype(np.int64) @ test.astype(np.int64)


def counted(counter, start, rows, num_test):
    out = np.full((rows, num_test), np.nan, np.float32)
    counter.count(start, out)
    return out


@pytest.mark.parametrize("num_runs", [*_NUM_RUNS, 4000])
@pytest.mark.parametrize("num_test", [1, 7, 8, 65, 511, 512, 513, 1030])
def test_counts(num_runs, num_test):
    mask, test = random_arrays(num_runs, 11, num_test)
    found = counted(joint_counts.WordCounter.of_runs(make_table(mask, test)), 0, 11, num_test)
    np.testing.assert_array_equal(found, truth(mask, test))


@pytest.mark.parametrize("num_runs", _NUM_RUNS)
def test_any_number_of_rows_from_any_multiple_of_eight(num_runs):
    mask, test = random_arrays(num_runs, 77, 70)
    counter, expected = joint_counts.WordCounter.of_runs(make_table(mask, test)), truth(mask, test)
    for start in (0, 8, 64, 72):
        for rows in (0, 1, 2, 3, 4, 5, 13):
            if start + rows <= 77:
                np.testing.assert_array_equal(
                    counted(counter, start, rows, 70), expected[start : start + rows], err_msg=f"{start} {rows}"
                )


def test_largest_count():
    mask = np.ones((4000, 5), bool)
    found = counted(joint_counts.WordCounter.of_runs(make_table(mask, mask[:, :3])), 0, 5, 3)
    np.testing.assert_array_equal(found, np.full((5, 3), 4000))


def test_rows_in_any_order_and_more_than_once():
    mask, test = random_arrays(257, 40, 600)
    counter = joint_counts.WordCounter.of_runs(make_table(mask, test))
    words = run_words.of_examples(packed_bits.pack(mask), 0, 40)
    for rows in ([7], [39, 0, 0], [3, 2, 1, 0], [9, 38, 4, 4, 11], list(range(39, -1, -1))):
        out = np.full((len(rows), 600), np.nan, np.float32)
        counter.count_rows(words[rows], out)
        np.testing.assert_array_equal(out, truth(mask, test)[rows])


def test_only_the_rows_asked_for_are_written():
    mask, test = random_arrays(65, 24, 90)
    out = np.full((10, 90), -1, np.float32)
    joint_counts.WordCounter.of_runs(make_table(mask, test)).count(8, out[2:7])
    np.testing.assert_array_equal(out[2:7], truth(mask, test)[8:13])
    assert (np.delete(out, range(2, 7), axis=0) == -1).all()


def test_some_columns():
    """Columns need not be all test examples, nor in order."""
    mask, test = random_arrays(130, 16, 60)
    chosen = [5, 59, 0, 31]
    words = run_words.of_examples(packed_bits.pack(test), 0, 60)[chosen]
    found = counted(joint_counts.WordCounter(packed_bits.pack(mask), words), 8, 8, 4)
    np.testing.assert_array_equal(found, truth(mask, test)[8:16, chosen])


def test_threads_share_a_counter():
    mask, test = random_arrays(300, 256, 700)
    counter, expected = joint_counts.WordCounter.of_runs(make_table(mask, test)), truth(mask, test)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda start: counted(counter, start, 8, 700), range(0, 256, 8)))
    np.testing.assert_array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("parts", [(100,), (1, 99), (64, 1, 35), (25, 25, 25, 25)])
def test_counts_of_disjoint_sets_add_up(parts):
    mask, test = random_arrays(100, 20, 33)
    bounds = np.cumsum((0, *parts))
    sets = [slice(*pair) for pair in itertools.pairwise(bounds)]
    counter = joint_counts.SumCounter(
        [joint_counts.WordCounter.of_runs(make_table(mask[rows], test[rows])) for rows in sets]
    )
    np.testing.assert_array_equal(counted(counter, 0, 20, 33), truth(mask, test))
    np.testing.assert_array_equal(counted(counter, 16, 3, 33), truth(mask, test)[16:19])


def test_every_count_up_to_the_limit_is_exact():
    """float32 holds the largest number of runs, and a quotient of it gives it back."""
    for count in (joint_counts.MAX_RUNS, joint_counts.MAX_RUNS - 1):
        assert int(np.float32(count)) == count
        assert np.rint(np.float32(count / joint_counts.MAX_RUNS) * joint_counts.MAX_RUNS) == count
