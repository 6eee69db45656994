"""The two heavy streams of a pass over an archive, each on a core: inflating, and digesting the compressed bytes.

    source --> chunks --+--> digests
                        +--> inflater --> batches of the tar stream, to whoever iterates

One thread reads and gives the chunks out, one digests, one takes the batches.

Inflater and digests each have their own place in the file: after a restart, or after damage was skipped, one may be
ahead of the other. Both are fed from the smaller of the two places on, each from its own.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import queue
import threading
from typing import Any

from zoo.archive import digests, gzip_stream, inflate_process
from zoo.remote import source

# Inflated batches of a megabyte that may wait; chunks that wait are bounded by the source.
_BATCHES_WAITING = 8
_CHUNKS_WAITING = 2
# Digests may run this many chunks ahead of what the inflated batches have been used for.
_STATES_KEPT = 8
_POLL_S = 0.2
_JOIN_S = 2.0


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Compressed bytes that the batches after it are inflated from.

    Attributes:
        offset: where in the file they begin.
        data: the bytes.
    """

    offset: int
    data: bytes


@dataclasses.dataclass(frozen=True)
class Inflated:
    """Uncompressed bytes.

    Attributes:
        batch: the bytes, and where in them deflate blocks begin.
        state: of the inflater behind the batch; None where the batch ends inside a block.
    """

    batch: gzip_stream.Batch
    state: gzip_stream.InflaterState | None


class _StoppedError(Exception):
    """The pass was given up."""


class Pump:
    """Iterable over the chunks and batches of an archive from some place on; a context manager that stops its threads.

    Args:
        archive: the object to read.
        inflater: new, or made from a saved state; closed at the end.
        inflate_from: the offset of the first byte that the inflater takes.
        sums: digests of the first `sums.num_bytes` bytes; taken over by the pump.
    """

    def __init__(
        self,
        archive: source.Source,
        inflater: inflate_process.Inflater,
        inflate_from: int,
        sums: digests.StreamDigests,
    ) -> None:
        self._archive, self._inflater, self._inflate_from = archive, inflater, inflate_from
        self._sums = sums
        self._digest_states = [sums.state()]
        self._items: queue.Queue[Any] = queue.Queue(_BATCHES_WAITING)
        self._to_digest: queue.Queue[bytes | None] = queue.Queue(_CHUNKS_WAITING)
        self._given: queue.Queue[Chunk | BaseException | None] = queue.Queue(_CHUNKS_WAITING)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._digest_all, name="digest", daemon=True),
            threading.Thread(target=self._read_all, name="read", daemon=True),
            threading.Thread(target=self._inflate_all, name="inflate", daemon=True),
        ]

    def __enter__(self) -> "Pump":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._inflater.close()
        for thread in self._threads:
            thread.join(_JOIN_S)  # one that waits for the network ends by itself, later

    def __iter__(self) -> Iterator[Chunk | Inflated]:
        """The items in order.

        Raises:
            InflateError: the compressed data is damaged; everything before has been delivered.
            NetworkError, OSError: the archive cannot be read on.
        """
        while True:
            try:
                item = self._items.get(timeout=_POLL_S)
            except queue.Empty:
                if self._failure is not None:
                    raise self._failure from None
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def digest_state(self, offset: int) -> dict[str, Any]:
        """The last known state of the digests that is not ahead of an offset; the oldest one if all are."""
        states = self._digest_states
        return next((state for state in reversed(states) if state["num_bytes"] <= offset), states[0])

    def _read_all(self) -> None:
        try:
            try:
                self._give_all()
                self._put(self._given, None)
            except _StoppedError:
                pass
            except BaseException as error:
                self._put(self._given, error)
            self._put(self._to_digest, None)
        except _StoppedError:
            pass

    def _give_all(self) -> None:
        offset = start = min(self._inflate_from, self._sums.num_bytes)
        digested = self._sums.num_bytes
        with contextlib.closing(self._archive.stream(start)) as chunks:
            for data in chunks:
                end = offset + len(data)
                if end > digested:
                    self._put(self._to_digest, data[max(0, digested - offset) :])
                for begin in range(max(0, self._inflate_from - offset), len(data), inflate_process.MAX_CHUNK_BYTES):
                    piece = data[begin : begin + inflate_process.MAX_CHUNK_BYTES]
                    self._inflater.give(piece)
                    self._put(self._given, Chunk(offset + begin, piece))
                offset = end

    def _inflate_all(self) -> None:
        try:
            try:
                self._take_all()
                # The digests are complete before the last item is.
                self._threads[0].join()
                self._put(self._items, None)
            except _StoppedError:
                pass
            except BaseException as error:
                self._put(self._items, error)
        except _StoppedError:
            pass

    def _take_all(self) -> None:
        while (chunk := self._get(self._given)) is not None:
            if isinstance(chunk, BaseException):
                raise chunk
            self._put(self._items, chunk)
            for batch in self._inflater.take(chunk.data):
                state = batch.state() if batch.ends_at_boundary else None
                self._put(self._items, Inflated(batch, state))
        self._inflater.finish()

    def _digest_all(self) -> None:
        try:
            while (data := self._get(self._to_digest)) is not None:
                self._sums.update(data)
                self._digest_states = [*self._digest_states[-_STATES_KEPT:], self._sums.state()]
        except _StoppedError:
            pass
        except BaseException as error:
            self._failure = error
            self._stop.set()

    def _put(self, target: queue.Queue[Any], item: Any) -> None:
        while True:
            if self._stop.is_set():
                raise _StoppedError
            try:
                target.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def _get(self, origin: queue.Queue[Any]) -> Any:
        while True:
            if self._stop.is_set():
                raise _StoppedError
            try:
                return origin.get(timeout=_POLL_S)
            except queue.Empty:
                continue
