"""Bits are packed little end first, and columns come back whole."""

import numpy as np
import pytest

from zoo import errors, packed_bits


def test_bit_order():
    matrix = np.zeros((1, 10), bool)
    matrix[0, [0, 3, 9]] = True
    assert packed_bits.pack(matrix).tolist() == [[0b00001001, 0b00000010]]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 24])
def test_every_range_of_columns(size):
    matrix = np.random.default_rng(size).random((3, size)) < 0.5
    bits = packed_bits.pack(matrix)
    packed_bits.check_spare_bits(bits, size, "bits")
    for start in range(size + 1):
        for stop in range(start, size + 1):
            columns = packed_bits.unpack(bits, start, stop, size)
            assert columns.dtype == bool
            np.testing.assert_array_equal(columns, matrix[:, start:stop])
    np.testing.assert_array_equal(packed_bits.unpack(bits, 0, None, size), matrix)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 11), (11, None)])
def test_ranges_outside(start, stop):
    with pytest.raises(errors.InvalidValueError, match="expected a range within 0 to 10"):
        packed_bits.unpack(np.zeros((1, 2), np.uint8), start, stop, 10)


def test_spare_bits():
    with pytest.raises(errors.InvalidValueError, match="mask has bits set beyond the last example 9"):
        packed_bits.check_spare_bits(np.array([[0, 0], [0, 4]], np.uint8), 10, "mask")
    packed_bits.check_spare_bits(np.array([[255, 3]], np.uint8), 10, "mask")
    packed_bits.check_spare_bits(np.array([[255, 255]], np.uint8), 16, "mask")
    packed_bits.check_spare_bits(np.zeros((0, 2), np.uint8), 10, "mask")
