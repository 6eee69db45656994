"""Tar archives as a stream: members as their bytes come in, and a state from which another process can continue.

`TarParser` takes the bytes of an archive in pieces of any size and tells where members start, what their data are and
where they end. It keeps at most one header or extension, whatever the sizes of members, and copies no data. Formats
and their headers: `zoo.archive.tar_headers`; members: `zoo.archive.tar_members`.

    parser = TarParser()
    for chunk in chunks:
        for event in parser.feed(chunk):
            ...  # Start, Data (any number, none for an empty member), End
    parser.finish()
"""

import base64
from collections.abc import Iterator
import dataclasses
from typing import Any

from zoo import errors
from zoo.archive import tar_headers, tar_members

MAX_EXTENSION_BYTES = 1 << 20
MAX_MEMBERS = 10_000_000
# Users of the stream need these; where they are defined is no concern of theirs.
TarMember = tar_members.TarMember
Start = tar_members.Start
Data = tar_members.Data
End = tar_members.End
TarHeaderError = tar_headers.TarHeaderError
find_header = tar_headers.find_header

_BLOCK_BYTES = tar_headers.BLOCK_BYTES
_ZERO_BLOCK = bytes(_BLOCK_BYTES)
# What the bytes now gathered are, by the type flag of the header that announced them.
_EXTENSIONS = {b"x": "pax", b"X": "pax", b"g": "pax_global", b"L": "long_name", b"K": "long_link"}
_PURPOSES = frozenset({"header", "sparse", *_EXTENSIONS.values()})
_SPARSE_TYPE = b"S"
# Where a header of a sparse file, and a block of its map, say whether another block of the map follows.
_SPARSE_MORE_IN_HEADER, _SPARSE_MORE_IN_MAP = 482, 504


class TarParser:
    """Reads an archive from consecutive pieces.

    After an error the parser is of no further use; `behind` makes one that goes on where the next header is.

    Args:
        position: offset in the archive of the first byte that will be fed; at a header, unless `state` is given.
        state: what `state` of another parser returned; then `position` must be 0 or the one in the state.
        searching: passes over everything up to the next header with a magic, at whatever offset it stands.

    Attributes:
        position: offset in the archive of the next byte to be fed.
        num_members: members started so far, those of the saved state included.
        finished: the end of the archive, two blocks of zeros, has been seen.

    Raises:
        DamagedFileError: `state` is no such state.
    """

    def __init__(self, position: int = 0, state: dict[str, Any] | None = None, *, searching: bool = False) -> None:
        self.position = position
        self.num_members = 0
        self.finished = False
        self._searching = searching
        self._member: TarMember | None = None
        self._remaining = 0
        self._padding = 0
        self._purpose = "header"
        self._needed = _BLOCK_BYTES
        self._gathered = b""
        self._zero_blocks = 0
        self._extensions = tar_members.Extensions()
        self._sparse: TarMember | None = None
        if state is not None:
            self._load(state)
            if position not in (0, self.position):
                raise errors.DamagedFileError(
                    f"the saved state of a tar parser is at byte {self.position}, expected {position}; "
                    "delete the unfinished index and run the command again"
                )

    def feed(self, data: bytes | memoryview) -> Iterator[Start | Data | End]:
        """Takes the next bytes. Between any two events the parser is in order: `state` and `position` hold.

        Args:
            data: the bytes from `position` on; at most a few MiB at a time, since they stay in memory.

        Raises:
            TarHeaderError: what stands at a header's place is none, an extension is damaged, or the two blocks of zeros
                at the end are followed by something else. Events of what precedes it have been given.
            UnsafeArchiveError: a size, a name, an extension or the number of members is beyond all reason, or a
                program could take the archive for another than the next one does.
        """
        view = memoryview(data)
        if self._searching:
            view = self._search(view)
        while True:
            if self._member is not None:
                member = self._member
                if not self._remaining:
                    self._member = None
                    yield End(member)
                    continue
                if not view:
                    return
                piece, view = view[: self._remaining], view[self._remaining :]
                self._remaining -= len(piece)
                self.position += len(piece)
                yield Data(member, piece)
            elif not view:
                return
            elif self._padding:
                num_skipped = min(self._padding, len(view))
                self._padding -= num_skipped
                self.position += num_skipped
                view = view[num_skipped:]
            elif self.finished:
                self._check_zeros(view)
                return
            else:
                started, view = self._gather(view)
                if started is not None:
                    yield Start(started)

    @property
    def settled(self) -> int:
        """Offset up to which all is understood: the start of the headers that are being read, else `position`."""
        if self._extensions.header_position is not None:
            return self._extensions.header_position
        if self._sparse is not None:
            return self._sparse.header_position
        return self.position - len(self._gathered)

    def finish(self) -> None:
        """Says that there are no more bytes.

        Raises:
            DamagedFileError: the archive is not at its end.
        """
        if self.finished:
            return
        if self._searching:
            what = "where no header had been found after a damaged place"
        elif self._member is not None:
            member = self._member
            what = f"after {member.size - self._remaining} of the {member.size} bytes of {member.name!a}"
        elif self._gathered or self._purpose != "header" or self._extensions.header_position is not None:
            what = "within a header"
        elif self._zero_blocks:
            what = "after one block of zeros, expected two"
        else:
            what = "without the two blocks of zeros that end an archive"
        raise errors.DamagedFileError(
            f"the tar data end at byte {self.position}, {what}: the archive is truncated; fetch or create it again"
        )

    def behind(self, error: TarHeaderError) -> "TarParser":
        """A parser that searches the next header from the place of an error on.

        Args:
            error: raised by `feed` of this parser, whose `position` then says which byte to feed to the new one next.
        """
        parser = TarParser(self.position, searching=True)
        parser.num_members = self.num_members
        parser._gathered = error.block
        return parser

    def state(self) -> dict[str, Any]:
        """What another parser continues from; goes through JSON unchanged. A few kB, 1.4 MB at worst."""
        return {
            "position": self.position,
            "num_members": self.num_members,
            "finished": self.finished,
            "searching": self._searching,
            "member": None if self._member is None else dataclasses.asdict(self._member),
            "remaining": self._remaining,
            "padding": self._padding,
            "purpose": self._purpose,
            "needed": self._needed,
            "gathered": base64.b64encode(self._gathered).decode(),
            "zero_blocks": self._zero_blocks,
            "extensions": dataclasses.asdict(self._extensions),
            "sparse": None if self._sparse is None else dataclasses.asdict(self._sparse),
        }

    def _load(self, state: dict[str, Any]) -> None:
        """Takes over a state that `state` returned.

        Raises:
            DamagedFileError: it is no such state.
        """
        try:
            self.position, self.num_members = state["position"], state["num_members"]
            self.finished, self._searching = state["finished"], state["searching"]
            self._purpose, self._needed = state["purpose"], state["needed"]
            self._remaining, self._padding = state["remaining"], state["padding"]
            self._gathered = base64.b64decode(state["gathered"], validate=True)
            self._zero_blocks = state["zero_blocks"]
            self._member = tar_members.member_from_json(state["member"])
            self._sparse = tar_members.member_from_json(state["sparse"])
            self._extensions = tar_members.extensions_from_json(state["extensions"])
            self._check_consistent()
        except (KeyError, TypeError, ValueError) as error:
            raise errors.DamagedFileError(
                f"not the saved state of a tar parser: {error!r}; delete the unfinished index and run the command again"
            ) from error

    def _check_consistent(self) -> None:
        """Refuses a loaded state that no parser can have been in.

        Raises:
            ValueError: it is one.
        """
        numbers = (self.position, self.num_members, self._remaining, self._padding, self._needed, self._zero_blocks)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("a number is missing or negative")
        is_block = self._purpose in ("header", "sparse")
        sound = (
            self._purpose in _PURPOSES
            and type(self._searching) is bool
            and self.finished is (self._zero_blocks == 2)
            and self._zero_blocks <= 2
            and self._padding < _BLOCK_BYTES
            and (self._needed == _BLOCK_BYTES if is_block else 0 < self._needed <= MAX_EXTENSION_BYTES)
            and len(self._gathered) <= (MAX_EXTENSION_BYTES if self._searching else self._needed - 1)
            and self._remaining <= (0 if self._member is None else self._member.size)
            and (self._sparse is None) is (self._purpose != "sparse")
        )
        if not sound:
            raise ValueError("its values do not go together")

    def _search(self, view: memoryview) -> memoryview:
        """The bytes from the next header on; empty, and all but the last bytes passed over, if there is none."""
        joined = self._gathered + bytes(view)
        start = self.position - len(self._gathered)
        found = find_header(joined)
        if found is None:
            self._gathered = joined[-(_BLOCK_BYTES - 1) :]
            self.position = start + len(joined)
            return view[:0]
        self._gathered, self._searching = b"", False
        self.position = start + found
        return memoryview(joined)[found:]

    def _gather(self, view: memoryview) -> tuple[TarMember | None, memoryview]:
        """Takes bytes of a header or extension; the member that begins with it, if one does, and the bytes left."""
        num_missing = self._needed - len(self._gathered)
        piece = view[:num_missing]
        self.position += len(piece)
        content = self._gathered + bytes(piece) if self._gathered else bytes(piece)
        if len(piece) < num_missing:
            self._gathered = content
            return None, view[num_missing:]
        self._gathered = b""
        try:
            started = self._take(content, self.position - len(content))
        except TarHeaderError as error:
            error.block = content
            raise
        if started is not None:
            self._begin(started)
        return started, view[num_missing:]

    def _take(self, content: bytes, position: int) -> TarMember | None:
        """Reads a whole header or extension that stands at `position`; returns the member that begins with it."""
        if self._purpose == "header":
            if content == _ZERO_BLOCK:
                self._take_zero_block(position)
                return None
            if self._zero_blocks:
                raise TarHeaderError(f"byte {position} of the tar data: data behind a block of zeros", position)
            return self._take_header(content, position)
        if self._purpose == "sparse":
            return self._take_sparse_map(content, position)
        self._take_extension(content, position)
        return None

    def _take_zero_block(self, position: int) -> None:
        if self._extensions.header_position is not None:
            raise TarHeaderError(
                f"byte {position} of the tar data: the archive ends behind an extension, expected its member", position
            )
        self._zero_blocks += 1
        self.finished = self._zero_blocks == 2

    def _take_header(self, block: bytes, position: int) -> TarMember | None:
        header = tar_headers.decode(block, position)
        purpose = _EXTENSIONS.get(header.type)
        if purpose is not None:
            self._announce(purpose, header.size, position)
            return None
        member = tar_members.member_of(header, self._extensions, position)
        self._extensions = tar_members.Extensions()
        if header.type == _SPARSE_TYPE and block[_SPARSE_MORE_IN_HEADER]:
            self._purpose, self._sparse = "sparse", member
            return None
        return member

    def _announce(self, purpose: str, size: int, position: int) -> None:
        """An extension of `size` bytes follows.

        Raises:
            TarHeaderError: the next member has one of this sort already.
            UnsafeArchiveError: it has more than 1 MiB.
        """
        if size > MAX_EXTENSION_BYTES:
            raise errors.UnsafeArchiveError(
                f"byte {position} of the tar data: an extension declares {size} bytes, expected {MAX_EXTENSION_BYTES} "
                "at most"
            )
        if purpose != "pax_global":
            if getattr(self._extensions, purpose) is not None:
                raise TarHeaderError(
                    f"byte {position} of the tar data: two extensions of one sort for one member", position
                )
            if self._extensions.header_position is None:
                self._extensions.header_position = position
        self._purpose, self._needed = purpose, size
        if not size:
            self._take_extension(b"", position + _BLOCK_BYTES)

    def _take_extension(self, content: bytes, position: int) -> None:
        """Reads the content of an extension.

        Raises:
            TarHeaderError: it is damaged.
            UnsafeArchiveError: it says for all members what can be true of one only.
        """
        if self._purpose == "pax":
            self._extensions.pax = tar_members.records_of_one(content, position)
        elif self._purpose == "pax_global":
            tar_members.check_records_of_all(content, position)
        else:
            setattr(self._extensions, self._purpose, tar_headers.decode_text(content))
        self._padding = -len(content) % _BLOCK_BYTES
        self._purpose, self._needed = "header", _BLOCK_BYTES

    def _take_sparse_map(self, block: bytes, position: int) -> TarMember | None:
        """Passes over a block of the map of a file with holes; returns its member behind the last one.

        Raises:
            UnsafeArchiveError: the map has more than 1 MiB.
        """
        member = self._sparse
        assert member is not None
        member = dataclasses.replace(member, data_position=position + _BLOCK_BYTES)
        if member.data_position - member.header_position > 2 * MAX_EXTENSION_BYTES:
            raise errors.UnsafeArchiveError(
                f"byte {position} of the tar data: the map of {member.name[:200]!a}, a file with holes, goes on "
                f"beyond {MAX_EXTENSION_BYTES} bytes"
            )
        if block[_SPARSE_MORE_IN_MAP]:
            self._sparse = member
            return None
        self._purpose, self._sparse = "header", None
        return member

    def _begin(self, member: TarMember) -> None:
        """A member's data follow.

        Raises:
            UnsafeArchiveError: it is one too many.
        """
        if self.num_members >= MAX_MEMBERS:
            raise errors.UnsafeArchiveError(
                f"byte {member.header_position} of the tar data: more than {MAX_MEMBERS} members; no zoo has as many"
            )
        self.num_members += 1
        self._member = member
        self._remaining, self._padding = member.size, -member.size % _BLOCK_BYTES

    def _check_zeros(self, view: memoryview) -> None:
        """Passes over zeros behind the end.

        Raises:
            TarHeaderError: there is something else.
        """
        content = bytes(view)
        num_zeros = len(content) - len(content.lstrip(b"\0"))
        self.position += num_zeros
        if num_zeros < len(content):
            raise TarHeaderError(
                f"byte {self.position} of the tar data: data behind the two blocks of zeros that end an archive, "
                "expected zeros only",
                self.position,
            )
