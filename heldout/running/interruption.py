"""Ctrl-C, and the SIGTERM of a scheduler, while tasks are being worked on: what is begun may still be finished.

The first signal asks for the end. Without a grace period the handler that was there before is called at once, which
raises its exception. With one no new tasks are handed out, and that handler is called when those that are being worked
on are done, when the time is over, or at the second signal.

An exception that a handler raises can be lost: Python drops those that meet a destructor. Until the end has been
taken note of, it is therefore raised again every second, except while it is on its way.
"""

from collections.abc import Callable, Iterable, Iterator
import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SECONDS_BETWEEN_TRIES = 1.0


class Interruption:
    """Hears the signals within its block, in the main thread; in others nothing changes.

    Args:
        grace_s: seconds that begun tasks have after the first signal, 0 or more.
    """

    def __init__(self, grace_s: float = 0.0) -> None:
        self._grace_s = grace_s
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._alarm: Any = None
        self._heard: int | None = None
        self._held: str | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):  # otherwise ignored, as under nohup, or deadly: both are somebody's decision
                self._handlers[number] = handler
        if self._handlers:
            self._alarm = signal.signal(signal.SIGALRM, self._try_again)
        for heard in self._handlers:
            signal.signal(heard, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._handlers:
            signal.signal(signal.SIGALRM, self._alarm)
        self._handlers = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._heard is not None

    def until_requested(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """The tasks, until a signal comes."""
        for task in tasks:
            if self.requested:
                return
            yield task

    def settle(self) -> None:
        """The end has been taken note of: it is not raised again, unless by another signal."""
        if self._handlers:
            signal.setitimer(signal.ITIMER_REAL, 0)

    @contextlib.contextmanager
    def held(self, what: str) -> Iterator[None]:
        """Within it the first signal waits until the end: for what is short and should not be left half done.

        Args:
            what: is told to whoever sends one, as in "the table is being written".
        """
        self._held = what
        try:
            yield
        finally:
            self._held = None
        self.end()

    def end(self) -> None:
        """What follows a graceful end: calls the handler of the signal, if one has come, which raises."""
        self.settle()
        if self._heard is not None:
            self._handlers[self._heard](self._heard, None)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        first = self._heard is None
        self._heard = number
        if first and (self._held or self._grace_s > 0):
            if not self._held:
                signal.setitimer(signal.ITIMER_REAL, self._grace_s, _SECONDS_BETWEEN_TRIES)
            # Not by print: the interrupted code may be in the middle of one.
            os.write(2, f"\n{_note(number, self._grace_s, self._held)}\n".encode())
            return
        signal.setitimer(signal.ITIMER_REAL, _SECONDS_BETWEEN_TRIES, _SECONDS_BETWEEN_TRIES)
        self._handlers[number](number, frame)

    def _try_again(self, _: int, frame: FrameType | None) -> None:
        if self._heard is not None and not _on_its_way():
            self._handlers[self._heard](self._heard, frame)


def _note(number: int, grace_s: float, held: str | None) -> str:
    what = held or f"what is being trained has {grace_s:g} s to be finished"
    return f"{signal.Signals(number).name}: {what}; the same signal again ends at once"


def _on_its_way() -> bool:
    """Whether the code that was interrupted cleans up after an interrupt."""
    error = sys.exception()
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None
