"""What a zoo holds: experiments, ratios, runs, and what is wrong with those that cannot be used.

A run is

    complete   its aux arrays are sound (they are written last); whether a checkpoint lies beside them is counted apart,
               because scores need none
    partial    there are no aux arrays: training or download has not finished
    damaged    its aux arrays or checkpoint cannot be used

Nothing is written. Records that the packed run table already knows, unchanged in size and time, are not read again.
"""

from collections.abc import Sequence
import dataclasses
import pathlib

from zoo import errors, files, layout, run_scan, run_table


@dataclasses.dataclass(frozen=True)
class RatioInventory:
    """Runs of one experiment at one subset ratio.

    Attributes:
        subset_ratio: share of the training set.
        num_complete: runs with sound aux arrays.
        num_with_checkpoint: those among them that have a checkpoint.
        problems: the partial and damaged runs.
    """

    subset_ratio: float
    num_complete: int
    num_with_checkpoint: int
    problems: list[run_scan.RunProblem]

    def count(self, state: str) -> int:
        """Number of runs in a state, "partial" or "damaged"."""
        return sum(problem.state == state for problem in self.problems)


@dataclasses.dataclass(frozen=True)
class ExperimentInventory:
    """One experiment.

    Attributes:
        experiment: its name.
        num_train: examples of its training set; None without a complete run.
        num_test: examples of its test set; None without a complete run.
        ratios: by ascending ratio.
        num_packed: runs in its run_table.npz, None where there is none.
        complaint: what is wrong with the run table; None where nothing is.
        unknown: names in the experiment's folder that are no part of a zoo.
    """

    experiment: str
    num_train: int | None
    num_test: int | None
    ratios: list[RatioInventory]
    num_packed: int | None
    complaint: str | None
    unknown: list[str]


def take(
    zoo: files.PathLike, experiment: str, *, deep: bool = False, progress: run_scan.Progress | None = None
) -> ExperimentInventory:
    """Looks at every run of an experiment.

    Args:
        zoo: the folder that holds the experiments.
        experiment: name of the experiment.
        deep: read every record again, also those that the run table knows.
        progress: called after each run with the number of runs looked at and the number of all runs.
    """
    table, complaint = _stored_table(zoo, experiment)
    runs = layout.runs(zoo, experiment)
    known = {} if table is None or deep else run_table.rows_by_run(table, runs)
    rows, problems = run_scan.scan(runs, known, progress)
    broken = checkpoint_problems([row.run for row in rows])
    num_train, num_test = (rows[0].num_train, rows[0].num_test) if rows else (None, None)
    if table is not None and not runs:
        num_train, num_test = table.num_train, table.num_test
    return ExperimentInventory(
        experiment=experiment,
        num_train=num_train,
        num_test=num_test,
        ratios=_by_ratio(runs, rows, problems + broken),
        num_packed=None if table is None else table.num_runs,
        complaint=complaint,
        unknown=_unknown(layout.experiment_directory(zoo, experiment), runs),
    )


def _stored_table(zoo: files.PathLike, experiment: str) -> tuple[run_table.RunTable | None, str | None]:
    path = layout.run_table_path(zoo, experiment)
    if not path.exists():
        return None, None
    try:
        return run_table.read(path), None
    except errors.DamagedFileError as error:
        return None, str(error)


def checkpoint_problems(runs: Sequence[layout.Run]) -> list[run_scan.RunProblem]:
    """Those among runs with sound aux arrays whose checkpoint is half there: damaged."""
    problems = []
    for run in runs:
        halves = layout.incomplete_checkpoints(run)
        if halves:
            names = ", ".join(f"ckpt-{epoch}" for epoch in halves)
            reason = (
                f"{run.checkpoints_directory}: {names} lacks its .index or .data file; fetch the run again, or train "
                "it anew with --redo_damaged"
            )
            problems.append(run_scan.RunProblem(run, "damaged", reason))
    return problems


def _by_ratio(
    runs: Sequence[layout.Run], rows: Sequence[run_scan.RunRow], problems: Sequence[run_scan.RunProblem]
) -> list[RatioInventory]:
    bad = {problem.run for problem in problems}
    good = [row.run for row in rows if row.run not in bad]
    inventories = []
    for ratio in sorted({run.subset_ratio for run in runs}):
        of_ratio = [run for run in good if run.subset_ratio == ratio]
        with_checkpoint = sum(bool(layout.checkpoint_epochs(run)) for run in of_ratio)
        own = [problem for problem in problems if problem.run.subset_ratio == ratio]
        inventories.append(RatioInventory(ratio, len(of_ratio), with_checkpoint, own))
    return inventories


def _unknown(directory: pathlib.Path, runs: Sequence[layout.Run]) -> list[str]:
    known = {"recipe.json", "run_table.npz", "scores", "report"} | {layout.ratio_name(run.subset_ratio) for run in runs}
    return sorted(p.name for p in directory.iterdir() if p.name not in known and not files.is_temporary(p.name))
