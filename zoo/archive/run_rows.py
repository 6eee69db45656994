"""From the rows that a pass over an archive left in its journal to a run table, in constant memory."""

import pathlib

import numpy as np

from zoo import errors, files, layout, npz, run_table
from zoo.archive import journal

_COLUMNS = {
    "subset_mask_bits": "subset_mask",
    "train_correctness_bits": "train_correctness",
    "test_correctness_bits": "test_correctness",
    "source_sha256": "sha256",
}

Run = tuple[float, int]


def unusable(log: journal.Journal) -> dict[Run, str]:
    """Runs whose record is sound in itself and cannot stand beside the others, with the reason.

    These are runs of other N and M than most, and those whose record is byte for byte that of an earlier run.
    """
    sizes = log.row_sizes()
    reasons: dict[Run, str] = {}
    first: dict[bytes, Run] = {}
    for ratio, run_id, num_train, num_test, sha256 in log.row_names():
        if (num_train, num_test) != sizes[0][:2]:
            reasons[ratio, run_id] = (
                f"{num_train} training and {num_test} test examples, most runs have {sizes[0][0]} and {sizes[0][1]}"
            )
        elif sha256 in first:
            other = first[sha256]
            reasons[ratio, run_id] = f"the same record as run {layout.ratio_name(other[0])}/{other[1]}"
        else:
            first[sha256] = ratio, run_id
    return reasons


def usable(log: journal.Journal) -> list[Run]:
    """The runs that a run table can hold, sorted by ratio and id."""
    reasons = unusable(log)
    return [(ratio, run_id) for ratio, run_id, *_ in log.row_names() if (ratio, run_id) not in reasons]


def num_rows(path: files.PathLike) -> int:
    """Runs in a run table; 0 where there is none."""
    if not pathlib.Path(path).is_file():
        return 0
    return len(npz.read(path, ["run_id"])["run_id"])


def write_table(log: journal.Journal, path: files.PathLike, experiment: str) -> None:
    """Writes the run table of all usable rows, of which there must be one at least.

    A table that is there is replaced if all its runs are among them, with the same bits; its labels are kept.

    Raises:
        MismatchError: it holds other runs, or says other things of the same.
    """
    runs = usable(log)
    num_train, num_test, _ = log.row_sizes()[0]
    labels = _labels_of_replaced(log, path, set(runs))
    run_table.write_rows(
        path,
        experiment,
        num_train,
        num_test,
        np.array([run_id for _, run_id in runs], np.int64),
        np.array([ratio for ratio, _ in runs], np.float64),
        np.array(log.row_source_sizes(runs), np.int64),
        {field: log.row_column(column, runs) for field, column in _COLUMNS.items()},
        **labels,
    )


def _labels_of_replaced(log: journal.Journal, path: files.PathLike, runs: set[Run]) -> dict[str, np.ndarray | None]:
    if not pathlib.Path(path).is_file():
        return {}
    there = run_table.read(path)
    for row, (ratio, run_id) in enumerate(zip(there.subset_ratio.tolist(), there.run_id.tolist(), strict=True)):
        same = (ratio, run_id) in runs and all(
            np.array_equal(next(log.row_column(_COLUMNS[field], [(ratio, run_id)]))[0], getattr(there, field)[row])
            for field in run_table.BIT_FIELDS
        )
        if not same:
            raise errors.MismatchError(
                f"{path}: is there already, and what it says of run {layout.ratio_name(ratio)}/{run_id} is not what "
                "the archive says. Move it away and give the same command again: nothing has to be read again"
            )
    return {"train_label": there.train_label, "test_label": there.test_label}
