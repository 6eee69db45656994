"""Run tables of the same experiment as one: what several machines trained apart, or halves that were kept apart."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from zoo import errors, layout, run_table

_ROWS = (
    "run_id",
    "subset_ratio",
    *run_table.BIT_FIELDS,
    "source_sha256",
    "source_size",
    "source_mtime_ns",
)


def merged(tables: Sequence[run_table.RunTable], names: Sequence[str]) -> run_table.RunTable:
    """One table with the runs of all of them, each once.

    Scores of the merged table are those of the whole zoo, to the last bit, as they follow from its rows alone.

    Args:
        tables: at least one, of one experiment; the first that has labels gives them.
        names: of each table, for messages.

    Returns:
        The table, its rows sorted by ratio and id. Of a run that several tables have, the first table's row.

    Raises:
        MismatchError: experiments, numbers of examples or labels differ, or a run is there twice with other content.
    """
    first = tables[0]
    for table, name in zip(tables[1:], names[1:], strict=True):
        for field in ("experiment", "num_train", "num_test"):
            if getattr(table, field) != getattr(first, field):
                raise errors.MismatchError(
                    f"{field} is {getattr(first, field)} in {names[0]}, but {getattr(table, field)} in {name}; only "
                    "zoos of one experiment can be merged"
                )
    chosen: list[tuple[float, int]] = []
    seen: dict[tuple[float, int], tuple[run_table.RunTable, int, str]] = {}
    for table, name in zip(tables, names, strict=True):
        for row, key in enumerate(zip(table.subset_ratio.tolist(), table.run_id.tolist(), strict=True)):
            if key in seen:
                _check_equal(seen[key], (table, row, name), key)
            else:
                seen[key] = (table, row, name)
                chosen.append(key)
    order = sorted(chosen)
    rows: dict[str, Any] = {
        field: np.array([getattr(seen[key][0], field)[seen[key][1]] for key in order]) for field in _ROWS
    }
    whole = dataclasses.replace(first, train_label=None, test_label=None, **rows)
    for table, name in zip(tables, names, strict=True):
        try:
            whole = whole.with_labels(table.train_label, table.test_label)
        except errors.MismatchError as error:
            raise errors.MismatchError(f"{name}: {error}") from error
    return whole


def _check_equal(
    known: tuple[run_table.RunTable, int, str], other: tuple[run_table.RunTable, int, str], key: tuple[float, int]
) -> None:
    for field in run_table.BIT_FIELDS:
        if not np.array_equal(getattr(known[0], field)[known[1]], getattr(other[0], field)[other[1]]):
            raise errors.MismatchError(
                f"run {layout.ratio_name(key[0])}/{key[1]} is in {known[2]} and in {other[2]}, with different "
                f"{field.removesuffix('_bits')}; give the halves of a zoo different --run_ids or a --share each"
            )
