"""Where worker programs run: as processes of this machine, or on a Ray cluster. One interface for both.

with runners.opened(Runner(), device="cpu", workers=None) as runner:
    for message in runner.run_tasks(module, setup, tasks, num_workers=runner.most_workers):
        ...
"""

from collections.abc import Generator, Iterable, Iterator, Mapping
import contextlib
import dataclasses
from typing import Protocol

from heldout import dispatch, ray_runner, workers
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


class OpenRunner(Protocol):
    """A runner that is ready for work."""

    # How many workers to start where there is work for all of them.
    most_workers: int

    def num_threads(self, num_workers: int) -> int:
        """Computing threads of each of so many workers."""

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
        """As `workers.run_tasks`."""


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
        yield _LocalRunner(workers_wanted or (workers.num_cores() if device == "cpu" else 1))
        return
    places = _places(runner)
    with ray_runner.cluster(places) as room:
        yield _RayRunner(places, workers_wanted or room)


def _places(runner: Runner) -> ray_runner.Places:
    return ray_runner.Places(runner.ray_address, runner.num_cpus_per_worker, runner.num_gpus_per_worker)


class _LocalRunner:
    def __init__(self, most_workers: int) -> None:
        self.most_workers = most_workers

    def num_threads(self, num_workers: int) -> int:
        return max(1, workers.num_cores() // max(1, num_workers))

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
        return workers.run_tasks(
            module,
            setup,
            tasks,
            num_workers=num_workers,
            threads_per_worker=self.num_threads(num_workers),
            supplies=supplies,
            recover=recover,
        )


class _RayRunner:
    def __init__(self, places: ray_runner.Places, most_workers: int) -> None:
        self._places = places
        self.most_workers = most_workers

    def num_threads(self, num_workers: int) -> int:
        del num_workers
        return self._places.num_cpus

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
        return ray_runner.run_tasks(
            module,
            setup,
            tasks,
            places=self._places,
            num_workers=num_workers,
            supplies=supplies,
            recover=recover,
        )
