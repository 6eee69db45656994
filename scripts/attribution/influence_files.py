"""The files of `compute_influence_functions`.

    <outdir>/config.json                            what was asked for, with fingerprints; another config is refused
    <outdir>/factors/                               what the solver prepared (see estimators/artifacts.py)
    <outdir>/.blocks-*/<first test position>.npz    scores of a block of test examples, until all are there
    <outdir>/.seconds.npz                           what each test example took
    <outdir>/scores/                                the matrix [num_train, num_test] with its labels
    <outdir>/top_influence.npz                      the most helpful and harmful training examples of each test example
    <outdir>/average_influence.npz                  influence averaged over the test examples, with rankings
    <outdir>/influence_results_<start>_<num>.json   the schema of the PyTorch packages, where it is not too large
    <outdir>/gallery.html                           images
    <outdir>/influences_results_meta_<start>-<num>.json   written last: what all of it means

`influence` is R = +(1/n) g_i^T (C + damping I)^-1 g_t: positive helps. The package that coined the JSON schema wrote
its negative, and took the most negative for harmful.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
import shutil
from typing import Any

import numpy as np

from estimators import artifacts, score_matrix
from estimators import errors as estimator_errors
from heldout.running import settings
from scripts.attribution import influence_config
from zoo import errors, files, npz

SCHEMA_VERSION = 1
_BLOCKS_NAME = ".blocks"
_SECONDS_NAME = ".seconds.npz"
_METAS, _RESULTS = "influences_results_meta_*.json", "influence_results_*.json"
_SIGN = (
    "influence is R = +(1/n) g_i^T (C + damping I)^-1 g_t, the predicted rise of what is measured on the test example, "
    "turned so that positive helps, when the training example is left out; the package from which this schema comes "
    "writes the negative"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Scores of some test examples.

    Attributes:
        values: [num_train, b], as in `estimators.score_matrix.ScoreMatrix`.
        residuals: float64 [b].
        converged: bool [b].
        seconds: what the block took.
    """

    values: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    seconds: float


def names(config: influence_config.InfluenceConfig, num_test: int) -> tuple[str, str]:
    """Names of the JSON file and of the meta file, by which test examples they are of."""
    if config.test_ids is not None:
        start, num = "ids", str(num_test)
    else:
        start = str(config.test_sample_start_per_class)
        num = "all" if config.test_sample_num is None else str(config.test_sample_num)
    return f"influence_results_{start}_{num}.json", f"influences_results_meta_{start}-{num}.json"


def digest(identity: Mapping[str, Any]) -> str:
    """By which blocks and matrices know what they are of."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def adopt(config: influence_config.InfluenceConfig, identity: Mapping[str, Any], predictions: Sequence[float]) -> bool:
    """Makes the folder, or goes on with what is there; removes what killed processes left.

    Args:
        config: names the folder.
        identity: what the scores depend on.
        predictions: of the first examples, which depend on weights that are no parameters, too; compared up to
            rounding.

    Returns:
        Whether all is there already.

    Raises:
        MismatchError: the folder holds results of another config, and `overwrite` is not set.
    """
    path = config.directory / influence_config.CONFIG_NAME
    if path.exists() and _has_results(config.directory):
        record = files.read_json(path)
        others = settings.differences(record.get("identity"), identity)
        if not others and not artifacts.predictions_agree(record.get("predictions", []), predictions):
            others = "  the predictions of the first examples: weights that are not differentiated are others"
        if others and not config.overwrite:
            raise errors.MismatchError(
                f"{config.directory}: holds results of another config, which differs in\n{others}\nchoose another "
                "--outdir, or pass --overwrite"
            )
        if others:
            remove(config.directory)
        elif _is_complete(config, identity):
            remove_blocks(config.directory)
            return True
    config.directory.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(config.directory)
    for meta_path in config.directory.glob(_METAS):  # of other choices about what is made of the matrix
        meta_path.unlink()
    stored = {"identity": dict(identity), "predictions": list(predictions), "config": config.to_json()}
    files.write_json(path, {"schema_version": SCHEMA_VERSION, **stored})
    return False


def has_matrix(directory: pathlib.Path, identity: Mapping[str, Any]) -> bool:
    """Whether the matrix of this computation is complete."""
    try:
        return artifacts.load_scores(directory / influence_config.SCORES_NAME).config.get("computation") == digest(
            identity
        )
    except estimator_errors.DamagedArtifactError:
        return False


def _has_results(directory: pathlib.Path) -> bool:
    """Whether anything lies there that took time."""
    names = {path.name for path in directory.iterdir()}
    return any(
        name in (influence_config.FACTORS_NAME, influence_config.SCORES_NAME) or name.startswith(_BLOCKS_NAME)
        for name in names
    )


def _is_complete(config: influence_config.InfluenceConfig, identity: Mapping[str, Any]) -> bool:
    """Whether the matrix is there, and what is made of it, as it is asked for."""
    asked = _shown(config.to_json())
    metas = [files.read_json(path) for path in config.directory.glob(_METAS)]
    return any(_shown(found) == asked for found in metas) and has_matrix(config.directory, identity)


def _shown(config: Mapping[str, Any]) -> list[Any]:
    """What decides about files that are made of the matrix, beside the matrix."""
    names = ("top_k", "json", "num_shown", "num_neighbours", "test_sample_num", "test_sample_start_per_class")
    return [config.get(name) for name in names] + [config.get("test_ids") is None]


def remove(directory: pathlib.Path) -> None:
    """Deletes all results; the meta file first, without which what is left counts as unfinished. What the solver
    prepared stays, for another damping: who reads it holds it against what it was made of.
    """
    for pattern in (
        _METAS,
        _RESULTS,
        influence_config.TOP_NAME,
        influence_config.AVERAGE_NAME,
        influence_config.GALLERY_NAME,
        _SECONDS_NAME,
    ):
        for path in directory.glob(pattern):
            path.unlink()
    shutil.rmtree(directory / influence_config.SCORES_NAME, ignore_errors=True)
    remove_blocks(directory)


def _remove_leftovers(directory: pathlib.Path) -> None:
    """Deletes what killed processes left unfinished."""
    files.remove_stale_temporaries(directory)
    for path in directory.glob(".*.tmp-*-*"):  # of artifacts
        process = path.name.rpartition(".tmp-")[2].partition("-")[0]
        if path.is_dir() and process.isdigit() and not files.is_running(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def block_path(directory: pathlib.Path, identity: Mapping[str, Any], start: int) -> pathlib.Path:
    """The file of the block that begins with this position among the test examples."""
    return directory / f"{_BLOCKS_NAME}-{digest(identity)}" / f"{start}.npz"


def write_block(path: pathlib.Path, block: Block) -> None:
    """Stores a block, whole or not at all."""
    npz.write(path, {name: np.asarray(value) for name, value in vars(block).items()})


def read_block(path: pathlib.Path, shape: tuple[int, int]) -> Block | None:
    """A stored block; None where there is none, or one that does not fit: then it is computed again.

    Args:
        path: from `block_path`.
        shape: [num_train, b].
    """
    if not path.exists():
        return None
    try:
        stored = npz.read(path, [field.name for field in dataclasses.fields(Block)])
        block = Block(stored["values"], stored["residuals"], stored["converged"], float(stored["seconds"]))
    except errors.DamagedFileError:
        return None
    return block if block.values.shape == shape else None


def remove_blocks(directory: pathlib.Path) -> None:
    """Deletes the blocks, once the matrix is there."""
    for path in directory.glob(f"{_BLOCKS_NAME}*"):
        shutil.rmtree(path, ignore_errors=True)


def write_top(directory: pathlib.Path, matrix: score_matrix.ScoreMatrix, num: int) -> None:
    """Writes the strongest training examples of each test example; some rows of the matrix are read at a time.

    Args:
        directory: `outdir`.
        matrix: the scores.
        num: training examples on either side, or all.
    """
    arrays = {"schema_version": np.asarray(SCHEMA_VERSION, np.int64), "test_index": matrix.test_ids}
    sign = -1 if matrix.lower_is_better else 1
    for name, is_helpful in (("helpful", True), ("harmful", False)):
        found = matrix.top_k(min(num, matrix.num_train), largest=is_helpful != matrix.lower_is_better)
        arrays[f"{name}_index"] = found.ids.T
        arrays[f"{name}_value"] = sign * found.values.T
    npz.write(directory / influence_config.TOP_NAME, arrays)


def write_seconds(directory: pathlib.Path, seconds: np.ndarray) -> None:
    """Stores what each test example took, float64 [m], which the matrix does not tell."""
    npz.write(directory / _SECONDS_NAME, {"seconds": seconds})


def read_seconds(directory: pathlib.Path) -> np.ndarray | None:
    """What `write_seconds` stored; None where it is not there."""
    try:
        return npz.read(directory / _SECONDS_NAME, ["seconds"])["seconds"]
    except (errors.MissingFileError, errors.DamagedFileError):
        return None


def rounded(seconds: float) -> float | None:
    """To microseconds, as JSON holds it; None for NaN."""
    return round(float(seconds), 6) if np.isfinite(seconds) else None


def write_average(
    directory: pathlib.Path, train_ids: np.ndarray, test_ids: np.ndarray, average: np.ndarray, provenance: Mapping
) -> None:
    """Writes the influence that is averaged over the test examples.

    Args:
        directory: `outdir`.
        train_ids: int64 [n], original indices.
        test_ids: int64 [m].
        average: float64 [n], mean influence; positive helps.
        provenance: what it depends on.
    """
    arrays = {
        "schema_version": np.asarray(SCHEMA_VERSION, np.int64),
        "train_index": train_ids,
        "test_index": test_ids,
        "num_test": np.asarray(len(test_ids), np.int64),
        "influence": average,
        "helpful": train_ids[np.argsort(-average, kind="stable")],
        "harmful": train_ids[np.argsort(average, kind="stable")],
        "provenance": np.array(json.dumps(provenance)),
    }
    npz.write(directory / influence_config.AVERAGE_NAME, arrays)


def write_json(path: pathlib.Path, entries: Iterator[tuple[str, Mapping[str, Any]]]) -> None:
    """Writes an object of one entry a test example, one after the other, so that memory holds one."""
    with files.write_whole(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        separator = "{\n"
        for name, entry in entries:
            file.write(f"{separator}{json.dumps(name)}: {json.dumps(entry, allow_nan=False)}")
            separator = ",\n"
        file.write("\n}\n")


def entry(label: Any, test_id: int, seconds: float, influence: np.ndarray) -> dict[str, Any]:
    """What the JSON file says of one test example.

    Args:
        label: its label.
        test_id: its original index.
        seconds: the time that it took.
        influence: [n], positive helps.

    Returns:
        The known schema; harmful and helpful are positions in `influence`, the most harmful or helpful first.
    """
    return {
        "label": np.asarray(label).tolist(),
        "num_in_dataset": int(test_id),
        "time_calc_influence_s": rounded(seconds),
        "influence": [float(f"{value:.7g}") for value in influence],
        "harmful": np.argsort(influence, kind="stable").tolist(),
        "helpful": np.argsort(-influence, kind="stable").tolist(),
    }


def meta(
    config: influence_config.InfluenceConfig, identity: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
    """What the meta file says.

    Args:
        config: what was asked for.
        identity: what the scores depend on.
        found: what else is worth knowing.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "sign": _SIGN,
        "positions": "harmful and helpful are positions in influence; train_index says which example stands there",
        **config.to_json(),
        "identity": dict(identity),
        **found,
    }
