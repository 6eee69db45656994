"""An object, wherever it lies, read in checked ranges.

    with source.open_source("gs://bucket/zoo.tar.gz") as archive:
        head = archive.read(0, 512)
        for chunk in archive.stream():
            ...

Whatever is handed out are the bytes that were asked for, of the version that was opened. What fails for the moment is
tried again from the last byte that came; what fails for good is one of the errors in `zoo.errors`, which says why.
"""

from collections.abc import Callable, Generator
import contextlib
import threading
from types import TracebackType
from typing import TypeVar

from zoo import errors
from zoo.remote import addresses, filesystems, http_filesystem, ordered, tries

Options = tries.Options
ObjectState = filesystems.ObjectState
join = addresses.join
name = addresses.name

_DEFAULTS = Options()
# Where a file system loses what came before a cut, smaller ranges get through.
_SMALLEST_RANGE_BYTES = 1 << 18
_Result = TypeVar("_Result")


class Source:
    """Context manager for one object; made by `open_source`. May be used by several threads at once, until closed.

    Attributes:
        state: what was found when the object was opened.
    """

    def __init__(self, url: str, options: Options) -> None:
        self._options = options
        self._closed = threading.Event()
        self._store = filesystems.Store(url, options)
        self._url = url
        try:
            self.state, self._accepts_ranges = self._look()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; reads that are under way in other threads end early."""
        self._closed.set()
        self._store.close()

    @property
    def accepts_ranges(self) -> bool:
        """Whether parts can be read; False for a server that sends the whole object whatever is asked for."""
        return self._accepts_ranges

    def read(self, start: int, size: int) -> bytes:
        """Bytes [start, start + size), all of them.

        Raises:
            InvalidValueError: the object does not have these bytes.
            NetworkError: the server fails again and again, refuses, or serves no ranges.
            MismatchError: the object has changed since it was opened.
            MissingFileError: it is not there any more.
        """
        if start < 0 or size < 0 or start + size > self.state.size:
            raise errors.InvalidValueError(
                f"{self._store.where}: bytes {start} to {start + size} were asked for, it has {self.state.size}"
            )
        if not self._accepts_ranges and size:
            raise self._no_ranges_error()
        try:
            return self._read(start, start + size, self._closed)
        except tries.RangesIgnoredError as error:
            self._accepts_ranges = False
            raise self._no_ranges_error() from error

    def stream(self, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        """The bytes [start, stop) in order, read by `num_parallel` threads ahead of the caller.

        At most `num_parallel` + 2 chunks are in memory, besides the pieces that chunks are just put together from.
        Threads end when the iterator is closed.

        Args:
            start: first byte.
            stop: end, exclusive; the object's end if None.

        Yields:
            Chunks of `chunk_bytes` bytes at most, none empty.

        Raises:
            As `read`; a server that serves no ranges is asked for the whole object once, and what lies before `start`
            is read and forgotten.
        """
        stop = self.state.size if stop is None else stop
        if not 0 <= start <= stop <= self.state.size:
            raise errors.InvalidValueError(
                f"{self._store.where}: bytes {start} to {stop} were asked for, it has {self.state.size}"
            )
        return self._stream(start, stop)

    def check_unchanged(self) -> None:
        """Asks again for the object's state.

        Raises:
            MismatchError: its size or version is another than when it was opened.
            MissingFileError, NetworkError: as in `open_source`.
        """
        now = self._look()[0]
        if (now.size, now.version) != (self.state.size, self.state.version):
            raise tries.changed_error(
                self._url,
                f"it has {now.size} bytes and version {now.version}, {self.state.size} bytes and version "
                f"{self.state.version} were expected",
            )

    def _look(self) -> tuple[ObjectState, bool]:
        return _with_tries(self._store.look, self._url, self._options, self._closed)

    def _stream(self, start: int, stop: int) -> Generator[bytes, None, None]:
        position = start
        if self._accepts_ranges:
            try:
                with contextlib.closing(self._ranges(start, stop)) as chunks:
                    for chunk in chunks:
                        position += len(chunk)
                        yield chunk
                return
            except tries.RangesIgnoredError:
                self._accepts_ranges = False
        if position < stop:
            with contextlib.closing(self._whole(position, stop)) as chunks:
                yield from chunks

    def _ranges(self, start: int, stop: int) -> Generator[bytes, None, None]:
        size, stopped = self._options.chunk_bytes, threading.Event()
        num_chunks = -(-(stop - start) // size)

        def make(index: int) -> bytes:
            first = start + index * size
            return self._read(first, min(first + size, stop), stopped)

        return ordered.chunks(make, num_chunks, self._options.num_parallel, stopped)

    def _read(self, start: int, stop: int, stopped: threading.Event) -> bytes:
        """Range [start, stop), put together from as many answers as it takes."""
        attempts = tries.Tries(self._url, self._options, stopped)
        pieces: list[bytes] = []
        largest = stop - start
        while start < stop:
            failure = None
            try:
                data = self._store.read(self.state, start, min(stop, start + largest), stopped)
            except tries.TransientError as error:
                data, failure = error.data, error
            if data:
                pieces.append(data)
                start += len(data)
            if failure is not None and start < stop:
                attempts.failed(failure, progressed=bool(data))
                largest = max(largest // 2, _SMALLEST_RANGE_BYTES) if not data else largest
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _whole(self, start: int, stop: int) -> Generator[bytes, None, None]:
        """Range [start, stop) from requests for the whole object, read by one thread ahead of the caller."""
        stopped = threading.Event()
        pieces = self._whole_pieces(start, stop, stopped)
        rest = bytearray()
        size = self._options.chunk_bytes

        def make(index: int) -> bytes:
            wanted = min(size, stop - start - index * size)
            while len(rest) < wanted:
                rest.extend(next(pieces))
            chunk = bytes(memoryview(rest)[:wanted])
            del rest[:wanted]
            return chunk

        return ordered.chunks(make, -(-(stop - start) // size), 1, stopped)

    def _whole_pieces(self, start: int, stop: int, stopped: threading.Event) -> Generator[bytes, None, None]:
        attempts = tries.Tries(self._url, self._options, stopped)
        web = self._store.web
        while start < stop and web is not None:
            before = start
            try:
                with contextlib.closing(web.pieces(self._url, start, filesystems.pin(self.state), stopped)) as pieces:
                    for piece in pieces:
                        start += len(piece)
                        yield piece
            except tries.TransientError as error:
                attempts.failed(error, progressed=start > before)

    def _no_ranges_error(self) -> errors.NetworkError:
        return errors.NetworkError(
            f"{self._store.where}: the server sends the whole object where a part of it was asked for; download it "
            f"with zoo_download, then give the local path"
        )


def open_source(url: str, options: Options = _DEFAULTS) -> Source:
    """Opens an object for reading.

    Args:
        url: a path, file://, http://, https:// or gs:// address, or one of another protocol that fsspec knows.
        options: how it is read.

    Raises:
        MissingFileError: there is no such object.
        NetworkError: the server fails again and again, or refuses access.
        DamagedFileError: the object is stored with a Content-Encoding.
        InvalidValueError: no file system is known for such an address.
    """
    return Source(url, options)


def read_small(url: str, max_bytes: int, options: Options = _DEFAULTS) -> bytes:
    """The whole of a small object.

    Raises:
        InvalidValueError: it has more than `max_bytes` bytes.
        As `open_source`, and MismatchError where it changes meanwhile.
    """
    if addresses.is_web(url):
        # Small files are often made when they are asked for, without ranges and with a length unknown beforehand.
        with contextlib.closing(http_filesystem.HttpFileSystem(options.timeout_s)) as web:
            return _with_tries(lambda: web.cat_small(url, max_bytes), url, options, threading.Event())
    with open_source(url, options) as source:
        if source.state.size > max_bytes:
            raise http_filesystem.too_large_error(url, max_bytes)
        return source.read(0, source.state.size)


def _with_tries(action: Callable[[], _Result], url: str, options: Options, stopped: threading.Event) -> _Result:
    attempts = tries.Tries(url, options, stopped)
    while True:
        try:
            return action()
        except tries.TransientError as error:
            attempts.failed(error)
