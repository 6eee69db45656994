"""Values made by several threads at once, handed over in order."""

from collections.abc import Callable, Generator
import threading

from zoo.remote import tries


class _Exchange:
    """Where threads leave their chunks and the reader finds the next one."""

    def __init__(self, num_chunks: int, num_ahead: int, stopped: threading.Event) -> None:
        self._num_chunks = num_chunks
        self._num_ahead = num_ahead
        self._stopped = stopped
        self._changed = threading.Condition()
        self._next_to_make = 0
        self._next_to_take = 0
        self._made: dict[int, bytes | BaseException] = {}

    def next_index(self) -> int | None:
        """The next chunk to make, once there is room for it; None when there is nothing left to do."""
        with self._changed:
            while not self._stopped.is_set() and self._next_to_make < self._num_chunks:
                if self._next_to_make < self._next_to_take + self._num_ahead:
                    self._next_to_make += 1
                    return self._next_to_make - 1
                self._changed.wait()
        return None

    def put(self, index: int, chunk: bytes | BaseException) -> None:
        with self._changed:
            self._made[index] = chunk
            self._changed.notify_all()

    def take(self) -> bytes:
        with self._changed:
            while self._next_to_take not in self._made:
                self._changed.wait()
            chunk = self._made.pop(self._next_to_take)
            self._next_to_take += 1
            self._changed.notify_all()
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def stop(self) -> None:
        self._stopped.set()
        with self._changed:
            self._made.clear()
            self._changed.notify_all()


def chunks(
    make: Callable[[int], bytes], num_chunks: int, num_threads: int, stopped: threading.Event
) -> Generator[bytes]:
    """Yields make(0), make(1), ... in order, made by threads ahead of the reader.

    At most num_threads + 1 chunks are made or waiting at any time, besides the one that the reader holds.

    Args:
        make: called by several threads at once, with each index once.
        num_chunks: how many.
        num_threads: how many threads.
        stopped: set when the reader has gone, for whatever reason, so that `make` can end early.

    Raises:
        Exception: what `make` raised, when its turn comes.
    """
    exchange = _Exchange(num_chunks, num_threads + 1, stopped)

    def work() -> None:
        while (index := exchange.next_index()) is not None:
            try:
                exchange.put(index, make(index))
            except tries.StoppedError:
                return
            except BaseException as error:
                exchange.put(index, error)
                return

    try:
        for _ in range(min(num_threads, num_chunks)):
            # A thread may wait for a stalled server when the program ends; that must not hold the program up.
            threading.Thread(target=work, daemon=True).start()
        for _ in range(num_chunks):
            yield exchange.take()
    finally:
        exchange.stop()
