"""What programs of input-Jacobian statistics print of a table; needs no TensorFlow."""

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from scripts.jacobian_stats import stats_files

_MOST_COLUMNS = 6


def line(
    path: pathlib.Path, was_there: bool, table: stats_files.Table, arrays: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """A table in short, as JSON.

    Returns:
        path, was_there, num_unconverged, and text: mean and largest value of each column, with its example.
    """
    texts = []
    for column in table.columns:
        if len(column.parts) > 1:
            continue
        values = arrays[column.name].astype(np.float64)
        if not np.isfinite(values).any():
            texts.append(f"{column.name} undefined")
        elif column.metric == "accuracy":
            texts.append(f"{column.name} {np.nanmean(values):.4g}")
        else:
            largest = int(np.nanargmax(values))
            where = f"{values[largest]:.4g} (id {arrays['id'][largest]})"
            how = " (estimated from random signs)" if column.is_estimated else ""
            texts.append(f"{column.name}{how} mean {np.nanmean(values):.4g}, largest {where}")
    if len(texts) > _MOST_COLUMNS:
        texts = [*texts[:_MOST_COLUMNS], f"{len(texts) - _MOST_COLUMNS} more"]
    shard = "" if table.shard == (1, 1) else f", shard {table.shard[0]}/{table.shard[1]}"
    return {
        "path": str(path),
        "was_there": was_there,
        "num_unconverged": sum(column.num_unconverged for column in table.columns),
        "text": f"epoch {table.epoch}, {table.num_rows} {table.split} examples{shard}: {'; '.join(texts)}",
    }
