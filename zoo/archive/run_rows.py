"""From the rows that a pass over an archive left in its journal to a run table, in constant memory."""

import numpy as np

from zoo import files, layout, run_table
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


def write_table(log: journal.Journal, path: files.PathLike, experiment: str) -> None:
    """Writes the run table of all usable rows, of which there must be one at least."""
    runs = usable(log)
    num_train, num_test, _ = log.row_sizes()[0]
    run_table.write_rows(
        path,
        experiment,
        num_train,
        num_test,
        np.array([run_id for _, run_id in runs], np.int64),
        np.array([ratio for ratio, _ in runs], np.float64),
        np.array(log.row_source_sizes(runs), np.int64),
        {field: log.row_column(column, runs) for field, column in _COLUMNS.items()},
    )
