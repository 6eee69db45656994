"""What a training in progress tells those who watch it: `.training-<machine>-<process>.json` beside the recipe.

The file is there from before the workers start until all is done that was asked for. After an interrupt or an error it
stays and says so; the next training of the experiment removes it. Nothing depends on it: what is complete is said by
the records of the runs, and where the file cannot be written the training goes on.
"""

from collections.abc import Iterable, Sequence
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import re
import socket
import time
from types import TracebackType
from typing import Any, Self

from heldout.training import run_results, train_runs_config, zoo_training
from zoo import errors, files, layout

SCHEMA_VERSION = 1

_NAME = re.compile(r"\.training-(?P<machine>[0-9a-f]{8})-(?P<process>[1-9][0-9]{0,8})\.json")
_SECONDS_BETWEEN_WRITES = 5.0
# Of a process on another machine nothing more can be known than when it was last heard of.
_STALE_SECONDS = 24 * 3600


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that a worker trains together.

    Attributes:
        subset_ratio: of all of them.
        run_ids: those that have not ended.
        host: where the worker runs.
        process: its id there.
        began: UTC, as in "2026-01-31T12:00:00+00:00".
    """

    subset_ratio: float
    run_ids: tuple[int, ...]
    host: str
    process: int
    began: str


@dataclasses.dataclass(frozen=True)
class Training:
    """One call of `train_runs`.

    Attributes:
        machine: what tells machines apart; see `zoo.files.machine`.
        host: its name.
        process: id of the program there.
        began: UTC.
        subset_ratios: the runs that were asked for are all of `run_ids` at each of these.
        run_ids: ascending ranges of [first, last + 1].
        groups: what is being trained.
        ended: UTC; None while it goes on, or after a kill.
        end: how it came to its end with runs left to do; None while it goes on, or after a kill.
    """

    machine: str
    host: str
    process: int
    began: str
    subset_ratios: tuple[float, ...]
    run_ids: tuple[tuple[int, int], ...]
    groups: tuple[Group, ...] = ()
    ended: str | None = None
    end: str | None = None

    @property
    def wanted(self) -> list[tuple[float, int]]:
        """(subset ratio, run id) of every run that was asked for."""
        return [(ratio, i) for ratio in self.subset_ratios for part in self.run_ids for i in range(*part)]

    @property
    def is_lost(self) -> bool:
        """Whether the program is gone without having said so; of other machines this is not known."""
        here = self.machine == files.machine()
        return self.ended is None and here and not files.is_running(self.process)

    @property
    def is_running(self) -> bool:
        """Whether it goes on, as far as is known."""
        return self.ended is None and not self.is_lost

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"schema_version": SCHEMA_VERSION} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any], where: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            DamagedFileError: it is no such object; `where` names the file.
        """
        try:
            if value["schema_version"] != SCHEMA_VERSION:
                raise ValueError(value["schema_version"])
            members = {field.name: value[field.name] for field in dataclasses.fields(cls)}
            members["groups"] = tuple(Group(**{**g, "run_ids": tuple(g["run_ids"])}) for g in members["groups"])
            members["run_ids"] = tuple((int(first), int(stop)) for first, stop in members["run_ids"])
            members["subset_ratios"] = tuple(float(ratio) for ratio in members["subset_ratios"])
            for moment in (members["began"], members["ended"], *(group.began for group in members["groups"])):
                datetime.datetime.fromisoformat(moment or members["began"])
        except (KeyError, TypeError, ValueError) as error:
            raise errors.DamagedFileError(
                f"{where}: expected what a training of schema version {SCHEMA_VERSION} says of itself; delete the file"
            ) from error
        return cls(**members)


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def path(zoo: files.PathLike, experiment: str) -> pathlib.Path:
    """The file of a training by this process."""
    name = f".training-{files.machine()}-{os.getpid()}.json"
    return layout.experiment_directory(zoo, experiment) / name


def read(zoo: files.PathLike, experiment: str) -> list[tuple[Training, float]]:
    """The trainings of an experiment that go on or came to an early end, oldest first.

    Returns:
        Each with the time, in seconds since 1970, at which it was last heard of.

    Raises:
        DamagedFileError: a file is none of ours.
    """
    found = []
    for file in _files(zoo, experiment):
        with contextlib.suppress(FileNotFoundError):  # it may be done now
            found.append((Training.from_json(files.read_json(file), str(file)), file.stat().st_mtime))
    return sorted(found, key=lambda pair: (pair[0].began, pair[0].process))


def remove_stale(zoo: files.PathLike, experiment: str) -> None:
    """Deletes the files of trainings that have ended, or whose process is gone, and what a kill left half written."""
    files.remove_stale_temporaries(layout.experiment_directory(zoo, experiment))
    for file in _files(zoo, experiment):
        with contextlib.suppress(OSError):
            if _is_stale(file):
                file.unlink()


def _files(zoo: files.PathLike, experiment: str) -> list[pathlib.Path]:
    try:
        with os.scandir(layout.experiment_directory(zoo, experiment)) as entries:
            return [pathlib.Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_stale(file: pathlib.Path) -> bool:
    match = _NAME.fullmatch(file.name)
    assert match is not None
    if match["machine"] == files.machine() and not files.is_running(int(match["process"])):
        return True
    if file.stat().st_mtime < time.time() - _STALE_SECONDS:
        return True
    with contextlib.suppress(errors.DamagedFileError):
        return Training.from_json(files.read_json(file), str(file)).ended is not None
    return True


class TrainingLog(zoo_training.Progress):
    """Keeps the file of a training. To be used as a context around it.

    Args:
        config: of the training.
    """

    def __init__(self, config: train_runs_config.TrainRunsConfig) -> None:
        self._config = config
        self._path = path(config.zoo, config.experiment_name)
        self._groups: dict[tuple[str, int], Group] = {}
        self._training: Training | None = None
        self._num_left = 0
        self._written = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._training is None:
            return
        if kind is None and self._num_left <= 0:
            with contextlib.suppress(OSError):
                self._path.unlink()
            return
        self._groups = {}
        self._training = dataclasses.replace(self._training, ended=now(), end=_end(error, self._num_left))
        self._write()

    def starting(self, num_pending: int, num_skipped: int, num_epochs: int) -> None:
        """Begins the file, where there is something to do."""
        remove_stale(self._config.zoo, self._config.experiment_name)
        self._num_left = num_pending
        if num_pending:
            self._training = Training(
                machine=files.machine(),
                host=socket.gethostname(),
                process=os.getpid(),
                began=now(),
                subset_ratios=self._config.subset_ratios,
                run_ids=ranges(self._config.run_ids),
            )
            self._write()

    def began(self, subset_ratio: float, run_ids: list[int], host: str, process: int) -> None:
        """Notes the group, in the place of its worker's last one."""
        for run_id in run_ids:
            self._forget(subset_ratio, run_id)
        self._groups[host, process] = Group(subset_ratio, tuple(run_ids), host, process, now())
        self._write()

    def appeared(self) -> None:
        """Counts a run."""
        self._num_left -= 1

    def run_epochs(self, count: int) -> None:
        """Shows now and then that the training goes on."""
        self._write_now_and_then()

    def result(self, result: run_results.RunResult) -> None:
        """Takes a run out of its group."""
        self._num_left -= result.failure is None
        self._forget(result.run.subset_ratio, result.run.run_id)
        self._write_now_and_then()

    def _forget(self, subset_ratio: float, run_id: int) -> None:
        for key, group in list(self._groups.items()):
            if group.subset_ratio == subset_ratio and run_id in group.run_ids:
                left = tuple(i for i in group.run_ids if i != run_id)
                self._groups[key] = dataclasses.replace(group, run_ids=left)
                if not left:
                    del self._groups[key]

    def _write_now_and_then(self) -> None:
        if time.monotonic() > self._written + _SECONDS_BETWEEN_WRITES:
            self._write()

    def _write(self) -> None:
        if self._training is not None:
            self._training = dataclasses.replace(self._training, groups=tuple(self._groups.values()))
            with contextlib.suppress(OSError):
                files.write_text(self._path, json.dumps(self._training.to_json()) + "\n")
            self._written = time.monotonic()


def _end(error: BaseException | None, num_left: int) -> str:
    """How a training ended, for people."""
    if error is None:
        return f"{files.count_text(num_left, 'run')} came to nothing"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def ranges(run_ids: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Run ids as ascending ranges of (first, last + 1)."""
    found: list[tuple[int, int]] = []
    for run_id in sorted(run_ids):
        if found and found[-1][1] == run_id:
            found[-1] = (found[-1][0], run_id + 1)
        else:
            found.append((run_id, run_id + 1))
    return tuple(found)


class Several(zoo_training.Progress):
    """Tells several listeners everything, in order."""

    def __init__(self, listeners: Sequence[zoo_training.Progress]) -> None:
        self._listeners = listeners

    def starting(self, num_pending: int, num_skipped: int, num_epochs: int) -> None:
        """Passed on."""
        for listener in self._listeners:
            listener.starting(num_pending, num_skipped, num_epochs)

    def began(self, subset_ratio: float, run_ids: list[int], host: str, process: int) -> None:
        """Passed on."""
        for listener in self._listeners:
            listener.began(subset_ratio, run_ids, host, process)

    def appeared(self) -> None:
        """Passed on."""
        for listener in self._listeners:
            listener.appeared()

    def run_epochs(self, count: int) -> None:
        """Passed on."""
        for listener in self._listeners:
            listener.run_epochs(count)

    def result(self, result: run_results.RunResult) -> None:
        """Passed on."""
        for listener in self._listeners:
            listener.result(result)

    def note(self, text: str) -> None:
        """Passed on."""
        for listener in self._listeners:
            listener.note(text)

    def ended(self) -> None:
        """Passed on."""
        for listener in self._listeners:
            listener.ended()
