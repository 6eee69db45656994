"""A folder of large arrays with what they are of, filled part by part; no TensorFlow.

    <name>.npy       each array, read as a memory map
    begun.json       while they are being computed: what they are of, and how much of each is there
    contents.json    at the end, in its place: what they are of, facts, and dtype, shape and SHA-256 of each array

A computation that is killed goes on behind what was marked as done last. Nothing is read with pickle.
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from heldout.running import settings as settings_text
from zoo import errors, files

SCHEMA_VERSION = 1
CONTENTS_NAME, BEGUN_NAME = "contents.json", "begun.json"
_REPAIR = "Delete the folder and run the command again."


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """Arrays that are complete.

    Attributes:
        folder: where they are.
        made_of: what decided them, as JSON.
        facts: what was found while they were computed, as JSON.
        arrays: read-only memory maps by name.
    """

    folder: pathlib.Path
    made_of: dict[str, Any]
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


def made_of(folder: files.PathLike) -> dict[str, Any] | None:
    """What the arrays of a folder are of, complete or not; None where there are none.

    Raises:
        DamagedFileError: what the folder says of itself cannot be read.
    """
    for name in (CONTENTS_NAME, BEGUN_NAME):
        path = pathlib.Path(folder) / name
        if path.is_file():
            return dict(_manifest(path)["made_of"])
    return None


def is_complete(folder: files.PathLike, of: Mapping[str, Any]) -> bool:
    """Whether complete arrays of these settings are there."""
    return (pathlib.Path(folder) / CONTENTS_NAME).is_file() and made_of(folder) == _as_json(of)


def differences(folder: files.PathLike, of: Mapping[str, Any]) -> str:
    """In which settings a folder differs from those asked for, a line each; empty where in none, or it has none."""
    stored = made_of(folder)
    return "" if stored is None else settings_text.differences(stored, _as_json(of))


def read(folder: files.PathLike, *, verify: bool = False) -> Stored:
    """Complete arrays.

    Args:
        folder: of a `Draft` that was finished.
        verify: read all of them and compare their SHA-256.

    Raises:
        MissingFileError: they are not there, or not complete.
        DamagedFileError: a file is not what was written.
    """
    folder = pathlib.Path(folder)
    path = folder / CONTENTS_NAME
    if not path.is_file():
        begun = " It was begun: the same command goes on." if (folder / BEGUN_NAME).is_file() else ""
        raise errors.MissingFileError(
            f"{path}: no such file; expected a folder that compute_ntk or compute_unique_information has filled.{begun}"
        )
    manifest = _manifest(path)
    arrays = {name: _array(folder, name, described, verify) for name, described in manifest["arrays"].items()}
    return Stored(folder, manifest["made_of"], manifest["facts"], arrays)


class Draft:
    """Arrays that are being computed in a folder.

    Args:
        folder: of them. What it holds of other settings is deleted, what it holds of the same is gone on with.
        of: what decides them, as JSON could hold it.
    """

    def __init__(self, folder: files.PathLike, of: Mapping[str, Any]) -> None:
        self._folder, self._of = pathlib.Path(folder), _as_json(of)
        self._folder.mkdir(parents=True, exist_ok=True)
        begun = self._folder / BEGUN_NAME
        self._done: dict[str, int] = {}
        if begun.is_file() and not (self._folder / CONTENTS_NAME).exists() and made_of(folder) == self._of:
            self._done = dict(_manifest(begun)["done"])
            return
        clear(self._folder)
        self._write_begun()

    def matrix(self, name: str, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
        """A writeable memory map: the one that was begun, or a new one.

        Raises:
            DiskSpaceError: it would fill the disk.
        """
        path = self._folder / f"{name}.npy"
        if self._done.get(name):
            with contextlib.suppress(OSError, ValueError):  # damaged since: it is computed anew
                found = np.lib.format.open_memmap(path, mode="r+")
                if found.shape == shape and found.dtype == dtype:
                    return found
        num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        files.check_room(self._folder, num_bytes, f"the array {path}")
        self._done[name] = 0
        self._write_begun()
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)

    def done(self, name: str) -> int:
        """How much of an array has been marked as done, in the unit of `mark`."""
        return self._done.get(name, 0)

    def mark(self, name: str, matrix: np.ndarray, done: int) -> None:
        """Says that so much of a matrix is written, and sees to it that it is on the disk.

        Args:
            name: of the array.
            matrix: what `matrix` returned.
            done: how many of its rows, or examples: a unit that no setting decides that may change in between.
        """
        matrix.flush()  # type: ignore[attr-defined]
        self._done[name] = done
        self._write_begun()

    def put(self, name: str, array: np.ndarray) -> None:
        """Writes a small array whole."""
        with files.write_whole(self._folder / f"{name}.npy") as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        self._done[name] = 1
        self._write_begun()

    def finish(self, facts: Mapping[str, Any]) -> Stored:
        """Completes the folder with facts, and returns what it holds."""
        described = {}
        for name in self._done:
            path = self._folder / f"{name}.npy"
            array = np.lib.format.open_memmap(path, mode="r")
            described[name] = {
                "dtype": str(array.dtype),
                "shape": list(array.shape),
                "sha256": files.sha256_of_file(path),
            }
        contents = {
            "schema_version": SCHEMA_VERSION,
            "made_of": self._of,
            "facts": _as_json(facts),
            "arrays": described,
        }
        files.write_json(self._folder / CONTENTS_NAME, contents)
        (self._folder / BEGUN_NAME).unlink(missing_ok=True)
        return read(self._folder)

    def _write_begun(self) -> None:
        begun = {"schema_version": SCHEMA_VERSION, "made_of": self._of, "done": self._done}
        files.write_json(self._folder / BEGUN_NAME, begun)


def clear(folder: pathlib.Path) -> None:
    """Deletes the arrays of a folder and what is said of them, and nothing else."""
    names: set[str] = set()
    for name, member in ((CONTENTS_NAME, "arrays"), (BEGUN_NAME, "done")):
        path = folder / name
        if path.is_file():
            names |= set(_manifest(path)[member])
            path.unlink()
    for name in names:
        (folder / f"{name}.npy").unlink(missing_ok=True)


def _as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(value, allow_nan=False)))


def _manifest(path: pathlib.Path) -> dict[str, Any]:
    found = files.read_json(path)
    member = "arrays" if path.name == CONTENTS_NAME else "done"
    sound = found.get("schema_version") == SCHEMA_VERSION and isinstance(found.get("made_of"), dict)
    names = found.get(member)
    if not sound or not isinstance(names, dict) or any(pathlib.PurePath(name).name != name for name in names):
        raise errors.DamagedFileError(
            f"{path}: schema version {found.get('schema_version')!r} with members {sorted(found)}, expected version "
            f"{SCHEMA_VERSION} with made_of and {member}. {_REPAIR}"
        )
    return found


def _array(folder: pathlib.Path, name: str, described: Any, verify: bool) -> np.ndarray:
    path = folder / f"{name}.npy"
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        expected = (str(described["dtype"]), list(described["shape"]))
        if (str(array.dtype), list(array.shape)) != expected:
            raise errors.DamagedFileError(
                f"{path}: {array.dtype} {list(array.shape)}, expected {expected[0]} {expected[1]}. {_REPAIR}"
            )
        if verify and files.sha256_of_file(path) != described["sha256"]:
            raise errors.DamagedFileError(f"{path}: the SHA-256 is not that of {CONTENTS_NAME}. {_REPAIR}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, errors.HeldoutError):
            raise
        raise errors.DamagedFileError(f"{path}: cannot be read ({error}). {_REPAIR}") from error
    return array
