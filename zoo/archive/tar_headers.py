"""The 512-byte headers of tar archives in the formats v7, ustar, GNU and PAX, and the extensions before them.

Formats after POSIX.1-2001 (pax interchange format) and GNU tar's manual, section "Basic Tar Format". A header is
believed only if its checksum holds. Numbers are octal, or big-endian binary as GNU tar writes them where octal is too
short; they are parsed strictly, because two programs that read one number differently see two different archives.
"""

import dataclasses
import re
import struct
from typing import Literal

from zoo import errors

HeaderFormat = Literal["v7", "ustar", "gnu", "pax"]

BLOCK_BYTES = 512
MAX_MEMBER_BYTES = 1 << 36
# name, mode to gid, size, mtime, checksum, type, link name, magic and version, owner to device, prefix.
_FIELDS = struct.Struct("100s24x12s12x8sc100s8s80x155s12x")
_CHECKSUM = slice(148, 156)
_MAGIC_OFFSET = 257
_FORMATS: dict[bytes, HeaderFormat] = {b"ustar\0": "ustar", b"ustar ": "gnu"}
_OCTAL = re.compile(rb" *([0-7]*) *")
_BINARY_POSITIVE, _BINARY_NEGATIVE = 0x80, 0xFF
_PAX_LENGTH = re.compile(rb"([1-9][0-9]{0,7}) ")
_DECIMAL = re.compile(r"-?[0-9]{1,20}")
_KNOWN_PAX_KEYS = frozenset({"path", "linkpath", "size"})
# GNU tar's and star's marks of a file with holes, whose data are not simply the file.
_SPARSE_PAX_KEYS = ("GNU.sparse.", "SCHILY.realsize")


class TarHeaderError(errors.DamagedFileError):
    """What stands where a header must be is none.

    Attributes:
        position: offset in the archive of the first byte of what was taken for a header.
        block: the bytes from `position` on that were looked at.
    """

    def __init__(self, message: str, position: int, block: bytes = b"") -> None:
        super().__init__(message)
        self.position = position
        self.block = block


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """One header whose checksum holds.

    Attributes:
        name: path, with the prefix of a ustar header; bytes that are not UTF-8 are lone surrogates.
        size: bytes of data that the header declares.
        type: the type flag, one byte.
        link_name: what a link points to.
        header_format: "v7", "ustar" or "gnu", by the magic.
    """

    name: str
    size: int
    type: bytes
    link_name: str
    header_format: HeaderFormat


def decode(block: bytes, position: int) -> Header:
    """Reads a header.

    Args:
        block: 512 bytes.
        position: their offset in the archive, for messages.

    Raises:
        TarHeaderError: the checksum does not hold, or the size is no number.
        UnsafeArchiveError: the size is negative or above 64 GiB.
    """
    name, size, checksum, kind, link_name, magic, prefix = _FIELDS.unpack(block)
    if not _checksum_holds(block, checksum):
        raise TarHeaderError(f"byte {position} of the tar data: no tar header, its checksum does not hold", position)
    header_format = _FORMATS.get(magic[:6], "v7")
    text = decode_text(name)
    # GNU tar keeps times where ustar has the prefix.
    if header_format == "ustar" and prefix[0]:
        text = f"{decode_text(prefix)}/{text}"
    num_bytes = _number(size)
    if num_bytes is None:
        raise TarHeaderError(
            f"byte {position} of the tar data: member {text[:200]!a} has size {size!r}, expected an octal number",
            position,
        )
    check_size(num_bytes, text, position)
    return Header(text, num_bytes, kind, decode_text(link_name), header_format)


def check_size(num_bytes: int, name: str, position: int) -> None:
    """Refuses sizes that no file of a zoo has.

    Raises:
        UnsafeArchiveError: the size is negative or above 64 GiB.
    """
    if not 0 <= num_bytes <= MAX_MEMBER_BYTES:
        raise errors.UnsafeArchiveError(
            f"byte {position} of the tar data: member {name[:200]!a} declares {num_bytes} bytes, "
            f"expected 0 to {MAX_MEMBER_BYTES}"
        )


def _checksum_holds(block: bytes, field: bytes) -> bool:
    """Whether the sum over the header, with blanks for the field itself, is the one stored; bytes signed or not."""
    stored = _octal(field)
    unsigned = sum(block) - sum(block[_CHECKSUM]) + 8 * 0x20
    if stored == unsigned:
        return True
    # Some old programs summed signed bytes.
    others = block[: _CHECKSUM.start] + block[_CHECKSUM.stop :]
    return stored == unsigned - 256 * sum(byte >> 7 for byte in others)


def _octal(field: bytes) -> int | None:
    """The number in a field, 0 where it is empty; None where it holds anything else."""
    match = _OCTAL.fullmatch(field.partition(b"\0")[0])
    return None if match is None else int(match[1] or b"0", 8)


def _number(field: bytes) -> int | None:
    """The number in a field, octal or in GNU tar's binary form, whose first byte tells the sign; None for others."""
    if field[0] in (_BINARY_POSITIVE, _BINARY_NEGATIVE):
        return int.from_bytes(field[1:], "big") - (field[0] == _BINARY_NEGATIVE) * (1 << 8 * (len(field) - 1))
    return _octal(field)


def decode_text(field: bytes) -> str:
    """Text up to the first NUL; bytes that are not UTF-8 become lone surrogates, as in Python's file names."""
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def parse_pax(content: bytes, position: int) -> dict[str, str]:
    r"""Reads the records of a PAX extension.

    Args:
        content: records "<length> <key>=<value>\n", the length counting all of the record; NULs may follow the last.
        position: offset of the extension's header in the archive, for messages.

    Returns:
        Values of "path", "linkpath", "size" and of the keys that mark sparse files, where given; the last of several.

    Raises:
        TarHeaderError: a record is not of this form.
    """
    records: dict[str, str] = {}
    at = 0
    while at < len(content):
        match = _PAX_LENGTH.match(content, at)
        end = at + int(match[1]) if match else 0
        if match is None or end <= match.end() or content[end - 1 : end] != b"\n":
            if content.count(b"\0", at) == len(content) - at:
                break
            raise _damaged_record(content[at : at + 32], position)
        key, equals, value = content[match.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise _damaged_record(content[at : at + 32], position)
        word = key.decode("utf-8", "surrogateescape")
        if word in _KNOWN_PAX_KEYS or is_sparse_key(word):
            records[word] = value.decode("utf-8", "surrogateescape")
        at = end
    return records


def _damaged_record(found: bytes, position: int) -> TarHeaderError:
    return TarHeaderError(
        f"byte {position} of the tar data: a PAX extension holds {found!r}..., expected <length> <key>=<value>",
        position,
    )


def is_sparse_key(key: str) -> bool:
    """Whether a PAX key says that the member's data are those of a file with holes."""
    return key.startswith(_SPARSE_PAX_KEYS)


def parse_pax_size(text: str, name: str, position: int) -> int:
    """The size that a PAX record gives.

    Args:
        text: value of the record.
        name: of the member, for messages.
        position: offset in the archive of the member's header, for messages.

    Raises:
        TarHeaderError: it is no number.
        UnsafeArchiveError: it is negative or above 64 GiB.
    """
    if not _DECIMAL.fullmatch(text):
        raise TarHeaderError(
            f"byte {position} of the tar data: a PAX extension gives {name[:200]!a} size {text[:32]!a}, "
            "expected a number",
            position,
        )
    num_bytes = int(text)
    check_size(num_bytes, name, position)
    return num_bytes


def find_header(data: bytes | memoryview, start: int = 0) -> int | None:
    """Looks for the next header, for going on behind a damaged place.

    Args:
        data: bytes of an archive, from any offset on.
        start: where in `data` to begin.

    Returns:
        Offset in `data` of 512 bytes with the magic of ustar, PAX or GNU tar, a checksum that holds and a size; None
        where there are none. The last 511 bytes can be the beginning of a header that `data` does not hold all of.
        Headers of v7 have no magic and are not found. Data that are tar archives themselves hold headers too.
    """
    content = bytes(data)
    at = content.find(b"ustar", start + _MAGIC_OFFSET)
    while at >= 0:
        block = content[at - _MAGIC_OFFSET : at - _MAGIC_OFFSET + BLOCK_BYTES]
        if len(block) == BLOCK_BYTES and _is_header(block):
            return at - _MAGIC_OFFSET
        at = content.find(b"ustar", at + 1)
    return None


def _is_header(block: bytes) -> bool:
    """Whether 512 bytes have a magic, a checksum that holds and a size that is a number."""
    fields = _FIELDS.unpack(block)
    return fields[5][:6] in _FORMATS and _checksum_holds(block, fields[2]) and _number(fields[1]) is not None
