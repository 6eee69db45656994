"""MD5 and CRC32C of a stream, with a state that can be saved and continued in another process.

Python's hashlib does not give away the state of a digest. OpenSSL's own functions keep it in a plain structure of 92
bytes, which is copied out and in here; the kept package for this (rehash) refuses OpenSSL 3. Where no libcrypto can be
loaded, MD5 is computed by hashlib as long as the process lives; after a restart it is not known, `md5_hex` says so with
None, and CRC32C, which needs no more state than its value, is what is left to compare.
"""

import base64
import ctypes
import ctypes.util
import functools
import hashlib
from typing import Any, Protocol

import google_crc32c

from zoo import errors

_MD5_STATE_BYTES = 92
_MD5_BYTES = 16


class _Md5(Protocol):
    def update(self, data: bytes) -> None:
        """Adds bytes."""

    def hexdigest(self) -> str:
        """The digest of all bytes so far."""


class _OpenSslMd5:
    """MD5 by libcrypto, whose state can be read."""

    def __init__(self, library: Any, state: bytes | None = None) -> None:
        self._library = library
        # Twice what OpenSSL uses today.
        self._context = ctypes.create_string_buffer(2 * _MD5_STATE_BYTES)
        if state is None:
            self._library.MD5_Init(self._context)
        else:
            ctypes.memmove(self._context, state, _MD5_STATE_BYTES)

    def update(self, data: bytes) -> None:
        self._library.MD5_Update(self._context, data, len(data))

    def hexdigest(self) -> str:
        finished = ctypes.create_string_buffer(self._context.raw)
        digest = ctypes.create_string_buffer(_MD5_BYTES)
        self._library.MD5_Final(digest, finished)
        return digest.raw.hex()

    def state(self) -> bytes:
        return self._context.raw[:_MD5_STATE_BYTES]


@functools.cache
def _library() -> Any:
    """libcrypto, if it computes a known digest, also from a saved state; else None."""
    name = ctypes.util.find_library("crypto")
    try:
        library = ctypes.CDLL(name) if name else None
        if library is None:
            return None
        library.MD5_Init.argtypes = [ctypes.c_void_p]
        library.MD5_Update.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        library.MD5_Final.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    except (OSError, AttributeError):
        return None
    first = _OpenSslMd5(library)
    first.update(b"held")
    second = _OpenSslMd5(library, first.state())
    second.update(bytes(100) + b"out")
    known = hashlib.md5(b"held" + bytes(100) + b"out", usedforsecurity=False).hexdigest()
    return library if second.hexdigest() == known else None


class StreamDigests:
    """MD5 and CRC32C of the bytes given to `update`."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self.crc32c = 0
        library = _library()
        self._md5: _Md5 | None = hashlib.md5(usedforsecurity=False) if library is None else _OpenSslMd5(library)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "StreamDigests":
        """Continues from what `state` returned, perhaps in another process.

        Raises:
            DamagedFileError: it is no such state.
        """
        digests = cls()
        try:
            num_bytes, crc32c, md5 = state["num_bytes"], state["crc32c"], state["md5"]
            saved = None if md5 is None else base64.b64decode(md5, validate=True)
        except (KeyError, TypeError, ValueError) as error:
            raise errors.DamagedFileError(f"not the saved state of a digest: {error!r}") from error
        numbers = all(isinstance(number, int) and number >= 0 for number in (num_bytes, crc32c))
        if not numbers or (saved is not None and len(saved) != _MD5_STATE_BYTES):
            raise errors.DamagedFileError("not the saved state of a digest: a value is out of range")
        digests.num_bytes, digests.crc32c = num_bytes, crc32c
        if num_bytes:
            library = _library()
            digests._md5 = None if saved is None or library is None else _OpenSslMd5(library, saved)
        return digests

    def update(self, data: bytes) -> None:
        """Adds bytes; other threads run meanwhile."""
        self.num_bytes += len(data)
        self.crc32c = google_crc32c.extend(self.crc32c, data)
        if self._md5 is not None:
            self._md5.update(data)

    def md5_hex(self) -> str | None:
        """Hexadecimal MD5, or None where its state was lost in a restart."""
        return None if self._md5 is None else self._md5.hexdigest()

    def state(self) -> dict[str, Any]:
        """What `from_state` continues from; goes through JSON unchanged."""
        md5 = base64.b64encode(self._md5.state()).decode() if isinstance(self._md5, _OpenSslMd5) else None
        return {"num_bytes": self.num_bytes, "crc32c": self.crc32c, "md5": md5}
