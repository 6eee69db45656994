"""Where worker programs run: as processes of this machine, or on a Ray cluster. One interface for both.

with runners.opened(Runner(), device="cpu", workers=None) as runner:
    for message in runner.run_tasks(module, setup, tasks, num_workers=runner.most_workers):
        ...
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
import contextlib
import dataclasses
import functools
from typing import Protocol

from heldout.running import dispatch, ray_runner, scratch, workers
from zoo import errors

LOCAL, RAY = "local", "ray"
RUNNERS = (LOCAL, RAY)


@dataclasses.dataclass(frozen=True)
class Runner:
    """What to run workers on.

    Attributes:
        name: "local" or "ray".
        ray_address: of a running cluster; None for one of this machine that ends with the program.
        num_cpus_per_worker: cores of the cluster for each worker.
        num_gpus_per_worker: its GPUs for each worker, which may be a part of one.
    """

    name: str = LOCAL
    ray_address: str | None = None
    num_cpus_per_worker: int = 1
    num_gpus_per_worker: float = 0.0


class MakePool(Protocol):
    """Makes the pool for one program of workers."""

    def __call__(
        self, module: str, setup: dispatch.Message, supplies: Mapping[str, workers.Supply], num_threads: int
    ) -> dispatch.Pool:
        """As the arguments of `OpenRunner.run_tasks`, and the computing threads of each worker."""


class OpenRunner:
    """A runner that is ready for work.

    Args:
        most_workers: how many workers to start where there is work for all of them.
        num_threads: computing threads of each worker, given their number.
        make_pool: makes what starts the workers.
    """

    def __init__(self, most_workers: int, num_threads: Callable[[int], int], make_pool: MakePool) -> None:
        self.most_workers = most_workers
        self.num_threads = num_threads
        self._make_pool = make_pool

    def run_tasks(
        self,
        module: str,
        setup: dispatch.Message,
        tasks: Iterable[dispatch.Message],
        *,
        num_workers: int,
        supplies: Mapping[str, workers.Supply] | None = None,
        recover: dispatch.Recover | None = None,
    ) -> Generator[dispatch.Message, None, None]:
        """Runs tasks on workers and yields their messages as they come.

        Args:
            module: importable program, on all machines, that calls `workers.serve`.
            setup: first line for every worker.
            tasks: handed out in order.
            num_workers: to ask for; those that a cluster has no room for start when it has.
            supplies: folders that workers need while they start; see `workers.ProcessPool`.
            recover: what to do about tasks whose worker was lost; without it the first loss ends everything.

        Yields:
            Every message of every worker, in order of arrival.

        Raises:
            WorkerError: a worker was lost and nothing is to be done about it.
            TaskError: what a worker reported as an error of the user's, or a worker that runs other code.
        """
        pool = self._make_pool(module, setup, supplies or {}, self.num_threads(num_workers))
        yield from dispatch.run(pool, tasks, num_workers, recover)


def check(runner: Runner, device: str) -> None:
    """Refuses what cannot be, before anything is started or written.

    Raises:
        InvalidValueError: a value is out of range or contradicts another, or Ray is not installed.
    """
    if runner.name not in RUNNERS:
        raise errors.InvalidValueError(f"--runner={runner.name}: expected one of {', '.join(RUNNERS)}")
    if runner.name == LOCAL:
        given = [
            field.name
            for field in dataclasses.fields(runner)
            if field.name != "name" and getattr(runner, field.name) != field.default
        ]
        if given:
            raise errors.InvalidValueError(f"--{given[0]} says nothing without --runner=ray; add it, or leave it out")
        return
    if device == "gpu" and not runner.num_gpus_per_worker:
        raise errors.InvalidValueError(
            "--device=gpu --runner=ray: the cluster gives GPUs to those who ask; add --num_gpus_per_worker=1"
        )
    ray_runner.check(_places(runner))


@contextlib.contextmanager
def opened(runner: Runner, device: str, workers_wanted: int | None = None) -> Iterator[OpenRunner]:
    """The runner for the time of a block; a cluster of this machine is there for as long.

    Args:
        runner: which.
        device: "cpu", "gpu" or "tpu".
        workers_wanted: None means one for each core on a CPU and one on other devices, or as many as the cluster has
            room for.

    Raises:
        InvalidValueError: as `check`.
        NetworkError: no cluster answers at the address.
    """
    check(runner, device)
    if runner.name == LOCAL:
        most = workers_wanted or (workers.num_cores() if device == "cpu" else 1)
        with scratch.folder() as folder:
            make_pool: MakePool = functools.partial(_process_pool, folder)
            yield OpenRunner(most, lambda num_workers: max(1, workers.num_cores() // max(1, num_workers)), make_pool)
        return
    places = _places(runner)
    with ray_runner.cluster(places) as room:
        yield OpenRunner(workers_wanted or room, lambda _: places.num_cpus, functools.partial(_actor_pool, places))


def _places(runner: Runner) -> ray_runner.Places:
    return ray_runner.Places(runner.ray_address, runner.num_cpus_per_worker, runner.num_gpus_per_worker)


def _process_pool(
    folder: str, module: str, setup: dispatch.Message, supplies: Mapping[str, workers.Supply], num_threads: int
) -> dispatch.Pool:
    return workers.ProcessPool(module, setup, num_threads, supplies, folder)


def _actor_pool(
    places: ray_runner.Places,
    module: str,
    setup: dispatch.Message,
    supplies: Mapping[str, workers.Supply],
    num_threads: int,
) -> dispatch.Pool:
    del num_threads  # of a cluster: the cores of a place
    return ray_runner.ActorPool(module, setup, places, supplies)
