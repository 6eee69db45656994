"""Boolean matrices at one bit an entry.

Bits are packed along the last axis, least significant bit first: entry i of a row is bit i % 8 of byte i // 8. The
spare bits of the last byte are zero, so that counting bits counts entries.
"""

import numpy as np

from zoo import errors


def pack(matrix: np.ndarray) -> np.ndarray:
    """Packs [..., n] bool into [..., ceil(n / 8)] uint8."""
    return np.packbits(matrix, axis=-1, bitorder="little")


def unpack(bits: np.ndarray, start: int, stop: int | None, size: int) -> np.ndarray:
    """Columns start..stop-1 of a packed matrix; only the bytes that hold them are touched.

    Args:
        bits: [T, ceil(size / 8)] uint8.
        start: first column.
        stop: column after the last; None for `size`.
        size: number of columns.

    Returns:
        [T, stop - start] bool.

    Raises:
        InvalidValueError: not 0 <= start <= stop <= size.
    """
    stop = size if stop is None else stop
    if not 0 <= start <= stop <= size:
        raise errors.InvalidValueError(f"columns {start} to {stop}, expected a range within 0 to {size}")
    first_byte = start // 8
    columns = np.unpackbits(bits[:, first_byte : -(-stop // 8)], axis=1, bitorder="little")
    return columns[:, start - 8 * first_byte : stop - 8 * first_byte].astype(bool)


def check_spare_bits(bits: np.ndarray, size: int, name: str) -> None:
    """Refuses a packed matrix [T, ceil(size / 8)] with bits set beyond column size - 1.

    Raises:
        InvalidValueError: such a bit is set.
    """
    if size % 8 and (bits[:, -1] >> (size % 8)).any():
        raise errors.InvalidValueError(f"{name} has bits set beyond the last example {size - 1}")
