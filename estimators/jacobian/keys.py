"""Random numbers that belong to an example: by seed, purpose, example id and draw, whatever else is computed beside it.

Batch size, order and shards change no draw, and no global state is read or written.
"""

import zlib

import numpy as np


def generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """The generator of one example's draw.

    Args:
        seed: of the run.
        purpose: what is drawn; the same seed serves several purposes without their draws being the same.
        *numbers: the example's id, and which draw it is.

    Returns:
        A generator of its own (Philox, counter-based).
    """
    words = [zlib.crc32(purpose.encode())]
    for number in (seed, *numbers):
        # Two words of 32 bits for each number, below 0 too: no two lists of numbers give the same words.
        words += [int(number) & 0xFFFFFFFF, int(number) >> 32 & 0xFFFFFFFF]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


def normals(seed: int, purpose: str, ids: np.ndarray, size: int) -> np.ndarray:
    """[N, size] float64 standard normal numbers, row n from ids[n], a number or a row of numbers."""
    return np.stack([generator(seed, purpose, *np.atleast_1d(key)).normal(size=size) for key in ids])


def signs(seed: int, purpose: str, ids: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[N, *shape] int8 of -1 and 1, row n from ids[n], a number or a row of numbers."""
    rows = [generator(seed, purpose, *np.atleast_1d(key)).integers(0, 2, shape, dtype=np.int8) for key in ids]
    return 2 * np.stack(rows) - 1
