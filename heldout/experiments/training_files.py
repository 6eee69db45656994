"""What a training in progress tells those who watch it: `.training-<machine>-<process>.json` beside the recipe.

The file is there from before the workers start until all is done that was asked for. After an interrupt or an error it
stays and says so; the next training of the experiment removes it. Where it cannot be written the training goes on. What
is complete is said by the records of the runs; on this file depends only that nobody replaces the recipe meanwhile.
"""

from collections.abc import Iterable
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import re
import time
from typing import Any, Self

from heldout.running import shares
from zoo import errors, files, layout

SCHEMA_VERSION = 2

_NAME = re.compile(r"\.training-(?P<machine>[0-9a-f]{8})-(?P<process>[1-9][0-9]{0,8})\.json")
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
        subset_ratios: the runs that were asked for are those of `run_ids` at each of these, in this order.
        run_ids: ranges of [first, last + 1], in the order of the runs.
        groups: what is being trained.
        ended: UTC; None while it goes on, or after a kill.
        end: how it came to its end with runs left to do; None while it goes on, or after a kill.
        share_index: which part of these runs was asked for, from 0; see `shares.Share`.
        share_count: of how many parts.
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
    share_index: int = 0
    share_count: int = 1

    @property
    def wanted(self) -> list[tuple[float, int]]:
        """(subset ratio, run id) of every run that was asked for."""
        runs = [(ratio, i) for ratio in self.subset_ratios for part in self.run_ids for i in range(*part)]
        return shares.Share(self.share_index, self.share_count).of(runs)

    def state(self, heard: float) -> str:
        """How it is: "running" as far as is known, "ended", or "lost" for a program that is gone without a word.

        Args:
            heard: when it was last heard of, in seconds since 1970; a process that began later only has its id.
        """
        if self.ended is not None:
            return "ended"
        # The file's time may be that of a server whose clock is behind; when it began is of this machine's.
        known_at = max(heard, datetime.datetime.fromisoformat(self.began).timestamp())
        lost = self.machine == files.machine() and not files.is_running(self.process, known_at)
        return "lost" if lost else "running"

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
            if not 0 <= members["share_index"] < members["share_count"]:
                raise ValueError(members["share_index"])
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


def in_progress(zoo: files.PathLike, experiment: str) -> list[pathlib.Path]:
    """The files of trainings that go on, as far as is known; on other machines, for a day after their last word."""
    found = []
    for file in _files(zoo, experiment):
        with contextlib.suppress(OSError):
            if not _is_stale(file):
                found.append(file)
    return found


def remove_stale(zoo: files.PathLike, experiment: str) -> None:
    """Deletes the files of trainings that have ended, or whose process is gone, and what a kill left half written."""
    files.remove_stale_temporaries(layout.experiment_directory(zoo, experiment))
    for file in _files(zoo, experiment):
        with contextlib.suppress(OSError):
            if _is_stale(file):
                file.unlink()


def write(file: pathlib.Path, training: Training) -> None:
    """Writes what a training says of itself, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    files.write_text(file, json.dumps(training.to_json()) + "\n")


def _files(zoo: files.PathLike, experiment: str) -> list[pathlib.Path]:
    try:
        with os.scandir(layout.experiment_directory(zoo, experiment)) as entries:
            return [pathlib.Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_stale(file: pathlib.Path) -> bool:
    heard = file.stat().st_mtime
    with contextlib.suppress(errors.DamagedFileError, errors.MissingFileError):
        training = Training.from_json(files.read_json(file), str(file))
        silent = training.machine != files.machine() and heard < time.time() - _STALE_SECONDS
        return silent or training.state(heard) != "running"
    return True


def ranges(run_ids: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Run ids as ranges of (first, last + 1), in the order of the ids."""
    found: list[tuple[int, int]] = []
    for run_id in run_ids:
        if found and found[-1][1] == run_id:
            found[-1] = (found[-1][0], run_id + 1)
        else:
            found.append((run_id, run_id + 1))
    return tuple(found)
