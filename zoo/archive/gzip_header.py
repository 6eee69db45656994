"""Headers of gzip members (RFC 1952)."""

import dataclasses
from typing import Any
import zlib

from zoo import errors

MAGIC = b"\x1f\x8b"
TRAILER_BYTES = 8
# An extra field is at most 64 KiB long; names and comments have no limit of their own.
MAX_BYTES = 1 << 20

_FIXED_BYTES = 10
_DEFLATE = 8
_HAS_CHECKSUM, _HAS_EXTRA, _HAS_NAME, _HAS_COMMENT, _RESERVED = 2, 4, 8, 16, 0xE0


@dataclasses.dataclass(frozen=True)
class GzipHeader:
    """What a gzip member says of itself.

    Attributes:
        flags: the flag byte.
        mtime: time of modification, seconds since 1970; 0 where there is none.
        extra_flags: 2 where the compressor took its best effort, 4 where its fastest.
        system: number of the operating system, 3 for Unix, 255 unknown.
        name: name of the file that was compressed, "" where there is none.
    """

    flags: int
    mtime: int
    extra_flags: int
    system: int
    name: str

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        return dataclasses.asdict(self)


class HeaderError(errors.DamagedFileError):
    """These bytes begin no gzip member."""


def parse(data: bytes) -> tuple[GzipHeader, int] | None:
    """Reads the header at the start of some bytes.

    Args:
        data: bytes that begin with the header, as many as there are so far.

    Returns:
        The header and its size in bytes; None where it goes on behind `data`.

    Raises:
        HeaderError: this is no header, whatever may follow.
    """
    if not MAGIC.startswith(data[:2]):
        raise HeaderError(f"expected the header of a gzip member (1f 8b ...), found {data[:8].hex(' ')}")
    if len(data) > 2 and data[2] != _DEFLATE:
        raise HeaderError(f"gzip compression method {data[2]}, expected 8 (deflate)")
    if len(data) > 3 and data[3] & _RESERVED:
        raise HeaderError(f"reserved gzip flags are set: {data[3]:#04x}")
    if len(data) < _FIXED_BYTES:
        return None
    fields = _variable_fields(data)
    if fields is None:
        if len(data) > MAX_BYTES:
            raise HeaderError(f"a gzip header of more than {MAX_BYTES} bytes")
        return None
    name, size = fields
    header = GzipHeader(data[3], int.from_bytes(data[4:8], "little"), data[8], data[9], name.decode("latin-1"))
    return header, size


def _variable_fields(data: bytes) -> tuple[bytes, int] | None:
    """Name and size of a header; None where it goes on."""
    flags, at, name = data[3], _FIXED_BYTES, b""
    if flags & _HAS_EXTRA:
        if len(data) < at + 2:
            return None
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for flag in (_HAS_NAME, _HAS_COMMENT):
        if flags & flag:
            end = data.find(b"\0", at)
            if end < 0:
                return None
            name = data[at:end] if flag == _HAS_NAME else name
            at = end + 1
    if flags & _HAS_CHECKSUM:
        expected, found = zlib.crc32(data[:at]) & 0xFFFF, int.from_bytes(data[at : at + 2], "little")
        at += 2
        if len(data) >= at and expected != found:
            raise HeaderError(f"the gzip header has the checksum {expected:04x}, it says {found:04x}")
    return (name, at) if len(data) >= at else None
