"""A pool of worker processes that speak lines of JSON.

A worker is a program of ours started as `python -m MODULE`. It reads its task descriptions from standard input, one
JSON object a line, and answers on a pipe of its own: any number of messages per task, the last one with "done". The
pool hands every worker a new task as soon as it is done with the last, so the caller's process needs neither
TensorFlow nor a choice of who does what.

Who does what is decided in dispatch.py; ray_runner.py has the same interface on a cluster.

No worker outlives its parent: when standard input closes, for whatever reason, the worker ends at once. It may be
killed at any moment because all files appear whole (zoo/files.py).
"""

from collections.abc import Callable, Generator, Iterable, Mapping
import contextlib
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

from heldout.running import code_version, dispatch, scratch
from zoo import errors, files

Message = dispatch.Message
# Performs one task; given the task and a function that sends a message.
Perform = Callable[[Message, Callable[[Message], None]], None]
# Writes a folder that workers need at their start, such as a data set.
Supply = Callable[[str], None]

WorkerError = dispatch.WorkerError
TaskError = dispatch.TaskError

# What TensorFlow says at every start.
_CHATTER = re.compile(r"[IWE]\d{4} |WARNING: All log messages|To enable the following instructions")
_ANSWERS_VARIABLE = "HELDOUT_ANSWERS_FD"
# Signals that come for a lack of memory: the kernel's, and the C++ library's.
_MEMORY_SIGNALS = (signal.SIGKILL, signal.SIGABRT)
# Status of a worker that found too little memory itself.
_EXHAUSTED_STATUS = 70


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
    supplies: Mapping[str, Supply] | None = None,
    recover: dispatch.Recover | None = None,
) -> Generator[Message, None, None]:
    """Runs tasks on worker processes of this machine and yields their messages as they come.

    Args:
        module: importable program that calls `serve`.
        setup: first line for every worker.
        tasks: handed out in order.
        num_workers: processes to start.
        threads_per_worker: computing threads for each.
        supplies: folders that workers need while they start; see `ProcessPool`.
        recover: what to do about tasks whose worker was killed; without it the first such death ends everything.

    Yields:
        Every message of every worker, in order of arrival.

    Raises:
        WorkerError: a worker died; the others are ended.
        TaskError: what a worker reported as an error of the user's.
    """
    with scratch.folder() as folder:
        pool = ProcessPool(module, setup, threads_per_worker, supplies or {}, folder)
        yield from dispatch.run(pool, tasks, num_workers, recover)


class ProcessPool:
    """Starts workers on this machine; a `dispatch.Pool`.

    Args:
        module: importable program that calls `serve`.
        setup: first line for every worker.
        threads: computing threads for each.
        supplies: folders that workers need while they start; each function writes one to a path that does not exist
            yet, and the setup gets the path under the same name. A worker has read or mapped all of it when it says
            that it is ready: then the folder goes, so that a kill leaves no copy.
        folder: for these and for all that is temporary in the workers; outlives them.
    """

    def __init__(self, module: str, setup: Message, threads: int, supplies: Mapping[str, Supply], folder: str) -> None:
        self._module = module
        self._setup = setup
        self._threads = threads
        self._supplies = supplies
        self._folder = folder
        self._data: str | None = None

    def start(self, number: int, answers: dispatch.Answers) -> "_ProcessWorker":
        """Starts a process; the first one waits until the folders are written."""
        if self._supplies and self._data is None:
            self._data = tempfile.mkdtemp(prefix="data-", dir=self._folder)
            for name, write in self._supplies.items():
                write(os.path.join(self._data, name))
        paths = {name: os.path.join(self._data or "", name) for name in self._supplies}
        worker = _ProcessWorker(number, self._module, self._threads, self._folder, answers)
        worker.send({"setup": self._setup | paths})
        return worker

    def all_started(self) -> None:
        """Deletes the folders."""
        if self._data is not None:
            shutil.rmtree(self._data, ignore_errors=True)
            self._data = None


class WorkerProcess:
    """One process of a worker program.

    Args:
        module: importable program that calls `serve`.
        threads: computing threads.
        folder: for what is temporary; None for the one of this process.
    """

    def __init__(self, module: str, threads: int, folder: str | None = None) -> None:
        self._reading_end, writing_end = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`; nameless, so a kill leaves nothing
        environment = os.environ | {
            _ANSWERS_VARIABLE: str(writing_end),
            # Our modules are found as here; the current folder comes last, for a user's own module:callable, so that
            # files of the user's that are named like ours do no harm.
            "PYTHONPATH": os.pathsep.join([*(path or os.getcwd() for path in sys.path), os.getcwd()]),
            "OMP_NUM_THREADS": str(threads),
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
            "TMPDIR": folder or tempfile.gettempdir(),
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

    def send(self, message: Message) -> None:
        """Hands it a line; the death of the process is for the listener to notice."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def messages(self) -> Generator[Message, None, None]:
        """What it says, until it ends; to be read by one listener."""
        with open(self._reading_end, "rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def kill(self) -> None:
        """Ends it; the listener hears of it."""
        self._process.kill()
        self._process.wait()

    def how_it_ended(self) -> dispatch.End:
        """To be asked when the messages have ended."""
        status = self._process.wait()
        exhausted = status == _EXHAUSTED_STATUS
        cause = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        cause = "found too little memory" if exhausted else cause
        memory = exhausted or -status in _MEMORY_SIGNALS
        often = "" if exhausted else "often a lack of memory: "
        hint = f" ({often}use fewer --workers or --runs_per_group)" if memory else ""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        last_words = "\n".join([line for line in lines if not _CHATTER.match(line)][-15:])
        return dispatch.End(f"a worker process {cause}{hint}", last_words, lost=status < 0 or memory, memory=memory)

    def close(self) -> None:
        """Forgets its log."""
        self._log.close()


class _ProcessWorker:
    """A process and the thread that listens to it."""

    def __init__(self, number: int, module: str, threads: int, folder: str, answers: dispatch.Answers) -> None:
        self._process = WorkerProcess(module, threads, folder)
        self.send = self._process.send
        self.how_it_ended = self._process.how_it_ended
        self._listener = threading.Thread(target=self._listen, args=(number, answers), daemon=True)
        self._listener.start()

    def _listen(self, number: int, answers: dispatch.Answers) -> None:
        for message in self._process.messages():
            answers.put((number, message))
        answers.put((number, None))

    def end(self) -> None:
        self._process.kill()
        self._listener.join()
        self._process.close()


def check_shared(path: files.PathLike, flag: str = "zoo") -> None:
    """To be asked by workers that may be on another machine than the program, before they write into its folders.

    Args:
        path: a file that the program has written there.
        flag: names the folder.

    Raises:
        MissingFileError: it is not seen from here.
    """
    if not pathlib.Path(path).is_file():
        raise errors.MissingFileError(
            f"{path}: not seen by the worker on {socket.gethostname()}; --{flag} must be a folder that all machines "
            "share"
        )


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
        first = tasks.get()
        code_version.check(first.get("code"))
        perform, facts = start(first["setup"])
        send(facts | {"done": True})
        while True:
            perform(tasks.get(), send)
            send({"done": True})
    except (errors.HeldoutError, OSError) as error:
        send({"error": errors.explain(error)})
    except MemoryError as error:
        print(f"too little memory: {error}", flush=True)
        os._exit(_EXHAUSTED_STATUS)


def _read_tasks(tasks: queue.SimpleQueue) -> None:
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)
