"""Memory that the process of a pass shares with the one that inflates for it: slots for compressed and inflated bytes.

It belongs to a file without a name, so that nothing is left behind whichever process dies, and the other process gets
at it by the number of the open file.
"""

import mmap
import os
import tempfile

from zoo.archive import inflate

CHUNK_BYTES = 1 << 23
NUM_CHUNK_SLOTS = 2
NUM_BATCH_SLOTS = 6
# The bytes before a batch lie in its slot, too.
_BATCH_BYTES = inflate.WINDOW_BYTES + inflate.MAX_BATCH_BYTES
_BATCHES_BEGIN = NUM_CHUNK_SLOTS * CHUNK_BYTES
_NUM_BYTES = _BATCHES_BEGIN + NUM_BATCH_SLOTS * _BATCH_BYTES


def create() -> int:
    """A new open file of the right size; whoever calls closes it. In memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("heldout-inflate")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, _NUM_BYTES)
    return descriptor


class Slots:
    """The slots in such a file.

    Args:
        descriptor: of the open file; may be closed afterwards.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = memoryview(mmap.mmap(descriptor, _NUM_BYTES))

    def chunk(self, slot: int) -> memoryview:
        """Room for `CHUNK_BYTES` of compressed data."""
        return self._memory[slot * CHUNK_BYTES : (slot + 1) * CHUNK_BYTES]

    def batch(self, slot: int) -> memoryview:
        """Room for a batch with the history before it."""
        begin = _BATCHES_BEGIN + slot * _BATCH_BYTES
        return self._memory[begin : begin + _BATCH_BYTES]
