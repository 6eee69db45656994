"""HTTP as an fsspec file system that believes nothing a server sends without looking.

The one that comes with fsspec hands out the whole object where a server ignores the range that was asked for, does not
notice an object that changes between two requests, and loses what it has when a connection is cut. Here every answer
is checked: status, Content-Range, length, version and encoding. One call is one try; who calls decides about the next.
"""

from collections.abc import Generator, Iterator, Mapping
import contextlib
import http.client
import threading
from typing import Any

import fsspec

from zoo import errors
from zoo.remote import addresses, http_headers, tries

# The largest piece taken from the socket at once: what a kernel holds ready is rarely more.
_PIECE_BYTES = 1 << 18
# Where HEAD fails with one of these, so may GET for the same reason, and only for the moment.
_TRANSIENT_FOR_HEAD = (408, 425, 429, 500, 502, 503, 504)


class HttpFileSystem(fsspec.AbstractFileSystem):
    """Objects on web servers; paths are whole addresses. May be used by several threads at once.

    Args:
        timeout_s: seconds without a byte after which a connection counts as stalled.
    """

    protocol = ("http", "https")
    cachable = False

    def __init__(self, timeout_s: float = 60.0) -> None:
        super().__init__(use_listings_cache=False)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle_sessions: list[Any] = []
        self._is_closed = False

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """Size, version, digests, and whether ranges are served.

        Both HEAD and a range of one byte are asked for: not every server knows HEAD, and only the answer to a range
        tells whether ranges are served.

        Returns:
            `name`, `type` ("file"), `size` (bytes), `version` (or None), `md5` (hexadecimal, or None), `crc32c` (or
            None), `accepts_ranges`.

        Raises:
            TransientError: try again.
            MissingFileError, NetworkError: the server refuses.
            DamagedFileError: the object is stored with a Content-Encoding.
        """
        head = self._head(path)
        with self._response("GET", path, {"Range": "bytes=0-0"}) as response:
            size, accepts_ranges = self._probed(path, response)
            headers = dict(response.headers.lower_items())
            if response.status_code == 206:
                _body(response, min(1, size or 1), None)
        version = http_headers.version(headers)
        if head and version == http_headers.version(head):
            headers = {**head, **headers}
            size = http_headers.number(head.get("content-length")) if size is None else size
        if size is None:
            raise errors.NetworkError(
                f"{addresses.display(path)}: the server does not say how large the object is; download it by other "
                f"means, then give the local path"
            )
        md5, crc32c = http_headers.digests(headers)
        facts = {"version": version, "md5": md5, "crc32c": crc32c, "accepts_ranges": accepts_ranges or size == 0}
        return {"name": path, "type": "file", "size": size, **facts}

    def cat_file(
        self,
        path: str,
        start: int | None = None,
        end: int | None = None,
        pin: http_headers.Pin | None = None,
        stopped: threading.Event | None = None,
        **kwargs: Any,
    ) -> bytes:
        """Bytes [start, end), or fewer of them where the server prefers to send fewer; never others.

        Args:
            path: the address.
            start: first byte; 0 if None.
            end: end of the range, exclusive; the object's end if None.
            pin: the object that the bytes must belong to.
            stopped: set by another thread when nobody waits for the bytes any more.
            **kwargs: ignored; fsspec's callers may pass more.

        Raises:
            TransientError: try again; carries the bytes that came before a cut.
            RangesIgnoredError: the server sends the whole object instead.
            MismatchError: the object is not the pinned one any more.
            MissingFileError, NetworkError: the server refuses.
            DamagedFileError: the object is stored with a Content-Encoding.
            StoppedError: `stopped` was set.
        """
        start, end = start or 0, self.info(path)["size"] if end is None else end
        if end <= start:
            return b""
        headers = {"Range": f"bytes={start}-{end - 1}", **http_headers.conditions(path, pin)}
        with self._response("GET", path, headers) as response:
            if response.status_code == 200:
                raise tries.RangesIgnoredError
            if response.status_code == 416 and pin is not None:
                total = (http_headers.content_range(response) or (None, None, None))[2]
                if total not in (None, pin.size):
                    raise tries.changed_error(path, f"it has {total} bytes, {pin.size} were expected")
            http_headers.check_status(path, response, 206)
            http_headers.check_same(path, response.headers, pin)
            return _body(response, http_headers.num_promised(path, response, start, end, pin), stopped)

    def pieces(
        self, path: str, start: int, pin: http_headers.Pin, stopped: threading.Event | None = None
    ) -> Generator[bytes, None, None]:
        """The object from byte `start` on, by one request for all of it: for servers that ignore ranges.

        Yields:
            Pieces of a few hundred kB at most, until the object's end.

        Raises:
            As `cat_file`, besides RangesIgnoredError.
        """
        with self._response("GET", path, http_headers.conditions(path, pin)) as response:
            http_headers.check_status(path, response, 200)
            http_headers.check_same(path, response.headers, pin)
            if http_headers.number(response.headers.get("content-length")) not in (None, pin.size):
                raise tries.changed_error(
                    path, f"it has {response.headers['content-length']} bytes, {pin.size} were expected"
                )
            position = 0
            while position < pin.size:
                piece = _piece(response, pin.size - position, stopped)
                if not piece:
                    raise tries.TransientError(f"the connection was cut at byte {position}")
                if position + len(piece) > start:
                    yield piece[max(0, start - position) :]
                position += len(piece)

    def cat_small(self, path: str, max_bytes: int) -> bytes:
        """The whole of a small object, by one request.

        Raises:
            InvalidValueError: it has more than `max_bytes` bytes.
            As `cat_file`, besides RangesIgnoredError.
        """
        with self._response("GET", path, {}) as response:
            http_headers.check_status(path, response, 200)
            http_headers.check_same(path, response.headers, None)
            size = http_headers.number(response.headers.get("content-length"))
            content = bytearray()
            while max(len(content), size or 0) <= max_bytes and (piece := _piece(response, 1 << 16, None)):
                content += piece
            if max(len(content), size or 0) > max_bytes:
                raise too_large_error(path, max_bytes)
            return bytes(content)

    def close(self) -> None:
        """Closes the connections that are not in use, and lets the others end."""
        with self._lock:
            self._is_closed = True
            sessions, self._idle_sessions = self._idle_sessions, []
        for session in sessions:
            session.close()

    def _head(self, path: str) -> Mapping[str, str] | None:
        """The headers that HEAD gives, or None where the server does not know it or refuses it."""
        with self._response("HEAD", path, {}) as response:
            if response.status_code in _TRANSIENT_FOR_HEAD:
                http_headers.check_status(path, response, 200)
            if response.status_code != 200:
                return None
            http_headers.check_same(path, response.headers, None)
            return dict(response.headers.lower_items())

    def _probed(self, path: str, response: Any) -> tuple[int | None, bool]:
        """(size or None, whether ranges are served), from the answer to a range of one byte."""
        content_range = http_headers.content_range(response)
        if response.status_code == 416 and content_range is not None and content_range[2] == 0:
            return 0, True
        if response.status_code == 200:
            http_headers.check_same(path, response.headers, None)
            return http_headers.number(response.headers.get("content-length")), False
        http_headers.check_status(path, response, 206)
        http_headers.check_same(path, response.headers, None)
        if content_range is None or content_range[0] != 0:
            raise tries.TransientError(
                f"the server answered Content-Range {response.headers.get('content-range')!r} where byte 0 was "
                f"asked for"
            )
        return content_range[2], True

    @contextlib.contextmanager
    def _response(self, method: str, path: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """An answer whose body has not been read; errors of the libraries below come out as ours."""
        # Takes a tenth of a second, for which reading a local file need not wait.
        import requests
        import urllib3

        session = self._borrow()
        response = None
        try:
            headers = {"Accept-Encoding": "identity", **headers}
            response = session.request(
                method, path, headers=headers, stream=True, allow_redirects=True, timeout=(self._timeout_s,) * 2
            )
            yield response
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if isinstance(error, errors.HeldoutError):
                raise
            raise _library_error(path, error, self._timeout_s) from error
        finally:
            if response is not None:
                response.close()
            self._give_back(session)

    def _borrow(self) -> Any:
        """A session of which no other thread makes use at the same time."""
        import requests

        with self._lock:
            if self._idle_sessions:
                return self._idle_sessions.pop()
        return requests.Session()

    def _give_back(self, session: Any) -> None:
        with self._lock:
            if not self._is_closed:
                self._idle_sessions.append(session)
                return
        session.close()


def _piece(response: Any, max_bytes: int, stopped: threading.Event | None) -> bytes:
    """What the socket holds ready, or b"" at the end. Other than `read`, loses nothing when the connection is cut."""
    if stopped is not None and stopped.is_set():
        raise tries.StoppedError
    return response.raw.read1(min(max_bytes, _PIECE_BYTES), decode_content=False)


def _body(response: Any, size: int, stopped: threading.Event | None) -> bytes:
    """Exactly `size` bytes, or a TransientError with those that came."""
    # As in `_response`.
    import urllib3

    pieces: list[bytes] = []
    num_read = 0
    reason = ""
    while num_read < size and not reason:
        try:
            piece = _piece(response, size - num_read, stopped)
            reason = "" if piece else "the connection was closed"
        except (urllib3.exceptions.HTTPError, OSError) as error:
            piece, reason = b"", _reason(error, None)
        pieces.append(piece)
        num_read += len(piece)
    if reason:
        raise tries.TransientError(f"{reason} after {num_read} of {size} bytes", b"".join(pieces))
    return b"".join(pieces)


def too_large_error(path: str, max_bytes: int) -> errors.InvalidValueError:
    """The error for an object that should be small and is not."""
    return errors.InvalidValueError(
        f"{addresses.display(path)}: has more than {max_bytes} bytes, which is not what was expected here; check the "
        f"address"
    )


def _library_error(path: str, error: Exception, timeout_s: float) -> Exception:
    """What an error of requests or urllib3 means: a TransientError, or the error for the user."""
    import requests

    where = addresses.display(path)
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return errors.InvalidValueError(f"{where}: not a web address ({error})")
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return errors.NetworkError(f"{where}: the server redirects in a circle; check the address")
    reason = _reason(error, timeout_s)
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE" in str(error).upper():
        return errors.NetworkError(
            f"{where}: the certificate of the server cannot be verified ({reason}); if a proxy of yours signs it, name "
            f"its certificates by the environment variable REQUESTS_CA_BUNDLE"
        )
    return tries.TransientError(reason)


def _reason(error: BaseException, timeout_s: float | None) -> str:
    """A clause that follows "because": the innermost of the errors that the libraries wrap in one another."""
    import requests
    import urllib3

    if isinstance(error, requests.exceptions.ReadTimeout | urllib3.exceptions.ReadTimeoutError):
        return f"no byte came for {timeout_s:g} s" if timeout_s else "no byte came in time"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection was made within {timeout_s:g} s"
    innermost: BaseException = error
    for _ in range(10):
        wrapped = [getattr(innermost, "reason", None), *innermost.args, innermost.__cause__, innermost.__context__]
        inner = next((value for value in wrapped if isinstance(value, BaseException)), None)
        if inner is None or inner is innermost:
            break
        innermost = inner
    if isinstance(innermost, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "the connection was closed"
    text = getattr(innermost, "strerror", None) or str(innermost) or type(innermost).__name__
    return f"the connection failed ({text})"
