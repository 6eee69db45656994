"""The folder of one trained network, SAVE_DIR/NAME/MODEL/DATA/SETTING/seed-S; without TensorFlow.

settings.json      everything that decides the network, written first
checkpoints/       epoch-<e>.index and epoch-<e>.data-00000-of-00001
history.csv        a row for each epoch after which the network was evaluated, written whole each time
result.json        how the training ended, written last
resume/            what an interrupted training goes on from; deleted at the end
tensorboard/       event files, where they were asked for
"""

import csv
import dataclasses
import io
import math
import pathlib
import re
from typing import Any

import numpy as np

from heldout.running import settings as settings_text
from heldout.training import model_settings
from zoo import errors, files, layout

SETTINGS_NAME = "settings.json"
HISTORY_NAME = "history.csv"
RESULT_NAME = "result.json"
CHECKPOINTS_NAME = "checkpoints"
RESUME_NAME = "resume"
TENSORBOARD_NAME = "tensorboard"
RESULT_SCHEMA_VERSION = 1
# How a training ended.
FINISHED, STOPPED, DIVERGED = OUTCOMES = ("finished", "stopped_early", "diverged")

# Losses in nats; errors are shares of the examples; NaN where there is nothing to measure.
HISTORY_COLUMNS = (
    *("epoch", "step", "learning_rate", "running_loss", "train_loss", "train_error", "train_clean_error"),
    *("val_loss", "val_error", "test_loss", "test_error"),
)
_WHOLE_COLUMNS = ("epoch", "step")
_CHECKPOINT_INDEX = re.compile(rf"epoch-(0|[1-9][0-9]{{0,8}}){re.escape(layout.CHECKPOINT_INDEX_SUFFIX)}")


def directory(save_dir: files.PathLike, name: str, settings: model_settings.ModelSettings) -> pathlib.Path:
    """The folder of a network.

    Args:
        save_dir: of all networks.
        name: of a group of them, chosen by the user.
        settings: of the network.

    Raises:
        InvalidValueError: the name is not that of a folder.
    """
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise errors.InvalidValueError(f"--name={name}: expected letters, digits, and any of _.+- after the first one")
    parts = (name, settings.model_name(), settings.data_name(), settings.setting_name(), f"seed-{settings.seed}")
    return pathlib.Path(save_dir).joinpath(*parts)


def is_model_run(folder: files.PathLike) -> bool:
    """Whether a folder is that of a trained network, or of one that is being trained."""
    return (pathlib.Path(folder) / SETTINGS_NAME).is_file()


def read_settings(folder: files.PathLike) -> model_settings.ModelSettings:
    """The settings of a network.

    Raises:
        MissingFileError: the folder is not that of a network.
        DamagedFileError: the file is unsound.
    """
    path = pathlib.Path(folder) / SETTINGS_NAME
    if not path.is_file():
        raise errors.MissingFileError(
            f"{path}: no such file; expected the folder of a network, SAVE_DIR/NAME/MODEL/DATA/SETTING/seed-S, as "
            "train_model writes it"
        )
    return model_settings.ModelSettings.from_json(files.read_json(path), str(path))


def adopt_settings(folder: files.PathLike, settings: model_settings.ModelSettings) -> None:
    """Stores settings, or holds them against those that are there.

    Raises:
        MismatchError: others are there; names the differences.
        DamagedFileError: the file is unsound.
    """
    path = pathlib.Path(folder) / SETTINGS_NAME
    if not path.exists():
        files.write_json(path, settings.to_json())
        return
    stored = read_settings(folder)
    if stored.to_json() != settings.to_json():
        raise errors.MismatchError(
            f"{path}: another network was begun here. They differ in\n"
            f"{settings_text.differences(stored.to_json(), settings.to_json())}\n"
            "Use the data that it was begun with, choose another --name, or replace it with --overwrite."
        )


def finished_result(folder: files.PathLike, settings: model_settings.ModelSettings) -> dict[str, Any] | None:
    """How a network ended; None where it has not.

    Raises:
        MismatchError: the folder holds another network.
        DamagedFileError: a file is unsound.
    """
    result = read_result(folder)
    if result is not None:
        adopt_settings(folder, dataclasses.replace(settings, fingerprint=read_settings(folder).fingerprint))
    return result


def checkpoint_prefix(folder: files.PathLike, epoch: int) -> pathlib.Path:
    """What the file names of the checkpoint after so many epochs begin with."""
    return pathlib.Path(folder) / CHECKPOINTS_NAME / f"epoch-{epoch}"


def checkpoint_epochs(folder: files.PathLike) -> list[int]:
    """Epochs of which there is a checkpoint, ascending. A checkpoint with an index is whole."""
    paths = (pathlib.Path(folder) / CHECKPOINTS_NAME).glob("epoch-*")
    return sorted(int(match[1]) for path in paths if (match := _CHECKPOINT_INDEX.fullmatch(path.name)))


def write_history(folder: files.PathLike, rows: np.ndarray) -> None:
    """Writes history.csv.

    Args:
        folder: of the network.
        rows: float64 [evaluations, columns], see `HISTORY_COLUMNS`. Numbers are written in their shortest form that
            gives the same number again, NaN as an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HISTORY_COLUMNS)
    for row in rows.tolist():
        writer.writerow(
            int(value) if name in _WHOLE_COLUMNS else "" if math.isnan(value) else repr(value)
            for name, value in zip(HISTORY_COLUMNS, row, strict=True)
        )
    files.write_text(pathlib.Path(folder) / HISTORY_NAME, text.getvalue())


def read_history(folder: files.PathLike) -> np.ndarray:
    """The evaluations of a network as a structured array with the fields `HISTORY_COLUMNS`, ascending by epoch.

    Raises:
        MissingFileError: there are none yet.
        DamagedFileError: the file is unsound.
    """
    path = pathlib.Path(folder) / HISTORY_NAME
    if not path.is_file():
        raise errors.MissingFileError(f"{path}: no such file; the network has not been evaluated yet, train it on")
    kinds = np.dtype([(name, np.int64 if name in _WHOLE_COLUMNS else np.float64) for name in HISTORY_COLUMNS])
    try:
        header, *rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True))
        if tuple(header) != HISTORY_COLUMNS:
            raise ValueError(f"columns {header}")
        values = [tuple(kinds[i].type(cell or "nan") for i, cell in enumerate(row)) for row in rows]
        return np.array(values, kinds)
    except (ValueError, csv.Error) as error:
        raise errors.DamagedFileError(
            f"{path}: not a history of evaluations ({error}); delete the folder and train the network again"
        ) from error


def read_result(folder: files.PathLike) -> dict[str, Any] | None:
    """How the training of a network ended; None where it has not.

    Raises:
        DamagedFileError: the file is unsound.
    """
    path = pathlib.Path(folder) / RESULT_NAME
    if not path.exists():
        return None
    result = files.read_json(path)
    if result.get("schema_version") != RESULT_SCHEMA_VERSION or result.get("outcome") not in OUTCOMES:
        raise errors.DamagedFileError(
            f"{path}: schema version {result.get('schema_version')!r} and outcome {result.get('outcome')!r}, expected "
            f"{RESULT_SCHEMA_VERSION} and one of {', '.join(OUTCOMES)}; delete it and run train_model again"
        )
    return result


def result_of(outcome: str, reason: str, row: np.ndarray) -> dict[str, Any]:
    """The content of result.json.

    Args:
        outcome: one of `OUTCOMES`.
        reason: in a sentence.
        row: float64 [columns], the last evaluation.
    """
    values = dict(zip(HISTORY_COLUMNS, row.tolist(), strict=True))
    members: dict[str, Any] = {"schema_version": RESULT_SCHEMA_VERSION, "outcome": outcome, "reason": reason}
    for name, value in values.items():
        members[name] = int(value) if name in _WHOLE_COLUMNS else value if math.isfinite(value) else None
    return members
