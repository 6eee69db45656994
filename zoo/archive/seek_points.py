"""Places in the midst of a gzip file from which to inflate, in about a hundred bytes each, and how to do so.

To begin at a boundary of deflate blocks, the 32 KiB of output before it must be known, because what follows refers to
them. Few of them are referred to in fact. Which, is found by inflating the next 32 KiB twice, from two made-up windows
that differ in every byte and whose bytes, taken together, name their own place: wherever the two outputs differ, they
name the byte of the window that was copied there. All others are stored as zeros, which compress to nothing.

Making points and using them takes the standard library only. Python's zlib begins at whole bytes; where a block begins
inside one, empty blocks whose length is no multiple of eight bits are put in front.
"""

import base64
from collections.abc import Iterable, Iterator
import dataclasses
import functools
from typing import Any
import zlib

import numpy as np

from zoo import errors
from zoo.archive import gzip_header, gzip_stream, inflate

WINDOW_BYTES = inflate.WINDOW_BYTES
# 32 KiB of output take at most a little more than that, unless somebody fills the file with empty blocks.
_MAX_COMPRESSED_BYTES = 1 << 18
_STEP_BYTES = 3 << 14
# Compressed bytes before the last chunk that are kept for requests that come late.
_KEPT_BYTES = 1 << 20
_RAW_WINDOW_BITS = -15
_PIECE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Point:
    """A place from which `inflate_range` can begin.

    Attributes:
        position: uncompressed offset, over all gzip members.
        offset: compressed offset of the first byte of which nothing belongs to what lies before.
        bits: 0 to 7: how many high bits of the byte at `offset` - 1 belong to what follows.
        window: the up to 32 KiB of output before, zlib-compressed, with zeros for what is not needed; b"" where
            nothing is.
    """

    position: int
    offset: int
    bits: int
    window: bytes

    @property
    def first_byte(self) -> int:
        """Compressed offset of the first byte that inflation from here reads."""
        return self.offset - (self.bits > 0)


# Bits go into bytes from the lowest on, as deflate has it.


def _as_bits(*fields: tuple[int, int]) -> list[int]:
    """The bits of (value, number of bits) fields."""
    return [value >> place & 1 for value, size in fields for place in range(size)]


@functools.cache
def _empty_blocks(num_bits: int) -> tuple[int, ...]:
    """Bits of empty blocks whose number is `num_bits` modulo eight.

    A block of fixed codes takes 10 bits, so some of them give the even remainders. One of dynamic codes that takes 93
    gives the odd ones: it has a code for the end of the block alone, its lengths being 256 zeros (138 and 118 of
    them), 1, and 1 for the distance that there must be.
    """
    fixed = _as_bits((0, 1), (1, 2), (0, 7))
    lengths = {18: 1, 1: 1}
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
    dynamic = _as_bits(
        (0, 1), (2, 2), (0, 5), (0, 5), (15, 4), *((lengths.get(symbol, 0), 3) for symbol in order),
        (1, 1), (138 - 11, 7), (1, 1), (118 - 11, 7), (0, 1), (0, 1), (0, 1),
    )  # fmt: skip
    bits = dynamic if num_bits % 2 else []
    while len(bits) % 8 != num_bits:
        bits = bits + fixed
    return tuple(bits)


def _aligned(bits: int, first: int) -> bytes:
    """Bytes after which inflation stands where `bits` high bits of the byte `first` are left to be used."""
    if not bits:
        return b""
    stream = list(_empty_blocks(8 - bits)) + _as_bits((first >> (8 - bits), bits))
    return bytes(sum(bit << place for place, bit in enumerate(stream[at : at + 8])) for at in range(0, len(stream), 8))


def _decompressor(window: bytes) -> Any:
    """A raw inflater; zlib takes an empty window for a mistake."""
    if not window:
        return zlib.decompressobj(_RAW_WINDOW_BITS)
    return zlib.decompressobj(_RAW_WINDOW_BITS, zdict=window)


# Making points.


@functools.cache
def markers() -> tuple[bytes, bytes]:
    """Two windows of 32 KiB that differ in every byte, and in which no two places hold the same two bytes.

    They hold the low and the high part of each byte's own place, the high one changed where they would be equal.
    """
    places = np.arange(WINDOW_BYTES)
    low, high = places & 255, places >> 8
    return low.astype(np.uint8).tobytes(), np.where(low == high, high + 128, high).astype(np.uint8).tobytes()


def _sparse_window(window: bytes, first_output: bytes, second_output: bytes) -> bytes:
    """The window, compressed, without the bytes that what came out after the two marker windows does not refer to."""
    first, second = np.frombuffer(first_output, np.uint8), np.frombuffer(second_output, np.uint8)
    copied = first != second
    places = (second[copied].astype(np.intp) & 127) << 8 | first[copied]
    needed = np.zeros(WINDOW_BYTES, bool)
    needed[places] = True
    # A window shorter than the markers ends where they end.
    needed = needed[WINDOW_BYTES - len(window) :]
    if not needed.any():
        return b""
    kept = np.where(needed, np.frombuffer(window, np.uint8), 0).astype(np.uint8)
    # zlib fills what lies before a short window with nothing: leading zeros need not be stored.
    return _compress_window(kept[int(np.argmax(needed)) :].tobytes())


def _compress_window(window: bytes) -> bytes:
    """Compressed, either way that suits: mostly zeros, which runs alone describe best and fastest, or not."""
    runs = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    return min(runs.compress(window) + runs.flush(), zlib.compress(window), key=len)


class _Pending:
    """A point of whose window it is not known yet what is needed.

    Attributes:
        point: the point as soon as it is ready.
    """

    def __init__(self, boundary: gzip_stream.Boundary, window: bytes, compressed: bytes = b"") -> None:
        self.boundary = boundary
        self.window = window
        self.compressed = bytearray(compressed)
        self.point: Point | None = None
        self._next_try = 0
        if boundary.fresh or not window:
            self._finish(b"")

    def add(self, offset: int, data: bytes | memoryview) -> None:
        """Takes what is needed of the bytes that lie at `offset`."""
        if self.boundary.offset + len(self.compressed) < offset:
            # Those between were not seen.
            self._finish_whole()
        while self.point is None:
            start = self.boundary.offset + len(self.compressed) - offset
            step = data[start : start + _STEP_BYTES]
            if not step:
                return
            self.compressed += step
            self.settle(last=False)

    def settle(self, last: bool) -> None:
        """Makes the point if there is enough to do so, or if no more will come."""
        too_much = len(self.compressed) >= _MAX_COMPRESSED_BYTES
        if self.point is not None or not (last or too_much or len(self.compressed) >= self._next_try):
            return
        # Chunks may be tiny, and each attempt starts anew.
        self._next_try = len(self.compressed) * 5 // 4 + 1024
        try:
            first, is_end = self._inflate(markers()[0])
            if is_end or last or len(first) == WINDOW_BYTES:
                self._finish(_sparse_window(self.window, first, self._inflate(markers()[1])[0]))
            elif too_much:
                self._finish_whole()
        except zlib.error:
            self._finish_whole()

    def _inflate(self, marker: bytes) -> tuple[bytes, bool]:
        """The next 32 KiB of output after a made-up window, or as many as there are; and whether they are the last."""
        place, decompressor = self.boundary, _decompressor(marker)
        data = _aligned(place.bits, place.first_byte) + self.compressed[:_MAX_COMPRESSED_BYTES]
        return decompressor.decompress(data, WINDOW_BYTES), decompressor.eof

    def _finish_whole(self) -> None:
        if self.point is None:
            self._finish(_compress_window(self.window))

    def _finish(self, window: bytes) -> None:
        self.point = Point(self.boundary.position, self.boundary.offset, self.boundary.bits, window)
        self.compressed.clear()
        self.window = b""

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "boundary": dataclasses.asdict(self.boundary),
            "window": base64.b64encode(zlib.compress(self.window)).decode(),
            "compressed": base64.b64encode(self.compressed).decode(),
            "ready": None if self.point is None else base64.b64encode(self.point.window).decode(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "_Pending":
        boundary = gzip_stream.Boundary(**value["boundary"])
        window = _decompress_window(base64.b64decode(value["window"], validate=True))
        pending = cls(boundary, window, base64.b64decode(value["compressed"], validate=True))
        if value["ready"] is not None:
            pending._finish(base64.b64decode(value["ready"], validate=True))
        return pending


class PointMaker:
    """Makes points of boundaries while the compressed file passes by.

    Give every chunk to `on_chunk` before points in it are asked for with `request`; a boundary may lie up to a
    mebibyte before the last chunk. A point is ready when the next 32 KiB of output have passed by. Which bytes of its
    window are kept depends on the file alone, not on the chunks; only where the compressed bytes behind a boundary
    were not seen, or cannot be inflated, the whole window is.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[int, bytes | memoryview]] = []
        self._pending: list[_Pending] = []

    def on_chunk(self, offset: int, chunk: bytes) -> None:
        """Takes the next compressed bytes.

        Args:
            offset: of the first of them in the file. Chunks follow each other, or begin anew somewhere.
            chunk: the bytes; they are referred to until the next chunk comes.
        """
        for pending in self._pending:
            pending.add(offset, chunk)
        if self._seen and self._seen[-1][0] + len(self._seen[-1][1]) != offset:
            self._seen.clear()
        if self._seen and len(self._seen[-1][1]) > _KEPT_BYTES:
            before, data = self._seen[-1]
            self._seen[-1] = before + len(data) - _KEPT_BYTES, bytes(data[-_KEPT_BYTES:])
        while self._seen and self._seen[0][0] + len(self._seen[0][1]) + _KEPT_BYTES < offset:
            self._seen.pop(0)
        self._seen.append((offset, chunk))

    def request(self, boundary: gzip_stream.Boundary, window: bytes) -> None:
        """Asks for a point.

        Args:
            boundary: where; not after the last chunk, nor before an earlier one.
            window: the up to 32 KiB of output before it.
        """
        pending = _Pending(boundary, window)
        self._pending.append(pending)
        for offset, chunk in self._seen:
            if offset + len(chunk) > boundary.offset:
                pending.add(offset, chunk)

    def take_ready(self) -> list[Point]:
        """The points that are ready, in the order in which they were asked for; each is given once."""
        number = 0
        while number < len(self._pending) and self._pending[number].point is not None:
            number += 1
        ready, self._pending = self._pending[:number], self._pending[number:]
        return [pending.point for pending in ready if pending.point is not None]

    def flush(self) -> list[Point]:
        """The points that have not been given yet; no more bytes will come."""
        for pending in self._pending:
            pending.settle(last=True)
        return self.take_ready()

    def pending_state(self) -> list[dict[str, Any]]:
        """The points that have not been given yet, as JSON-able values."""
        return [pending.to_json() for pending in self._pending]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Continues from what `pending_state` gave. The next chunk may begin at any boundary of the last one then.

        Raises:
            DamagedFileError: it is no such state.
        """
        try:
            self._pending = [_Pending.from_json(value) for value in state]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise errors.DamagedFileError(f"not the saved state of seek points: {error!r}") from error


# Using points.


def _decompress_window(window: bytes) -> bytes:
    """The window of a point, which may come from anywhere."""
    decompressor = zlib.decompressobj()
    try:
        data = decompressor.decompress(window, WINDOW_BYTES + 1) if window else b""
    except zlib.error as error:
        raise errors.DamagedFileError(
            f"the window of a seek point is damaged ({error}); make the index again"
        ) from error
    if window and (not decompressor.eof or len(data) > WINDOW_BYTES):
        raise errors.DamagedFileError(
            "the window of a seek point is damaged (too short or too long); make the index again"
        )
    return data


class _Inflater:
    """Inflates from a point on, over the ends of gzip members.

    Attributes:
        position: uncompressed offset of the next byte of output.
        offset: compressed offset of the next byte of input.
    """

    def __init__(self, point: Point) -> None:
        self.position = point.position
        self.offset = point.first_byte
        self._bits = point.bits
        self._decompressor: Any = _decompressor(_decompress_window(point.window))
        self._between = b""  # trailer of a gzip member and header of the next one, as far as they are there

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Output of at most a mebibyte at a time; some of it may be empty."""
        self.offset += len(chunk)
        if self._bits and chunk:
            chunk = _aligned(self._bits, chunk[0]) + chunk[1:]
            self._bits = 0
        output = b""
        while chunk or len(output) == _PIECE_BYTES:
            if self._decompressor is None:
                chunk = self._take_between(chunk)
                output = b""
                continue
            output = self._decompressor.decompress(chunk, _PIECE_BYTES)
            self.position += len(output)
            chunk = self._decompressor.unconsumed_tail
            if self._decompressor.eof:
                chunk, self._decompressor = self._decompressor.unused_data, None
            yield output

    def _take_between(self, chunk: bytes) -> bytes:
        """Takes a trailer and the next header; returns what lies behind. Zeros behind the last member stay there."""
        self._between += chunk
        header = self._between[gzip_header.TRAILER_BYTES :]
        if not header.strip(b"\0"):
            return b""
        parsed = gzip_header.parse(header)
        if parsed is None:
            return b""
        self._between, self._decompressor = b"", _decompressor(b"")
        return header[parsed[1] :]


def inflate_range(point: Point, data: bytes | Iterable[bytes], start: int, size: int) -> Iterator[bytes]:
    """Inflates a range of the uncompressed file. Checksums of gzip members are not checked, which would take all of it.

    Args:
        point: a point at or before the range.
        data: the compressed file from `point.first_byte` on, at least as far as the range needs; in chunks of any
            size, no more of which are taken than needed.
        start: uncompressed offset.
        size: number of bytes.

    Yields:
        The `size` bytes from `start` on, at most a mebibyte at a time.

    Raises:
        InvalidValueError: the range begins before the point.
        DamagedFileError: the window of the point is damaged.
        InflateError: the compressed data is damaged, or ends before the range does.
    """
    if start < point.position or size < 0:
        raise errors.InvalidValueError(f"{size} bytes from {start} on cannot be inflated from {point.position} on")
    inflater, stop = _Inflater(point), start + size
    if not size:
        return
    try:
        for chunk in [data] if isinstance(data, bytes) else data:
            for output in inflater.feed(chunk):
                begin = inflater.position - len(output)
                wanted = output[max(0, start - begin) : max(0, stop - begin)]
                if wanted:
                    yield wanted
                if inflater.position >= stop:
                    return
    except (zlib.error, gzip_header.HeaderError) as error:
        reason = f"the deflate data is damaged: {error}"
    else:
        reason = "the compressed data ends too early"
    raise inflate.InflateError(
        f"{reason}; asked for {size} bytes from {start} on, inflated from {point.position} to {inflater.position}, the "
        f"compressed bytes are those from {point.first_byte} to {inflater.offset}",
        inflater.offset,
        inflater.position,
    )
