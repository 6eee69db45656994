"""Inflates a gzip file from its first byte to its last and tells where else inflation could begin.

Compressed bytes go in as they arrive, in chunks of any size; batches of output come out together with the boundaries
of deflate blocks inside them. At a boundary the state of the inflater is small (a window of 32 KiB and a few numbers)
and can be saved, so that another process goes on from there. Checksum and size of every gzip member are checked.
Memory is bounded whatever the input.
"""

import base64
from collections.abc import Iterator
import dataclasses
from typing import Any
import zlib

import numpy as np

from zoo import errors
from zoo.archive import gzip_header, inflate, zlib_library

# Blocks may be empty or nearly so; a batch is not to name millions of them.
_MAX_BOUNDARIES = 1 << 14
_HEADER_STEP_BYTES = 512
_MODULUS = 1 << 32
# The parts of a gzip file.
_HEADER, _DEFLATE, _TRAILER, _BETWEEN, _PADDING = "header", "deflate data", "trailer", "end", "padding"


@dataclasses.dataclass(frozen=True, slots=True)
class Boundary:
    """A place where inflation can begin.

    Attributes:
        position: uncompressed offset, over all gzip members.
        offset: compressed offset in the file of the first byte of which nothing has been taken.
        bits: 0 to 7: how many high bits of the byte at `offset` - 1 belong to what follows.
        fresh: the start of a gzip member's deflate data; no window is needed.
        first_byte: the byte at `offset` - 1 if `bits` is not 0, else 0.
    """

    position: int
    offset: int
    bits: int
    fresh: bool
    first_byte: int = 0


@dataclasses.dataclass(frozen=True)
class InflaterState:
    """What a `GzipInflater` needs to go on from a boundary.

    Attributes:
        boundary: the place; the next chunk fed must begin with the byte at `boundary.offset`.
        window: the up to 32 KiB of output before it, of the same gzip member.
        gzip_member: number of the gzip member, from 1.
        crc32: of the gzip member's output so far; None where it is not known, then the trailer is not checked.
        isize: bytes of the gzip member's output so far, modulo 2^32.
        header: of the first gzip member; None where it was not seen.
    """

    boundary: Boundary
    window: bytes
    gzip_member: int
    crc32: int | None
    isize: int
    header: gzip_header.GzipHeader | None

    @property
    def first_byte(self) -> int:
        """The byte at `boundary.offset` - 1 if some of it is still to be used, else 0."""
        return self.boundary.first_byte

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        value = dataclasses.asdict(self)
        value["window"] = base64.b64encode(zlib.compress(self.window)).decode()
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "InflaterState":
        """The state that `to_json` gave.

        Raises:
            DamagedFileError: it is no such state.
        """
        try:
            decompressor = zlib.decompressobj()
            window = decompressor.decompress(base64.b64decode(value["window"], validate=True), inflate.WINDOW_BYTES + 1)
            header = None if value["header"] is None else gzip_header.GzipHeader(**value["header"])
            boundary = Boundary(**value["boundary"])
            state = cls(**(value | {"boundary": boundary, "window": window, "header": header}))
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise errors.DamagedFileError(f"not the saved state of an inflater: {error!r}") from error
        state._check()
        return state

    def _check(self) -> None:
        place = self.boundary
        crc32 = 0 if self.crc32 is None else self.crc32
        numbers = (place.position, place.offset, place.bits, place.first_byte, self.gzip_member, self.isize, crc32)
        if (
            not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
            or place.bits > 7
            or place.first_byte > 255
            or len(self.window) > inflate.WINDOW_BYTES
        ):
            raise errors.DamagedFileError("not the saved state of an inflater: a value is out of range")


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some of the output.

    Attributes:
        position: uncompressed offset of its first byte.
        data: the bytes, at most 2 MiB, read-only; valid as long as they are referred to. Empty where there are only
            boundaries to tell.
        history: the up to 32 KiB of output before `data`.
        boundaries: those at its positions, start and end included, in order. Of several at one position only the
            first is given, by the first batch that has it, and the fresh one, by every batch that has it. So which
            there are does not depend on how the file was cut into chunks.
        member_position: where the gzip member that `data` begins in started.
        ending: the state at the end of `data`, without its window, if a boundary is there; see `state`.
    """

    position: int
    data: memoryview
    history: memoryview
    boundaries: tuple[Boundary, ...]
    member_position: int
    ending: InflaterState | None

    @property
    def ends_at_boundary(self) -> bool:
        """Whether `state` may be asked for."""
        return self.ending is not None

    def window(self, boundary: Boundary) -> bytes:
        """The up to 32 KiB of output before one of this batch's boundaries that inflation from there may need."""
        starts = [other.position for other in self.boundaries if other.fresh and other.position <= boundary.position]
        first = max(self.member_position, boundary.position - inflate.WINDOW_BYTES, *starts)
        begin, end = first - self.position, boundary.position - self.position
        before = bytes(self.history[begin : min(end, 0) or None]) if begin < 0 else b""
        return before + bytes(self.data[max(begin, 0) : max(end, 0)])

    def state(self) -> InflaterState:
        """What a `GzipInflater` needs to go on behind this batch.

        Raises:
            InvalidValueError: the batch does not end at a boundary.
        """
        if self.ending is None:
            raise errors.InvalidValueError("there is no state to go on from: the batch ends inside a deflate block")
        return dataclasses.replace(self.ending, window=self.window(self.ending.boundary))


class GzipInflater:
    """Inflates one gzip file of any number of gzip members.

    Args:
        state: where to go on; None for the start of the file.
        where: name of the file for messages.
        batch_bytes: a batch ends at the first boundary from this size on, and anywhere at 2 MiB.

    Attributes:
        gzip_members: number of gzip members begun.
        num_output: uncompressed offset of the next byte of output.
        offset: compressed offset of the next byte of input.
        header: of the first gzip member; None before it was read.
    """

    def __init__(
        self, state: InflaterState | None = None, where: str = "gzip stream", batch_bytes: int = 1 << 20
    ) -> None:
        self._where = where
        self._batch_bytes = self._target = batch_bytes
        self._part = _HEADER
        self._kept = bytearray()  # of a header or trailer that goes on in the next chunk
        self._crc32: int | None = 0
        self._isize = 0
        self._boundary: Boundary | None = None  # the last one given
        self._at_boundary = False  # there is nothing but empty blocks between that boundary and here
        self._boundaries: list[Boundary] = []
        self._num_given = 0  # of them
        self._last_batch: Batch | None = None
        self._restored = state
        self._member_position = self._batch_member_position = 0
        self.gzip_members = self.num_output = self.offset = 0
        self.header: gzip_header.GzipHeader | None = None
        self._stream = inflate.Stream()
        self._output = inflate.Output(self._stream, b"" if state is None else state.window)
        self._checked = self._output.begin  # up to where the checksum has come
        if state is not None:
            self._restore(state)

    def _restore(self, state: InflaterState) -> None:
        place = state.boundary
        self._part = _DEFLATE
        self.offset, self.num_output = place.offset, place.position
        self._crc32, self._isize = state.crc32, state.isize
        self._boundary = place
        self.gzip_members, self.header = state.gzip_member, state.header
        self._member_position = self._batch_member_position = self.num_output - len(state.window)
        self._stream.restart(state.window, place.bits, place.first_byte)
        self._boundaries = [place] if place.fresh else []
        self._num_given = len(self._boundaries)

    def state(self) -> InflaterState:
        """What another inflater needs to go on behind the last batch that `feed` gave.

        Raises:
            InvalidValueError: there was no batch yet, or it does not end at a boundary.
        """
        if self._last_batch is not None:
            return self._last_batch.state()
        if self._restored is not None:
            return self._restored
        raise errors.InvalidValueError("there is no state to go on from: nothing has been inflated yet")

    def _checksum(self) -> None:
        """Adds the output that came since to the checksum of the gzip member."""
        output = self._output.part(self._checked, self._output.fill)
        self._isize = (self._isize + len(output)) % _MODULUS
        if self._crc32 is not None:
            self._crc32 = zlib_library.crc32(output, self._crc32)
        self._checked = self._output.fill

    def _take_batch(self) -> Iterator[Batch]:
        """The output and the boundaries so far as a batch, if there are any."""
        output = self._output
        begin, fill, place = output.begin, output.fill, self._boundary if self._at_boundary else None
        if fill == begin and len(self._boundaries) == self._num_given:
            return
        self._checksum()
        ending = InflaterState(place, b"", self.gzip_members, self._crc32, self._isize, self.header) if place else None
        self._last_batch = Batch(
            position=self.num_output - (fill - begin),
            data=output.part(begin, fill),
            history=output.part(begin - inflate.WINDOW_BYTES, begin),
            boundaries=tuple(self._boundaries),
            member_position=self._batch_member_position,
            ending=ending,
        )
        self._boundaries = [place] if place is not None and place.fresh else []
        self._num_given = len(self._boundaries)
        if place is None:
            # Cut off inside a block, as every batch is if chunks are small: so much the sooner one ends at a boundary.
            self._target = max(1, self._target - (fill - begin))
        # Before the batch goes out: whoever takes it may not come back.
        output.begin_batch(fill)
        self._checked = output.begin
        self._batch_member_position = self._member_position
        yield self._last_batch

    def _note_boundary(self, bits: int, first_byte: int, fresh: bool) -> None:
        self._at_boundary = True
        last = self._boundary
        if last is None or last.position != self.num_output or fresh:
            self._boundary = Boundary(self.num_output, self.offset, bits, fresh, first_byte if bits else 0)
            if last is not None and last.fresh and last.position == self.num_output and self._boundaries:
                # An empty gzip member; of any number of them the last start is enough.
                self._boundaries.pop()
                self._num_given = 0
            self._boundaries.append(self._boundary)

    def feed(self, chunk: bytes | memoryview) -> Iterator[Batch]:
        """Inflates the next bytes of the file.

        Chunks follow each other without gap, from the start of the file or from `state.boundary.offset`. Take all
        batches before the next chunk is fed. All output that a chunk allows comes with that chunk.

        Args:
            chunk: any number of bytes.

        Yields:
            The output in order.

        Raises:
            InflateError: the data is damaged. What could be inflated before has been given out then; its last part
                may be wrong as well, since damage shows late.
        """
        data, at = memoryview(chunk), 0
        try:
            while at < len(data):
                before, rest = self.offset, data[at:]
                if self._part == _DEFLATE:
                    yield from self._inflate(rest)
                elif self._part == _HEADER:
                    self._take_header(rest[:_HEADER_STEP_BYTES])
                    if self._part == _DEFLATE and self._output.size >= self._batch_bytes:
                        yield from self._take_batch()
                elif self._part == _TRAILER:
                    self._take_trailer(rest[: gzip_header.TRAILER_BYTES - len(self._kept)])
                else:
                    self._take_end(rest)
                at += self.offset - before
        except inflate.InflateError:
            yield from self._take_batch()
            raise
        yield from self._take_batch()

    def _inflate(self, data: memoryview) -> Iterator[Batch]:
        """Takes deflate data up to its end or that of `data`."""
        stream, output, array = self._stream, self._output, np.frombuffer(data, np.uint8)
        address, start = array.ctypes.data, self.offset
        given = stream.set_input(address, len(data))
        output_waits = False
        while True:
            if not stream.input_left and not output_waits:
                if given == len(data):
                    return
                given += stream.set_input(address + given, len(data) - given)
            outcome = stream.step()
            taken = given - stream.input_left
            self.num_output += output.update()
            self.offset = start + taken
            self._at_boundary = output_waits = False
            if outcome == inflate.BOUNDARY:
                # Even an empty block takes more bits than could be left from an earlier chunk.
                self._note_boundary(stream.bits, data[taken - 1], fresh=False)
                if output.size >= self._target or len(self._boundaries) >= _MAX_BOUNDARIES:
                    self._target = self._batch_bytes
                    yield from self._take_batch()
            elif outcome == inflate.END:
                self._checksum()
                self._part = _TRAILER
                return
            elif outcome == inflate.DAMAGED:
                raise self._error(f"the deflate data is damaged ({stream.message})")
            elif output.is_full:
                output_waits = True
                yield from self._take_batch()

    def _take_header(self, data: memoryview) -> None:
        before = len(self._kept)
        self._kept += data
        try:
            parsed = gzip_header.parse(bytes(self._kept))
        except gzip_header.HeaderError as error:
            what = "after the end of the last gzip member" if self.gzip_members else "it is not a gzip file"
            raise self._error(f"{what}: {error}") from error
        if parsed is None:
            self.offset += len(data)
            return
        header, size = parsed
        self.offset += size - before
        self._kept.clear()
        self.gzip_members += 1
        if self.gzip_members == 1:
            self.header = header
        self._part, self._crc32, self._isize = _DEFLATE, 0, 0
        self._member_position = self.num_output
        self._stream.restart()
        self._note_boundary(0, 0, fresh=True)

    def _take_trailer(self, data: memoryview) -> None:
        self._kept += data
        self.offset += len(data)
        if len(self._kept) < gzip_header.TRAILER_BYTES:
            return
        crc32, isize = int.from_bytes(self._kept[:4], "little"), int.from_bytes(self._kept[4:], "little")
        self._kept.clear()
        if self._crc32 is not None and (crc32, isize) != (self._crc32, self._isize):
            raise self._error(
                f"gzip member {self.gzip_members} is damaged: it has the CRC32 {self._crc32:08x} and {self._isize} "
                f"bytes (modulo 2^32), its trailer says {crc32:08x} and {isize}"
            )
        self._part = _BETWEEN

    def _take_end(self, data: memoryview) -> None:
        """Zeros behind the last gzip member, or the beginning of the next one."""
        if self._part == _BETWEEN and data[0]:
            self._part = _HEADER
            return
        self._part = _PADDING
        rest = len(bytes(data).lstrip(b"\0"))
        self.offset += len(data) - rest
        if rest:
            raise self._error("there are bytes behind the end: zero padding, then something else")

    def _error(self, what: str) -> inflate.InflateError:
        return inflate.InflateError(
            f"{self._where}: {what}; found at compressed offset {self.offset}, after {self.num_output} bytes of "
            "output. Compare its size and digest with the original's and get it again",
            self.offset,
            self.num_output,
        )

    def finish(self) -> None:
        """Says that the file has ended.

        Raises:
            InflateError: it must go on: it is truncated.
        """
        if self._part in (_BETWEEN, _PADDING):
            return
        if self._part == _HEADER and not self.gzip_members and not self._kept:
            raise self._error("it is empty, expected a gzip file")
        number = self.gzip_members + (self._part == _HEADER)
        raise self._error(f"it is truncated: it ends inside the {self._part} of gzip member {number}")
