"""Trains the missing runs of an experiment, on worker processes, and packs the run table.

The same call again continues: complete runs are skipped, partial ones are trained anew, damaged ones are named and
left alone unless asked for. Everything a run needs follows from its name, so it does not matter who trains it when.
"""

import collections
from collections.abc import Sequence
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import shutil
import tempfile
from typing import Any

from heldout import recipes, run_results, subsets, training_config, workers
from heldout.datasets import dataset as dataset_lib
from heldout.datasets import registry as datasets
from zoo import errors, files, inventory, layout, run_scan, run_table, run_table_update

# Larger groups save no more per run (benchmarks/benchmark_training.py), and delay the first result.
_MOST_RUNS_PER_TASK = 8


@dataclasses.dataclass(frozen=True)
class TrainRunsConfig:
    """What to train and where.

    Attributes:
        zoo: folder of experiments.
        experiment: name; None makes it from data set and architecture.
        dataset: name known to heldout/datasets/registry.py.
        data_dir: where the data set lies; None for the default.
        architecture: name known to heldout/models/registry.py, or "module:callable".
        architecture_options: its keyword arguments.
        subset_ratios: each in (0, 1).
        run_ids: run ids to have at every ratio, each once.
        training: optimisation.
        workers: processes; None means one for each core on a CPU, one on other devices.
        runs_per_group: runs trained as one batch where the architecture allows; None leaves the choice to
            `run_training.RunTrainer.largest_group`.
        device: "cpu", "gpu" or "tpu".
        redo_damaged: whether to train damaged runs anew, replacing their files.
    """

    zoo: str
    experiment: str | None
    dataset: str
    data_dir: str | None
    architecture: str
    architecture_options: dict[str, Any]
    subset_ratios: tuple[float, ...]
    run_ids: tuple[int, ...]
    training: training_config.TrainingConfig
    workers: int | None = None
    runs_per_group: int | None = None
    device: str = "cpu"
    redo_damaged: bool = False

    @property
    def experiment_name(self) -> str:
        """The given name, or <dataset>-<architecture> with characters unfit for a folder replaced."""
        if self.experiment is not None:
            return self.experiment
        name = f"{pathlib.Path(self.dataset.removeprefix('npz:')).stem}-{self.architecture}"
        return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


@dataclasses.dataclass(frozen=True)
class TrainRunsSummary:
    """What a call of `train_runs` did.

    Attributes:
        trained: results of the runs written.
        failed: results of the runs that diverged.
        num_skipped: runs that were complete before.
        table: the packed table of all complete runs of the experiment, at all ratios.
        problems: damaged and partial runs that were left alone.
    """

    trained: list[run_results.RunResult]
    failed: list[run_results.RunResult]
    num_skipped: int
    table: run_table.RunTable | None
    problems: list[run_scan.RunProblem]

    @property
    def damaged(self) -> list[run_scan.RunProblem]:
        """The damaged runs among the problems; partial ones may be in the making elsewhere."""
        return [problem for problem in self.problems if problem.state == "damaged"]


class Progress:
    """Hears of the training as it goes; override what is of interest."""

    def starting(self, num_pending: int, num_skipped: int, num_epochs: int) -> None:
        """Once, before the workers start."""

    def run_epochs(self, count: int) -> None:
        """`count` runs have finished one more epoch each."""

    def result(self, result: run_results.RunResult) -> None:
        """A run has ended."""


def make_recipe(config: TrainRunsConfig, dataset: dataset_lib.Dataset) -> recipes.Recipe:
    """The recipe that the runs of this configuration share."""
    options = json.loads(json.dumps(config.architecture_options))
    fingerprint = json.loads(json.dumps(dataset.fingerprint()))
    flag = config.dataset
    if flag.startswith("npz:"):
        flag = f"npz:{os.path.abspath(flag.removeprefix('npz:'))}"
    return recipes.Recipe(config.experiment_name, fingerprint, config.architecture, options, config.training, flag)


def train_runs(config: TrainRunsConfig, progress: Progress | None = None) -> TrainRunsSummary:
    """Trains what is missing.

    Raises:
        InvalidValueError: ratios, run ids or options outside what is allowed.
        MismatchError: the experiment holds runs of another recipe, or labels in another order.
        WorkerError: a worker process died; what it had finished is kept.
    """
    progress = progress or Progress()
    _check(config)
    dataset = datasets.load(config.dataset, config.data_dir)
    for subset_ratio in config.subset_ratios:
        subsets.subset_size(subset_ratio, len(dataset.train))
    recipe = make_recipe(config, dataset)
    recipes.adopt(config.zoo, recipe)
    table, problems = _update_table(config, dataset)
    pending, left_alone = _pending(config, table, problems)
    num_wanted = len(config.subset_ratios) * len(config.run_ids)
    for run in {problem.run for problem in problems if problem.state == "damaged"} & set(pending):
        shutil.rmtree(run.directory)  # pending only because --redo_damaged asks for it
    for run in pending:
        for directory in (run.directory, run.checkpoints_directory):
            files.remove_stale_temporaries(directory)
    progress.starting(len(pending), num_wanted - len(pending) - len(left_alone), config.training.num_epochs)
    results = _train(config, recipe, dataset, pending, progress) if pending else []
    trained = [result for result in results if result.failure is None]
    if trained:
        table, problems = _update_table(config, dataset)
    failed = [result for result in results if result.failure is not None]
    return TrainRunsSummary(trained, failed, num_wanted - len(pending) - len(left_alone), table, problems)


def _check(config: TrainRunsConfig) -> None:
    if not config.run_ids or not config.subset_ratios:
        raise errors.InvalidValueError("nothing to train: give at least one of --run_ids and one --subset_ratio")
    for name, values in (("run_ids", config.run_ids), ("subset_ratio", config.subset_ratios)):
        twice = [value for value, count in collections.Counter(values).items() if count > 1]
        if twice:
            raise errors.InvalidValueError(f"--{name}: {min(twice)} is given twice; name each once")
    if min(config.run_ids) < 0:
        raise errors.InvalidValueError(f"--run_ids: {min(config.run_ids)} is negative; run ids start at 0")
    for name, value in (("workers", config.workers), ("runs_per_group", config.runs_per_group)):
        if value is not None and value < 1:
            raise errors.InvalidValueError(f"--{name}={value}: expected at least 1")


def _update_table(
    config: TrainRunsConfig, dataset: dataset_lib.Dataset
) -> tuple[run_table.RunTable | None, list[run_scan.RunProblem]]:
    runs = layout.runs(config.zoo, config.experiment_name)
    if not runs and not layout.run_table_path(config.zoo, config.experiment_name).exists():
        return None, []
    try:
        table, problems = run_table_update.update(
            config.zoo, config.experiment_name, train_label=dataset.train.label, test_label=dataset.test.label
        )
    except errors.MissingFileError:
        return None, run_scan.scan(runs, {})[1]
    unsound = {problem.run for problem in problems}
    return table, problems + inventory.checkpoint_problems([run for run in runs if run not in unsound])


def _pending(
    config: TrainRunsConfig, table: run_table.RunTable | None, problems: Sequence[run_scan.RunProblem]
) -> tuple[list[layout.Run], set[tuple[float, int]]]:
    """The runs to train, and the damaged ones among the wanted that are left alone."""
    wanted = [(ratio, run_id) for ratio in config.subset_ratios for run_id in config.run_ids]
    packed = set() if table is None else set(zip(table.subset_ratio.tolist(), table.run_id.tolist(), strict=True))
    complete = {name for name in packed & set(wanted) if not _is_partial(_run(config, name))}
    damaged = {(p.run.subset_ratio, p.run.run_id) for p in problems if p.state == "damaged"}
    left_alone = set() if config.redo_damaged else damaged & set(wanted)
    names = [name for name in wanted if name not in complete - damaged and name not in left_alone]
    return [_run(config, name) for name in names], left_alone


def _run(config: TrainRunsConfig, name: tuple[float, int]) -> layout.Run:
    return layout.Run(pathlib.Path(config.zoo), config.experiment_name, *name)


def _is_partial(run: layout.Run) -> bool:
    """Whether the run has a folder without a record. A run that only the packed table knows is complete."""
    return run.directory.exists() and not run.aux_arrays_path.exists()


def _train(
    config: TrainRunsConfig,
    recipe: recipes.Recipe,
    dataset: dataset_lib.Dataset,
    pending: list[layout.Run],
    progress: Progress,
) -> list[run_results.RunResult]:
    num_workers = min(len(pending), config.workers or (workers.num_cores() if config.device == "cpu" else 1))
    tasks = _tasks(config, pending, num_workers)
    num_workers = min(num_workers, len(tasks))
    num_threads = max(1, workers.num_cores() // num_workers)
    results = []
    num_ready = 0
    with tempfile.TemporaryDirectory(prefix="heldout-data-") as data:
        dataset.save(f"{data}/dataset")
        setup = {
            "zoo": str(config.zoo),
            "recipe": recipe.to_json(),
            "dataset": f"{data}/dataset",
            "device": config.device,
            "num_threads": num_threads if config.device == "cpu" else None,
            "runs_per_group": config.runs_per_group,
        }
        messages = workers.run_tasks(
            "heldout.train_worker", setup, tasks, num_workers=num_workers, threads_per_worker=num_threads
        )
        with contextlib.closing(messages):
            for message in messages:
                if "bytes_per_run" in message:
                    num_ready += 1
                    if num_ready == 1:
                        needed = message["bytes_per_run"] * len(pending)
                        files.check_room(config.zoo, needed, "the runs to train", ", or ask for fewer --run_ids")
                    if num_ready == num_workers:
                        shutil.rmtree(f"{data}/dataset")  # all have it mapped; so a kill from here on leaves no copy
                if "run_epochs" in message:
                    progress.run_epochs(message["run_epochs"])
                if "result" in message:
                    zoo = pathlib.Path(config.zoo)
                    results.append(run_results.RunResult.from_json(message["result"], zoo, recipe.experiment))
                    progress.result(results[-1])
    return results


def _tasks(config: TrainRunsConfig, pending: list[layout.Run], num_workers: int) -> list[workers.Message]:
    """Groups of runs of one ratio, small enough that every worker gets a share."""
    size = min(config.runs_per_group or _MOST_RUNS_PER_TASK, math.ceil(len(pending) / num_workers))
    tasks = []
    for ratio in config.subset_ratios:
        run_ids = [run.run_id for run in pending if run.subset_ratio == ratio]
        for first in range(0, len(run_ids), size):
            tasks.append({"subset_ratio": ratio, "run_ids": run_ids[first : first + size]})
    return tasks
