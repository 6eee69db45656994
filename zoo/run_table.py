"""The run table: what all runs of an experiment were trained on and got right, one bit each, in one file.

For T runs on N training and M test examples the table holds three bit matrices, [T, N] membership, [T, N] and [T, M]
correctness: (2 N + M) / 8 bytes a run, 13.75 kB for CIFAR, where the run's own arrays take about a megabyte. All
scores of Feldman & Zhang (2020) and Jiang et al. (2021) are functions of these matrices. Rows are sorted by subset
ratio and run id; `zoo.packed_bits` says how the bits lie. `update` fills the table from the run folders and reads only
what is new since the last time; rows whose folders are gone stay.
"""

from collections.abc import Sequence
import dataclasses
import errno
import hashlib
import pathlib
from typing import Any

import numpy as np

from zoo import errors, files, layout, npz, packed_bits, run_scan, run_table_checks

SCHEMA_VERSION = 1
RunProblem = run_scan.RunProblem
_ROW_FIELDS = (
    "run_id",
    "subset_ratio",
    "subset_mask_bits",
    "train_correctness_bits",
    "test_correctness_bits",
    "source_sha256",
    "source_size",
    "source_mtime_ns",
)
_BIT_FIELDS = ("subset_mask_bits", "train_correctness_bits", "test_correctness_bits")
_LABEL_FIELDS = ("train_label", "test_label")
_SCALAR_FIELDS = ("schema_version", "experiment", "num_train", "num_test")
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclasses.dataclass(frozen=True, eq=False)
class RunTable:
    """Membership and correctness of T runs on N training and M test examples.

    Attributes:
        experiment: name of the experiment.
        num_train: N.
        num_test: M.
        run_id: [T] int64.
        subset_ratio: [T] float64, in (0, 1).
        subset_mask_bits: [T, ceil(N / 8)] uint8; bit 1 = the run was trained on the example.
        train_correctness_bits: [T, ceil(N / 8)] uint8; bit 1 = the run is right on the training example.
        test_correctness_bits: [T, ceil(M / 8)] uint8; bit 1 = the run is right on the test example.
        source_sha256: [T, 32] uint8, digest of the aux_arrays.npz a row was read from; zero where there was none.
        source_size: [T] int64, its size in bytes; 0 where there was none.
        source_mtime_ns: [T] int64, its time of modification in nanoseconds; 0 where there was none.
        train_label: [N] int64 by original index, or None where the labels are not known.
        test_label: [M] int64, likewise.

    Raises:
        InvalidValueError: an array has another dtype or shape, a spare bit is set, a ratio lies outside (0, 1), or
            the rows are not sorted by ratio and id or hold a run twice.
    """

    experiment: str
    num_train: int
    num_test: int
    run_id: np.ndarray
    subset_ratio: np.ndarray
    subset_mask_bits: np.ndarray
    train_correctness_bits: np.ndarray
    test_correctness_bits: np.ndarray
    source_sha256: np.ndarray
    source_size: np.ndarray
    source_mtime_ns: np.ndarray
    train_label: np.ndarray | None = None
    test_label: np.ndarray | None = None

    def __post_init__(self) -> None:
        layout.check_experiment_name(self.experiment)
        run_table_checks.check(vars(self))

    @property
    def num_runs(self) -> int:
        """T."""
        return len(self.run_id)

    @property
    def subset_ratios(self) -> tuple[float, ...]:
        """The ratios there are, ascending."""
        return tuple(float(ratio) for ratio in np.unique(self.subset_ratio))

    def select(self, subset_ratio: float) -> "RunTable":
        """The table of the runs at one ratio.

        Raises:
            InvalidValueError: there is no run at this ratio.
        """
        rows = np.flatnonzero(self.subset_ratio == subset_ratio)
        if not len(rows):
            there = ", ".join(layout.ratio_name(ratio) for ratio in self.subset_ratios)
            raise errors.InvalidValueError(
                f"subset_ratio is {subset_ratio}, but {self.experiment} has runs at {there or 'no ratio'}"
            )
        return self.take(rows)

    def take(self, rows: np.ndarray) -> "RunTable":
        """The table of some rows.

        Args:
            rows: [t] int64, ascending, each at most once.

        Raises:
            InvalidValueError: the rows are not ascending.
        """
        selected: dict[str, Any] = {field: getattr(self, field)[rows] for field in _ROW_FIELDS}
        return dataclasses.replace(self, **selected)

    def subset_mask(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """[T, stop - start] bool for the training examples start..stop-1; True = the run was trained on the example.

        Raises:
            InvalidValueError: not 0 <= start <= stop <= N.
        """
        return packed_bits.unpack(self.subset_mask_bits, start, stop, self.num_train)

    def train_correctness(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """[T, stop - start] bool for the training examples start..stop-1; True = the run is right.

        Raises:
            InvalidValueError: not 0 <= start <= stop <= N.
        """
        return packed_bits.unpack(self.train_correctness_bits, start, stop, self.num_train)

    def test_correctness(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """[T, stop - start] bool for the test examples start..stop-1; True = the run is right.

        Raises:
            InvalidValueError: not 0 <= start <= stop <= M.
        """
        return packed_bits.unpack(self.test_correctness_bits, start, stop, self.num_test)

    def digest(self) -> str:
        """Hexadecimal SHA-256 of what scores depend on: sizes, runs, membership and correctness.

        Names, times of modification, source digests and labels do not enter.
        """
        digest = hashlib.sha256(f"{SCHEMA_VERSION} {self.num_runs} {self.num_train} {self.num_test} ".encode())
        digest.update(self.run_id.astype("<i8").tobytes())
        digest.update(self.subset_ratio.astype("<f8").tobytes())
        for field in _BIT_FIELDS:
            digest.update(np.ascontiguousarray(getattr(self, field)).data)
        return digest.hexdigest()

    def with_labels(self, train_label: np.ndarray | None, test_label: np.ndarray | None) -> "RunTable":
        """The same table with labels; those it has already must be the same.

        Args:
            train_label: [N] integers by original index, or None to leave what is there.
            test_label: [M] integers by original index, or None to leave what is there.

        Raises:
            MismatchError: a length differs from N or M, the dtype is no integer type, or a label differs from the one
                that is there.
        """
        return dataclasses.replace(
            self,
            train_label=run_table_checks.joined_labels("train_label", train_label, self.num_train, self.train_label),
            test_label=run_table_checks.joined_labels("test_label", test_label, self.num_test, self.test_label),
        )


def from_arrays(
    experiment: str,
    run_id: np.ndarray,
    subset_ratio: np.ndarray,
    subset_mask: np.ndarray,
    train_correctness: np.ndarray,
    test_correctness: np.ndarray,
    train_label: np.ndarray | None = None,
    test_label: np.ndarray | None = None,
) -> RunTable:
    """A table from plain arrays, with no source files behind its rows.

    Args:
        experiment: name of the experiment.
        run_id: [T] integers.
        subset_ratio: [T] floats in (0, 1).
        subset_mask: [T, N] bool, True = the run was trained on the example.
        train_correctness: [T, N] bool.
        test_correctness: [T, M] bool.
        train_label: [N] integers, or None.
        test_label: [M] integers, or None.

    Returns:
        The table, its rows sorted by ratio and id.

    Raises:
        InvalidValueError: a matrix is not boolean or has another shape, or a run is there twice.
    """
    run_id, subset_ratio = np.asarray(run_id, np.int64), np.asarray(subset_ratio, np.float64)
    matrices = {
        "subset_mask": subset_mask,
        "train_correctness": train_correctness,
        "test_correctness": test_correctness,
    }
    for name, matrix in matrices.items():
        width = subset_mask.shape[-1] if name == "train_correctness" else matrix.shape[-1]
        if matrix.dtype != bool or matrix.shape != (len(run_id), width) or len(subset_ratio) != len(run_id):
            raise errors.InvalidValueError(
                f"{name} has dtype {matrix.dtype} and shape {matrix.shape}, expected bool and {(len(run_id), width)}; "
                f"subset_ratio has shape {subset_ratio.shape}"
            )
    order = np.lexsort((run_id, subset_ratio))
    num_runs = len(run_id)
    return RunTable(
        experiment=experiment,
        num_train=subset_mask.shape[1],
        num_test=test_correctness.shape[1],
        run_id=run_id[order],
        subset_ratio=subset_ratio[order],
        **{f"{name}_bits": packed_bits.pack(matrix[order]) for name, matrix in matrices.items()},
        source_sha256=np.zeros((num_runs, 32), np.uint8),
        source_size=np.zeros(num_runs, np.int64),
        source_mtime_ns=np.zeros(num_runs, np.int64),
        train_label=None if train_label is None else np.asarray(train_label, np.int64),
        test_label=None if test_label is None else np.asarray(test_label, np.int64),
    )


def read(path: files.PathLike) -> RunTable:
    """Reads a run table.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no sound run table, or was written by another version of this format.
    """
    stored = npz.read(path, [*_SCALAR_FIELDS, *_ROW_FIELDS], _LABEL_FIELDS)
    try:
        version, num_train, num_test = (_integer(stored[name]) for name in ("schema_version", "num_train", "num_test"))
        if version != SCHEMA_VERSION:
            raise errors.InvalidValueError(f"schema version {version}, expected {SCHEMA_VERSION}")
        if stored["experiment"].dtype.kind != "U" or stored["experiment"].shape:
            raise errors.InvalidValueError("experiment is not one string")
        arrays: dict[str, Any] = {name: stored.get(name) for name in (*_ROW_FIELDS, *_LABEL_FIELDS)}
        return RunTable(experiment=str(stored["experiment"]), num_train=num_train, num_test=num_test, **arrays)
    except errors.InvalidValueError as error:
        raise errors.DamagedFileError(
            f"{path}: not a sound run table: {error}. Delete it; it is built again from the run folders."
        ) from error


def write(path: files.PathLike, table: RunTable) -> None:
    """Writes a run table, uncompressed (its bits hardly compress), whole or not at all."""
    arrays = {
        "schema_version": np.int64(SCHEMA_VERSION),
        "experiment": np.str_(table.experiment),
        "num_train": np.int64(table.num_train),
        "num_test": np.int64(table.num_test),
    }
    arrays |= {field: getattr(table, field) for field in _ROW_FIELDS}
    arrays |= {field: getattr(table, field) for field in _LABEL_FIELDS if getattr(table, field) is not None}
    npz.write(path, {name: np.asarray(array) for name, array in arrays.items()})


def update(
    zoo: files.PathLike,
    experiment: str,
    *,
    train_label: np.ndarray | None = None,
    test_label: np.ndarray | None = None,
    progress: run_scan.Progress | None = None,
) -> tuple[RunTable, list[RunProblem]]:
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
    runs, known, sizes = layout.runs(zoo, experiment), {}, None
    if stored is not None:
        packed = [layout.Run(pathlib.Path(zoo), experiment, ratio, run_id) for ratio, run_id in _names(stored)]
        runs = sorted({*runs, *packed}, key=lambda run: (run.subset_ratio, run.run_id))
        known, sizes = rows_by_run(stored, runs), (stored.num_train, stored.num_test)
    on_disk = stored

    def save(rows: Sequence[run_scan.RunRow]) -> None:
        nonlocal on_disk
        on_disk = _store(path, _from_rows(experiment, rows, stored), on_disk)

    rows, problems = run_scan.scan(runs, known, progress, sizes=sizes, save=save)
    if rows:
        table = _from_rows(experiment, rows, stored)
    elif stored is not None and not problems:
        table = stored
    else:
        raise _nothing_left(path, problems, stored)
    table = table.with_labels(train_label, test_label)
    _store(path, table, on_disk)
    return table, problems


def _read_stored(path: pathlib.Path, experiment: str) -> RunTable | None:
    stored = read(path) if path.exists() else None
    if stored is not None and stored.experiment != experiment:
        raise errors.MismatchError(
            f"{path}: the table of experiment {stored.experiment}, found in the folder of {experiment}; "
            "rename the folder, or delete the table to build it from the run folders"
        )
    return stored


def _store(path: pathlib.Path, table: RunTable, on_disk: RunTable | None) -> RunTable:
    """Writes a table unless it is on the disk already, or the disk may not be written to; returns the table."""
    if on_disk is None or not _equal(table, on_disk):
        try:
            write(path, table)
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
    return table


def _nothing_left(
    path: pathlib.Path, problems: Sequence[RunProblem], stored: RunTable | None
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


def _names(table: RunTable) -> list[tuple[float, int]]:
    """Subset ratio and run id of each row."""
    return list(zip(table.subset_ratio.tolist(), table.run_id.tolist(), strict=True))


def rows_by_run(table: RunTable, runs: Sequence[layout.Run]) -> dict[layout.Run, run_scan.RunRow]:
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
                **{field: getattr(table, field)[row] for field in (*_BIT_FIELDS, "source_sha256")},
                source_size=int(table.source_size[row]),
                source_mtime_ns=int(table.source_mtime_ns[row]),
            )
    return rows


def _from_rows(experiment: str, rows: Sequence[run_scan.RunRow], stored: RunTable | None) -> RunTable:
    """A table of these rows, which are in order and of one size, with the labels of the stored one."""
    return RunTable(
        experiment=experiment,
        num_train=rows[0].num_train,
        num_test=rows[0].num_test,
        run_id=np.array([row.run.run_id for row in rows], np.int64),
        subset_ratio=np.array([row.run.subset_ratio for row in rows], np.float64),
        **{field: np.stack([getattr(row, field) for row in rows]) for field in (*_BIT_FIELDS, "source_sha256")},
        source_size=np.array([row.source_size for row in rows], np.int64),
        source_mtime_ns=np.array([row.source_mtime_ns for row in rows], np.int64),
        train_label=None if stored is None else stored.train_label,
        test_label=None if stored is None else stored.test_label,
    )


def _equal(table: RunTable, other: RunTable) -> bool:
    """Whether two tables would be the same file."""
    fields = [field.name for field in dataclasses.fields(table)]
    return all(np.array_equal(getattr(table, field), getattr(other, field)) for field in fields)


def _integer(array: np.ndarray) -> int:
    if array.dtype != np.int64 or array.shape:
        raise errors.InvalidValueError(f"found dtype {array.dtype} and shape {array.shape}, expected one int64")
    return int(array)
