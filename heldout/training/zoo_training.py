"""Trains the missing runs of an experiment, on worker processes, and packs the run table.

The same call again continues: complete runs are skipped, partial ones are trained anew, damaged ones are named and
left alone unless asked for. Everything a run needs follows from its name, so it does not matter who trains it when.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import shutil
from typing import Any

from heldout import subsets
from heldout.datasets import dataset as dataset_lib
from heldout.datasets import registry as datasets
from heldout.experiments import label_noise, recipes, subset_rankings
from heldout.running import dispatch, group_recovery, interruption, runners
from heldout.training import failures, run_results, train_runs_config
from zoo import errors, files, inventory, layout, npz, run_scan, run_table, run_table_update

# What a worker takes at a time. On a CPU more would only delay the first result; elsewhere they may be one group.
_MOST_RUNS_PER_TASK = {"cpu": 8, "gpu": 256, "tpu": 256}
# The shortest member that only records with margins have; see zoo/aux_arrays.py.
_MARGIN_MEMBER = "margin_test"


@dataclasses.dataclass(frozen=True)
class TrainRunsSummary:
    """What a call of `train_runs` did.

    Attributes:
        trained: results of the runs written.
        failed: results of the runs that diverged.
        num_skipped: runs that were complete before, or became it by another program's work.
        table: the packed table of all complete runs of the experiment, at all ratios.
        problems: damaged and partial runs that were left alone.
        failures: what was noted of the failed runs, in the same order.
        stopped: the training ended early, because as many runs in a row as are allowed have failed.
    """

    trained: list[run_results.RunResult]
    failed: list[run_results.RunResult]
    num_skipped: int
    table: run_table.RunTable | None
    problems: list[run_scan.RunProblem]
    failures: list[failures.Failure]
    stopped: bool = False

    @property
    def damaged(self) -> list[run_scan.RunProblem]:
        """The damaged runs among the problems; partial ones may be in the making elsewhere."""
        return [problem for problem in self.problems if problem.state == "damaged"]


class Progress:
    """Hears of the training as it goes; override what is of interest."""

    def starting(self, num_pending: int, num_skipped: int, num_epochs: int) -> None:
        """Once, before the workers start."""

    def began(self, subset_ratio: float, run_ids: list[int], host: str, process: int) -> None:
        """A worker begins to train runs as one group."""

    def appeared(self) -> None:
        """A run has been completed by another program."""

    def run_epochs(self, count: int) -> None:
        """`count` runs have finished one more epoch each; below 0, so many epochs were lost with a worker."""

    def result(self, result: run_results.RunResult) -> None:
        """A run has ended."""

    def note(self, text: str) -> None:
        """Something out of the ordinary has happened, and the training goes on."""

    def ended(self) -> None:
        """The workers are done, and what they have written is going to be read."""


def make_recipe(config: train_runs_config.TrainRunsConfig, dataset: datasets.AnyDataset) -> recipes.Recipe:
    """The recipe that the runs of this configuration share, given the data set with clean labels.

    Raises:
        InvalidValueError: the labels cannot be changed as asked for.
    """
    options = json.loads(json.dumps(config.architecture_options))
    noise = None if config.noise is None else config.noise.for_dataset(dataset.name)
    trained = dataset if noise is None else label_noise.apply(noise, dataset)
    fingerprint = json.loads(json.dumps(trained.fingerprint()))
    flag = config.dataset
    kind, separator, path = flag.partition(":")
    if separator:
        flag = f"{kind}:{os.path.abspath(path)}"  # npz and records lie where they lie, wherever one stands
    return recipes.Recipe(
        config.experiment_name,
        fingerprint,
        config.architecture,
        options,
        config.training,
        flag,
        noise=noise,
        clean_label_sha256=None if noise is None else dataset_lib.label_sha256(dataset.train.label),
        subset_sampling=config.subset_sampling,
        ranking_sha256=None if config.ranking is None else config.ranking.sha256(),
    )


def train_runs(config: train_runs_config.TrainRunsConfig, progress: Progress | None = None) -> TrainRunsSummary:
    """Trains what is missing.

    Raises:
        InvalidValueError: ratios, run ids or options outside what is allowed.
        MismatchError: the experiment holds runs of another recipe, or labels in another order; or another program has
            replaced the recipe meanwhile.
        KeyboardInterrupt: by Ctrl-C or SIGTERM, when the workers are gone and what is complete is packed.
        WorkerError: workers were lost again and again; what they had finished is kept.
        NetworkError: there is no cluster at the address.
    """
    progress = progress or Progress()
    train_runs_config.check(config)
    clean = datasets.open_for_training(config.dataset, config.data_dir)
    for subset_ratio in config.subset_ratios:
        size_of = subsets.subset_size if config.ranking is None else config.ranking.subset_size
        size_of(subset_ratio, len(clean.train))
    recipe = make_recipe(config, clean)
    recipes.adopt(config.zoo, recipe)
    if config.ranking is not None:
        subset_rankings.write(layout.ranking_path(config.zoo, recipe.experiment), config.ranking)
    dataset = clean
    if recipe.noise is not None:
        dataset = label_noise.apply(recipe.noise, clean)
        label_noise.write_labels(layout.labels_path(config.zoo, recipe.experiment), clean, dataset)
    wanted = [_run(config, name) for name in config.wanted]
    records = {run: _record(run) for run in wanted} if config.redo_damaged else {}
    table, problems = _update_table(config, dataset)
    pending, left_alone = _pending(config, table, problems)
    num_wanted = len(wanted)
    # Damaged ones are pending only because --redo_damaged asks for it.
    for run in {problem.run for problem in problems if problem.state == "damaged"} & set(pending):
        _remove_damaged(run, records[run])
    _remove_leftovers(pending)
    if config.margins:
        _tell_of_margins(set(wanted) - set(pending) - {_run(config, name) for name in left_alone}, progress)
    progress.starting(len(pending), num_wanted - len(pending) - len(left_alone), config.training.num_epochs)
    heard = _Heard(config, recipe, progress)
    if pending:
        table, problems = _train_and_pack(config, recipe, dataset, pending, heard)
    trained = [result for result in heard.results if result.failure is None]
    failed = [result for result in heard.results if result.failure is not None]
    num_skipped = num_wanted - len(pending) - len(left_alone) + heard.num_appeared
    stopped = heard.too_many_failures() and len(heard.results) + heard.num_appeared < len(pending)
    return TrainRunsSummary(trained, failed, num_skipped, table, problems, heard.failures, stopped)


def _train_and_pack(
    config: train_runs_config.TrainRunsConfig,
    recipe: recipes.Recipe,
    dataset: datasets.AnyDataset,
    pending: list[layout.Run],
    heard: "_Heard",
) -> tuple[run_table.RunTable | None, list[run_scan.RunProblem]]:
    """Trains; whenever a signal comes, the table has what is complete when this ends."""
    with interruption.Interruption(config.grace_s) as stop:
        try:
            _train(config, recipe, dataset, pending, heard, stop)
            stop.end()
            with stop.held("the run table is being packed"):
                heard.progress.ended()
                recipes.check_kept(config.zoo, recipe)
                return _update_table(config, dataset)
        except KeyboardInterrupt:  # the workers are gone
            stop.settle()
            heard.progress.ended()
            _remove_leftovers(pending)
            recipes.check_kept(config.zoo, recipe)
            _update_table(config, dataset)
            raise


def _record(run: layout.Run) -> tuple[int, ...] | None:
    """What tells the record of a run from one that takes its place; None where there is none."""
    with contextlib.suppress(OSError):
        found = run.aux_arrays_path.stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return None


def _remove_damaged(run: layout.Run, scanned: tuple[int, ...] | None) -> None:
    """Deletes a run, unless another program has begun it again since its record was found damaged."""
    if _record(run) != scanned:
        return
    away = files.temporary_beside(run.directory)
    with contextlib.suppress(FileNotFoundError):
        os.replace(run.directory, away)  # in one step, so that nobody's new files are among those deleted
        shutil.rmtree(away)


def _tell_of_margins(complete: set[layout.Run], progress: Progress) -> None:
    """Says how many of the complete runs have no margins, which they will not get."""
    lacking = unknown = 0
    for run in complete:
        try:
            lacking += not npz.read(run.aux_arrays_path, [], [_MARGIN_MEMBER])
        except (OSError, errors.HeldoutError):
            unknown += 1  # a row of the table is all that is here of it
    if lacking:
        progress.note(
            f"--margins: {files.count_text(lacking, 'complete run')} without margins will stay so; train under another "
            "--experiment to have all runs with margins"
        )
    if unknown:
        text = files.count_text(unknown, "complete run")
        progress.note(f"--margins: {text} may be without margins; the records are not here")


def _remove_leftovers(runs: Sequence[layout.Run]) -> None:
    """Deletes what killed workers left unfinished."""
    for directory in {run.directory.parent for run in runs}:
        files.remove_stale_temporaries(directory)
    for run in runs:
        for directory in (run.directory, run.checkpoints_directory):
            files.remove_stale_temporaries(directory)


def _update_table(
    config: train_runs_config.TrainRunsConfig, dataset: datasets.AnyDataset
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
    config: train_runs_config.TrainRunsConfig, table: run_table.RunTable | None, problems: Sequence[run_scan.RunProblem]
) -> tuple[list[layout.Run], set[tuple[float, int]]]:
    """The runs to train, and the damaged ones among the wanted that are left alone."""
    wanted = config.wanted
    packed = set() if table is None else set(zip(table.subset_ratio.tolist(), table.run_id.tolist(), strict=True))
    complete = {name for name in packed & set(wanted) if not _is_partial(_run(config, name))}
    damaged = {(p.run.subset_ratio, p.run.run_id) for p in problems if p.state == "damaged"}
    left_alone = set() if config.redo_damaged else damaged & set(wanted)
    names = [name for name in wanted if name not in complete - damaged and name not in left_alone]
    return [_run(config, name) for name in names], left_alone


def _run(config: train_runs_config.TrainRunsConfig, name: tuple[float, int]) -> layout.Run:
    return layout.Run(pathlib.Path(config.zoo), config.experiment_name, *name)


def _is_partial(run: layout.Run) -> bool:
    """Whether the run has a folder without a record. A run that only the packed table knows is complete."""
    return run.directory.exists() and not run.aux_arrays_path.exists()


class _Heard:
    """What the workers have said so far."""

    def __init__(self, config: train_runs_config.TrainRunsConfig, recipe: recipes.Recipe, progress: Progress) -> None:
        self._config = config
        self._recipe = recipe
        self.progress = progress
        self.results: list[run_results.RunResult] = []
        self.failures: list[failures.Failure] = []
        self.num_appeared = 0

    def message(self, message: dispatch.Message) -> None:
        """Takes note of one."""
        if "note" in message:
            self.progress.note(message["note"])
        if "began" in message:
            self.progress.began(**message["began"])
        if "run_epochs" in message:
            self.progress.run_epochs(message["run_epochs"])
        if "appeared" in message:
            self.num_appeared += 1
            self.progress.appeared()
            self.progress.run_epochs(self._config.training.num_epochs)
        if "result" in message:
            self._result(message["result"])

    def _result(self, value: dict[str, Any]) -> None:
        zoo, experiment = pathlib.Path(self._config.zoo), self._recipe.experiment
        self.results.append(run_results.RunResult.from_json(value, zoo, experiment))
        self.progress.result(self.results[-1])
        if self.results[-1].failure is not None:
            store = self._config.store
            failure = failures.describe(self._recipe, self.results[-1], self._config.data_dir, store)
            self.failures.append(failure)
            failures.append(zoo, experiment, failure)

    def too_many_failures(self) -> bool:
        """Whether the training should stop."""
        return failures.too_many(self.results, self._config.max_failures)


def _train(
    config: train_runs_config.TrainRunsConfig,
    recipe: recipes.Recipe,
    dataset: datasets.AnyDataset,
    pending: list[layout.Run],
    heard: _Heard,
    stop: interruption.Interruption,
) -> None:
    recovery = group_recovery.GroupRecovery()
    with runners.opened(config.runner, config.device, config.workers if config.strategy == "none" else 1) as runner:
        tasks = _tasks(config, pending, min(len(pending), runner.most_workers))
        num_workers = min(runner.most_workers, len(tasks))
        setup = _setup(config, recipe, num_workers, runner.num_threads(num_workers))
        messages = runner.run_tasks(
            "heldout.training.train_worker",
            setup,
            stop.until_requested(recovery.limited(tasks)),
            num_workers=num_workers,
            supplies={"dataset": functools.partial(datasets.save, dataset)},
            recover=recovery,
        )
        room_checked = False
        with contextlib.closing(messages):
            for message in messages:
                if "bytes_per_run" in message and not room_checked and config.store is None:
                    needed = message["bytes_per_run"] * len(pending)
                    files.check_room(config.zoo, needed, "the runs to train", ", or ask for fewer --run_ids")
                    room_checked = True
                heard.message(message)
                if "result" in message and heard.too_many_failures():
                    break


def _setup(
    config: train_runs_config.TrainRunsConfig, recipe: recipes.Recipe, num_workers: int, num_threads: int
) -> dispatch.Message:
    return {
        "zoo": os.path.abspath(config.zoo),
        "store": config.store,
        "recipe": recipe.to_json(),
        "device": config.device,
        "num_threads": num_threads if config.device == "cpu" else None,
        "runs_per_group": config.runs_per_group,
        # Of this machine; on a cluster each has its own share.
        "num_workers": num_workers if config.runner.name == runners.LOCAL else 1,
        "margins": config.margins,
        "strategy": config.strategy,
        "num_replicas": config.num_replicas,
    }


def _tasks(
    config: train_runs_config.TrainRunsConfig, pending: list[layout.Run], num_workers: int
) -> list[dispatch.Message]:
    """Groups of runs of one ratio, small enough that every worker gets a share."""
    size = min(config.runs_per_group or _MOST_RUNS_PER_TASK[config.device], math.ceil(len(pending) / num_workers))
    tasks = []
    for ratio in config.subset_ratios:
        run_ids = [run.run_id for run in pending if run.subset_ratio == ratio]
        for first in range(0, len(run_ids), size):
            tasks.append({"subset_ratio": ratio, "run_ids": run_ids[first : first + size]})
    return tasks
