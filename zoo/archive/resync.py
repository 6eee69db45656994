"""Goes on behind damage: finds the next place of a gzip file from which everything that follows can be inflated.

That is the header of a gzip member, or the start of a deflate block, which may lie at any bit. Few bit offsets pass for
the start of a block: the code lengths of its codes must form complete codes, it must inflate, and so must the blocks
after it. What lies before it is not known, though, and the block refers to it. So it is inflated from two made-up
windows that differ everywhere. References die out, and as soon as both outputs agree over 32 KiB, those are a true
window, and the next boundary is the place to go on from. (The idea is that of pugz: Kerbiriou and Chikhi, Parallel
decompression of gzip-compressed files, 2019.)

Blocks of fixed codes cannot be told from noise and are not found; the next block of another kind is. What was lost
before the place has no known length.
"""

import bisect
from collections.abc import Callable, Iterator
import dataclasses
import functools
import struct
from typing import Literal
import zlib

import numpy as np

from zoo.archive import gzip_header, gzip_stream, inflate, seek_points

MAX_SEARCH_BYTES = 1 << 26
_SEGMENT_BYTES = 1 << 18
_CACHED_BYTES = 1 << 20
# Size of the pieces that are inflated at a time, and of what a first look at a candidate takes, short and long.
_PIECE_BYTES = 1 << 16
_SHORT_GLANCE_BYTES = 1 << 12
_GLANCE_BYTES = 1 << 20
# So many blocks in a row make noise improbable: each must begin with complete codes.
_NUM_BLOCKS = 3
# Where the windows still differ after so much output, they will go on to do so.
_MAX_OUTPUT_BYTES = 1 << 26
# What goes on for so long is no noise; when it ends, nothing before its end needs to be looked at again.
_PROVEN_BYTES = 1 << 20
# A candidate takes at most this many bytes to be recognised.
_HEAD_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Resync:
    """Where a damaged file can be inflated again.

    Attributes:
        state: what a `GzipInflater` goes on from. Its position is the one asked for, not the true one. Unless a gzip
            member begins there, its checksum is not known and the trailer will not be checked.
        skipped_from: compressed offset at which the search began.
        skipped_to: compressed offset of the place; the data between is lost.
    """

    state: gzip_stream.InflaterState
    skipped_from: int
    skipped_to: int


@dataclasses.dataclass(frozen=True, order=True)
class _Candidate:
    """A place that may be one, by its compressed offset in bits."""

    bit: int
    kind: Literal["block", "header"]


class _File:
    """The compressed file, up to its end, with a memory of what was read lately."""

    def __init__(self, read: Callable[[int, int], bytes], end: int) -> None:
        self.end = end
        self._block = functools.lru_cache(maxsize=8)(
            lambda number: read(number * _CACHED_BYTES, min(_CACHED_BYTES, end - number * _CACHED_BYTES))
        )

    def read(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on, fewer where the file ends."""
        stop = min(offset + size, self.end)
        parts = []
        while offset < stop:
            number, start = divmod(offset, _CACHED_BYTES)
            parts.append(self._block(number)[start : start + stop - offset])
            offset += len(parts[-1])
        return b"".join(parts)

    def pieces(self, offset: int) -> Iterator[bytes]:
        """Everything from `offset` on."""
        while piece := self.read(offset, _PIECE_BYTES):
            yield piece
            offset += len(piece)


def resync(
    read: Callable[[int, int], bytes],
    offset: int,
    end: int,
    position: int = 0,
    *,
    gzip_member: int = 1,
    max_search: int = MAX_SEARCH_BYTES,
) -> Resync | None:
    """Finds where to go on behind damage.

    Args:
        read: gives exactly `size` bytes of the file from an offset on, for (offset, size) within the file.
        offset: compressed offset from which to look; that of the `InflateError`.
        end: size of the file.
        position: uncompressed offset that the output shall go on with.
        gzip_member: number of the gzip member that is damaged.
        max_search: how many compressed bytes to look through.

    Returns:
        The place; None if there is none.
    """
    file, begin = _File(read, end), offset
    stop = min(end, offset + max_search)
    glance = _Glance()
    while begin < stop:
        # What is recognised at the end of a segment may begin there.
        data = file.read(begin, _SEGMENT_BYTES + _HEAD_BYTES)
        reached = min(begin + _SEGMENT_BYTES, stop)
        for candidate in _candidates(data, begin, reached):
            if not glance.may_go_on(file, candidate):
                continue
            state, proven_to = _settle(file, candidate)
            if state is not None:
                boundary = dataclasses.replace(state.boundary, position=position)
                number = gzip_member + state.gzip_member
                state = dataclasses.replace(state, boundary=boundary, gzip_member=number, header=None)
                return Resync(state, offset, boundary.offset)
            if proven_to:
                reached = proven_to
                break
        begin = max(reached, begin + 1)
    return None


# Candidates.


@functools.cache
def _code_space() -> np.ndarray:
    """For each four code lengths of three bits, how much of the 128 code words of seven bits they take up."""
    lengths = np.arange(1 << 12)[:, None] >> np.array([0, 3, 6, 9]) & 7
    return np.where(lengths > 0, 128 >> lengths, 0).sum(axis=1)


def _candidates(data: bytes, offset: int, stop: int) -> list[_Candidate]:
    """Places in `data`, which lies at `offset`, that begin before `stop` and look like one, in order."""
    if len(data) < _HEAD_BYTES:
        return []
    bits = [*_coded_blocks(data), *_stored_blocks(data)]
    found = [_Candidate(8 * offset + bit, "block") for bit in bits]
    at = data.find(gzip_header.MAGIC)
    while at >= 0:
        found.append(_Candidate(8 * (offset + at), "header"))
        at = data.find(gzip_header.MAGIC, at + 1)
    found.sort()
    return found[: bisect.bisect_left(found, 8 * stop, key=lambda candidate: candidate.bit)]


def _coded_blocks(data: bytes) -> list[int]:
    """Bit offsets at which a block with codes of its own, not the last one, may begin."""
    words = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
    space = _code_space()
    found = []
    for shift in range(8):
        head = words[: len(data) - _HEAD_BYTES + 1] >> np.uint64(shift)
        # Not last; codes of its own; at most 286 codes of literals and lengths and 30 of distances.
        plausible = (head & np.uint64(7) == 4) & (head >> np.uint64(3) & np.uint64(31) <= 29)
        places = np.flatnonzero(plausible & (head >> np.uint64(8) & np.uint64(31) <= 29))
        num_lengths = (head[places] >> np.uint64(13) & np.uint64(15)) + np.uint64(4)
        start = places * 8 + shift + 17
        lengths = words[start >> 3] >> (start & 7).astype(np.uint64)
        lengths &= (np.uint64(1) << num_lengths * np.uint64(3)) - np.uint64(1)
        taken = sum(space[lengths >> np.uint64(12 * part) & np.uint64(0xFFF)] for part in range(5))
        found.append(places[taken == 128] * 8 + shift)
    return [int(bit) for bit in np.concatenate(found)]


def _stored_blocks(data: bytes) -> list[int]:
    """Bit offsets at which a stored block, not the last one, may begin: three zero bits before a length."""
    words = np.ndarray((len(data) - 4,), "<u4", data[1:], strides=(1,))
    agree = (words ^ words >> np.uint32(16)) & np.uint32(0xFFFF) == 0xFFFF
    places = np.flatnonzero(agree & (np.frombuffer(data, np.uint8)[: len(words)] < 32))
    return [8 * int(place) + 5 for place in places]


def _start(data: bytes, candidate: _Candidate) -> tuple[gzip_stream.Boundary, int] | None:
    """The boundary at a candidate and its offset in `data`, which begins with the candidate's byte."""
    place, bit = divmod(candidate.bit, 8)
    if candidate.kind == "block":
        first_byte, bits = (data[0], 8 - bit) if bit else (0, 0)
        return gzip_stream.Boundary(0, place + (bits > 0), bits, False, first_byte), int(bits > 0)
    try:
        parsed = gzip_header.parse(data[: gzip_header.MAX_BYTES])
    except gzip_header.HeaderError:
        return None
    return parsed and (gzip_stream.Boundary(0, place + parsed[1], 0, True), parsed[1])


# Proof.


class _Glance:
    """A first look at candidates, which most do not survive."""

    def __init__(self) -> None:
        self._stream = inflate.Stream()
        self._output = np.empty(1 << 22, np.uint8)

    def may_go_on(self, file: _File, candidate: _Candidate) -> bool:
        """Whether what begins at a candidate inflates through some blocks, or to its end."""
        short = self._look(file.read(candidate.bit // 8, _SHORT_GLANCE_BYTES), candidate)
        if short is not None:
            return short
        long = self._look(file.read(candidate.bit // 8, _GLANCE_BYTES), candidate)
        # Blocks can be large, and a gzip member may begin with one; not all that looks like a header is one.
        made = len(self._output) - self._stream.output_left
        return candidate.kind == "header" and made >= inflate.WINDOW_BYTES if long is None else long

    def _look(self, data: bytes, candidate: _Candidate) -> bool | None:
        """The same, of the bytes from the candidate's on; None where these are too few to tell."""
        started = _start(data, candidate)
        if started is None:
            return False
        boundary, start = started
        array = np.frombuffer(data, np.uint8)
        window = b"" if boundary.fresh else seek_points.markers()[0]
        self._stream.restart(window, boundary.bits, boundary.first_byte)
        self._stream.set_input(array.ctypes.data + start, len(data) - start)
        self._stream.set_output(self._output.ctypes.data, len(self._output))
        outcome, num_blocks = self._stream.step(), 0
        while outcome == inflate.BOUNDARY and num_blocks < _NUM_BLOCKS:
            outcome, num_blocks = self._stream.step(), num_blocks + 1
        if num_blocks == _NUM_BLOCKS:
            return True
        if outcome == inflate.END:
            # Noise ends soon as well. Of a whole gzip member the checksum tells; of others `_settle` asks for more.
            return self._is_sound(data) if boundary.fresh else num_blocks > 0
        return None if outcome == inflate.STARVED else False

    def _is_sound(self, data: bytes) -> bool | None:
        """Whether the trailer of a gzip member that has ended agrees with its output; None where it is cut off."""
        output = self._output[: len(self._output) - self._stream.output_left].data
        start = len(data) - self._stream.input_left
        expected = struct.pack("<II", zlib.crc32(output), len(output))
        trailer = data[start : start + gzip_header.TRAILER_BYTES]
        return trailer == expected if len(trailer) == len(expected) else None


def _settle(file: _File, candidate: _Candidate) -> tuple[gzip_stream.InflaterState | None, int]:
    """The state from which to go on behind a candidate.

    Returns:
        The state, with positions and gzip members counted from the candidate on; None if there is none. And in that
        case the compressed offset up to which the candidate was proven to be one; 0 if it was not.
    """
    started = _start(file.read(candidate.bit // 8, _GLANCE_BYTES), candidate)
    if started is None:
        return None, 0
    boundary, _ = started
    if boundary.fresh:
        return gzip_stream.InflaterState(boundary, b"", 1, 0, 0, None), 0
    first, second = (
        gzip_stream.GzipInflater(gzip_stream.InflaterState(boundary, window, 0, None, 0, None), batch_bytes=1)
        for window in seek_points.markers()
    )
    same_from = num_boundaries = 0
    try:
        for one, other in _inflate_both(first, second, file.pieces(boundary.offset)):
            differences = np.flatnonzero(np.frombuffer(one.data, np.uint8) != np.frombuffer(other.data, np.uint8))
            if len(differences):
                same_from = one.position + int(differences[-1]) + 1
            num_boundaries += one.ends_at_boundary
            known = first.num_output - same_from >= inflate.WINDOW_BYTES
            if one.ending is not None and (one.ending.boundary.fresh or (known and num_boundaries >= _NUM_BLOCKS)):
                return one.state(), 0
            if first.num_output >= _MAX_OUTPUT_BYTES:
                break
    except inflate.InflateError:
        pass
    return None, (first.offset if first.num_output >= _PROVEN_BYTES else 0)


def _inflate_both(
    first: gzip_stream.GzipInflater, second: gzip_stream.GzipInflater, pieces: Iterator[bytes]
) -> Iterator[tuple[gzip_stream.Batch, gzip_stream.Batch]]:
    """Batches of two inflaters at work on the same bytes; what bounds a batch is the same for both."""
    for piece in pieces:
        yield from zip(first.feed(piece), second.feed(piece), strict=True)
