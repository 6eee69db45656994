"""Files of the estimators: factors and score matrices, with what they were computed of.

An artifact is a folder of `manifest.json` and one `<name>.npy` for each array. The manifest has the schema version, the
kind, the config, SHA-256 and shape of every array, and for factors their *origin*: fingerprints of weights and training
examples. A folder appears whole or not at all, and nothing is read with pickle. What is of other weights, examples or
settings is refused, with both printed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import secrets
import shutil
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples, score_matrix, solving, targets
from estimators.curvature import blocks, kronecker
from estimators.derivatives import layouts

PathLike = str | os.PathLike[str]

SCHEMA_VERSION = 1
_MANIFEST = "manifest.json"
_NUM_PROBED = 3


def weights_fingerprint(target: targets.Target) -> str:
    """SHA-256 of the target's parameters: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for parameter in target.parameters:
        array = parameter.variable.numpy()
        digest.update(f"{parameter.name} {array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def origin(target: targets.Target, train: examples.Examples, prepared_by: Mapping[str, Any]) -> dict[str, Any]:
    """What factors were computed of, as JSON holds it.

    Args:
        target: the target.
        train: its training examples.
        prepared_by: see `solving.Settings.prepared_by`.

    Returns:
        Fingerprints of weights and examples, loss and weight decay, the settings; and predictions of the first
        examples, which also depend on weights that are no parameters of the target, compared up to rounding.
    """
    first = tf.nest.map_structure(tf.convert_to_tensor, train.take(slice(0, _NUM_PROBED)).inputs)
    return {
        "weights": weights_fingerprint(target),
        "examples": train.fingerprint(),
        "loss": target.loss.name,
        "weight_decay": list(target.weight_decay),
        "prepared_by": dict(prepared_by),
        "predictions": np.asarray(target.predict(first), np.float64).ravel().tolist(),
    }


def save_prepared(
    folder: PathLike,
    prepared: solving.Prepared,
    made_of: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Stores factors or eigenpairs.

    Args:
        folder: a new folder.
        prepared: what to store; None stores origin and config alone.
        made_of: from `origin`.
        config: settings of the solver.
        overwrite: replace the folder if it is there.

    Raises:
        InvalidArgumentError: the folder is there.
    """
    arrays: dict[str, np.ndarray] = {}
    manifest: dict[str, Any] = {"kind": "prepared", "origin": dict(made_of), "config": dict(config)}
    if isinstance(prepared, kronecker.Factors):
        manifest["factors"] = {"labels": prepared.labels, "num_train": prepared.num_train, "blocks": []}
        for number, one in enumerate(prepared.blocks):
            manifest["factors"]["blocks"].append(_block_as_json(one.block))
            for name in ("inputs", "outputs", "products", "moments"):
                array = getattr(one, name)
                if array is not None:
                    arrays[f"{name}-{number}"] = array
    elif prepared is not None:
        arrays |= prepared
    with _new_folder(folder, overwrite) as temporary:
        _write(temporary, manifest, arrays)


def load_prepared(folder: PathLike, made_of: Mapping[str, Any]) -> solving.Prepared:
    """What `save_prepared` stored, if it is of what is wanted.

    Args:
        folder: of `save_prepared`.
        made_of: from `origin`, of the target and examples at hand.

    Returns:
        The factors or eigenpairs; None where there is nothing but a config.

    Raises:
        MismatchError: what is stored is of something else.
        DamagedArtifactError: a file is missing or not what was written.
    """
    folder, manifest = pathlib.Path(folder), _manifest(pathlib.Path(folder), "prepared")
    _check_origin(folder, manifest["origin"], made_of)
    arrays = {name: _array(folder, name, manifest) for name in manifest["arrays"]}
    if "factors" not in manifest:
        return arrays or None
    stored = manifest["factors"]
    found = [
        kronecker.BlockFactors(
            _block_of_json(block),
            arrays.get(f"inputs-{number}"),
            arrays.get(f"outputs-{number}"),
            arrays[f"products-{number}"],
            arrays[f"moments-{number}"],
        )
        for number, block in enumerate(stored["blocks"])
    ]
    return kronecker.Factors(tuple(found), stored["labels"], stored["num_train"])


def save_arrays(
    folder: PathLike,
    kind: str,
    arrays: Mapping[str, np.ndarray],
    made_of: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Stores arrays of an estimator that knows itself what they are of: `made_of`, as JSON could hold it.

    Raises:
        InvalidArgumentError: the folder is there.
    """
    with _new_folder(folder, overwrite) as temporary:
        _write(temporary, {"kind": kind, "origin": dict(made_of)}, arrays)


def load_arrays(folder: PathLike, kind: str, made_of: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What `save_arrays` stored, by name, if it is of what is wanted.

    Args:
        folder: of `save_arrays`.
        kind: of the estimator.
        made_of: what the arrays must depend on.

    Raises:
        MismatchError: what is stored is of something else.
        DamagedArtifactError: a file is missing or not what was written.
    """
    folder, wanted = pathlib.Path(folder), json.loads(json.dumps(dict(made_of)))
    manifest = _manifest(folder, kind)
    _check_equal(folder, manifest["origin"], wanted, {**manifest["origin"], **wanted})
    return {name: _array(folder, name, manifest) for name in manifest["arrays"]}


def read_config(folder: PathLike) -> dict[str, Any]:
    """Settings of the solver that `save_prepared` stored.

    Raises:
        DamagedArtifactError: the manifest is missing or not what was written.
    """
    return dict(_manifest(pathlib.Path(folder), "prepared")["config"])


def save_scores(folder: PathLike, matrix: score_matrix.ScoreMatrix, *, overwrite: bool = False) -> None:
    """Stores a score matrix; see `drafting_scores` for one that is filled on the disk.

    Args:
        folder: a new folder.
        matrix: the scores.
        overwrite: replace the folder if it is there.

    Raises:
        InvalidArgumentError: the folder is there.
    """
    with _new_folder(folder, overwrite) as temporary:
        _write(temporary, _described(matrix), _arrays_of(matrix) | {"values": matrix.values})


class Draft:
    """Scores that are being computed into a memory map.

    Attributes:
        values: [num_train, num_test], to be filled, as by `scores(..., out=draft.values)`.
    """

    def __init__(self, folder: pathlib.Path, shape: tuple[int, int], dtype: Any) -> None:
        """Makes the memory map in a folder."""
        self._folder, self._matrix = folder, None
        self.values = np.lib.format.open_memmap(folder / "values.npy", mode="w+", dtype=dtype, shape=shape)

    def finish(self, matrix: score_matrix.ScoreMatrix) -> None:
        """Adds the labels; `matrix.values` must be `values`.

        Raises:
            MismatchError: they are other values.
        """
        if matrix.values is not self.values:
            raise errors.MismatchError("the scores are not those of the draft; compute them with out=draft.values")
        self.values.flush()
        _write(self._folder, _described(matrix), _arrays_of(matrix), written=("values",))


@contextlib.contextmanager
def drafting_scores(
    folder: PathLike, num_train: int, num_test: int, dtype: Any = np.float32, *, overwrite: bool = False
) -> Iterator[Draft]:
    """A draft of scores on the disk, 4 num_train num_test bytes; the folder appears when the block ends finished.

        with artifacts.drafting_scores(folder, len(train), len(test)) as draft:
            draft.finish(fitted.scores(train, test, out=draft.values))

    Args:
        folder: a new folder.
        num_train: rows.
        num_test: columns.
        dtype: of the scores.
        overwrite: replace the folder if it is there.

    Raises:
        InvalidArgumentError: the folder is there, or the draft was not finished.
    """
    with _new_folder(folder, overwrite) as temporary:
        yield Draft(temporary, (num_train, num_test), dtype)
        if not (temporary / _MANIFEST).exists():
            raise errors.InvalidArgumentError(f"the draft of {folder} was not finished; call draft.finish(matrix)")


def load_scores(folder: PathLike, *, verify: bool = False) -> score_matrix.ScoreMatrix:
    """What was stored, its values as a read-only memory map.

    Args:
        folder: of `save_scores` or `drafting_scores`.
        verify: read the values and compare their SHA-256.

    Returns:
        The scores.

    Raises:
        DamagedArtifactError: a file is missing or not what was written.
    """
    folder, manifest = pathlib.Path(folder), _manifest(pathlib.Path(folder), "scores")
    others: dict[str, Any] = {name: _array(folder, name, manifest) for name in manifest["arrays"] if name != "values"}
    values = _array(folder, "values", manifest, memory_map=True, verify=verify)
    return score_matrix.ScoreMatrix(values, **others, **manifest["scores"])


def _described(matrix: score_matrix.ScoreMatrix) -> dict[str, Any]:
    texts = ("method", "quantity", "unit", "lower_is_better", "config")
    return {"kind": "scores", "scores": {name: getattr(matrix, name) for name in texts}}


def _arrays_of(matrix: score_matrix.ScoreMatrix) -> dict[str, np.ndarray]:
    names = ("train_ids", "test_ids", "residuals", "converged")
    return {name: getattr(matrix, name) for name in names if getattr(matrix, name) is not None}


def _block_as_json(block: blocks.Block) -> dict[str, Any]:
    if isinstance(block, blocks.FormedBlock):
        return {"position": block.position, "size": block.size}
    return {"kernel": block.kernel, "bias": block.bias, "layout": dataclasses.asdict(block.layout)}


def _block_of_json(stored: Mapping[str, Any]) -> blocks.Block:
    if "position" in stored:
        return blocks.FormedBlock(stored["position"], stored["size"])
    layout = layouts.Layout(**{name: tuple(value) for name, value in stored["layout"].items()})
    return blocks.KroneckerBlock(stored["kernel"], stored["bias"], layout)


def _check_origin(folder: pathlib.Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    _check_equal(folder, stored, wanted, ("prepared_by", "weights", "examples", "loss", "weight_decay"))
    then, now = stored["predictions"], wanted["predictions"]
    if not predictions_agree(then, now):
        raise errors.MismatchError(
            f"{folder}: the first predictions were {then[:3]}, but here they are {now[:3]}, though the target's "
            "parameters are the same: weights that are no parameters of it have changed; fit again"
        )


def _check_equal(
    folder: pathlib.Path, stored: Mapping[str, Any], wanted: Mapping[str, Any], names: Iterable[str]
) -> None:
    for name in names:
        then, now = stored.get(name), wanted.get(name)
        if then != now:
            raise errors.MismatchError(
                f"{folder}: stored for {name} {then}, but here it is {now}; fit again, or give what was given then"
            )


def predictions_agree(then: Sequence[float], now: Sequence[float]) -> bool:
    """Whether the `predictions` of two origins are the same up to rounding."""
    first, second = np.array(then, np.float64), np.array(now, np.float64)
    scale = np.abs(first).max(initial=1e-30)
    return first.shape == second.shape and bool(np.abs(first - second).max(initial=0) <= 1e-3 * scale)


@contextlib.contextmanager
def _new_folder(folder: PathLike, overwrite: bool) -> Iterator[pathlib.Path]:
    """A temporary folder that takes the name `folder` when the block ends well and is deleted otherwise."""
    target = pathlib.Path(folder)
    if target.exists() and not overwrite:
        raise errors.InvalidArgumentError(f"{target} is there already; choose another folder, or pass overwrite=True")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        _sync(temporary)
        if target.exists():
            old = temporary.with_name(temporary.name + "-old")
            target.rename(old)
            temporary.rename(target)
            shutil.rmtree(old)
        else:
            temporary.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    folder: pathlib.Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray], written: tuple[str, ...] = ()
) -> None:
    """Arrays and, last, the manifest; `written` names arrays that are there already."""
    for name, array in arrays.items():
        with open(folder / f"{name}.npy", "xb") as file:
            np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    described = {}
    for name in [*arrays, *written]:
        _sync(folder / f"{name}.npy")
        described[name] = _digest(folder / f"{name}.npy")
    text = json.dumps({"schema_version": SCHEMA_VERSION, **manifest, "arrays": described}, indent=1, allow_nan=False)
    with open(folder / _MANIFEST, "x", encoding="utf-8") as file:
        file.write(text + "\n")
    _sync(folder / _MANIFEST)


def _sync(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(folder: pathlib.Path, kind: str) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise errors.DamagedArtifactError(f"{folder / _MANIFEST} cannot be read: {error}; store it again") from error
    found = (manifest.get("schema_version"), manifest.get("kind")) if isinstance(manifest, dict) else manifest
    if found != (SCHEMA_VERSION, kind) or not isinstance(manifest.get("arrays"), dict):
        raise errors.DamagedArtifactError(
            f"{folder / _MANIFEST} is of schema version and kind {found}, expected {(SCHEMA_VERSION, kind)}; give "
            "another folder, or store it again"
        )
    return manifest


def _array(
    folder: pathlib.Path, name: str, manifest: Mapping[str, Any], *, memory_map: bool = False, verify: bool = True
) -> np.ndarray:
    path = folder / f"{name}.npy"
    # A name is a file in the folder and nothing else.
    if name != pathlib.PurePath(name).name:
        raise errors.DamagedArtifactError(f"{folder / _MANIFEST} names the array {name!r}, which is no name of a file")
    try:
        if verify and _digest(path) != manifest["arrays"][name]:
            raise errors.DamagedArtifactError(f"{path}: the SHA-256 is not that of its manifest; store it again")
        if memory_map:
            return np.lib.format.open_memmap(path, mode="r")
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        if isinstance(error, errors.EstimatorError):
            raise
        raise errors.DamagedArtifactError(f"{path} cannot be read: {error}; store it again") from error
