"""A pool of worker programs on a Ray cluster, as workers.py has one of processes.

An actor holds one place of the cluster. In it runs the same program as on a single machine, in a process of its own
that ends with the actor: what is lost is a worker, whether its process, its actor or its machine went away, and
dispatch.py starts another one where the cluster has room. Folders that workers need travel through Ray's
object store; the zoo must be one that all machines can write to.

Every machine needs the same Heldout: its version and a digest of its code are compared before any work.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import threading
from typing import Any

import numpy as np

from heldout.running import code_version, dispatch, scratch, workers
from zoo import errors

# Ray's name for "start a cluster of this process's own".
_OWN_CLUSTER = "local"
_CONNECT_SECONDS = 10
_END_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class Places:
    """Where workers run.

    Attributes:
        address: of a running cluster, as "auto" or "ray://host:10001"; None for one of this machine that ends with the
            program.
        num_cpus: cores for each worker, at least 1.
        num_gpus: GPUs for each worker, which may be a part of one.
    """

    address: str | None = None
    num_cpus: int = 1
    num_gpus: float = 0


def check(places: Places) -> None:
    """Refuses what cannot be, before anything is started.

    Raises:
        InvalidValueError: a number is out of range, or Ray is not installed.
    """
    if places.num_cpus < 1:
        raise errors.InvalidValueError(f"--num_cpus_per_worker={places.num_cpus}: expected at least 1")
    if places.num_gpus < 0:
        raise errors.InvalidValueError(f"--num_gpus_per_worker={places.num_gpus:g}: expected 0 or more")
    _ray()


def _ray() -> Any:
    """Ray itself, without the signal handlers that it would put in the place of the program's.

    Raises:
        InvalidValueError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told
    with _own_signal_handlers():
        try:
            import ray  # seconds, and not everybody has it
        except ImportError as error:
            raise errors.InvalidValueError(
                f"--runner=ray: Ray cannot be imported ({error}); pip install 'heldout[ray]', or use --runner=local"
            ) from error
    return ray


@contextlib.contextmanager
def _own_signal_handlers() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def cluster(places: Places) -> Iterator[int]:
    """Connects to a cluster, or starts one that ends with the block.

    Yields:
        How many workers it has room for now, at least 1.

    Raises:
        InvalidValueError: as `check`; a cluster of this machine has too little for one worker.
        NetworkError: no cluster answers at the address.
    """
    check(places)
    if places.address is not None:
        _check_answers(places.address)
    ray = _ray()
    own: dict[str, Any] = {}
    if places.address is None:
        # Of our own, so that workers need not give way to all else, as they do by default.
        own = {"num_cpus": workers.num_cores(), "include_dashboard": False, "_system_config": {"worker_niceness": 0}}
    try:
        with _own_signal_handlers():
            ray.init(address=places.address or _OWN_CLUSTER, log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise errors.NetworkError(
            f"--ray_address={places.address}: no cluster could be reached ({str(error).splitlines()[0]}); start one "
            "with `ray start --head`, or leave the flag out for one of this machine"
        ) from error
    try:
        yield room(ray.cluster_resources(), places)
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Tries a connection, because Ray itself goes on trying for minutes.

    Raises:
        NetworkError: nobody answers.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise errors.NetworkError(
            f"--ray_address={address}: nobody answers there ({error}); start a cluster with `ray start --head`, or "
            "leave the flag out for one of this machine"
        ) from error


def room(resources: Mapping[str, float], places: Places) -> int:
    """How many workers a cluster has room for, at least 1: it may grow.

    Args:
        resources: of the cluster, by Ray's names.
        places: what each worker takes.

    Raises:
        InvalidValueError: there is none on a cluster of this machine, which will not grow.
    """
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    num_workers = int(cpus // places.num_cpus)
    if places.num_gpus:
        num_workers = min(num_workers, int(gpus / places.num_gpus + 1e-9))
    if not num_workers and places.address is None:
        raise errors.InvalidValueError(
            f"--num_cpus_per_worker={places.num_cpus} --num_gpus_per_worker={places.num_gpus:g}: this machine has "
            f"{cpus:g} cores and {gpus:g} GPUs; ask for less, or give --ray_address of a cluster"
        )
    return max(1, num_workers)


class ActorPool:
    """Starts workers on the cluster of the surrounding `cluster` block; a `dispatch.Pool`.

    Args:
        module: importable on all machines; calls `workers.serve`.
        setup: first line for every worker.
        places: what each worker takes of the cluster.
        supplies: folders that workers need while they start, as in `workers.ProcessPool`.
    """

    def __init__(
        self, module: str, setup: dispatch.Message, places: Places, supplies: Mapping[str, workers.Supply]
    ) -> None:
        self._ray = _ray()
        options = {"num_cpus": places.num_cpus, "num_gpus": places.num_gpus, "max_concurrency": 2, "max_restarts": 0}
        self._host = self._ray.remote(Host).options(**options)
        self._arguments = (module, places.num_cpus, {"code": code_version.identity(), "setup": setup})
        self._folders = {name: self._ray.put(_packed(write)) for name, write in supplies.items()}

    def start(self, number: int, answers: dispatch.Answers) -> "_ActorWorker":
        """Asks the cluster for an actor."""
        names = tuple(self._folders)
        actor = self._host.remote(*self._arguments, names, *(self._folders[name] for name in names))
        return _ActorWorker(self._ray, number, actor, answers)

    def all_started(self) -> None:
        """The object store keeps the folders for workers to come."""


def _packed(write: workers.Supply) -> dict[str, np.ndarray]:
    """The files of a folder as bytes."""
    with scratch.folder() as folder:
        target = pathlib.Path(folder) / "supply"
        write(str(target))
        return {path.name: np.fromfile(path, np.uint8) for path in sorted(target.iterdir())}


class Host:
    """The actor: starts a worker process beside it and passes messages on.

    Args:
        module: the worker program.
        threads: for its computations.
        first: its first line, to which the paths of the folders are added.
        names: of the folders.
        contents: their files by name, as bytes.
    """

    def __init__(
        self,
        module: str,
        threads: int,
        first: dispatch.Message,
        names: tuple[str, ...],
        *contents: dict[str, np.ndarray],
    ) -> None:
        self._folder = scratch.make()
        self._data = os.path.join(self._folder, "data")
        os.mkdir(self._data)
        paths = {name: os.path.join(self._data, name) for name in names}
        for path, files_of_folder in zip(paths.values(), contents, strict=True):
            os.mkdir(path)
            for name, content in files_of_folder.items():
                content.tofile(os.path.join(path, name))
        self._process = workers.WorkerProcess(module, threads, self._folder)
        self._process.send(first | {"setup": first["setup"] | paths})

    def listen(self) -> Iterator[dispatch.Message]:
        """What the process says, and at last, under "ended", how it came to its end."""
        try:
            for message in self._process.messages():
                if message.get("done"):
                    shutil.rmtree(self._data, ignore_errors=True)  # read or mapped
                yield message
            end = self._process.how_it_ended()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        cause = f"{end.cause} on {socket.gethostname()}"
        yield {"ended": dataclasses.asdict(dataclasses.replace(end, cause=cause))}

    def send(self, message: dispatch.Message) -> None:
        """Hands the process a line."""
        self._process.send(message)

    def end(self) -> None:
        """Ends the process and deletes what was temporary, which the end of the actor alone would leave."""
        self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class _ActorWorker:
    """An actor and the thread that listens to it."""

    def __init__(self, ray: Any, number: int, actor: Any, answers: dispatch.Answers) -> None:
        self._ray = ray
        self._actor = actor
        self._has_begun = False
        self._end = dispatch.End("a worker of the cluster was lost", lost=True)
        self._listener = threading.Thread(target=self._listen, args=(number, answers), daemon=True)
        self._listener.start()

    def _listen(self, number: int, answers: dispatch.Answers) -> None:
        try:
            for reference in self._actor.listen.options(num_returns="streaming").remote():
                message = self._ray.get(reference)
                self._has_begun = True
                if "ended" in message:
                    self._end = dispatch.End(**message["ended"])
                else:
                    answers.put((number, message))
        except self._ray.exceptions.OutOfMemoryError as error:
            self._end = dispatch.End(_cause(error), lost=True, memory=True)
        except self._ray.exceptions.ActorDiedError as error:
            # Where the actor could not even be made, another one will not be either.
            failed = "creation task" in str(error)
            self._end = dispatch.End(_cause(error), str(error) if failed else "", lost=not failed)
        except self._ray.exceptions.RayError as error:
            self._end = dispatch.End(_cause(error), str(error), lost=isinstance(error, self._lost_errors()))
        answers.put((number, None))

    def _lost_errors(self) -> tuple[type[Exception], ...]:
        known = self._ray.exceptions
        return known.RayActorError, known.WorkerCrashedError, known.NodeDiedError, known.ObjectLostError

    def send(self, message: dispatch.Message) -> None:
        self._actor.send.remote(message)

    def how_it_ended(self) -> dispatch.End:
        return self._end

    def end(self) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            if self._has_begun:  # one that waits for a place would not answer
                self._ray.get(self._actor.end.remote(), timeout=_END_SECONDS)
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor)
        self._listener.join(timeout=5)


def _cause(error: Exception) -> str:
    """The sentence of Ray's messages that says what happened, without its lists of ids."""
    sentences = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = sentences[0] if sentences else type(error).__name__
    return f"a worker of the cluster was lost ({first.rstrip('.')[:200]})"
