"""Counts on the device in effect, here the CPU, against the product of matrices in whole numbers."""

import numpy as np
import pytest

from heldout.scoring import device_counts, joint_counts
from zoo import run_table


def make_table(mask, test):
    num_runs = len(mask)
    return run_table.from_arrays(
        "demo", np.arange(num_runs), np.full(num_runs, 0.5), mask, np.zeros(mask.shape, bool), test
    )


def random_arrays(num_runs, num_train, num_test):
    """Some counts exceed what int8 and uint8 hold, where there are as many runs."""
    generator = np.random.default_rng([num_runs, num_train, num_test])
    mask, test = generator.random((num_runs, num_train)) < 0.7, generator.random((num_runs, num_test)) < 0.7
    mask[:, 0], test[:, -1] = True, True
    return mask, test


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("num_runs", [1, 64, 401])
def test_counts(num_runs, jit_compile):
    mask, test = random_arrays(num_runs, 21, 13)
    expected = mask.T.astype(np.int64) @ test.astype(np.int64)
    assert expected.max() == num_runs
    counter = device_counts.DeviceCounter(make_table(mask, test), "cpu", jit_compile=jit_compile)
    for start, rows in ((0, 21), (0, 8), (8, 8), (8, 1), (16, 5)):
        out = np.full((rows, 13), np.nan, np.float32)
        counter.count(start, out)
        np.testing.assert_array_equal(out, expected[start : start + rows], err_msg=f"{start} {rows}")


def test_device_and_words_add_up():
    mask, test = random_arrays(150, 16, 9)
    tables = [make_table(mask[rows], test[rows]) for rows in (slice(70), slice(70, 150))]
    counter = joint_counts.SumCounter(
        [device_counts.DeviceCounter(tables[0], "cpu", jit_compile=False), joint_counts.WordCounter.of_runs(tables[1])]
    )
    out = np.full((16, 9), np.nan, np.float32)
    counter.count(0, out)
    np.testing.assert_array_equal(out, mask.T.astype(np.int64) @ test.astype(np.int64))
