"""Checkpoints of models: TensorFlow's object-graph format, read and written so that nothing can be half restored.

The files of the published zoos are those of `tf.train.Checkpoint(model=..., epoch=..., global_step=...)`: a variable is
stored under the path of attributes that leads to it from the root, as in

    model/conv1/conv/w/.ATTRIBUTES/VARIABLE_VALUE

so the attribute names of a module are its file format. TensorFlow's own restore leaves variables that it does not find
at their random initial values and passes over those that nobody asks for. Here the variables of the model and of the
file are compared both ways first, then all are read, and only then is the first one assigned.

Below, a key is such a path without the last two words: model/conv1/conv/w.
"""

from collections.abc import Collection, Iterable, Mapping
import dataclasses
import errno
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import tensorflow as tf

from zoo import checkpoint_bundle, errors, files, layout

_MOST_LISTED = 10
# What TensorFlow's reader raises over damaged files, depending on where it stumbles.
_READ_ERRORS = (tf.errors.OpError, IndexError, MemoryError, RuntimeError, ValueError)


@dataclasses.dataclass(frozen=True)
class CheckpointState:
    """How far a restored model had been trained.

    Attributes:
        epoch: epochs done, or None where the file does not say.
        global_step: optimizer steps done, or None where the file does not say.
    """

    epoch: int | None
    global_step: int | None


def model_variables(model: tf.Module) -> dict[str, tf.Variable]:
    """The variables of a model by their key in a checkpoint, sorted.

    A variable that can be reached in several ways has the key of the shortest, and among equally short ones of the
    first in breadth-first order, as in `tf.train.Checkpoint(model=model)`.

    Args:
        model: a built module; variables that do not exist yet are not found.

    Returns:
        Variables by key, for instance "model/conv1/conv/w".
    """
    paths: dict[int, str] = {id(model): checkpoint_bundle.MODEL_ROOT}
    # Children are kept alive until the end: some are wrappers made on the fly, whose ids could otherwise be reused.
    queue: list[Any] = [model]
    for parent in queue:
        for name, child in tf.train.TrackableView.children(parent).items():
            if id(child) not in paths:
                paths[id(child)] = f"{paths[id(parent)]}/{_escape(name)}"
                queue.append(child)
    return dict(sorted((paths[id(node)], node) for node in queue if isinstance(node, tf.Variable)))


def read_listing(prefix: files.PathLike) -> dict[str, checkpoint_bundle.Spec]:
    """Shape and dtype of every variable below model/ in a checkpoint, by key, sorted. Reads the index file only.

    Args:
        prefix: what the file names begin with, as `layout.Run.checkpoint_prefix` gives it.

    Returns:
        For instance {"model/conv1/conv/w": ((3, 3, 3, 96), "float32")}.

    Raises:
        MissingFileError: there is no index file or no data file.
        DamagedFileError: the index is damaged.
    """
    _check_there(prefix)
    return checkpoint_bundle.model_listing(
        checkpoint_bundle.read_index_file(_with_suffix(prefix, layout.CHECKPOINT_INDEX_SUFFIX))
    )


def restore(model: tf.Module, prefix: files.PathLike, without: Collection[str] = ()) -> CheckpointState:
    """Sets every variable of a model from a checkpoint, or none.

    Args:
        model: a built module.
        prefix: what the file names begin with.
        without: keys of variables that keep their values, whatever the file has for them, if anything.

    Returns:
        Epoch and step of the checkpoint.

    Raises:
        MissingFileError: there is no index file or no data file.
        DamagedFileError: a file is truncated, or a checksum does not hold, whatever part it belongs to.
        MismatchError: the variables of the model and those below model/ in the file differ in name, shape or dtype,
            other than those of `without`.
    """
    reader = _open(prefix)
    specs = _read_all_specs(reader, prefix)
    variables = {key: variable for key, variable in model_variables(model).items() if key not in without}
    stored = {key: spec for key, spec in checkpoint_bundle.model_part(specs).items() if key not in without}
    _check_match(variables, stored, prefix)
    # Everything is read, also what is not needed, because reading verifies the checksums.
    values = {name: _read_tensor(reader, name, prefix) for name in specs}
    state = CheckpointState(
        epoch=_counter(values, "epoch", prefix),
        global_step=_counter(values, "global_step", prefix),
    )
    for key, variable in variables.items():
        variable.assign(values[key + checkpoint_bundle.VALUE_SUFFIX])
    return state


def write(model: tf.Module, prefix: files.PathLike, epoch: int, global_step: int) -> None:
    """Writes a checkpoint of a model, whole or not at all, in the published format.

    The index file appears last, so that a checkpoint with an index is complete. No `checkpoint` state file is left.

    Args:
        model: a built module.
        prefix: what the file names begin with; the folder is created where missing.
        epoch: epochs done.
        global_step: optimizer steps done.

    Raises:
        OSError: the disk is full, or may not be written to.
    """
    prefix = pathlib.Path(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    temporary = files.temporary_beside(prefix)
    checkpoint = tf.train.Checkpoint(
        model=model,
        epoch=tf.Variable(epoch, dtype=tf.int64, trainable=False),
        global_step=tf.Variable(global_step, dtype=tf.int64, trainable=False),
    )
    try:
        _save(checkpoint, temporary)
        for suffix in (layout.CHECKPOINT_DATA_SUFFIX, layout.CHECKPOINT_INDEX_SUFFIX):
            files.sync(_with_suffix(temporary, suffix))
        # An older checkpoint of this name must not lend its index to the new data.
        _with_suffix(prefix, layout.CHECKPOINT_INDEX_SUFFIX).unlink(missing_ok=True)
        for suffix in (layout.CHECKPOINT_DATA_SUFFIX, layout.CHECKPOINT_INDEX_SUFFIX):
            _with_suffix(temporary, suffix).replace(_with_suffix(prefix, suffix))
    finally:
        for suffix in (layout.CHECKPOINT_DATA_SUFFIX, layout.CHECKPOINT_INDEX_SUFFIX):
            _with_suffix(temporary, suffix).unlink(missing_ok=True)
        shutil.rmtree(f"{temporary}_temp", ignore_errors=True)  # TensorFlow's own unfinished files


def _save(checkpoint: tf.train.Checkpoint, prefix: pathlib.Path) -> None:
    """Lets TensorFlow write; what goes wrong with the disk comes as the error of the operating system that it is.

    Raises:
        OSError: the disk is full or may not be written to.
    """
    causes = {tf.errors.ResourceExhaustedError: errno.ENOSPC, tf.errors.PermissionDeniedError: errno.EACCES}
    try:
        checkpoint.write(str(prefix))
    except tf.errors.OpError as error:
        number = causes.get(type(error), errno.EIO)
        raise OSError(number, os.strerror(number), str(prefix)) from error


def _with_suffix(prefix: files.PathLike, suffix: str) -> pathlib.Path:
    prefix = pathlib.Path(prefix)
    return prefix.with_name(prefix.name + suffix)


def _escape(name: str) -> str:
    """An attribute name as one word of a key: TensorFlow keeps "/" for the path and "." for its own words."""
    return name.replace(".", "..").replace("/", ".S")


def _check_there(prefix: files.PathLike) -> None:
    for suffix in (layout.CHECKPOINT_INDEX_SUFFIX, layout.CHECKPOINT_DATA_SUFFIX):
        path = _with_suffix(prefix, suffix)
        if not path.is_file():
            raise errors.MissingFileError(f"{path}: no such file; fetch the checkpoint again, or train the run")


def _open(prefix: files.PathLike) -> Any:
    _check_there(prefix)
    try:
        return tf.train.load_checkpoint(str(prefix))
    except _READ_ERRORS as error:
        raise _damaged(prefix, error) from error


def _read_all_specs(reader: Any, prefix: files.PathLike) -> dict[str, checkpoint_bundle.Spec]:
    """Shape and dtype of every entry of the file, by full name."""
    try:
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        return {name: (tuple(shape), tf.as_dtype(dtypes[name]).name) for name, shape in sorted(shapes.items())}
    except _READ_ERRORS as error:
        raise _damaged(prefix, error) from error


def _read_tensor(reader: Any, name: str, prefix: files.PathLike) -> Any:
    try:
        return reader.get_tensor(name)
    except _READ_ERRORS as error:
        raise _damaged(prefix, error) from error


def _counter(values: Mapping[str, Any], name: str, prefix: files.PathLike) -> int | None:
    value = values.get(name + checkpoint_bundle.VALUE_SUFFIX)
    if value is None:
        return None
    value = np.asarray(value)
    if value.shape != () or value.dtype.kind not in "iu":
        raise errors.MismatchError(
            f"{prefix}: {name} has shape {value.shape} and dtype {value.dtype}, expected one integer"
        )
    return int(value)


def _damaged(prefix: files.PathLike, error: Exception) -> errors.DamagedFileError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return errors.DamagedFileError(
        f"{prefix}: damaged checkpoint: {reason}. Fetch it again, or delete it and train on."
    )


def _check_match(
    variables: Mapping[str, tf.Variable], stored: Mapping[str, checkpoint_bundle.Spec], prefix: files.PathLike
) -> None:
    """Compares names, shapes and dtypes both ways.

    Raises:
        MismatchError: they differ; lists at most ten differences of each sort, and their number.
    """
    built = {key: (tuple(variable.shape), variable.dtype.name) for key, variable in variables.items()}
    both = sorted(built.keys() & stored.keys())
    differences = [
        _describe("only in the model", sorted(built.keys() - stored.keys())),
        _describe("only in the file", sorted(stored.keys() - built.keys())),
        _describe(
            "of another shape",
            [
                f"{key} (model {built[key][0]}, file {stored[key][0]})"
                for key in both
                if built[key][0] != stored[key][0]
            ],
        ),
        _describe(
            "of another dtype",
            [
                f"{key} (model {built[key][1]}, file {stored[key][1]})"
                for key in both
                if built[key][1] != stored[key][1]
            ],
        ),
    ]
    if any(differences):
        listed = "".join(differences)
        repair = (
            "Build the architecture, with the number of classes, that the run was trained with."
            if built
            else "The model has no variables: call it once before it is restored."
        )
        raise errors.MismatchError(
            f"{prefix}: the model's {len(built)} variables do not match the file's {len(stored)}.{listed}\n{repair}"
        )


def _describe(what: str, items: Iterable[str]) -> str:
    items = list(items)
    if not items:
        return ""
    more = ", ..." if len(items) > _MOST_LISTED else ""
    return f"\n  {len(items)} {what}: {', '.join(items[:_MOST_LISTED])}{more}"
