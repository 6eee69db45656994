"""What is made of a matrix of influences: rankings, averages, JSON, pictures, and what a program prints."""

from collections.abc import Iterator, Mapping
import datetime
from typing import Any

import numpy as np

from estimators import examples, score_matrix
from scripts.attribution import influence_config, influence_files, influence_gallery, model_sources
from zoo import files


def write(
    config: influence_config.InfluenceConfig,
    identity: Mapping[str, Any],
    model: model_sources.Loaded,
    test: examples.Examples,
    matrix: score_matrix.ScoreMatrix,
    seconds: np.ndarray,
) -> None:
    """Everything beside the matrix, the meta file last.

    Args:
        config: what was wanted.
        identity: what the scores depend on.
        model: of which they are.
        test: the chosen test examples.
        matrix: the scores.
        seconds: [num_test] that each took.
    """
    folder = config.directory
    json_name, meta_name = influence_files.names(config, matrix.num_test)
    average = average_influence(matrix)
    description = dict(model.description)
    influence_files.write_top(folder, matrix, config.top_k)
    influence_files.write_average(folder, matrix.train_ids, matrix.test_ids, average, identity)
    if config.writes_json(matrix.num_train, matrix.num_test):
        influence_files.write_json(folder / json_name, entries(matrix, test.labels, seconds))
    if influence_gallery.can_show(model) and config.num_shown:
        files.write_text(folder / influence_config.GALLERY_NAME, influence_gallery.page(config, model, matrix))
    found = {
        "model": description,
        "method": matrix.method,
        "effective_damping": config.effective_damping,
        "num_converged": int(np.sum(matrix.converged)) if matrix.converged is not None else None,
        "largest_residual": _largest(matrix.residuals),
        "train_index": matrix.train_ids.tolist(),
        "test_sample_index_list": matrix.test_ids.tolist(),
        "time_calc_influence_s": [influence_files.rounded(value) for value in seconds],
        "harmful": np.argsort(average, kind="stable").tolist(),
        "helpful": np.argsort(-average, kind="stable").tolist(),
        "written_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    files.write_json(folder / meta_name, influence_files.meta(config, identity, found))


def average_influence(matrix: score_matrix.ScoreMatrix) -> np.ndarray:
    """[num_train] float64, influence averaged over the test examples; positive helps."""
    total = np.zeros(matrix.num_train)
    rows = max(1, (1 << 24) // max(1, matrix.num_test))
    for start in range(0, matrix.num_train, rows):
        total[start : start + rows] = np.asarray(matrix.values[start : start + rows], np.float64).mean(axis=1)
    return -total if matrix.lower_is_better else total


def entries(
    matrix: score_matrix.ScoreMatrix, labels: np.ndarray, seconds: np.ndarray
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the JSON file says, test example by test example; of a memory map some columns are read at a time."""
    size = max(1, (1 << 24) // matrix.num_train)
    for start in range(0, matrix.num_test, size):
        block = np.asarray(matrix.values[:, start : start + size])
        for column in range(block.shape[1]):
            influence = -block[:, column] if matrix.lower_is_better else block[:, column]
            test_id, number = int(matrix.test_ids[start + column]), start + column
            yield str(test_id), influence_files.entry(labels[number], test_id, float(seconds[number]), influence)


def summary(
    config: influence_config.InfluenceConfig,
    model: model_sources.Loaded,
    test: examples.Examples,
    matrix: score_matrix.ScoreMatrix,
) -> dict[str, Any]:
    """What a program prints, as JSON: sizes, files, what did not converge, rankings of the first test example."""
    first = matrix.helpfulness(0)
    json_name, _ = influence_files.names(config, matrix.num_test)
    names = (
        influence_config.SCORES_NAME,
        influence_config.TOP_NAME,
        influence_config.AVERAGE_NAME,
        json_name,
        influence_config.GALLERY_NAME,
    )
    labels = np.asarray(model.train.labels)

    def described(order: np.ndarray) -> list[list[Any]]:
        return [[int(matrix.train_ids[row]), np.asarray(labels[row]).tolist(), float(first[row])] for row in order[:3]]

    return {
        "num_train": matrix.num_train,
        "num_test": matrix.num_test,
        "files": [str(config.directory / name) for name in names if (config.directory / name).exists()],
        "num_not_converged": int(np.sum(~matrix.converged)) if matrix.converged is not None else 0,
        "largest_residual": _largest(matrix.residuals),
        "first": [int(matrix.test_ids[0]), np.asarray(test.labels[0]).tolist()],
        "helpful": described(matrix.helpful(0)),
        "harmful": described(matrix.harmful(0)),
    }


def _largest(residuals: np.ndarray | None) -> float | None:
    """The largest residual that was looked at; None where none was."""
    seen = residuals[np.isfinite(residuals)] if residuals is not None else np.zeros(0)
    return float(seen.max()) if seen.size else None
