"""How far the runs of an experiment are, for those who watch from outside: a few listings, no record is opened.

A run is

    complete       it has a record, or no folder but a row in the run table; whether they are sound is not looked at
    in the making  a training that goes on has begun it
    failed         its last training came to nothing, and none that goes on has begun it again
    unfinished     it has a folder without a record, and none of the above is known
    waiting        a training was asked for it, and nothing else is known
"""

import collections
from collections.abc import Iterable
import contextlib
import dataclasses
import datetime
import os
import pathlib
import time
from typing import Any

from heldout.experiments import training_files
from heldout.training import failures
from zoo import files, layout, npz

STATES = ("complete", "in the making", "failed", "unfinished", "waiting")

# What the rate is measured over, unless a training began later.
_WINDOW_SECONDS = 600.0

_Name = tuple[float, int]


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """A run that was begun, and nobody says to be training it.

    Attributes:
        subset_ratio: of the run.
        run_id: of the run.
        changed_s: seconds since something was written into its folder.
    """

    subset_ratio: float
    run_id: int
    changed_s: float


@dataclasses.dataclass(frozen=True)
class WatchedTraining:
    """A training that goes on, or came to an early end.

    Attributes:
        training: what it says of itself.
        state: "running", "ended", or "lost" for a program that is gone without having said so.
        heard_s: seconds since it was last heard of.
    """

    training: training_files.Training
    state: str
    heard_s: float


@dataclasses.dataclass(frozen=True)
class Status:
    """An experiment at a moment.

    Attributes:
        experiment: its name.
        counts: number of runs by subset ratio, then by state, one of `STATES`.
        num_expected: runs that the trainings were asked for; None where no training tells.
        trainings: those that go on or came to an early end, oldest first.
        failures: the failed runs.
        unfinished: the unfinished runs.
        runs_per_hour: runs completed over the last minutes; None where no training goes on or no run has ended yet.
        window_s: seconds that the rate was measured over; None without a rate.
        left_s: seconds to go at that rate, for what the trainings that go on are to do; None without a rate.
    """

    experiment: str
    counts: dict[float, dict[str, int]]
    num_expected: int | None
    trainings: list[WatchedTraining]
    failures: list[failures.Failure]
    unfinished: list[Unfinished]
    runs_per_hour: float | None
    window_s: float | None
    left_s: float | None

    def count(self, state: str) -> int:
        """Number of runs in a state, at all ratios."""
        return sum(counts[state] for counts in self.counts.values())

    @property
    def is_running(self) -> bool:
        """Whether a training goes on."""
        return any(watched.state == "running" for watched in self.trainings)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        members = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return members | {
            "counts": [
                {"subset_ratio": ratio} | {state.replace(" ", "_"): count for state, count in counts.items()}
                for ratio, counts in self.counts.items()
            ],
            "trainings": [_training_json(watched) for watched in self.trainings],
            "failures": [failure.to_json() for failure in self.failures],
            "unfinished": [dataclasses.asdict(run) for run in self.unfinished],
        }


def _training_json(watched: WatchedTraining) -> dict[str, Any]:
    return {"state": watched.state, "heard_s": watched.heard_s} | watched.training.to_json()


def take(zoo: files.PathLike, experiment: str) -> Status:
    """Looks at an experiment.

    Raises:
        DamagedFileError: the run table, the failures, or what a training says of itself cannot be read.
    """
    moment = time.time()
    trainings = [
        WatchedTraining(training, training.state(heard), max(0.0, moment - heard))
        for training, heard in training_files.read(zoo, experiment)
    ]
    running = [watched.training for watched in trainings if watched.state == "running"]
    completed = _completed(zoo, experiment)
    failed = {(f.subset_ratio, f.run_id): f for f in failures.current(zoo, experiment)}
    begun = _begun(running, failed)
    folders = {(run.subset_ratio, run.run_id): run for run in layout.runs(zoo, experiment)}
    expected = {name for watched in trainings for name in watched.training.wanted}
    states: dict[_Name, str] = {}
    by_state: list[Iterable[_Name]] = [expected, folders, failed, begun, completed]
    for state, names in zip(reversed(STATES), by_state, strict=True):
        states |= dict.fromkeys(names, state)
    rate, window = _rate(running, completed, moment)
    left = [name for name in {name for t in running for name in t.wanted} if _is_left(name, states, failed, running)]
    return Status(
        experiment=experiment,
        counts=_counts(states),
        num_expected=len(expected) if trainings else None,
        trainings=trainings,
        failures=[failed[name] for name in sorted(failed) if states[name] == "failed"],
        unfinished=[
            Unfinished(*name, max(0.0, moment - _changed(folders[name], moment)))
            for name in sorted(folders)
            if states[name] == "unfinished"
        ],
        runs_per_hour=rate,
        window_s=window,
        left_s=None if rate is None else len(left) / rate * 3600,
    )


def _completed(zoo: files.PathLike, experiment: str) -> dict[_Name, float]:
    """When each complete run was completed, in seconds since 1970; 0 where only the table knows it."""
    found: dict[_Name, float] = {}
    path = layout.run_table_path(zoo, experiment)
    if path.exists():
        stored = npz.read(path, ["subset_ratio", "run_id"])
        names = zip(stored["subset_ratio"].tolist(), stored["run_id"].tolist(), strict=True)
        found = dict.fromkeys(names, 0.0)
    for run in layout.runs(zoo, experiment):
        name = (run.subset_ratio, run.run_id)
        found.pop(name, None)
        with contextlib.suppress(FileNotFoundError):
            found[name] = run.aux_arrays_path.stat().st_mtime
    return found


def _begun(running: list[training_files.Training], failed: dict[_Name, failures.Failure]) -> set[_Name]:
    """What is being trained; not what has failed since it was begun."""
    return {
        (group.subset_ratio, run_id)
        for training in running
        for group in training.groups
        for run_id in group.run_ids
        if not _failed_since(failed.get((group.subset_ratio, run_id)), group.began)
    }


def _failed_since(failure: failures.Failure | None, moment: str) -> bool:
    return failure is not None and seconds(failure.time) >= seconds(moment)


def _is_left(
    name: _Name,
    states: dict[_Name, str],
    failed: dict[_Name, failures.Failure],
    running: list[training_files.Training],
) -> bool:
    if states[name] != "failed":
        return states[name] != "complete"
    return not any(_failed_since(failed[name], training.began) for training in running)


def _rate(
    running: list[training_files.Training], completed: dict[_Name, float], moment: float
) -> tuple[float | None, float | None]:
    """Runs per hour, and the seconds that it was measured over."""
    if not running:
        return None, None
    begin = max(moment - _WINDOW_SECONDS, min(seconds(training.began) for training in running))
    window = max(1.0, moment - begin)
    count = sum(begin <= time_completed for time_completed in completed.values())
    return (count / window * 3600, window) if count else (None, None)


def _counts(states: dict[_Name, str]) -> dict[float, dict[str, int]]:
    counted = collections.Counter((ratio, state) for (ratio, _), state in states.items())
    ratios = sorted({ratio for ratio, _ in states})
    return {ratio: {state: counted[ratio, state] for state in STATES} for ratio in ratios}


def _changed(run: layout.Run, moment: float) -> float:
    """When something was last written into a run's folder; now for one that has just gone."""
    times = [moment] if not run.directory.exists() else []
    for folder in (run.directory, run.checkpoints_directory):
        for path in (folder, *_entries(folder)):
            with contextlib.suppress(FileNotFoundError):
                times.append(path.stat().st_mtime)
    return max(times, default=moment)


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        with os.scandir(folder) as entries:
            return [pathlib.Path(entry.path) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []


def seconds(moment: str) -> float:
    """A time as it is stored, in seconds since 1970."""
    return datetime.datetime.fromisoformat(moment).timestamp()
