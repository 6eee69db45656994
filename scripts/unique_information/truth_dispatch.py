"""Hands networks that are trained without some examples to worker processes: here, or on a cluster; no TensorFlow."""

from collections.abc import Generator, Iterable, Iterator, Sequence
import dataclasses
import os
from typing import Any

from heldout.running import dispatch, retries, runners
from heldout.training import leave_out_config, leave_out_files
from zoo import files

_WORKER = "heldout.training.leave_out_worker"


@dataclasses.dataclass(frozen=True)
class HowToTrain:
    """What does not decide the networks.

    Attributes:
        data_dir: of prepared data sets.
        device: "cpu", "gpu" or "tpu".
        runs_per_group: networks in a batched computation; None for what suits them. What was chosen for the full
            network is kept for those of a later call.
        runner: where workers run.
        num_workers: None for what suits the runner.
    """

    data_dir: str | None = None
    device: str = "cpu"
    runs_per_group: int | None = None
    runner: runners.Runner = dataclasses.field(default_factory=runners.Runner)
    num_workers: int | None = None


def compute(
    config: leave_out_config.LeaveOutConfig, folder: str, groups: Sequence[leave_out_files.Group], how: HowToTrain
) -> Generator[dispatch.Message, None, None]:
    """Trains what is not there yet: the full network, then blocks of groups.

    Args:
        config: as it is stored in the folder.
        folder: of the experiment.
        groups: that are to be left out.
        how: what does not decide the networks.

    Yields:
        {"progress": [steps, all], "task": ...} and {"written": path, "task": ...}, where the task is "full" or the
        place of the first group of a block among those that are pending; and {"note": text}.

    Raises:
        HeldoutError: what a worker reports.
        DamagedFileError: a file of the folder is unsound.
    """
    folder = os.path.abspath(folder)
    full_run = leave_out_files.read_full_run(folder, config.sha256)
    with runners.opened(how.runner, how.device, how.num_workers) as opened:
        setup: dict[str, Any] = {
            "config": config.to_json(),
            "folder": folder,
            "data_dir": how.data_dir,
            "device": how.device,
            "runs_per_group": how.runs_per_group,
            "num_workers": opened.most_workers,
            # Of all parts alike: how sums are split among threads may decide their last bit.
            "num_threads": opened.num_threads(opened.most_workers) if how.device == "cpu" else None,
        }
        if full_run is None and opened.most_workers > 1:
            yield from _run(opened, setup, [{"task": "full"}], 1)
            full_run = leave_out_files.read_full_run(folder, config.sha256)
        if full_run is None:  # one worker for all: it says how large blocks are when it has trained the full network
            yield from _run(opened, setup, _tasks(config, folder, groups, how), 1)
            return
        setup["runs_per_group"] = how.runs_per_group or int(full_run["runs_per_group"])
        tasks = list(_tasks(config, folder, groups, how))
        if tasks:
            yield from _run(opened, setup, tasks, min(opened.most_workers, len(tasks)))


def pending_groups(
    folder: files.PathLike, sha256: str, groups: Iterable[leave_out_files.Group]
) -> list[leave_out_files.Group]:
    """Groups that no block has, in order.

    Args:
        folder: of the experiment.
        sha256: of its config.
        groups: that are to be left out.

    Raises:
        DamagedFileError: a block is unsound.
    """
    done = {group for block in leave_out_files.read_blocks(folder, sha256) for group in block.groups}
    return [group for group in groups if group not in done]


def _tasks(
    config: leave_out_config.LeaveOutConfig, folder: str, groups: Sequence[leave_out_files.Group], how: HowToTrain
) -> Iterator[dispatch.Message]:
    """What is to be done, each task asked for when those before it have been handed out."""
    if leave_out_files.read_full_run(folder, config.sha256) is None:
        yield {"task": "full"}
    full_run = leave_out_files.read_full_run(folder, config.sha256)
    assert full_run is not None
    size = how.runs_per_group or int(full_run["runs_per_group"])
    pending = pending_groups(folder, config.sha256, groups)
    for start in range(0, len(pending), size):
        yield {"task": start, "groups": pending[start : start + size]}


def _run(
    opened: runners.OpenRunner, setup: dict[str, Any], tasks: Iterable[dispatch.Message], num_workers: int
) -> Generator[dispatch.Message, None, None]:
    recover = retries.Retries("task", "the block of networks")
    yield from opened.run_tasks(_WORKER, setup, tasks, num_workers=num_workers, recover=recover)
