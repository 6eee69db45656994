"""Hands networks that are to be trained to worker processes: here, or on a cluster."""

from collections.abc import Generator, Sequence
import dataclasses
import os
import pathlib
from typing import Any

from heldout.running import dispatch, retries, runners
from heldout.training import model_settings

_WORKER = "heldout.training.model_worker"


@dataclasses.dataclass(frozen=True)
class Networks:
    """Networks of one setting, which a worker trains in one go.

    Attributes:
        settings: of all of them; their seed does not count.
        folders: by seed.
    """

    settings: model_settings.ModelSettings
    folders: dict[int, pathlib.Path]

    def task(self, number: int) -> dispatch.Message:
        """For a worker."""
        networks = [{"seed": seed, "folder": os.path.abspath(folder)} for seed, folder in self.folders.items()]
        return {"task": number, "settings": self.settings.to_json(), "networks": networks}


@dataclasses.dataclass(frozen=True)
class HowToTrain:
    """What does not decide the networks.

    Attributes:
        data_dir: of prepared data sets.
        device: "cpu", "gpu" or "tpu".
        resume_minutes: see `model_training.Options`.
        tensorboard: whether to write event files.
        overwrite: whether to delete what is there.
        side_by_side: most networks as one batched computation; None for what suits them.
        seen_by_all: a file that workers on other machines must see; None where there are none.
    """

    data_dir: str | None
    device: str
    resume_minutes: float
    tensorboard: bool
    overwrite: bool
    side_by_side: int | None = 1
    seen_by_all: str | None = None


def train(
    how: HowToTrain, networks: Sequence[Networks], runner: runners.Runner, num_workers: int | None
) -> Generator[dispatch.Message, None, None]:
    """Trains what is not there yet.

    Args:
        how: what does not decide the networks.
        networks: handed out in order.
        runner: where workers run.
        num_workers: None for what suits the runner.

    Yields:
        {"progress": ...} and {"results": ...}, see heldout/training/model_worker.py, whose "task" is a position in
        `networks`; and {"note": text}.

    Raises:
        HeldoutError: what a worker reports.
    """
    if not networks:
        return
    with runners.opened(runner, how.device, num_workers) as opened:
        count = max(1, min(opened.most_workers, len(networks)))
        setup: dict[str, Any] = dataclasses.asdict(how)
        setup["num_threads"] = opened.num_threads(count) if how.device == "cpu" else None
        setup["num_workers"] = count
        tasks = [of_setting.task(number) for number, of_setting in enumerate(networks)]
        recover = retries.Retries("task", "the training of task")
        yield from opened.run_tasks(_WORKER, setup, tasks, num_workers=count, recover=recover)
