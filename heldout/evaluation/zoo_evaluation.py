"""Evaluates the checkpoints of many runs on worker processes, and holds every prediction against the records.

The same call again continues: runs whose results lie there, from the checkpoint that they have now, are not evaluated
again.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import math
import os
import pathlib

from heldout.datasets import registry as datasets
from heldout.evaluation import evaluation_files, run_sources
from heldout.experiments import recipes
from heldout.running import dispatch, group_recovery, runners
from zoo import errors, layout

# Enough for a worker not to wait for the next task, few enough to lose.
_MOST_RUNS_PER_TASK = 8


@dataclasses.dataclass(frozen=True)
class EvaluateZooConfig:
    """What to evaluate.

    Attributes:
        zoo: folder of experiments.
        experiment: name of one.
        runs: ratio and id of each.
        split: "train" (the whole original training set) or "test".
        epoch: of the checkpoints; None for the last of each run.
        dataset: overrides the recipe's.
        architecture: overrides the recipe's.
        data_dir: where the data set lies.
        device: "cpu", "gpu" or "tpu".
        workers: processes; None leaves the choice to the runner.
        runner: where they run.
    """

    zoo: str
    experiment: str
    runs: tuple[tuple[float, int], ...]
    split: str
    epoch: int | None = None
    dataset: str | None = None
    architecture: str | None = None
    data_dir: str | None = None
    device: str = "cpu"
    workers: int | None = None
    runner: runners.Runner = dataclasses.field(default_factory=runners.Runner)


@dataclasses.dataclass(frozen=True)
class ZooEvaluation:
    """What a call of `evaluate_zoo` did.

    Attributes:
        summaries: of all runs that were asked for and could be evaluated, by ratio and id.
        faults: why a run could not be, by ratio and id.
        num_skipped: runs that had been evaluated before.
        table: where the rows lie, those of earlier calls with them.
    """

    summaries: list[evaluation_files.RunSummary]
    faults: dict[tuple[float, int], str]
    num_skipped: int
    table: pathlib.Path

    @property
    def differing(self) -> list[evaluation_files.RunSummary]:
        """Runs with a prediction that is not the recorded one."""
        return [row for row in self.summaries if row.num_matching < row.num_predictions]


class Progress:
    """Hears of the evaluation as it goes; override what is of interest."""

    def evaluated(self, done: int, total: int) -> None:
        """So many of the runs are done."""

    def note(self, text: str) -> None:
        """Something out of the ordinary has happened, and the work goes on."""


def evaluate_zoo(config: EvaluateZooConfig, progress: Progress | None = None) -> ZooEvaluation:
    """Evaluates what has not been evaluated yet.

    Raises:
        InvalidValueError: an option is out of range, or nothing tells what the runs were made of.
        MismatchError: the data set is not that of the runs, or results of other options lie there.
        MissingFileError: the data set is not there.
        WorkerError: workers are lost again and again; what they had finished is kept.
    """
    progress = progress or Progress()
    if config.workers is not None and config.workers < 1:
        raise errors.InvalidValueError(f"--workers={config.workers}: expected at least 1")
    if config.epoch is not None and config.epoch < 0:
        raise errors.InvalidValueError(f"--epoch={config.epoch}: expected 0 or more")
    if not config.runs:
        raise errors.MissingFileError(
            f"{layout.experiment_directory(config.zoo, config.experiment)}: no run there; fetch or train some"
        )
    runners.check(config.runner, config.device)
    output = evaluation_files.directory(config.zoo, config.experiment, config.split, config.epoch)
    runs = [layout.Run(pathlib.Path(config.zoo), config.experiment, *name) for name in sorted(config.runs)]
    kept, faults = _stored(config, output, runs)
    pending = [run for run in runs if (run.subset_ratio, run.run_id) not in kept.keys() | faults.keys()]
    if pending or (kept and (config.dataset or config.architecture)):  # what is named is never passed over
        source, data = _source(config, output, runs[0])
        faults |= _evaluate(config, output, pending, source, data, progress) if pending else {}
    rows = [evaluation_files.read(output, run.subset_ratio, run.run_id) for run in runs]
    wanted = [row for row in rows if row is not None and (row.subset_ratio, row.run_id) not in faults]
    rows_of_all = [row for row in evaluation_files.read_all(output) if (row.subset_ratio, row.run_id) not in faults]
    return ZooEvaluation(wanted, faults, len(kept), evaluation_files.write_table(output, rows_of_all))


def _stored(
    config: EvaluateZooConfig, output: pathlib.Path, runs: Sequence[layout.Run]
) -> tuple[dict[tuple[float, int], evaluation_files.RunSummary], dict[tuple[float, int], str]]:
    """Results that are still those of the checkpoints, and why runs without a checkpoint have none."""
    kept, faults = {}, {}
    for run in runs:
        name = (run.subset_ratio, run.run_id)
        try:
            digest = evaluation_files.checkpoint_digest(run, config.epoch)
        except errors.MissingFileError as error:
            faults[name] = str(error)
            continue
        row = evaluation_files.read(output, *name)
        if row is not None and row.checkpoint_sha256 == digest:
            kept[name] = row
    return kept, faults


def _source(
    config: EvaluateZooConfig, output: pathlib.Path, run: layout.Run
) -> tuple[run_sources.RunSource, datasets.AnyDataset]:
    """What the runs were made of, with the data set; refuses what is not that of the runs or of the results there."""
    source = run_sources.source_of(run, config.dataset, config.architecture)
    data = recipes.open_dataset(config.zoo, config.experiment, source.dataset, config.data_dir)
    recipes.check_dataset(config.zoo, config.experiment, data)
    made_of = {name: value for name, value in dataclasses.asdict(source).items() if name != "dataset"}
    options = {"split": config.split, "epoch": config.epoch, **made_of, "dataset": data.fingerprint()}
    evaluation_files.adopt(output, options)
    return source, data


def _evaluate(
    config: EvaluateZooConfig,
    output: pathlib.Path,
    pending: list[layout.Run],
    source: run_sources.RunSource,
    data: datasets.AnyDataset,
    progress: Progress,
) -> dict[tuple[float, int], str]:
    """Evaluates runs; returns why some could not be."""
    faults: dict[tuple[float, int], str] = {}
    num_done = 0
    with runners.opened(config.runner, config.device, config.workers) as runner:
        tasks = _tasks(pending, runner.most_workers)
        num_workers = min(runner.most_workers, len(tasks))
        setup = {
            "zoo": os.path.abspath(config.zoo),
            "experiment": config.experiment,
            "output": os.path.abspath(output),
            "source": dataclasses.asdict(source),
            "split": config.split,
            "epoch": config.epoch,
            "device": config.device,
            "num_threads": runner.num_threads(num_workers) if config.device == "cpu" else None,
        }
        messages = runner.run_tasks(
            "heldout.evaluation.evaluate_zoo_worker",
            setup,
            tasks,
            num_workers=num_workers,
            supplies={"dataset": functools.partial(datasets.save, data)},
            recover=group_recovery.GroupRecovery(),
        )
        with contextlib.closing(messages):
            for message in messages:
                if "note" in message:
                    progress.note(message["note"])
                if "result" in message:
                    num_done += 1
                    progress.evaluated(num_done, len(pending))
                    if "fault" in message["result"]:
                        ratio, run_id = message["result"]["run"]
                        faults[ratio, run_id] = message["result"]["fault"]
    return faults


def _tasks(pending: Sequence[layout.Run], num_workers: int) -> list[dispatch.Message]:
    """Runs of one ratio each, so few that every worker gets a share."""
    size = min(_MOST_RUNS_PER_TASK, math.ceil(len(pending) / num_workers))
    tasks = []
    for ratio in sorted({run.subset_ratio for run in pending}):
        run_ids = [run.run_id for run in pending if run.subset_ratio == ratio]
        tasks += [
            {"subset_ratio": ratio, "run_ids": run_ids[first : first + size]} for first in range(0, len(run_ids), size)
        ]
    return tasks
