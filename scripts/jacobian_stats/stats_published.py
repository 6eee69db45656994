"""Columns of a table in the JSON schema of the published statistics; needs no TensorFlow."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import numpy as np

from scripts.jacobian_stats import stats_files
from zoo import files


def path(folder: pathlib.Path, table: stats_files.Table, column: stats_files.Column) -> pathlib.Path:
    """Where a column lies in the published schema."""
    of = column.normalisation or "outputs"
    target = ["target"] if column.target_logit_only else []
    place = [column.place, *([column.average] if column.average else [])]
    return folder / f"{'_'.join([column.metric, of, *target, *place])}_{table.what}_{table.shard_name}.json"


def content(table: stats_files.Table, column: stats_files.Column, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A column in the published schema; values that are no numbers are null.

    Returns:
        sample_ids [n], targets [n] (labels as trained with), ground_truths [n] (clean labels), stats [n][q] with q
        numbers an example, and metadata.
    """
    stats = np.stack([arrays[name] for name in column.parts], axis=1).astype(np.float64)
    facts, config = table.source, table.config
    is_at_example = column.is_estimated and not column.average
    return {
        "sample_ids": arrays["id"].tolist(),
        "targets": arrays["label"].tolist(),
        "ground_truths": arrays["clean_label"].tolist(),
        "stats": [_listed(row) for row in stats],
        "metadata": {
            "schema_version": stats_files.SCHEMA_VERSION,
            "model": facts["model"],
            "dataset": facts["dataset"],
            "split": table.split,
            "seeds": {**facts["seeds"], "mc_sample_seed": config["mc_sample_seed"]},
            "label_noise": facts["label_noise"],
            "augmentation": facts["augmentation"],
            "learning_rate": facts["learning_rate"],
            "epochs": facts["epochs"],
            "checkpoint": {"epoch": table.epoch, "step": table.step},
            "sample_count": table.num_rows,
            "shard": list(table.shard),
            "metric": column.metric,
            "normalisation": column.normalisation,
            "target_logit_only": column.target_logit_only,
            "strategy": column.place,
            "average": column.average,
            "num_directions": config["num_directions"],
            "num_samples": config["num_samples"],
            "num_signs": config["num_signs"] if column.is_estimated else None,
            "standard_errors": _listed(arrays[column.details[0]]) if is_at_example else None,
            "radius": config["radius"],
            "unit": column.unit,
            "columns": list(column.parts),
            "num_unconverged": column.num_unconverged,
        },
    }


def _listed(values: np.ndarray) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]


def write(folder: pathlib.Path, table: stats_files.Table, arrays: Mapping[str, np.ndarray]) -> list[pathlib.Path]:
    """Writes each column in the published schema; returns where."""
    paths = []
    for column in table.columns:
        paths.append(path(folder, table, column))
        text = json.dumps(content(table, column, arrays), allow_nan=False)
        files.write_text(paths[-1], f"{text}\n")
    return paths


def remove(folder: pathlib.Path, table: stats_files.Table) -> None:
    """Deletes the columns of a table in the published schema, as far as they are there."""
    for column in table.columns:
        path(folder, table, column).unlink(missing_ok=True)
