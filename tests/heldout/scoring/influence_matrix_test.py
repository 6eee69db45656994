"""Subset influence against the plain formula, loops, exhaustive enumeration, coverage; and the memory limit."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

from heldout.scoring import influence_matrix, score_config
from tests.reference import scores as reference
from zoo import errors, run_table


def make_table(mask, test, ratio=0.5):
    num_runs = len(mask)
    return run_table.from_arrays(
        "demo", np.arange(num_runs), np.full(num_runs, ratio), mask, np.zeros(mask.shape, bool), test
    )


def random_arrays(seed=0, num_runs=53, num_train=37, num_test=29, ratio=0.5):
    generator = np.random.default_rng(seed)
    mask = generator.random((num_runs, num_train)) < ratio
    # One example that every run trained on and one that none did.
    mask[:, 3], mask[:, 30] = True, False
    return mask, generator.random((num_runs, num_test)) < generator.uniform(0, 1, num_test)


def plain_formula(mask, test):
    """Feldman & Zhang's estimator as two float32 products."""
    inside, outside, correct = mask.T.astype(np.float32), (~mask).T.astype(np.float32), test.astype(np.float32)
    with np.errstate(invalid="ignore"):
        return inside @ correct / inside.sum(1, keepdims=True) - outside @ correct / outside.sum(1, keepdims=True)


def blocks_of(table, limit):
    return list(influence_matrix.subset_influence_blocks(table, 0.5, memory_limit_bytes=limit))


def smallest_limit(table):
    with pytest.raises(errors.InvalidValueError, match="need at least") as caught:
        blocks_of(table, 1)
    return int(str(caught.value).split("at least ")[1].split()[0])


def test_by_hand():
    mask = np.array([[1], [1], [1], [0], [0]], bool)
    test = np.array([[1, 0], [1, 0], [0, 0], [1, 1], [0, 1]], bool)
    found = influence_matrix.subset_influence(make_table(mask, test), 0.5)
    np.testing.assert_allclose(found.values, [[2 / 3 - 1 / 2, -1]], rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, [[np.sqrt(2 / 27 + 1 / 8), 0]], rtol=1e-6)
    assert (found.num_in[0], found.num_heldout[0]) == (3, 2)


def test_equals_loops_and_plain_formula():
    mask, test = random_arrays()
    found = influence_matrix.subset_influence(make_table(mask, test), 0.5)
    values, standard_error = reference.subset_influence(mask, test)
    np.testing.assert_allclose(found.values, values, atol=3e-7)
    np.testing.assert_allclose(found.standard_error, standard_error, atol=3e-7)
    np.testing.assert_array_equal(found.values, plain_formula(mask, test))
    assert np.isnan(found.values[[3, 30]]).all()
    assert np.isnan(found.standard_error[[3, 30]]).all()
    assert np.isfinite(np.delete(found.values, [3, 30], axis=0)).all()
    np.testing.assert_array_equal(found.num_in, mask.sum(axis=0))
    np.testing.assert_array_equal(found.num_heldout, (~mask).sum(axis=0))


def test_blocks_do_not_depend_on_the_limit():
    mask, test = random_arrays()
    table = make_table(mask, test)
    dense = influence_matrix.subset_influence(table, 0.5)
    least = smallest_limit(table)
    numbers = []
    for limit in (least, least + 9000, least + 30000, 1 << 30):
        blocks = blocks_of(table, limit)
        numbers.append(len(blocks))
        assert [block.start for block in blocks[1:]] == [block.stop for block in blocks[:-1]]
        np.testing.assert_array_equal(np.concatenate([block.values for block in blocks]), dense.values)
        np.testing.assert_array_equal(np.concatenate([block.standard_error for block in blocks]), dense.standard_error)
    assert numbers[0] == 5
    assert numbers[-1] == 1


def test_limit_one_byte_too_small_is_refused():
    table = make_table(*random_arrays())
    least = smallest_limit(table)
    assert blocks_of(table, least)
    with pytest.raises(errors.InvalidValueError, match=f"memory limit: got {least - 1} bytes.*raise the limit"):
        blocks_of(table, least - 1)


@pytest.mark.parametrize("limit", [3 << 20, 6 << 20])
def test_memory_limit_holds(limit):
    mask, test = random_arrays(num_runs=64, num_train=1500, num_test=1600)
    table = make_table(mask, test)
    assert 2 * 4 * mask.shape[1] * test.shape[1] > 3 * limit
    tracemalloc.start()
    try:
        rows = 0
        for block in influence_matrix.subset_influence_blocks(table, 0.5, memory_limit_bytes=limit):
            rows += len(block.values)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 1500
    assert limit / 4 < peak <= limit


def test_ratios_are_never_pooled():
    mask, test = random_arrays(num_runs=60)
    ratios = np.repeat([0.5, 0.7], 30)
    table = run_table.from_arrays("demo", np.arange(60), ratios, mask, np.zeros(mask.shape, bool), test)
    for ratio, rows in ((0.5, slice(30)), (0.7, slice(30, 60))):
        found = influence_matrix.subset_influence(table, ratio)
        np.testing.assert_array_equal(found.values, plain_formula(mask[rows], test[rows]))
    with pytest.raises(errors.InvalidValueError, match=r"0\.6"):
        influence_matrix.subset_influence(table, 0.6)
    with pytest.raises(errors.InvalidValueError, match=r"0\.6"):
        next(influence_matrix.subset_influence_blocks(table, 0.6))


def test_too_many_runs_are_refused(monkeypatch):
    monkeypatch.setattr(influence_matrix, "_MAX_RUNS", 52)
    with pytest.raises(errors.InvalidValueError, match="53 runs at one ratio, expected at most 52"):
        influence_matrix.subset_influence(make_table(*random_arrays()), 0.5)


@pytest.mark.parametrize(("total", "num_in"), [(50, 1), (50, 49), (50, 20), (1 << 20, 1 << 19), (1 << 20, 3)])
def test_counts_come_back_from_values(total, num_in):
    """Every count that can occur, also at the largest number of runs that is allowed."""
    generator = np.random.default_rng(total + num_in)
    num_right = np.sort(np.append(generator.integers(0, total + 1, 400), [0, total]))
    low, high = np.maximum(0, num_right - (total - num_in)), np.minimum(num_in, num_right)
    for counts in (low, high, (low + high) // 2, generator.integers(low, high + 1)):
        sides = influence_matrix.Sides(np.array([num_in]), np.array([total - num_in]), num_right.astype(np.float32))
        values = counts[None].astype(np.float32)
        influence_matrix.fill_values(values, sides, 0, values)
        influence_matrix.counts_from_values(values, sides, 0, values)
        np.testing.assert_array_equal(values[0], counts)


TRAIN_X, TRAIN_LABEL = (0.0, 1.0, 2.1, 3.3, 4.6, 6.0), (0, 1, 0, 0, 1, 0)
TEST_X, TEST_LABEL = (0.4, 1.7, 3.9, 5.5), (0, 1, 1, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_estimates_agree_with_all_subsets(size):
    mask, _, test = reference.all_runs(size, TRAIN_X, TRAIN_LABEL, TEST_X, TEST_LABEL)
    exact = reference.subset_influence(mask, test)[0]
    assert np.ptp(exact) > 0
    rows = np.random.default_rng(200 + size).integers(len(mask), size=600)
    found = influence_matrix.subset_influence(make_table(mask[rows], test[rows]), 0.5)
    assert (np.abs(found.values - exact) <= 4 * found.standard_error + 1e-6).all()


def test_intervals_cover():
    """True rates: p1 for the runs that trained on the one example, p0 for the others, on each of 6000 test examples."""
    generator = np.random.default_rng(11)
    p1, p0 = generator.uniform(0.2, 0.8, (2, 6000))
    mask = generator.random((300, 1)) < 0.5
    assert 100 <= mask.sum() <= 200
    test = generator.random((300, 6000)) < np.where(mask, p1, p0)
    found = influence_matrix.subset_influence(make_table(mask, test), 0.5)
    covered = np.abs(found.values[0] - (p1 - p0)) <= 1.96 * found.standard_error[0]
    assert 0.93 <= covered.mean() <= 0.97


def test_the_default_limit_is_enough_for_imagenet():
    small = make_table(np.zeros((2, 8), bool), np.zeros((2, 8), bool))
    num_runs, num_train, num_test = 2000, 1_281_167, 50_000
    # One byte, seen as many times as the packed matrices have: sizes are all that counts here.
    bits = {
        name: np.broadcast_to(np.zeros((), np.uint8), (num_runs, -(-size // 8)))
        for name, size in (
            ("subset_mask_bits", num_train),
            ("train_correctness_bits", num_train),
            ("test_correctness_bits", num_test),
        )
    }
    rows = {"source_size": np.int64, "source_mtime_ns": np.int64}
    table = dataclasses.replace(
        small,
        num_train=num_train,
        num_test=num_test,
        run_id=np.arange(num_runs),
        subset_ratio=np.full(num_runs, 0.7),
        source_sha256=np.zeros((num_runs, 32), np.uint8),
        **{name: np.zeros(num_runs, dtype) for name, dtype in rows.items()},
        **bits,
    )
    default = score_config.ScoreConfig("zoo", "demo").memory_limit_mb
    influence_matrix.check_memory_limit(table, default << 20)
    influence_matrix.check_memory_limit(table, influence_matrix.DEFAULT_MEMORY_LIMIT_BYTES)
    with pytest.raises(errors.InvalidValueError, match=r"1290 MiB\); raise the limit"):
        influence_matrix.check_memory_limit(table, 1024 << 20)
