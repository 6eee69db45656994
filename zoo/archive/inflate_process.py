"""Inflating beside a pass in a process of its own, so that neither waits for the other's interpreter lock.

The other process is a `zoo.archive.inflate_child`. Compressed bytes and batches go through memory that both share,
announcements through a socket. It costs some tenths of a second to start, so short archives are inflated here.
"""

from collections.abc import Iterator
import contextlib
from multiprocessing import connection
import os
import socket
import subprocess
import sys
import threading
from typing import Any, Protocol

from zoo import errors
from zoo.archive import gzip_stream, inflate, inflate_memory

MAX_CHUNK_BYTES = inflate_memory.CHUNK_BYTES
# Compressed bytes from which on a process is worth its start.
WORTH_BYTES = 1 << 26
_END_S = 10.0


class InflateProcessError(errors.HeldoutError, RuntimeError):
    """The process that inflates ended before its work did."""


class Inflater(Protocol):
    """Inflates a gzip file, chunk by chunk."""

    @property
    def num_output(self) -> int:
        """Uncompressed offset behind all batches of the chunks that were taken."""

    @property
    def gzip_members(self) -> int:
        """Number of gzip members begun in them."""

    def give(self, chunk: bytes) -> None:
        """Announces the next chunk, of `MAX_CHUNK_BYTES` at most; waits while too many have not been taken."""

    def take(self, chunk: bytes) -> Iterator[gzip_stream.Batch]:
        """The batches of the oldest chunk that was announced and not taken yet, which is this one.

        Raises:
            InflateError: the data is damaged.
            InflateProcessError: the process that inflates died, or `close` was called.
        """

    def finish(self) -> None:
        """Says, after all chunks were taken, that the file has ended.

        Raises:
            InflateError: it must go on.
            InflateProcessError: as for `take`.
        """

    def close(self) -> None:
        """Ends the work; from any thread, also while another one waits in `give` or `take`."""


def open_inflater(state: gzip_stream.InflaterState | None, where: str, num_bytes: int) -> Inflater:
    """An inflater in a process of its own where that is worth it.

    Args:
        state: where to go on; None for the start of the file.
        where: name of the file for messages.
        num_bytes: how many compressed bytes are still to come.
    """
    if num_bytes >= WORTH_BYTES and os.name == "posix":
        return OwnProcess(state, where)
    return ThisProcess(state, where)


class ThisProcess:
    """Inflates in the thread that takes."""

    def __init__(self, state: gzip_stream.InflaterState | None, where: str) -> None:
        self._inflater = gzip_stream.GzipInflater(state, where)
        self.finish, self.take = self._inflater.finish, self._inflater.feed

    @property
    def num_output(self) -> int:
        """As in `Inflater`."""
        return self._inflater.num_output

    @property
    def gzip_members(self) -> int:
        """As in `Inflater`."""
        return self._inflater.gzip_members

    def give(self, chunk: bytes) -> None:
        """Nothing can begin before the chunk is taken."""

    def close(self) -> None:
        """There is nothing to end."""


class OwnProcess:
    """Inflates in another process. Arguments as for `open_inflater`, methods as in `Inflater`."""

    def __init__(self, state: gzip_stream.InflaterState | None, where: str) -> None:
        self._where = where
        self.num_output = 0 if state is None else state.boundary.position
        self.gzip_members = 0 if state is None else state.gzip_member
        self._free = threading.Semaphore(inflate_memory.NUM_CHUNK_SLOTS)
        self._num_given = 0
        self._sending = threading.Lock()
        self._closed = False
        here, there = socket.socketpair()
        memory = inflate_memory.create()
        try:
            with there:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "zoo.archive.inflate_child", str(there.fileno()), str(memory)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(there.fileno(), memory),
                    process_group=0,  # Ctrl-C is for this process, which ends that one, from the first moment on
                    # Whatever the name zoo means elsewhere, there it is what it is here.
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
                )
            self._slots = inflate_memory.Slots(memory)
        finally:
            os.close(memory)
            self._pipe = connection.Connection(here.detach())
        self._send(state, where)

    def give(self, chunk: bytes) -> None:
        """Copies the chunk into a slot that is free."""
        self._free.acquire()
        slot = self._num_given % inflate_memory.NUM_CHUNK_SLOTS
        self._num_given += 1
        self._slots.chunk(slot)[: len(chunk)] = chunk
        self._send("chunk", slot, len(chunk))

    def take(self, chunk: bytes) -> Iterator[gzip_stream.Batch]:
        """Copies the batches out of their slots."""
        del chunk
        while (message := self._receive())[0] == "batch":
            slot, num_before, num_bytes, position, fields = message[1:]
            content = memoryview(bytes(self._slots.batch(slot)[: num_before + num_bytes]))
            self._send("free", slot)
            yield gzip_stream.Batch(position, content[num_before:], content[:num_before], *fields)
        self._free.release()

    def finish(self) -> None:
        """Asks the process whether the file is whole."""
        self._send("finish")
        self._receive()

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self._closed = True
        self._process.kill()
        self._process.wait(_END_S)
        for _ in range(inflate_memory.NUM_CHUNK_SLOTS):
            self._free.release()

    def _send(self, *message: Any) -> None:
        with self._sending:
            try:
                self._pipe.send(message)
            except OSError as error:
                # What it said last, of damage, is still to be read.
                if self._closed:
                    raise self._died() from error

    def _receive(self) -> tuple[Any, ...]:
        try:
            message: tuple[Any, ...] = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if message[0] == "done":
            self.num_output, self.gzip_members = message[1:]
        elif message[0] == "damaged":
            text, offset, position, self.gzip_members = message[1:]
            self.num_output = position
            raise inflate.InflateError(text, offset, position)
        return message

    def _died(self) -> InflateProcessError:
        status = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(_END_S)
        return InflateProcessError(
            f"{self._where}: the process that inflates it ended with status {status} before its work was done; if the "
            "machine ran out of memory, give it more. What was saved is kept, the same command continues"
        )
