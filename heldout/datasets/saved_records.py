"""Hands image records to another process: where they are and with which labels, in a folder of a few files."""

import dataclasses
import json
import pathlib

from heldout.datasets import indexed_records, record_format
from zoo import errors, files, npz

_PLACE, _LABELS = "records-at.json", "records-label.npz"


def save(records: indexed_records.IndexedRecords, directory: files.PathLike) -> None:
    """Writes a folder that `open_saved` opens; it must not exist yet. No image is copied."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True)
    npz.write(directory / _LABELS, dict(records.label))
    files.write_json(directory / _PLACE, {"folder": str(records.folder.resolve()), "version": records.version})


def is_saved(directory: files.PathLike) -> bool:
    """Whether a folder is one that `save` wrote."""
    return (pathlib.Path(directory) / _PLACE).is_file()


def open_saved(directory: files.PathLike) -> indexed_records.IndexedRecords:
    """Opens what `save` wrote.

    Raises:
        MismatchError: the records are no longer those that were saved.
        As `indexed_records.open_records`.
    """
    directory = pathlib.Path(directory)
    saved = json.loads((directory / _PLACE).read_text())
    records = indexed_records.open_records(saved["folder"], cache=directory)
    if records.version != saved["version"]:
        raise errors.MismatchError(
            f"{saved['folder']}: the records have changed: version {records.version}, they were {saved['version']}; "
            "begin an experiment of another name"
        )
    return dataclasses.replace(records, label=npz.read(directory / _LABELS, list(record_format.SPLITS)))
