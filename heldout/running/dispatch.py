"""Hands tasks out to workers, hears what they answer, and replaces workers that are lost.

Where the workers live is not said here: workers.py starts processes on this machine, ray_runner.py on
a cluster. Both give `run` a pool, and their callers the same interface.

A worker is sent one task at a time and answers with messages, the last one with "done". A worker that ends in the
middle of a task leaves a `Loss`; the caller's `Recover` says which tasks take the place of the lost one, so that what
has been answered already is not done again.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
import dataclasses
import queue
from typing import Any, Protocol

from zoo import errors

Message = dict[str, Any]
# What workers say: (number of the worker, message); None for its end.
Answers = queue.SimpleQueue[tuple[int, Message | None]]

# Workers lost in a row before one of them could start; more will not help.
_MOST_LOST_STARTS = 3


class WorkerError(errors.HeldoutError, RuntimeError):
    """A worker process ended before its task did."""


class TaskError(errors.HeldoutError, RuntimeError):
    """An error of the user's that a worker process met; the message is the original one."""


@dataclasses.dataclass(frozen=True)
class End:
    """How a worker came to its end.

    Attributes:
        cause: what happened, as the beginning of a sentence.
        last_words: what it printed, where that is known.
        lost: it was ended from outside, so another one may do better; otherwise its program failed.
        memory: it may have been for a lack of memory.
    """

    cause: str
    last_words: str = ""
    lost: bool = False
    memory: bool = False

    def obituary(self) -> str:
        """For the user, when there is no other worker to take over."""
        words = f"\nIts last words:\n{self.last_words}" if self.last_words else ""
        return f"{self.cause}; what was finished is kept, the same command continues.{words}"


@dataclasses.dataclass(frozen=True)
class Loss:
    """A task whose worker was lost.

    Attributes:
        task: as it was handed out.
        answers: messages about it that came before.
        end: of the worker.
    """

    task: Message
    answers: list[Message]
    end: End


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What to do about a loss.

    Attributes:
        tasks: in place of the lost one.
        message: for the caller of the runner, who hears it between those of the workers.
    """

    tasks: list[Message]
    message: Message


# Raises WorkerError where there is no use in going on.
Recover = Callable[[Loss], Recovery]


class Worker(Protocol):
    """One worker, wherever it is; whatever it says goes to the answers that the pool was given."""

    def send(self, message: Message) -> None:
        """Hands it a task; does not wait, and does not fail where the worker has ended."""

    def how_it_ended(self) -> End:
        """To be asked after its end has been heard."""

    def end(self) -> None:
        """Ends it, whatever it does."""


class Pool(Protocol):
    """What starts workers."""

    def start(self, number: int, answers: Answers) -> Worker:
        """Starts a worker, which says "done" as soon as it can be given tasks."""

    def all_started(self) -> None:
        """No worker is starting any more."""


def run(pool: Pool, tasks: Iterable[Message], num_workers: int, recover: Recover | None = None) -> Iterator[Message]:
    """Runs tasks and yields the messages of all workers as they come; no worker is left in the end.

    Args:
        pool: starts the workers.
        tasks: handed out in order.
        num_workers: to start; lost ones are replaced.
        recover: what to do about losses; without it the first one ends everything.

    Raises:
        WorkerError: a worker ended and there is no recovery.
        TaskError: what a worker reported as an error of the user's.
    """
    dispatcher = _Dispatcher(pool, tasks, recover)
    try:
        yield from dispatcher.run(num_workers)
    finally:
        dispatcher.end()


class _Dispatcher:
    """Who does what, and what is left to do."""

    def __init__(self, pool: Pool, tasks: Iterable[Message], recover: Recover | None) -> None:
        self._pool = pool
        self._recover = recover
        self._answers: Answers = queue.SimpleQueue()
        self._tasks = iter(tasks)
        self._next: collections.deque[Message] = collections.deque()
        self._workers: dict[int, Worker] = {}
        self._starting: set[int] = set()
        self._idle: set[int] = set()
        self._doing: dict[int, tuple[Message, list[Message]]] = {}
        self._num_started = 0
        self._num_lost_starts = 0
        self._any_ready = False

    def run(self, num_workers: int) -> Iterator[Message]:
        for _ in range(num_workers):
            self._start()
        while self._doing or (self._starting and (not self._any_ready or self._more())):
            number, message = self._answers.get()
            if number not in self._workers:
                continue
            if message is None:
                yield from self._lost(number)
                continue
            if "error" in message:
                raise TaskError(message["error"])
            yield message
            self._heard(number, message)

    def end(self) -> None:
        for worker in self._workers.values():
            worker.end()
        self._pool.all_started()

    def _start(self) -> None:
        number = self._num_started
        self._num_started += 1
        self._starting.add(number)
        self._workers[number] = self._pool.start(number, self._answers)

    def _more(self) -> bool:
        """Whether there is a task to hand out."""
        if not self._next:
            self._next.extend(task for task in [next(self._tasks, None)] if task is not None)
        return bool(self._next)

    def _heard(self, number: int, message: Message) -> None:
        if not message.get("done"):
            if number in self._doing:
                self._doing[number][1].append(message)
            return
        if number in self._starting:
            self._begun(number)
            self._any_ready, self._num_lost_starts = True, 0
        self._doing.pop(number, None)
        self._idle.add(number)
        self._hand_out()

    def _begun(self, number: int) -> None:
        self._starting.discard(number)
        if not self._starting:
            self._pool.all_started()

    def _hand_out(self) -> None:
        while self._idle and self._more():
            number = self._idle.pop()
            task = self._next.popleft()
            self._doing[number] = (task, [])
            self._workers[number].send(task)

    def _lost(self, number: int) -> Iterator[Message]:
        worker = self._workers.pop(number)
        end = worker.how_it_ended()
        worker.end()
        if number in self._idle:
            self._idle.discard(number)
            return
        final = self._recover is None or not end.lost
        if number in self._starting:
            self._begun(number)
            self._num_lost_starts += 1
            final = final or self._num_lost_starts == _MOST_LOST_STARTS
        if final or self._recover is None:
            raise WorkerError(end.obituary())
        if number in self._doing:
            recovery = self._recover(Loss(*self._doing.pop(number), end))
            self._next.extendleft(reversed(recovery.tasks))
            yield recovery.message
        else:
            yield {"note": f"{end.cause} before it could start; another one takes its place"}
        self._hand_out()
        if self._more() or not (self._any_ready or self._starting):
            self._start()
