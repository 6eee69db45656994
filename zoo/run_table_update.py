"""Brings the run table of an experiment up to date with its run folders.

Only what is new since the last time is read, and rows whose folders are gone stay: the table may be all that is left
of a run, as after streaming a published archive.
"""

from collections.abc import Sequence
import dataclasses
import errno
import pathlib

import numpy as np

from zoo import errors, files, layout, run_scan, run_table

_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


def update(
    zoo: files.PathLike,
    experiment: str,
    *,
    train_label: np.ndarray | None = None,
    test_label: np.ndarray | None = None,
    progress: run_scan.Progress | None = None,
) -> tuple[run_table.RunTable, list[run_scan.RunProblem]]:
    """The run table of an experiment, brought up to date with its run folders.

    Rows whose source has the size and time of modification noted in the table are kept without reading the source;
    if only the time differs, its SHA-256 decides. All others are read and validated. A row whose source is gone, with
    the run's folder or without it, is kept: the table is then all that is left of the run. (A zoo that was streamed
    from an archive has a table and perhaps a few fetched runs.) A run whose source is there but damaged leaves the
    table. To forget rows, delete run_table.npz; it is built again from the run folders.

    N and M are those of the stored table, and without one those that most of the runs have, the first of them if
    several sizes are as frequent.

    The table is written only if something changed, and about once a minute while many runs are read, so that a kill
    loses little. In a zoo that may not be written to it is returned all the same, and is built again the next time.

    Args:
        zoo: the folder that holds the experiments.
        experiment: name of the experiment.
        train_label: [N] integers by original index, to be stored with the table; None to leave what is stored.
        test_label: [M] integers, likewise.
        progress: called after each run with the number of runs looked at and the number of all runs, which are the
            run folders and the rows without a folder.

    Returns:
        The table, and the runs that are left out of it: partial ones, which have neither aux_arrays.npz nor a stored
        row, and damaged ones (see `run_scan.scan`), among them runs of other N or M.

    Raises:
        MissingFileError: there is neither a good run nor a stored row that can be kept.
        DamagedFileError: the stored table is damaged.
        MismatchError: the stored table belongs to another experiment, or no row of it is left and the runs have
            other numbers of examples; or the labels have the wrong length or contradict those stored.
        OSError: the table cannot be written, for another reason than that the zoo may not be written to.
    """
    path = layout.run_table_path(zoo, experiment)
    stored = _read_stored(path, experiment)
    runs, known, sizes = all_runs(zoo, experiment, stored), {}, None
    if stored is not None:
        known, sizes = rows_by_run(stored, runs), (stored.num_train, stored.num_test)
    on_disk = stored

    def save(rows: Sequence[run_scan.RunRow]) -> None:
        nonlocal on_disk
        on_disk = _store(path, from_rows(rows, stored), on_disk)

    rows, problems = run_scan.scan(runs, known, progress, sizes=sizes, save=save)
    if rows:
        table = from_rows(rows, stored)
    elif stored is not None and not problems:
        table = stored
    else:
        raise _nothing_left(path, problems, stored)
    table = table.with_labels(train_label, test_label)
    _store(path, table, on_disk)
    return table, problems


def all_runs(zoo: files.PathLike, experiment: str, stored: run_table.RunTable | None) -> list[layout.Run]:
    """The runs that have a folder, and those that only the stored table knows, sorted by ratio and id."""
    runs = layout.runs(zoo, experiment)
    if stored is None:
        return runs
    packed = [layout.Run(pathlib.Path(zoo), experiment, ratio, run_id) for ratio, run_id in _names(stored)]
    return sorted({*runs, *packed}, key=lambda run: (run.subset_ratio, run.run_id))


def _read_stored(path: pathlib.Path, experiment: str) -> run_table.RunTable | None:
    stored = run_table.read(path) if path.exists() else None
    if stored is not None and stored.experiment != experiment:
        raise errors.MismatchError(
            f"{path}: the table of experiment {stored.experiment}, found in the folder of {experiment}; "
            "rename the folder, or delete the table to build it from the run folders"
        )
    return stored


def _store(path: pathlib.Path, table: run_table.RunTable, on_disk: run_table.RunTable | None) -> run_table.RunTable:
    """Writes a table unless it is on the disk already, or the disk may not be written to; returns the table."""
    if on_disk is None or not _equal(table, on_disk):
        try:
            run_table.write(path, table)
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
    return table


def _nothing_left(
    path: pathlib.Path, problems: Sequence[run_scan.RunProblem], stored: run_table.RunTable | None
) -> errors.MismatchError | errors.MissingFileError:
    """The error for an experiment without a single row."""
    if stored is not None:
        # Read alone, a run is sound if only its sizes are those of other runs than the table's.
        row = next((row for problem in problems for row in run_scan.scan([problem.run], {})[0]), None)
        if row is not None:
            return errors.MismatchError(
                f"{path}: the run table has {stored.num_train} training and {stored.num_test} test examples, the runs "
                f"now {row.num_train} and {row.num_test}; if they replace the former runs on purpose, delete the run "
                "table"
            )
    first = f"; the first: {problems[0].reason}" if problems else ""
    return errors.MissingFileError(
        f"{path.parent}: no finished run: {len(problems)} run folders, none with a sound aux_arrays.npz{first}"
    )


def _names(table: run_table.RunTable) -> list[tuple[float, int]]:
    """Subset ratio and run id of each row."""
    return list(zip(table.subset_ratio.tolist(), table.run_id.tolist(), strict=True))


def rows_by_run(table: run_table.RunTable, runs: Sequence[layout.Run]) -> dict[layout.Run, run_scan.RunRow]:
    """The table's rows of the given runs, as `run_scan.scan` takes them; runs that have no row are left out."""
    row_of = {name: row for row, name in enumerate(_names(table))}
    rows = {}
    for run in runs:
        row = row_of.get((run.subset_ratio, run.run_id))
        if row is not None:
            rows[run] = run_scan.RunRow(
                run=run,
                num_train=table.num_train,
                num_test=table.num_test,
                **{field: getattr(table, field)[row] for field in (*run_table.BIT_FIELDS, "source_sha256")},
                source_size=int(table.source_size[row]),
                source_mtime_ns=int(table.source_mtime_ns[row]),
            )
    return rows


def from_rows(rows: Sequence[run_scan.RunRow], labels: run_table.RunTable | None = None) -> run_table.RunTable:
    """The table of rows of one experiment, which are in order and of one size, with the labels of another table."""
    arrays = (*run_table.BIT_FIELDS, "source_sha256")
    return run_table.RunTable(
        experiment=rows[0].run.experiment,
        num_train=rows[0].num_train,
        num_test=rows[0].num_test,
        run_id=np.array([row.run.run_id for row in rows], np.int64),
        subset_ratio=np.array([row.run.subset_ratio for row in rows], np.float64),
        **{field: np.stack([getattr(row, field) for row in rows]) for field in arrays},
        source_size=np.array([row.source_size for row in rows], np.int64),
        source_mtime_ns=np.array([row.source_mtime_ns for row in rows], np.int64),
        train_label=None if labels is None else labels.train_label,
        test_label=None if labels is None else labels.test_label,
    )


def _equal(table: run_table.RunTable, other: run_table.RunTable) -> bool:
    """Whether two tables would be the same file."""
    fields = [field.name for field in dataclasses.fields(table)]
    return all(np.array_equal(getattr(table, field), getattr(other, field)) for field in fields)
