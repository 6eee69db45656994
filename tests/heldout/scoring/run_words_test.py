"""Runs as bits of words, bit for bit against the unpacked matrix."""

import numpy as np
import pytest

from heldout.scoring import run_words
from zoo import errors, packed_bits

_NUM_RUNS = [1, 63, 64, 65, 255, 256, 257]


def random_mask(num_runs, num_examples, seed=0):
    return np.random.default_rng([seed, num_runs, num_examples]).random((num_runs, num_examples)) < 0.5


def runs_of(words):
    """Which runs each example has, [n, 64 W]: bit r % 64 of word r // 64."""
    shifts = np.arange(64, dtype=np.uint64)
    return ((words[:, :, None] >> shifts) & np.uint64(1)).reshape(len(words), 64 * words.shape[1]).astype(bool)


def check(mask, start, stop):
    words = run_words.of_examples(packed_bits.pack(mask), start, stop)
    num_runs = len(mask)
    assert words.dtype == np.uint64
    assert words.shape == (stop - start, run_words.num_words(num_runs))
    found = runs_of(words)
    np.testing.assert_array_equal(found[:, :num_runs], mask[:, start:stop].T)
    assert not found[:, num_runs:].any()


@pytest.mark.parametrize(
    ("num_runs", "expected"), [(0, 0), (1, 4), (64, 4), (255, 4), (256, 4), (257, 8), (512, 8), (4000, 64)]
)
def test_number_of_words(num_runs, expected):
    assert run_words.num_words(num_runs) == expected
    assert expected % run_words.WORDS == 0


def test_by_hand():
    mask = np.zeros((65, 3), bool)
    mask[0, 0] = mask[1, 0] = mask[63, 1] = mask[64, 2] = True
    words = run_words.of_examples(packed_bits.pack(mask), 0, 3)
    np.testing.assert_array_equal(words, [[3, 0, 0, 0], [1 << 63, 0, 0, 0], [0, 1, 0, 0]])


@pytest.mark.parametrize("num_runs", [*_NUM_RUNS, 4000])
@pytest.mark.parametrize("num_examples", [1, 7, 8, 9, 63, 64, 65, 130])
def test_all_examples(num_runs, num_examples):
    check(random_mask(num_runs, num_examples), 0, num_examples)


@pytest.mark.parametrize("num_runs", _NUM_RUNS)
def test_ranges(num_runs):
    mask = random_mask(num_runs, 203)
    for start in (0, 8, 56, 64, 72, 200):
        for stop in (start, start + 1, start + 3, start + 8, start + 63, start + 64, start + 65, start + 100, 203):
            if stop <= 203:
                check(mask, start, stop)


def test_all_set():
    check(np.ones((257, 70), bool), 0, 70)


def test_bits_that_do_not_lie_side_by_side():
    """Rows and columns of a larger matrix, as a table of some of its runs or one that is mapped may hold them."""
    mask = random_mask(300, 96)
    bits = np.zeros((600, 20), np.uint8)
    bits[::2, 4:16] = packed_bits.pack(mask)
    found = run_words.of_examples(bits[::2, 4:16], 8, 90)
    np.testing.assert_array_equal(runs_of(found)[:, :300], mask[:, 8:90].T)
    bits.setflags(write=False)
    np.testing.assert_array_equal(run_words.of_examples(bits[::2, 4:16], 8, 90), found)


def test_no_runs():
    assert run_words.of_examples(np.zeros((0, 2), np.uint8), 0, 9).shape == (9, 0)


def test_compiled_and_interpreted_functions_agree():
    square = np.random.default_rng(5).integers(0, 1 << 64, 64, dtype=np.uint64)
    transposed, interpreted = square.copy(), square.copy()
    run_words._transpose(transposed)
    run_words._transpose.py_func(interpreted)
    np.testing.assert_array_equal(transposed, interpreted)
    np.testing.assert_array_equal(runs_of(transposed[:, None]), runs_of(square[:, None]).T)


@pytest.mark.parametrize(
    ("start", "stop"), [(4, 8), (1, 8), (-8, 8), (16, 8), (0, 25), (32, 32)], ids=lambda value: str(value)
)
def test_other_ranges_are_refused(start, stop):
    bits = packed_bits.pack(random_mask(5, 24))
    with pytest.raises(
        errors.InvalidValueError, match=f"examples {start} to {stop}: expected .*0 to 24.*multiple of 8"
    ):
        run_words.of_examples(bits, start, stop)


def test_bits_that_are_set_are_counted():
    words = np.random.default_rng(3).integers(0, 1 << 64, 50, dtype=np.uint64)
    for word in (*words, np.uint64(0), np.uint64((1 << 64) - 1), np.uint64(1 << 63)):
        assert run_words.ones(word) == bin(int(word)).count("1")
