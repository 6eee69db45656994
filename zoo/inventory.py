"""What a zoo holds: experiments, ratios, runs, and what is wrong with those that cannot be used.

A run is

    complete   its aux arrays are sound (they are written last), or are not there but packed in the run table; whether
               a checkpoint lies beside them is counted apart, because scores need none
    partial    there are no aux arrays, nor a row in the run table: training or download has not finished
    damaged    its aux arrays or checkpoint cannot be used

Nothing is written. Records that the packed run table already knows, unchanged in size and time, are not read again.

Of a checkpoint it is verified that index and data file are both there, that neither is empty, and that the data file
is within 1 % as large as those of the other runs at the same epoch (the commonest size; of two as frequent the
larger, because damaged files are cut short). Nothing else is: no checkpoint is opened. Checksums of the content, and
names and shapes of the variables, are verified only by `checkpoints.restore`.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import os
import pathlib

from zoo import errors, files, layout, run_scan, run_table, run_table_update

# Data files of one architecture differ by what TensorFlow notes beside the variables: a hundredth is allowed.
_SIZE_TOLERANCE = 100


@dataclasses.dataclass(frozen=True)
class RatioInventory:
    """Runs of one experiment at one subset ratio.

    Attributes:
        subset_ratio: share of the training set.
        num_complete: runs with sound aux arrays, or with none but a row in the run table.
        num_with_checkpoint: those among them that have a checkpoint.
        num_table_only: those among them that have no folder, only a row in the run table.
        problems: the partial and damaged runs.
    """

    subset_ratio: float
    num_complete: int
    num_with_checkpoint: int
    num_table_only: int
    problems: list[run_scan.RunProblem]

    def count(self, state: str) -> int:
        """Number of runs in a state, "partial" or "damaged"."""
        return sum(problem.state == state for problem in self.problems)


@dataclasses.dataclass(frozen=True)
class ExperimentInventory:
    """One experiment.

    Attributes:
        experiment: its name.
        num_train: examples of its training set; None without a run table or a complete run.
        num_test: examples of its test set; None without a run table or a complete run.
        ratios: by ascending ratio.
        num_packed: runs in its run_table.npz, None where there is none.
        complaint: what is wrong with the run table and with recipe.json, joined by "; "; None where nothing is.
        unknown: names in the experiment's folder that are no part of a zoo; in the folders of its ratios those that are
            no run, as in "0.7/0902"; in the folders of its runs those that are no file of a run, as in "0.7/3/core".
            Hidden names are never among them.
    """

    experiment: str
    num_train: int | None
    num_test: int | None
    ratios: list[RatioInventory]
    num_packed: int | None
    complaint: str | None
    unknown: list[str]

    @property
    def num_table_only(self) -> int:
        """Runs that have no folder, only a row in the run table."""
        return sum(ratio.num_table_only for ratio in self.ratios)


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """An inventory with what was read for it.

    Attributes:
        inventory: what there is and what is wrong.
        rows: one for every run with sound aux arrays, and for those without that the run table knows.
        table: the stored run table; None where there is none or it is damaged.
    """

    inventory: ExperimentInventory
    rows: list[run_scan.RunRow]
    table: run_table.RunTable | None


def take(
    zoo: files.PathLike, experiment: str, *, deep: bool = False, progress: run_scan.Progress | None = None
) -> ExperimentInventory:
    """The inventory of `survey`, which takes the same arguments."""
    return survey(zoo, experiment, deep=deep, progress=progress).inventory


def survey(
    zoo: files.PathLike, experiment: str, *, deep: bool = False, progress: run_scan.Progress | None = None
) -> Survey:
    """Looks at every run of an experiment.

    Args:
        zoo: the folder that holds the experiments.
        experiment: name of the experiment.
        deep: read every record again, also those that the run table knows.
        progress: called after each run with the number of runs looked at and the number of all runs.
    """
    table, complaints = _stored_table(zoo, experiment)
    complaints += _recipe_complaints(zoo, experiment)
    runs = run_table_update.all_runs(zoo, experiment, table)
    known = {} if table is None else run_table_update.rows_by_run(table, runs)
    if deep:
        known = {run: row for run, row in known.items() if not run.aux_arrays_path.exists()}
    sizes = None if table is None else (table.num_train, table.num_test)
    rows, problems = run_scan.scan(runs, known, progress, sizes=sizes)
    num_train, num_test = sizes or (rows[0].sizes if rows else (None, None))
    inventory = ExperimentInventory(
        experiment=experiment,
        num_train=num_train,
        num_test=num_test,
        ratios=_by_ratio(runs, rows, problems + checkpoint_problems([row.run for row in rows])),
        num_packed=None if table is None else table.num_runs,
        complaint="; ".join(complaints) or None,
        unknown=_unknown(layout.experiment_directory(zoo, experiment), runs),
    )
    return Survey(inventory, rows, table)


def _stored_table(zoo: files.PathLike, experiment: str) -> tuple[run_table.RunTable | None, list[str]]:
    path = layout.run_table_path(zoo, experiment)
    if not path.exists():
        return None, []
    try:
        return run_table.read(path), []
    except (errors.HeldoutError, OSError) as error:
        return None, [errors.explain(error)]


def _recipe_complaints(zoo: files.PathLike, experiment: str) -> list[str]:
    path = layout.recipe_path(zoo, experiment)
    if not path.exists():
        return []
    try:
        files.read_json(path)
    except (errors.HeldoutError, OSError) as error:
        return [errors.explain(error)]
    return []


def checkpoint_problems(runs: Sequence[layout.Run]) -> list[run_scan.RunProblem]:
    """Those among runs of one experiment whose checkpoint is half there, empty, or of another size than the others'.

    Args:
        runs: those with sound aux arrays, all that there are: sizes are compared among them.

    Returns:
        One problem, "damaged", for each such run, in the order of `runs`.
    """
    sizes = {run: layout.checkpoint_sizes(run) for run in runs}
    commonest = _commonest_sizes([data_sizes for _, data_sizes in sizes.values()])
    problems = []
    for run, (index_sizes, data_sizes) in sizes.items():
        faults = _checkpoint_faults(index_sizes, data_sizes, commonest)
        if faults:
            reason = (
                f"{run.checkpoints_directory}: {', '.join(faults)}; fetch the run again, or train it anew with "
                "--redo_damaged"
            )
            problems.append(run_scan.RunProblem(run, "damaged", reason))
    return problems


def _commonest_sizes(data_sizes: Sequence[Mapping[int, int]]) -> dict[int, int]:
    """By epoch, the commonest size of the data files that are not empty; of sizes as frequent the largest."""
    counts: dict[int, collections.Counter[int]] = {}
    for sizes in data_sizes:
        for epoch, size in sizes.items():
            if size:
                counts.setdefault(epoch, collections.Counter())[size] += 1
    return {epoch: max(count, key=lambda size: (count[size], size)) for epoch, count in counts.items()}


def _checkpoint_faults(
    index_sizes: Mapping[int, int], data_sizes: Mapping[int, int], commonest: Mapping[int, int]
) -> list[str]:
    """What is wrong with the checkpoints of one run."""
    faults = []
    for epoch in sorted(index_sizes.keys() | data_sizes.keys()):
        if epoch not in index_sizes or epoch not in data_sizes:
            faults.append(f"ckpt-{epoch} lacks its .index or .data file")
        elif not index_sizes[epoch] or not data_sizes[epoch]:
            faults.append(f"ckpt-{epoch} has an empty .index or .data file")
        elif abs(data_sizes[epoch] - commonest[epoch]) > commonest[epoch] // _SIZE_TOLERANCE:
            faults.append(
                f"the .data file of ckpt-{epoch} has {data_sizes[epoch]} bytes, those of other runs {commonest[epoch]}"
            )
    return faults


def _by_ratio(
    runs: Sequence[layout.Run], rows: Sequence[run_scan.RunRow], problems: Sequence[run_scan.RunProblem]
) -> list[RatioInventory]:
    bad = {problem.run for problem in problems}
    good = [row.run for row in rows if row.run not in bad]
    inventories = []
    for ratio in sorted({run.subset_ratio for run in runs}):
        of_ratio = [run for run in good if run.subset_ratio == ratio]
        with_checkpoint = sum(bool(layout.checkpoint_epochs(run)) for run in of_ratio)
        table_only = sum(not run.directory.is_dir() for run in of_ratio)
        own = [problem for problem in problems if problem.run.subset_ratio == ratio]
        inventories.append(RatioInventory(ratio, len(of_ratio), with_checkpoint, table_only, own))
    return inventories


def _unknown(directory: pathlib.Path, runs: Sequence[layout.Run]) -> list[str]:
    known = {
        layout.RECIPE_NAME,
        layout.RUN_TABLE_NAME,
        layout.LABELS_NAME,
        layout.RANKING_NAME,
        layout.FAILURES_NAME,
        layout.TENSORBOARD_NAME,
        layout.ARCHIVE_INDEX_NAME,
        layout.PUBLISHED_INDEX_NAME,
        "scores",
        "report",
        "evaluation",
    }
    known |= {f"{layout.ratio_name(run.subset_ratio)}/{run.run_id}" for run in runs}
    found = []
    for entry in _visible(directory):
        if layout.parse_ratio(entry.name) is not None and entry.is_dir():
            found += [f"{entry.name}/{child.name}" for child in _visible(entry)]
        else:
            found.append(entry.name)
    of_runs = [name for run in runs for name in _unknown_of_run(run)]
    return sorted({*found, *of_runs} - known)


def _unknown_of_run(run: layout.Run) -> Iterator[str]:
    """Names in the folder of a run that are no file of a run, relative to the experiment's folder."""
    where = f"{layout.ratio_name(run.subset_ratio)}/{run.run_id}"
    for entry in _visible(run.directory):
        is_checkpoints = entry.name == layout.CHECKPOINTS_NAME and entry.is_dir()
        if entry.name != layout.AUX_ARRAYS_NAME and not is_checkpoints:
            yield f"{where}/{entry.name}"
    for entry in _visible(run.checkpoints_directory):
        if layout.parse_checkpoint_file(entry.name) is None or not entry.is_file():
            yield f"{where}/{layout.CHECKPOINTS_NAME}/{entry.name}"


def _visible(directory: files.PathLike) -> list[os.DirEntry[str]]:
    """What lies in a folder, but locks, journals, unfinished and other hidden files; nothing where it is no folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]
    return []
