"""What the headers of HTTP answers say about an object, and whether they are sound."""

import base64
import binascii
from collections.abc import Mapping
import contextlib
import dataclasses
import re
from typing import Any
import urllib.parse

from zoo import errors
from zoo.remote import addresses, tries

_CONTENT_RANGE = re.compile(r"bytes (?:(?P<first>[0-9]+)-(?P<last>[0-9]+)|\*)/(?P<total>[0-9]+|\*)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Pin:
    """The object that was opened: its size in bytes, and its version where the server gives one."""

    size: int
    version: str | None


def check_status(path: str, response: Any, expected: int) -> None:
    """Raises what another status than the expected one means; see `tries.status_error`."""
    if response.status_code != expected:
        retry_after = response.headers.get("retry-after")
        raise tries.status_error(path, response.status_code, response.reason or "", retry_after)


def check_same(path: str, headers: Mapping[str, str], pin: Pin | None) -> None:
    """Raises unless the bytes are sent as they are stored, and are of the pinned version."""
    for header in ("content-encoding", "x-goog-stored-content-encoding"):
        encoding = headers.get(header, "identity").strip().lower()
        if encoding not in ("identity", ""):
            raise errors.DamagedFileError(
                f"{addresses.display(path)}: is sent or stored with {header.title()} {encoding}, so its bytes and "
                f"their number depend on who asks; it must be published without an encoding of its own"
            )
    found = version(headers)
    if pin is not None and pin.version is not None and found is not None and found != pin.version:
        raise tries.changed_error(path, f"its version is {found}, {pin.version} was expected")


def num_promised(path: str, response: Any, start: int, end: int, pin: Pin | None) -> int:
    """How many bytes from `start` on the answer to a range holds, once its headers are sound."""
    first, last, total = content_range(response) or (None, None, None)
    if pin is not None and total is not None and total != pin.size:
        raise tries.changed_error(path, f"it has {total} bytes, {pin.size} were expected")
    length = number(response.headers.get("content-length"))
    if first != start or last is None or not start <= last < end or length not in (None, last + 1 - start):
        raise tries.TransientError(
            f"the server answered Content-Range {response.headers.get('content-range')!r} and Content-Length {length} "
            f"where bytes {start}-{end - 1} were asked for"
        )
    return last + 1 - start


def content_range(response: Any) -> tuple[int | None, int | None, int | None] | None:
    """First byte, last byte and size of the object; each None where it is left open. None for no such header."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
    return None if match is None else (number(match["first"]), number(match["last"]), number(match["total"]))


def number(text: str | None) -> int | None:
    """A number of bytes, or None where there is none."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,18}", text) else None


def version(headers: Mapping[str, str]) -> str | None:
    """The strongest thing by which a server tells two versions of an object apart."""
    if generation := headers.get("x-goog-generation"):
        return f"generation:{generation}"
    etag = headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return f"etag:{etag}"
    modified = headers.get("last-modified")
    return f"modified:{modified}" if modified else None


def conditions(path: str, pin: Pin | None) -> dict[str, str]:
    """Headers by which the server itself refuses to send another version."""
    kind, _, value = (pin.version or "" if pin else "").partition(":")
    if kind == "generation":
        # A signature covers all headers of this family, so none may be added to a signed address.
        is_signed = "x-goog-signature" in urllib.parse.urlsplit(path).query.lower()
        return {} if is_signed else {"x-goog-if-generation-match": value}
    names = {"etag": "If-Match", "modified": "If-Unmodified-Since"}
    return {names[kind]: value} if kind in names else {}


def digests(headers: Mapping[str, str]) -> tuple[str | None, int | None]:
    """MD5 and CRC32C from x-goog-hash, as in "crc32c=n03x6A==,md5=Ojk9c3dhfxgoKVVHYwFbHQ=="."""
    found: dict[str, bytes] = {}
    for entry in headers.get("x-goog-hash", "").split(","):
        kind, _, value = entry.strip().partition("=")
        with contextlib.suppress(binascii.Error):
            found[kind] = base64.b64decode(value, validate=True)
    md5, crc32c = found.get("md5", b""), found.get("crc32c", b"")
    return md5.hex() if len(md5) == 16 else None, int.from_bytes(crc32c, "big") if len(crc32c) == 4 else None
