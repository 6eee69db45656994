"""Keeps the file by which a training in progress tells of itself, and passes on what a training says.

What stands in the file, and who depends on it, is said in heldout/experiments/training_files.py.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import os
import socket
import time
from types import TracebackType
from typing import Self

from heldout.experiments import training_files
from heldout.training import run_results, train_runs_config, zoo_training
from zoo import files

_SECONDS_BETWEEN_WRITES = 5.0


class TrainingLog(zoo_training.Progress):
    """Keeps the file of a training. To be used as a context around it.

    Args:
        config: of the training.
    """

    def __init__(self, config: train_runs_config.TrainRunsConfig) -> None:
        self._config = config
        self._path = training_files.path(config.zoo, config.experiment_name)
        self._groups: dict[tuple[str, int], training_files.Group] = {}
        self._training: training_files.Training | None = None
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
        self._training = dataclasses.replace(
            self._training, ended=training_files.now(), end=_end(error, self._num_left)
        )
        self._write()

    def starting(self, num_pending: int, num_skipped: int, num_epochs: int) -> None:
        """Begins the file, where there is something to do."""
        training_files.remove_stale(self._config.zoo, self._config.experiment_name)
        self._num_left = num_pending
        if num_pending:
            self._training = training_files.Training(
                machine=files.machine(),
                host=socket.gethostname(),
                process=os.getpid(),
                began=training_files.now(),
                subset_ratios=self._config.subset_ratios,
                run_ids=training_files.ranges(self._config.run_ids),
                share_index=self._config.share.index,
                share_count=self._config.share.count,
            )
            self._write()

    def began(self, subset_ratio: float, run_ids: list[int], host: str, process: int) -> None:
        """Notes the group, in the place of its worker's last one."""
        for run_id in run_ids:
            self._forget(subset_ratio, run_id)
        self._groups[host, process] = training_files.Group(
            subset_ratio, tuple(run_ids), host, process, training_files.now()
        )
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
                training_files.write(self._path, self._training)
            self._written = time.monotonic()


def _end(error: BaseException | None, num_left: int) -> str:
    """How a training ended, for people."""
    if error is None:
        return f"{files.count_text(num_left, 'run')} came to nothing"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


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
