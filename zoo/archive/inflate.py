"""Raw deflate, block by block, at addresses in memory; see `zoo.archive.zlib_library` for what does the work.

The borders of deflate blocks are the only places where inflation can begin anew.
"""

import ctypes

import numpy as np

from zoo import errors
from zoo.archive import zlib_library

WINDOW_BYTES = 1 << 15
MAX_BATCH_BYTES = 1 << 21
# What `Stream.step` says.
STARVED, BOUNDARY, END, DAMAGED = range(4)

# avail_in and avail_out are C's unsigned int.
_MAX_AVAILABLE = 1 << 30
_BUFFER_BYTES = WINDOW_BYTES + 2 * MAX_BATCH_BYTES


class InflateError(errors.DamagedFileError):
    """Compressed data is damaged or ends early.

    Attributes:
        offset: how many compressed bytes had been taken when it showed; the damage itself may lie before.
        position: how many uncompressed bytes had been given out until then.
    """

    def __init__(self, message: str, offset: int, position: int) -> None:
        super().__init__(message)
        self.offset = offset
        self.position = position


class Stream:
    """One raw deflate stream that stops at every border of blocks.

    Input and output are addresses in memory; whoever gives them keeps what lies there alive.

    Args:
        window: the up to 32 KiB of output before the place where inflation begins.
        bits: how many high bits of `first_byte` belong to what follows, 0 to 7.
        first_byte: the byte before the input.
    """

    def __init__(self, window: bytes = b"", bits: int = 0, first_byte: int = 0) -> None:
        self._library = zlib_library.functions()
        self._stream = zlib_library.ZStream()
        self._reference = ctypes.byref(self._stream)
        self._inflate = self._library.inflate
        self._open = False
        self._check(self._library.init(self._reference))
        self._open = True
        self.restart(window, bits, first_byte)

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self._open = False
            self._library.end(self._reference)

    def _check(self, status: int) -> None:
        if status == zlib_library.Z_MEM_ERROR:
            raise MemoryError("zlib found too little memory")
        if status != zlib_library.Z_OK:
            raise errors.InvalidValueError(
                f"zlib refused a window, a bit offset or this machine's structures: {status}"
            )

    def restart(self, window: bytes = b"", bits: int = 0, first_byte: int = 0) -> None:
        """Begins another stream; input and output stay where they are. Arguments as for the class."""
        self._check(self._library.reset(self._reference))
        if bits:
            self._check(self._library.prime(self._reference, bits, first_byte >> (8 - bits)))
        if window:
            self._check(self._library.set_dictionary(self._reference, window, len(window)))

    def set_input(self, address: int, size: int) -> int:
        """Gives the next input, as much of it as one call may get; returns how much that is."""
        self._stream.next_in = address
        self._stream.avail_in = given = min(size, _MAX_AVAILABLE)
        return given

    def set_output(self, address: int, size: int) -> None:
        """Says where output goes; at most 1 GiB."""
        self._stream.next_out = address
        self._stream.avail_out = size

    @property
    def input_left(self) -> int:
        """Bytes of input that have not been taken."""
        return self._stream.avail_in

    @property
    def output_left(self) -> int:
        """Bytes of room for output."""
        return self._stream.avail_out

    @property
    def bits(self) -> int:
        """At a BOUNDARY: how many high bits of the last byte taken belong to the next block."""
        return self._stream.data_type & zlib_library.UNUSED_BITS

    @property
    def message(self) -> str:
        """What zlib said of damage."""
        return (self._stream.msg or b"invalid deflate data").decode("ascii", "replace")

    def step(self) -> int:
        """Inflates up to the end of a block, of the input or of the room for output.

        Returns:
            BOUNDARY at the end of a block that is not the last one; END behind the last one, whose unused bits are
            dropped; DAMAGED; STARVED where input or room has run out.
        """
        status = self._inflate(self._reference, zlib_library.Z_BLOCK)
        data_type = self._stream.data_type
        if status == zlib_library.Z_OK and data_type & zlib_library.AT_BLOCK_END:
            if not data_type & zlib_library.IN_LAST_BLOCK:
                return BOUNDARY
            # Behind the last block only the end is left to be said; that takes no input.
            status = self._inflate(self._reference, zlib_library.Z_BLOCK)
        if status == zlib_library.Z_STREAM_END:
            return END
        if status in (zlib_library.Z_OK, zlib_library.Z_BUF_ERROR):
            return STARVED
        if status == zlib_library.Z_MEM_ERROR:
            raise MemoryError("zlib found too little memory")
        return DAMAGED


class Output:
    """Memory that a stream inflates into, batch after batch, each with the up to 32 KiB before it beside it.

    Several batches share one buffer, so that short ones cost neither memory nor copies. What has been given out is
    never written to again.

    Args:
        stream: whose output goes here.
        history: the up to 32 KiB before the first batch.

    Attributes:
        begin: where in the buffer the batch begins.
        fill: where it ends so far.
    """

    def __init__(self, stream: Stream, history: bytes) -> None:
        self._stream = stream
        self._new_buffer(history)

    def _new_buffer(self, history: bytes | memoryview) -> None:
        array = np.empty(_BUFFER_BYTES, np.uint8)
        self._address = array.ctypes.data
        buffer = array.data
        buffer[: len(history)] = history
        self._buffer = buffer.toreadonly()
        self.begin_batch(len(history))

    def begin_batch(self, begin: int) -> None:
        """Begins a batch at a place of the buffer, or in a new one where there is too little room."""
        if begin + MAX_BATCH_BYTES > _BUFFER_BYTES:
            self._new_buffer(self._buffer[begin - WINDOW_BYTES : begin])
            return
        self.begin = self.fill = begin
        self._limit = begin + MAX_BATCH_BYTES
        self._stream.set_output(self._address + begin, MAX_BATCH_BYTES)

    def update(self) -> int:
        """Looks how far the stream has come; returns how many bytes are new."""
        before, self.fill = self.fill, self._limit - self._stream.output_left
        return self.fill - before

    @property
    def size(self) -> int:
        """Bytes in the batch so far."""
        return self.fill - self.begin

    @property
    def is_full(self) -> bool:
        """Whether the batch must end here."""
        return self.fill == self._limit

    def part(self, begin: int, end: int) -> memoryview:
        """What lies between two places of the buffer, read-only; a place before it is its start."""
        return self._buffer[max(0, begin) : end]
