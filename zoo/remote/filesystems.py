"""The fsspec file system behind an address, with one meaning for sizes, versions, digests and errors.

Everything here is one try; `zoo.remote.tries` says what follows a failure.
"""

import asyncio
import base64
import dataclasses
import os
import stat
import threading
from typing import Any

import fsspec
from fsspec.implementations import local

from zoo import errors
from zoo.remote import addresses, http_filesystem, http_headers, tries

# What works without another package; others of fsspec (s3://, ...) may.
_SCHEMES = "a path, file://, http://, https:// or gs://"
# Their errors are not all OSErrors.
_NETWORK_PACKAGES = ("aiohttp", "requests", "urllib3")


@dataclasses.dataclass(frozen=True)
class ObjectState:
    """What was found where an address leads.

    Attributes:
        url: the address.
        size: bytes.
        version: what changes when the object is replaced: "generation:..." in buckets, "etag:..." or "modified:..." on
            web servers, "mtime_ns:inode" of a local file; None where there is no such thing.
        md5: hexadecimal MD5 of the object according to its server, in lower case; None where it gives none, as for
            composite objects in buckets.
        crc32c: CRC32C according to the server, or None.
    """

    url: str
    size: int
    version: str | None
    md5: str | None = None
    crc32c: int | None = None


class Store:
    """One object through its file system. May be used by several threads at once.

    Args:
        url: address of the object.
        options: how it is read.

    Raises:
        InvalidValueError: no file system is known for such an address, or its package is missing.
        NetworkError: the credentials cannot be used, or a server of another protocol cannot be reached.
    """

    def __init__(self, url: str, options: tries.Options) -> None:
        self._url = url
        self._protocol = addresses.protocol(url)
        self._path = url
        self._filesystem: Any
        if (path := addresses.local_path(url)) is not None:
            self._filesystem, self._path = local.LocalFileSystem(), path
        elif addresses.is_web(url):
            self._filesystem = http_filesystem.HttpFileSystem(options.timeout_s)
        elif self._protocol in ("gs", "gcs"):
            self._filesystem = _open_gcs(url, options)
        else:
            self._filesystem, self._path = _open_other(url)

    def look(self) -> tuple[ObjectState, bool]:
        """Asks for the object's state; the second value tells whether ranges of it can be read.

        Raises:
            TransientError: try again.
            MissingFileError: there is no such object.
            NetworkError, DamagedFileError: as in `zoo.remote.source.open_source`.
        """
        if self._protocol == "file":
            return self._look_locally(), True
        try:
            facts = self._filesystem.info(self._path)
        except Exception as error:
            raise self._explained(error) from error
        if facts.get("type") != "file" or facts.get("size") is None:
            raise errors.MissingFileError(f"{self.where}: no such object, but perhaps a folder; check the address")
        state = self._gcs_state(facts) if self._protocol in ("gs", "gcs") else self._other_state(facts)
        return state, bool(facts.get("accepts_ranges", True))

    def read(self, state: ObjectState, start: int, stop: int, stopped: threading.Event) -> bytes:
        """Bytes [start, stop) of the object in that state, or fewer, but at least one.

        Raises:
            TransientError: try again; carries the bytes that came before a cut.
            RangesIgnoredError, StoppedError: see `zoo.remote.tries`.
            MismatchError: the object is not in that state any more.
            MissingFileError, NetworkError, DamagedFileError: as in `zoo.remote.source.open_source`.
        """
        try:
            data = self._filesystem.cat_file(self._path, start, stop, **self._extra(state, stopped))
        except Exception as error:
            raise self._explained(error, state) from error
        if len(data) > stop - start:
            raise errors.NetworkError(
                f"{self.where}: gave {len(data)} bytes where {stop - start} were asked for; download it by other "
                f"means, then give the local path"
            )
        if not data and self._protocol == "file":
            raise errors.MismatchError(
                f"{self.where}: ends at or before byte {start}, it had {state.size} bytes when it was opened; do not "
                f"change it while it is read"
            )
        if not data:
            raise tries.TransientError("no bytes were sent")
        return data

    @property
    def web(self) -> http_filesystem.HttpFileSystem | None:
        """The file system of a web address, or None."""
        return self._filesystem if isinstance(self._filesystem, http_filesystem.HttpFileSystem) else None

    @property
    def where(self) -> str:
        """The address as messages show it."""
        return addresses.display(self._url)

    def close(self) -> None:
        """Closes connections that are not in use."""
        if self.web is not None:
            self.web.close()

    def _extra(self, state: ObjectState, stopped: threading.Event) -> dict[str, Any]:
        if self.web is not None:
            return {"pin": pin(state), "stopped": stopped}
        if self._protocol in ("gs", "gcs") and state.version is not None:
            return {"generation": state.version.partition(":")[2]}
        return {}

    def _look_locally(self) -> ObjectState:
        try:
            facts = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise errors.MissingFileError(f"{self._path}: no such file; check the path") from error
        if not stat.S_ISREG(facts.st_mode):
            raise errors.MissingFileError(f"{self._path}: is a folder or a device, expected a file; check the path")
        return ObjectState(self._url, facts.st_size, f"{facts.st_mtime_ns}:{facts.st_ino}")

    def _gcs_state(self, facts: dict[str, Any]) -> ObjectState:
        if facts.get("contentEncoding") not in (None, "", "identity"):
            raise errors.DamagedFileError(
                f"{self.where}: is stored with Content-Encoding {facts['contentEncoding']}, so its bytes and their "
                f"number depend on who asks; it must be published without an encoding of its own"
            )
        generation, md5, crc32c = (facts.get(key) for key in ("generation", "md5Hash", "crc32c"))
        return ObjectState(
            self._url,
            int(facts["size"]),
            f"generation:{generation}" if generation else None,
            base64.b64decode(md5).hex() if md5 else None,
            int.from_bytes(base64.b64decode(crc32c), "big") if crc32c else None,
        )

    def _other_state(self, facts: dict[str, Any]) -> ObjectState:
        version = facts.get("version") or facts.get("etag") or facts.get("ETag")
        return ObjectState(
            self._url, int(facts["size"]), str(version) if version else None, facts.get("md5"), facts.get("crc32c")
        )

    def _explained(self, error: Exception, state: ObjectState | None = None) -> Exception:
        """What an error of a file system means: a TransientError, or the error for the user."""
        known = (errors.HeldoutError, tries.TransientError, tries.RangesIgnoredError, tries.StoppedError)
        if isinstance(error, known) or self._protocol == "file":
            return error
        status = _status(error)
        if status == 404 and state is not None and state.version is not None:
            # A bucket that keeps one generation has no object any more under the number of an earlier one.
            return tries.changed_error(self._url, f"version {state.version} is not there any more")
        if status is not None:
            return tries.status_error(self._url, status)
        is_of_network = type(error).__module__.partition(".")[0] in _NETWORK_PACKAGES
        if is_of_network or isinstance(error, OSError | EOFError | asyncio.TimeoutError):
            return tries.TransientError(f"the connection failed ({str(error) or type(error).__name__})")
        return errors.NetworkError(
            f"{self.where}: cannot be read ({type(error).__name__}: {error}); check the address and --gcs_token"
        )


def _status(error: Exception) -> int | None:
    """The HTTP status behind an error, or None; gcsfs turns some into errors of the operating system."""
    kinds = {FileNotFoundError: 404, IsADirectoryError: 404, FileExistsError: 412, PermissionError: 403}
    for kind, status in kinds.items():
        if isinstance(error, kind):
            return status
    if str(error).startswith("Forbidden"):
        return 403
    found = str(getattr(error, "code", None) or getattr(error, "status", None))
    return int(found) if found.isdigit() else None


def pin(state: ObjectState) -> http_headers.Pin:
    """What an object on a web server is held to."""
    return http_headers.Pin(state.size, state.version)


def _open_gcs(url: str, options: tries.Options) -> Any:
    # Without this, the first call waits most of a minute for an experimental service. The package reads it on import,
    # which takes a second.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import aiohttp
    import gcsfs.core

    class OneTry(gcsfs.core.GCSFileSystem):
        """Without retries of its own, which would multiply with ours and print tracebacks."""

        _request = getattr(gcsfs.core.GCSFileSystem._request, "__wrapped__", gcsfs.core.GCSFileSystem._request)

    token = options.gcs_token
    if ("/" in token or token.endswith(".json")) and not os.path.isfile(os.path.expanduser(token)):
        # gcsfs takes what is no file for a secret, and would send it to be looked at.
        raise errors.MissingFileError(f"--gcs_token={token}: no such file; public zoos need --gcs_token=anon")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=options.timeout_s, sock_read=options.timeout_s)
    try:
        return OneTry(token=token, skip_instance_cache=True, use_listings_cache=False, requests_timeout=timeout)
    except Exception as error:
        # The message may quote the token.
        raise errors.NetworkError(
            f"{url}: the credentials given by --gcs_token cannot be used ({type(error).__name__}); expected anon, "
            f"google_default or the file of a key; public zoos need --gcs_token=anon"
        ) from error


def _open_other(url: str) -> tuple[Any, str]:
    where = addresses.display(url)
    try:
        return fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise errors.InvalidValueError(
            f"{where}: no file system for such an address ({error}); expected {_SCHEMES}. Others need the package of "
            "fsspec that reads them"
        ) from error
    except Exception as error:  # each has errors of its own
        raise errors.NetworkError(
            f"{where}: cannot be opened by {addresses.protocol(url)}:// ({error}); check the address, or give a copy "
            f"behind one that is supported: {_SCHEMES}"
        ) from error
