"""Reads the records of many runs into packed rows, and says what is wrong with the runs that have none.

Reading a record means inflating and sorting about a megabyte for CIFAR; looking at the size and time of its file
takes microseconds. So rows that are known already are taken over where the file has not changed.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import stat
import time
from typing import Literal

import numpy as np

from zoo import aux_arrays, errors, files, layout, packed_bits

Progress = Callable[[int, int], None]
# How long a scan works before what it has read is handed to `save`, so that a kill loses a minute of it at most.
SAVE_INTERVAL_S = 60.0
# How far m / N may lie from the ratio of the folder: sizes are rounded, in published zoos not always the same way.
_RATIO_TOLERANCE = 0.005


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

    @property
    def sizes(self) -> tuple[int, int]:
        """N and M."""
        return self.num_train, self.num_test


def scan(
    runs: Sequence[layout.Run],
    known: Mapping[layout.Run, RunRow],
    progress: Progress | None = None,
    *,
    sizes: tuple[int, int] | None = None,
    save: Callable[[list[RunRow]], None] | None = None,
) -> tuple[list[RunRow], list[RunProblem]]:
    """Rows of all sound runs, and what is wrong with the others.

    Damaged are runs whose record cannot be read, breaks a rule, has not the subset size that its folder's ratio asks
    for, has other N and M than `sizes`, or is byte for byte the record of an earlier run.

    Args:
        runs: the runs to look at.
        known: rows from an earlier scan. One is taken over if its file still has the same size and either the same
            time of modification or the same SHA-256, and also if there is no file: then the row is all that is left
            of the run.
        progress: called after each run with the number of runs done and the number of all runs.
        sizes: N and M; None for those that most of the rows have, the first of them if several sizes are as frequent.
        save: called about once in `SAVE_INTERVAL_S` with the rows so far, all of one size, in the order of `runs`,
            among them the known rows of the runs that are still to come.

    Returns:
        The rows and the problems, each in the order of `runs`. All rows have the same N and M.
    """
    rows: list[RunRow] = []
    problems: dict[layout.Run, RunProblem] = {}
    saved_at = time.monotonic()
    for done, run in enumerate(runs, start=1):
        found = _look(run, known.get(run))
        if isinstance(found, RunRow):
            rows.append(found)
        else:
            problems[run] = found
        if save is not None and rows and time.monotonic() - saved_at >= SAVE_INTERVAL_S:
            to_come = [known[later] for later in runs[done:] if later in known]
            save(_split_by_sizes(rows + to_come, sizes)[0])
            saved_at = time.monotonic()
        if progress is not None:
            progress(done, len(runs))
    rows, of_other_sizes = _split_by_sizes(rows, sizes)
    problems |= of_other_sizes
    copies = _copies(rows)
    problems |= copies
    return [row for row in rows if row.run not in copies], [problems[run] for run in runs if run in problems]


def _look(run: layout.Run, known: RunRow | None) -> RunRow | RunProblem:
    try:
        return _read_row(run, known)
    except errors.DamagedFileError as error:
        return RunProblem(run, "damaged", str(error))
    except (FileNotFoundError, NotADirectoryError):
        return known or RunProblem(run, "partial", f"{run.aux_arrays_path}: not there (yet)")
    except OSError as error:
        # One record that the disk does not give back says nothing about the others.
        return RunProblem(run, "damaged", f"{run.aux_arrays_path}: cannot be read: {error.strerror or error}")


def _read_row(run: layout.Run, known: RunRow | None) -> RunRow:
    path = run.aux_arrays_path
    # The state of the file is taken before it is read: if it is replaced meanwhile, the next scan reads it again.
    status = path.stat()
    unchanged_size = known is not None and known.source_size == status.st_size
    if known is not None and unchanged_size and known.source_mtime_ns == status.st_mtime_ns:
        return known
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or device"
        raise errors.DamagedFileError(f"{path}: {what}, expected a file")
    if status.st_size > aux_arrays.MAX_BYTES:
        raise errors.DamagedFileError(
            f"{path}: {files.size_text(status.st_size)}, a record has {files.size_text(aux_arrays.MAX_BYTES)} at most"
        )
    content = path.read_bytes()
    sha256 = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
    if known is not None and unchanged_size and np.array_equal(known.source_sha256, sha256):
        return dataclasses.replace(known, source_mtime_ns=status.st_mtime_ns)
    return row_from_record(run, content, mtime_ns=status.st_mtime_ns)


def row_from_record(
    run: layout.Run, content: bytes, *, mtime_ns: int = 0, max_bytes: int = aux_arrays.MAX_BYTES
) -> RunRow:
    """The row of one record whose bytes have been read, from a file or from an archive.

    Args:
        run: whose record it is; its path is what messages name.
        content: the bytes of aux_arrays.npz.
        mtime_ns: time of modification of the file they were read from; 0 where there is none.
        max_bytes: upper limit on the bytes of its arrays.

    Raises:
        DamagedFileError: the record cannot be read, breaks a rule, or has not the subset size that the run's ratio
            asks for.
    """
    aux = aux_arrays.read(run.aux_arrays_path, content, max_bytes=max_bytes)
    _check_subset_size(run, len(aux.index_train), aux.num_train)
    return RunRow(
        run=run,
        num_train=aux.num_train,
        num_test=aux.num_test,
        subset_mask_bits=packed_bits.pack(aux.subset_mask()),
        train_correctness_bits=packed_bits.pack(aux.train_correctness()),
        test_correctness_bits=packed_bits.pack(aux.test_correctness()),
        source_sha256=np.frombuffer(hashlib.sha256(content).digest(), np.uint8),
        source_size=len(content),
        source_mtime_ns=mtime_ns,
    )


def _check_subset_size(run: layout.Run, subset_size: int, num_train: int) -> None:
    """Holds |m / N - ratio| against max(1 / N, `_RATIO_TOLERANCE`), multiplied by N."""
    rounding = 1e-9
    allowed = max(1, _RATIO_TOLERANCE * num_train) + rounding
    if abs(subset_size - run.subset_ratio * num_train) > allowed:
        raise errors.DamagedFileError(
            f"{run.aux_arrays_path}: trained on {subset_size} of {num_train} examples, but lies under "
            f"{layout.ratio_name(run.subset_ratio)}"
        )


def _split_by_sizes(
    rows: Sequence[RunRow], sizes: tuple[int, int] | None
) -> tuple[list[RunRow], dict[layout.Run, RunProblem]]:
    """The rows of the right N and M, and the others as problems."""
    if not rows:
        return [], {}
    if sizes is None:
        sizes = collections.Counter(row.sizes for row in rows).most_common(1)[0][0]
        example = next(row.run.directory for row in rows if row.sizes == sizes)
        expected = f"most runs, such as {example}, have {sizes[0]} and {sizes[1]}"
    else:
        expected = f"the run table has {sizes[0]} and {sizes[1]}; if it is the table that is wrong, delete it"
    problems = {
        row.run: RunProblem(
            row.run,
            "damaged",
            f"{row.run.aux_arrays_path}: {row.num_train} training and {row.num_test} test examples, but {expected}",
        )
        for row in rows
        if row.sizes != sizes
    }
    return [row for row in rows if row.run not in problems], problems


def _copies(rows: Sequence[RunRow]) -> dict[layout.Run, RunProblem]:
    """Runs whose record is that of another run, which has the first claim to it."""
    runs_of: dict[bytes, list[layout.Run]] = {}
    for row in rows:
        if row.source_sha256.any():  # zero where there was no file
            runs_of.setdefault(row.source_sha256.tobytes(), []).append(row.run)
    problems = {}
    for runs in runs_of.values():
        if len(runs) > 1:
            # Where a file is gone, its row stays: a folder that was renamed is then the copy.
            original, *others = sorted(runs, key=lambda run: run.aux_arrays_path.exists())
            for run in others:
                if run.aux_arrays_path.exists():
                    reason = (
                        f"{run.aux_arrays_path}: the same record as {original.directory}; fetch or train the run "
                        "again, or delete the folder"
                    )
                    problems[run] = RunProblem(run, "damaged", reason)
    return problems
