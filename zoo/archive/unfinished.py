"""Passes over archives that were begun in a zoo and have not come to their end.

What `zoo_stream` and `zoo_index` have found so far lies in a journal beside the index that it will become, see
`zoo.archive.indexing`. Here it is only looked at: nothing is written, no lock is taken, and a journal that is being
written to, or that a kill left in the middle of a transaction, may not tell how far it got.
"""

import contextlib
import dataclasses
import json
import pathlib
import sqlite3
from typing import Any

from zoo import errors, files, layout
from zoo.archive import indexing, names

_KEYS = ("identity", "inflater", "ended")


@dataclasses.dataclass(frozen=True)
class UnfinishedPass:
    """A pass that the same command continues.

    Attributes:
        path: the journal.
        archive: name of the archive's file; None where it cannot be read.
        num_done: compressed bytes that need not be read again; None where that cannot be read.
        num_bytes: size of the archive; None where it cannot be read.
    """

    path: pathlib.Path
    archive: str | None
    num_done: int | None
    num_bytes: int | None


def of_experiment(zoo: files.PathLike, experiment: str) -> UnfinishedPass | None:
    """The unfinished pass of an experiment; None where there is none, or all that it is to give is there."""
    places = indexing.places_in_zoo(zoo, experiment)
    assert places.run_table is not None
    if not places.journal.is_file() or (places.index.exists() and places.run_table.exists()):
        return None
    try:
        values = _read(places.journal)
        identity, place = values["identity"], values["inflater"]
        archive, num_bytes = str(identity["name"]), int(identity["size"])
        num_done = num_bytes if values["ended"] else 0 if place is None else int(place["boundary"]["offset"])
    except (sqlite3.Error, KeyError, TypeError, ValueError, RecursionError):
        return UnfinishedPass(places.journal, None, None, None)
    return UnfinishedPass(places.journal, names.printable(archive), num_done, num_bytes)


def _read(path: pathlib.Path) -> dict[str, Any]:
    # Immutable: neither is a lock taken nor an interrupted transaction rolled back, which would write.
    address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
        query = f"SELECT key, value FROM progress WHERE key IN ({', '.join('?' * len(_KEYS))})"
        return {key: json.loads(value) for key, value in database.execute(query, _KEYS)}


def experiments(zoo: files.PathLike) -> list[str]:
    """Names of the experiments with an unfinished pass, sorted; their folders may hold nothing else.

    Raises:
        MissingFileError: there is no such folder.
    """
    if not pathlib.Path(zoo).is_dir():
        raise errors.MissingFileError(f"{zoo}: no such folder; give the folder that holds the experiments")
    found = []
    for folder in pathlib.Path(zoo).iterdir():
        with contextlib.suppress(errors.InvalidValueError):
            layout.check_experiment_name(folder.name)
            if of_experiment(zoo, folder.name) is not None:
                found.append(folder.name)
    return sorted(found)
