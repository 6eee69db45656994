"""What an interrupted training of one network goes on from: resume/state.npz.

    schema_version       int
    epoch                int, epochs done
    keys                 names of the variables, as in a checkpoint
    value_<i>            variable i of `keys`
    rule_<i>             state i of the update rule (heldout/training/updates.py), velocities or moments
    history              float64 [evaluations, columns], the rows of history.csv so far

All numbers are kept to the last bit, so the training goes on as if it had not been interrupted.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import shutil

import numpy as np

from heldout.training import learners, model_files
from zoo import errors, files, npz

SCHEMA_VERSION = 1
_STATE_NAME = "state.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """A training after some epochs.

    Attributes:
        epoch: epochs done.
        values: all variables by their key in a checkpoint.
        rule: what the update rule keeps of this network.
        history: float64 [evaluations, columns].
    """

    epoch: int
    values: learners.ModelValues
    rule: Sequence[np.ndarray]
    history: np.ndarray


def write(folder: files.PathLike, state: State) -> None:
    """Puts a state in the place of the last one, whole or not at all."""
    keys = sorted(state.values)
    arrays = {
        "schema_version": np.asarray(SCHEMA_VERSION),
        "epoch": np.asarray(state.epoch),
        "keys": np.array(keys),
        "num_rule": np.asarray(len(state.rule)),
        "history": state.history,
    }
    arrays |= {f"value_{i}": np.asarray(state.values[key]) for i, key in enumerate(keys)}
    arrays |= {f"rule_{i}": np.asarray(value) for i, value in enumerate(state.rule)}
    npz.write(_path(folder), arrays)


def read(folder: files.PathLike) -> State | None:
    """The last state; None where there is none.

    Raises:
        DamagedFileError: the file is unsound.
    """
    path = _path(folder)
    if not path.exists():
        return None
    stored = npz.read(path, ["schema_version", "epoch", "keys", "num_rule", "history"])
    columns = len(model_files.HISTORY_COLUMNS)
    if stored["schema_version"] != SCHEMA_VERSION or stored["history"].shape[1:] != (columns,):
        raise errors.DamagedFileError(
            f"{path}: schema version {stored['schema_version']}, this program reads {SCHEMA_VERSION}; delete it, and "
            "the training begins anew"
        )
    keys, num_rule = stored["keys"].tolist(), int(stored["num_rule"])
    names = [f"value_{i}" for i in range(len(keys))] + [f"rule_{i}" for i in range(num_rule)]
    arrays = npz.read(path, names)
    return State(
        int(stored["epoch"]),
        {key: arrays[f"value_{i}"] for i, key in enumerate(keys)},
        [arrays[f"rule_{i}"] for i in range(num_rule)],
        stored["history"],
    )


def check(folder: files.PathLike, state: State, initial_values: learners.ModelValues) -> None:
    """Refuses the state of another network.

    Raises:
        DamagedFileError: variables differ in name, shape or dtype.
    """
    found = {key: (value.shape, value.dtype) for key, value in state.values.items()}
    if found != {key: (value.shape, value.dtype) for key, value in initial_values.items()}:
        raise errors.DamagedFileError(
            f"{_path(folder)}: is of another network than the settings beside it; delete it, and the training begins "
            "anew"
        )


def delete(folder: files.PathLike) -> None:
    """Forgets the state."""
    shutil.rmtree(pathlib.Path(folder) / model_files.RESUME_NAME, ignore_errors=True)


def _path(folder: files.PathLike) -> pathlib.Path:
    return pathlib.Path(folder) / model_files.RESUME_NAME / _STATE_NAME
