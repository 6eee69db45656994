"""Members of tar archives: what a header says together with the extensions before it.

An extension goes before the header of its member as a member of its own: PAX records (types x, X), or a long name (L)
or link (K) of GNU tar. PAX records go before GNU's names, and both before the header's own fields.
"""

import dataclasses
from typing import Any, Literal

from zoo import errors
from zoo.archive import tar_headers

Kind = Literal["file", "directory", "link", "special"]

MAX_NAME_LENGTH = 4096
_FILE_TYPES = frozenset({b"0", b"\0", b"7"})
_GNU_FOLDER_LISTING = b"D"
# Links, devices and folders may declare a size, but no data follow.
_KINDS_WITHOUT_DATA: dict[bytes, Kind] = {
    b"1": "link",
    b"2": "link",
    b"3": "special",
    b"4": "special",
    b"5": "directory",
    b"6": "special",
}


@dataclasses.dataclass(frozen=True, slots=True)
class TarMember:
    """One member of an archive; nothing in it has been held against anything but the tar format.

    Attributes:
        name: its path as the archive has it; bytes that are not UTF-8 are lone surrogates. At most 4096 characters.
        kind: "link" are hard and symbolic links, "special" all that is neither file, folder nor link: devices, pipes,
            files with holes, volume labels and unknown types.
        size: bytes of data that follow, 0 to 64 GiB; for a file, its size.
        header_position: offset in the archive of the first header that belongs to it, extensions included.
        data_position: offset in the archive of its data.
        header_format: "pax" or "gnu" where an extension of that sort precedes it, else by its own header.
        link_name: what a link points to; "" for others.
    """

    name: str
    kind: Kind
    size: int
    header_position: int
    data_position: int
    header_format: tar_headers.HeaderFormat
    link_name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """The headers of a member have been read."""

    member: TarMember


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """The next bytes of a member, a slice of what was fed; valid as long as that is."""

    member: TarMember
    data: memoryview


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """All data of a member have been seen; the padding behind them perhaps not yet."""

    member: TarMember


@dataclasses.dataclass(slots=True)
class Extensions:
    """What has been announced for the next member.

    Attributes:
        header_position: offset in the archive of the first extension; None where there is none.
        pax: records of `tar_headers.parse_pax`.
        long_name: path.
        long_link: what a link points to.
    """

    header_position: int | None = None
    pax: dict[str, str] | None = None
    long_name: str | None = None
    long_link: str | None = None


def member_of(header: tar_headers.Header, extensions: Extensions, position: int) -> TarMember:
    """The member that a header begins.

    Args:
        header: of the member itself.
        extensions: announced before it.
        position: offset in the archive of `header`.

    Raises:
        TarHeaderError: the size in a PAX extension is no number.
        UnsafeArchiveError: that size is negative or above 64 GiB, a name has more than 4096 characters, or a folder
            declares data in a way that some programs read and others do not.
    """
    pax = extensions.pax or {}
    name = pax.get("path") or extensions.long_name or header.name
    link_name = pax.get("linkpath") or extensions.long_link or header.link_name
    for text in (name, link_name):
        if len(text) > MAX_NAME_LENGTH:
            raise errors.UnsafeArchiveError(
                f"byte {position} of the tar data: a name of {len(text)} characters, {text[:50]!a}..., "
                f"expected {MAX_NAME_LENGTH} at most"
            )
    size = tar_headers.parse_pax_size(pax["size"], name, position) if "size" in pax else header.size
    kind = _kind(header, name, size, position)
    header_format = header.header_format
    if extensions.pax is not None:
        header_format = "pax"
    elif extensions.header_position is not None:
        header_format = "gnu"
    return TarMember(
        name=name,
        kind="special" if any(tar_headers.is_sparse_key(key) for key in pax) else kind,
        size=0 if header.type in _KINDS_WITHOUT_DATA else size,
        header_position=position if extensions.header_position is None else extensions.header_position,
        data_position=position + tar_headers.BLOCK_BYTES,
        header_format=header_format,
        link_name=link_name if kind == "link" else "",
    )


def _kind(header: tar_headers.Header, name: str, size: int, position: int) -> Kind:
    """What a member is.

    Raises:
        UnsafeArchiveError: the name ends in a slash, as folders' names did before there were types, and data follow.
    """
    if header.type not in _FILE_TYPES:
        return "directory" if header.type == _GNU_FOLDER_LISTING else _KINDS_WITHOUT_DATA.get(header.type, "special")
    # Some programs look at the name in the header even where an extension gives another.
    if not name.endswith("/") and not header.name.endswith("/"):
        return "file"
    if size:
        raise errors.UnsafeArchiveError(
            f"byte {position} of the tar data: {name[:200]!a} is named like a folder and declares {size} bytes of "
            "data, which programs understand differently; do not use this archive"
        )
    return "directory" if name.endswith("/") else "file"


def records_of_one(content: bytes, position: int) -> dict[str, str]:
    """The PAX records for one member, see `tar_headers.parse_pax`; none of them empty.

    Raises:
        TarHeaderError: they are damaged, or one is empty: after POSIX that takes back what the header says, but few
            programs do so.
    """
    records = tar_headers.parse_pax(content, position)
    empty = [key for key, value in records.items() if not value]
    if empty:
        raise tar_headers.TarHeaderError(
            f"byte {position} of the tar data: a PAX extension gives an empty {', '.join(empty)}", position
        )
    return records


def check_records_of_all(content: bytes, position: int) -> None:
    """Checks the PAX records for all members that follow. They may give times or comments; none of that is used.

    Raises:
        TarHeaderError: they are damaged.
        UnsafeArchiveError: they give what can be true of one member only; programs differ in what they make of it.
    """
    records = tar_headers.parse_pax(content, position)
    if records:
        raise errors.UnsafeArchiveError(
            f"byte {position} of the tar data: an extension gives {', '.join(records)} of all members at once, "
            "expected for one member at a time; do not use this archive"
        )


def member_from_json(fields: dict[str, Any] | None) -> TarMember | None:
    """A member from what `dataclasses.asdict` made of it; None for None.

    Raises:
        TypeError: a field is missing or unknown.
        ValueError: a field has a value of another type or out of range.
    """
    if fields is None:
        return None
    member = TarMember(**fields)
    numbers = (member.size, member.header_position, member.data_position)
    texts = (member.name, member.kind, member.header_format, member.link_name)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("a number of a member is missing or negative")
    if not all(isinstance(text, str) for text in texts) or member.size > tar_headers.MAX_MEMBER_BYTES:
        raise ValueError("a member has a value out of range")
    return member


def extensions_from_json(fields: dict[str, Any]) -> Extensions:
    """Extensions from what `dataclasses.asdict` made of them.

    Raises:
        TypeError: a field is missing or unknown.
        ValueError: a field has a value of another type.
    """
    extensions = Extensions(**fields)
    records = {} if extensions.pax is None else extensions.pax
    if not isinstance(records, dict):
        raise ValueError("the records of an extension are no object")
    texts = [*records, *records.values(), extensions.long_name or "", extensions.long_link or ""]
    if not all(isinstance(text, str) for text in texts) or type(extensions.header_position) not in (int, type(None)):
        raise ValueError("an extension has a value of another type")
    return extensions
