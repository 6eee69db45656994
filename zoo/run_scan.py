"""Reads the records of many runs into packed rows, and says what is wrong with the runs that have none.

Reading a record means inflating and sorting about a megabyte for CIFAR; looking at the size and time of its file
takes microseconds. So rows that are known already are taken over where the file has not changed.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Literal

import numpy as np

from zoo import aux_arrays, errors, files, layout, packed_bits

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class RunProblem:
    """A run folder that gives no row.

    Attributes:
        run: where it lies.
        state: "partial" where aux_arrays.npz is not there (yet), "damaged" where it cannot be used.
        reason: a sentence for the user, with the path.
    """

    run: layout.Run
    state: Literal["partial", "damaged"]
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class RunRow:
    """One run on N training and M test examples; each array is one row of its namesake in `run_table.RunTable`."""

    run: layout.Run
    num_train: int
    num_test: int
    subset_mask_bits: np.ndarray
    train_correctness_bits: np.ndarray
    test_correctness_bits: np.ndarray
    source_sha256: np.ndarray
    source_size: int
    source_mtime_ns: int


def scan(
    runs: Sequence[layout.Run], known: Mapping[layout.Run, RunRow], progress: Progress | None = None
) -> tuple[list[RunRow], list[RunProblem]]:
    """Rows of all sound runs, and what is wrong with the others.

    Args:
        runs: the run folders there are.
        known: rows from an earlier scan; one is taken over if its file still has the same size and either the same
            time of modification or the same SHA-256.
        progress: called after each run with the number of runs done and the number of all runs.

    Returns:
        The rows and the problems, each in the order of `runs`. All rows have the N and M of the first of them.
    """
    rows: list[RunRow] = []
    problems: list[RunProblem] = []
    for done, run in enumerate(runs, start=1):
        try:
            row = _read_row(run, known.get(run))
            _check_sizes(row, rows[0] if rows else row)
            rows.append(row)
        except errors.DamagedFileError as error:
            problems.append(RunProblem(run, "damaged", str(error)))
        except IsADirectoryError:
            problems.append(RunProblem(run, "damaged", f"{run.aux_arrays_path}: a folder, expected a file"))
        except FileNotFoundError:
            problems.append(RunProblem(run, "partial", f"{run.aux_arrays_path}: not there (yet)"))
        if progress is not None:
            progress(done, len(runs))
    return rows, problems


def _read_row(run: layout.Run, known: RunRow | None) -> RunRow:
    # The state of the file is taken before it is read: if it is replaced meanwhile, the next scan reads it again.
    status = run.aux_arrays_path.stat()
    unchanged_size = known is not None and known.source_size == status.st_size
    if known is not None and unchanged_size and known.source_mtime_ns == status.st_mtime_ns:
        return known
    sha256 = np.frombuffer(bytes.fromhex(files.sha256_of_file(run.aux_arrays_path)), np.uint8)
    if known is not None and unchanged_size and np.array_equal(known.source_sha256, sha256):
        return dataclasses.replace(known, source_mtime_ns=status.st_mtime_ns)
    aux = aux_arrays.read(run.aux_arrays_path)
    return RunRow(
        run=run,
        num_train=aux.num_train,
        num_test=aux.num_test,
        subset_mask_bits=packed_bits.pack(aux.subset_mask()),
        train_correctness_bits=packed_bits.pack(aux.train_correctness()),
        test_correctness_bits=packed_bits.pack(aux.test_correctness()),
        source_sha256=sha256,
        source_size=status.st_size,
        source_mtime_ns=status.st_mtime_ns,
    )


def _check_sizes(row: RunRow, first: RunRow) -> None:
    if (row.num_train, row.num_test) != (first.num_train, first.num_test):
        raise errors.DamagedFileError(
            f"{row.run.aux_arrays_path}: {row.num_train} training and {row.num_test} test examples, but the first run "
            f"{first.run.directory} has {first.num_train} and {first.num_test}"
        )
