"""The runs of a table as bits of 64-bit words, a few words for every example.

The run table packs the examples of one run together. To count the runs that two examples have in common, the runs of
one example must lie together: word w of an example holds runs 64 w to 64 w + 63, the first in its lowest bit. There
are as many words as are needed, rounded up to a multiple of `WORDS`; what is left over is 0.
"""

import numpy as np

from heldout import compiling
from zoo import errors

# The counting loop takes so many words at a time.
WORDS = 4
_BITS = 64


def num_words(num_runs: int) -> int:
    """Words of each example, W."""
    return -(-num_runs // (_BITS * WORDS)) * WORDS


def of_examples(bits: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Words of the examples start..stop-1.

    Args:
        bits: uint8 [T, ceil(n / 8)], a bit matrix of a run table.
        start: first example, a multiple of 8.
        stop: one past the last.

    Returns:
        uint64 [stop - start, W].

    Raises:
        InvalidValueError: the start is no multiple of 8, or the range lies outside of the table.
    """
    if start % 8 or not 0 <= start <= stop <= 8 * bits.shape[1]:
        raise errors.InvalidValueError(
            f"examples {start} to {stop}: expected a range within 0 to {8 * bits.shape[1]}, from a multiple of 8 on"
        )
    chosen = bits[:, start // 8 : -(-stop // 8)]
    padded = np.zeros((len(bits), -(-chosen.shape[1] // 8) * 8), np.uint8)
    padded[:, : chosen.shape[1]] = chosen
    words = np.zeros((stop - start, num_words(len(bits))), np.uint64)
    _turn(padded.view("<u8"), np.empty(_BITS, np.uint64), words)
    return words


@compiling.later
def ones(word):  # type: ignore[no-untyped-def]
    """Number of bits of a uint64 that are set: the form that compilers turn into the processor's instruction for it."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@compiling.later
def _turn(bits, square, words):  # type: ignore[no-untyped-def]
    """Turns uint64 [T, ceil(n / 64)] into uint64 [n, W], in squares of 64 by 64 bits."""
    for group in range(bits.shape[1]):
        height = min(64, len(words) - 64 * group)
        for word in range((len(bits) + 63) // 64):
            num_rows = min(64, len(bits) - 64 * word)
            for row in range(num_rows):
                square[row] = bits[64 * word + row, group]
            square[num_rows:] = np.uint64(0)
            _transpose(square)
            for example in range(height):
                words[64 * group + example, word] = square[example]


@compiling.later
def _transpose(square):  # type: ignore[no-untyped-def]
    """Transposes 64 by 64 bits in place: halves of 32 are exchanged, then those of 16, down to single bits.

    Bit j of word i and bit i of word j change places (Warren, Hacker's Delight, 2013, section 7-3).
    """
    half, mask = 32, np.uint64(0x00000000FFFFFFFF)
    while half:
        shift = np.uint64(half)
        for block in range(0, 64, 2 * half):
            for i in range(block, block + half):
                different = ((square[i] >> shift) ^ square[i + half]) & mask
                square[i] ^= different << shift
                square[i + half] ^= different
        half >>= 1
        mask ^= mask << np.uint64(half)
