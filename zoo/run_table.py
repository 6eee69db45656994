"""The run table: what all runs of an experiment were trained on and got right, one bit each, in one file.

For T runs on N training and M test examples the table holds three bit matrices, [T, N] membership, [T, N] and [T, M]
correctness: (2 N + M) / 8 bytes a run, 13.75 kB for CIFAR, where the run's own arrays take about a megabyte. All
scores of Feldman & Zhang (2020) and Jiang et al. (2021) are functions of these matrices. Rows are sorted by subset
ratio and run id; `zoo.packed_bits` says how the bits lie, and `zoo.run_table_update` fills the table from the run
folders.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import hashlib
from typing import Any

import numpy as np

from zoo import errors, files, layout, npz, packed_bits, run_table_checks

SCHEMA_VERSION = 1
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
BIT_FIELDS = ("subset_mask_bits", "train_correctness_bits", "test_correctness_bits")
_LABEL_FIELDS = ("train_label", "test_label")
_SCALAR_FIELDS = ("schema_version", "experiment", "num_train", "num_test")


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
        for field in BIT_FIELDS:
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
    with npz.StreamWriter(path) as writer:
        _write_scalars(writer, table.experiment, table.num_train, table.num_test)
        for field in (*_ROW_FIELDS, *_LABEL_FIELDS):
            if getattr(table, field) is not None:
                writer.array(field, getattr(table, field))


def write_rows(
    path: files.PathLike,
    experiment: str,
    num_train: int,
    num_test: int,
    run_id: np.ndarray,
    subset_ratio: np.ndarray,
    source_size: np.ndarray,
    columns: Mapping[str, Iterable[np.ndarray]],
    train_label: np.ndarray | None = None,
    test_label: np.ndarray | None = None,
) -> None:
    """Writes a run table from rows that need not be in memory together; the same file as `write` would write.

    Args:
        path: the file to create or replace.
        experiment: name of the experiment.
        num_train: N.
        num_test: M.
        run_id: [T] int64, sorted with the ratios as in `RunTable`.
        subset_ratio: [T] float64.
        source_size: [T] int64.
        columns: by name, the three bit matrices and source_sha256, each as arrays [any, bytes] uint8 in order.
        train_label: [N] int64, or None.
        test_label: [M] int64, or None.

    Raises:
        InvalidValueError: a column has too few rows or too many, or rows of another size.
    """
    num_runs = len(run_id)
    widths = dict(zip(BIT_FIELDS, (-(-num_train // 8), -(-num_train // 8), -(-num_test // 8)), strict=True))
    given = {
        "run_id": run_id,
        "subset_ratio": subset_ratio,
        "source_size": source_size,
        "source_mtime_ns": np.zeros(num_runs, np.int64),
    }
    with npz.StreamWriter(path) as writer:
        _write_scalars(writer, experiment, num_train, num_test)
        for field in _ROW_FIELDS:
            if field in given:
                writer.array(field, given[field])
            else:
                writer.blocks(field, np.uint8, (num_runs, widths.get(field, 32)), columns[field])
        for field, label in zip(_LABEL_FIELDS, (train_label, test_label), strict=True):
            if label is not None:
                writer.array(field, label)


def _write_scalars(writer: npz.StreamWriter, experiment: str, num_train: int, num_test: int) -> None:
    writer.array("schema_version", np.asarray(np.int64(SCHEMA_VERSION)))
    writer.array("experiment", np.asarray(np.str_(experiment)))
    writer.array("num_train", np.asarray(np.int64(num_train)))
    writer.array("num_test", np.asarray(np.int64(num_test)))


def _integer(array: np.ndarray) -> int:
    if array.dtype != np.int64 or array.shape:
        raise errors.InvalidValueError(f"found dtype {array.dtype} and shape {array.shape}, expected one int64")
    return int(array)
