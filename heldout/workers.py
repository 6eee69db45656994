"""A pool of worker processes that speak lines of JSON.

A worker is a program of ours started as `python -m MODULE`. It reads its task descriptions from standard input, one
JSON object a line, and answers on a pipe of its own: any number of messages per task, the last one with "done". The
pool hands every worker a new task as soon as it is done with the last, so the caller's process needs neither
TensorFlow nor a choice of who does what.

No worker outlives its parent: when standard input closes, for whatever reason, the worker ends at once. It may be
killed at any moment because all files appear whole (zoo/files.py).
"""

from collections.abc import Callable, Generator, Iterable, Iterator
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any

from zoo import errors

Message = dict[str, Any]
# Performs one task; given the task and a function that sends a message.
Perform = Callable[[Message, Callable[[Message], None]], None]

# What TensorFlow says at every start.
_CHATTER = re.compile(r"[IWE]\d{4} |WARNING: All log messages|To enable the following instructions")
_ANSWERS_VARIABLE = "HELDOUT_ANSWERS_FD"


class WorkerError(errors.HeldoutError, RuntimeError):
    """A worker process ended before its task did."""


class TaskError(errors.HeldoutError, RuntimeError):
    """An error of the user's that a worker process met; the message is the original one."""


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    module: str,
    setup: Message,
    tasks: Iterable[Message],
    *,
    num_workers: int,
    threads_per_worker: int,
) -> Generator[Message, None, None]:
    """Runs tasks on worker processes and yields their messages as they come.

    Args:
        module: importable program that calls `serve`.
        setup: first line for every worker.
        tasks: handed out in order.
        num_workers: processes to start.
        threads_per_worker: computing threads for each.

    Yields:
        Every message of every worker, in order of arrival.

    Raises:
        WorkerError: a worker died; the others are ended.
        TaskError: what a worker reported as an error of the user's.
    """
    answers: queue.SimpleQueue[tuple[int, Message | None]] = queue.SimpleQueue()
    workers = [_Worker(i, module, threads_per_worker, answers) for i in range(num_workers)]
    try:
        yield from _hand_out(workers, setup, iter(tasks), answers)
    finally:
        for worker in workers:
            worker.end()


def _hand_out(
    workers: list["_Worker"], setup: Message, tasks: Iterator[Message], answers: queue.SimpleQueue
) -> Iterator[Message]:
    for worker in workers:
        worker.send(setup)
    busy = len(workers)
    while busy:
        number, message = answers.get()
        if message is None:
            raise WorkerError(workers[number].obituary())
        if "error" in message:
            raise TaskError(message["error"])
        yield message
        if message.get("done"):
            task = next(tasks, None)
            if task is None:
                busy -= 1
            else:
                workers[number].send(task)


class _Worker:
    """One process and the thread that listens to it."""

    def __init__(self, number: int, module: str, threads: int, answers: queue.SimpleQueue) -> None:
        reading_end, writing_end = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`; nameless, so a kill leaves nothing
        environment = os.environ | {
            _ANSWERS_VARIABLE: str(writing_end),
            # Our modules are found as here; the current folder comes last, for a user's own module:callable, so that
            # files of the user's that are named like ours do no harm.
            "PYTHONPATH": os.pathsep.join([*(path or os.getcwd() for path in sys.path), os.getcwd()]),
            "OMP_NUM_THREADS": str(threads),
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=environment,
            pass_fds=[writing_end],
        )
        os.close(writing_end)
        self._listener = threading.Thread(target=_listen, args=(number, reading_end, answers), daemon=True)
        self._listener.start()

    def send(self, message: Message) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the listener reports the death of the process

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()
        self._log.close()

    def obituary(self) -> str:
        status = self._process.wait()
        cause = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        hint = " (often a lack of memory: use fewer --workers or --runs_per_group)" if status == -signal.SIGKILL else ""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        last_lines = "\n".join([line for line in lines if not _CHATTER.match(line)][-15:])
        return (
            f"a worker process {cause}{hint}; what was finished is kept, the same command continues.\n"
            f"Its last words:\n{last_lines}"
        )


def _listen(number: int, reading_end: int, answers: queue.SimpleQueue) -> None:
    with open(reading_end, "rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                answers.put((number, json.loads(line)))
    answers.put((number, None))


def serve(start: Callable[[Message], tuple[Perform, Message]]) -> None:
    """The main function of a worker program.

    Args:
        start: given the setup, prepares and returns the function that performs one task, and facts that the caller
            may want before the first task.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent's to handle, which ends its workers
    # Not inherited further: a grandchild that held the pipe open would hide our death from the parent.
    answers = open(int(os.environ.pop(_ANSWERS_VARIABLE)), "w", encoding="utf-8")  # noqa: SIM115 - closed by exit
    os.set_inheritable(answers.fileno(), False)

    def send(message: Message) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    tasks: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_read_tasks, args=(tasks,), daemon=True).start()
    try:
        perform, facts = start(tasks.get())
        send(facts | {"done": True})
        while True:
            perform(tasks.get(), send)
            send({"done": True})
    except (errors.HeldoutError, OSError) as error:
        send({"error": errors.explain(error)})


def _read_tasks(tasks: queue.SimpleQueue) -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)
