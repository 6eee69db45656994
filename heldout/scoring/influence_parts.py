"""Tiles of the matrix of subset influence, and what is on the disk while they are computed.

A tile is a range of training examples with all test examples. Whoever computes one writes its part into

    .<matrix>.parts/tile-<first row>.npz    summary of these rows

and, where the matrix is kept, its rows into `.<matrix>.npy.part`, which exists from the start. A part that is there is
complete, and its rows are on the disk. Tiles follow from N alone: not from memory, threads, or who computes what.
"""

import io
import os
import pathlib
import shutil
import threading

import numpy as np

from zoo import errors, files, npz

# Few enough that a kill loses little, many enough that the lists of columns are a small part of a tile.
_TILE_ROWS = 16384


def tiles(num_train: int) -> list[range]:
    """The rows of each tile."""
    return [range(start, min(start + _TILE_ROWS, num_train)) for start in range(0, num_train, _TILE_ROWS)]


class Folder:
    """Where the parts of one matrix lie.

    Args:
        directory: of the score files.
        name: of the matrix, without suffix, such as subset_influence-0.7.
        shape: (N, M).
        identity: text that says what is computed; parts of another computation are not used.
        dense: whether the matrix is kept.
    """

    def __init__(
        self, directory: pathlib.Path, name: str, shape: tuple[int, int], identity: str, *, dense: bool
    ) -> None:
        self._parts = directory / f".{name}.parts"
        self.note = self._parts / "identity.txt"
        self.matrix = directory / f"{name}.npy"
        self._unfinished = directory / f".{name}.npy.part"
        self._shape = shape
        self._identity = identity
        self._dense = dense

    def prepare(self) -> None:
        """Makes place for parts, and drops those of another computation, or without the rows that belong to them."""
        if not self._is_ours() or (self._dense and not self._has_rows()):
            self.remove()
        self._parts.mkdir(parents=True, exist_ok=True)
        if not self.note.exists():
            files.write_text(self.note, self._identity)
        if self._dense and not self._is_named():
            self._create()

    def _is_ours(self) -> bool:
        return self.note.exists() and self.note.read_text(encoding="utf-8") == self._identity

    def _is_named(self) -> bool:
        """Whether the matrix of these parts has its name already, and only the rest was left to do."""
        return (self._parts / "named").exists()

    def _has_rows(self) -> bool:
        """Whether the rows that belong to the parts are there, under one name or the other."""
        if self._unfinished.exists():
            return self._unfinished.stat().st_size == self._num_bytes()
        return self._is_named() and self.matrix.exists()

    def _create(self) -> None:
        if self._unfinished.exists():
            return
        with open(self._unfinished, "wb") as stream:
            stream.write(self._header())
            stream.truncate(self._num_bytes())

    def _header(self) -> bytes:
        header = io.BytesIO()
        description = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(header, description)
        return header.getvalue()

    def _num_bytes(self) -> int:
        return len(self._header()) + 4 * self._shape[0] * self._shape[1]

    def part(self, tile: range) -> pathlib.Path:
        """File of the part of one tile."""
        return self._parts / f"tile-{tile.start:09d}.npz"

    def is_done(self, tile: range) -> bool:
        """Whether the part of this tile is there and sound."""
        try:
            npz.read(self.part(tile), ["bin_counts"])
        except (errors.MissingFileError, errors.DamagedFileError):
            return False
        return True

    def opened(self) -> "Rows":
        """The unfinished matrix, to write rows into; nothing where it is not kept."""
        return Rows(self._unfinished if self._dense else None, len(self._header()), self._shape[1])

    def name_matrix(self) -> None:
        """Gives the complete matrix its name."""
        if self._dense and not self._is_named():
            files.sync(self._unfinished)
            files.write_text(self._parts / "named", "")
        if self._dense and self._unfinished.exists():
            os.replace(self._unfinished, self.matrix)

    def remove(self) -> None:
        """Deletes the parts and an unfinished matrix."""
        # First of all, so that what a kill leaves is nobody's to go on with.
        self.note.unlink(missing_ok=True)
        self._unfinished.unlink(missing_ok=True)
        shutil.rmtree(self._parts, ignore_errors=True)


class Rows:
    """Rows of an npy file, written in any order by any number of threads and processes."""

    def __init__(self, path: pathlib.Path | None, first: int, num_columns: int) -> None:
        # Windows would write two bytes for some, without its O_BINARY.
        self._file = None if path is None else os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
        self._first = first
        self._row_bytes = 4 * num_columns
        self._lock = threading.Lock()

    def write(self, start: int, values: np.ndarray) -> None:
        """Writes rows from `start` on."""
        if self._file is None:
            return
        data, offset = values.data.cast("B"), self._first + start * self._row_bytes
        while len(data):
            count = self._write_some(self._file, data, offset)
            data, offset = data[count:], offset + count

    def _write_some(self, file: int, data: memoryview, offset: int) -> int:
        """Writes as many bytes as the system takes at once, and tells how many."""
        if hasattr(os, "pwrite"):
            return os.pwrite(file, data, offset)
        with self._lock:  # Windows has no pwrite; threads share the position in the file, processes do not
            os.lseek(file, offset, os.SEEK_SET)
            return os.write(file, data)

    def close(self) -> None:
        """Makes sure that all is on the disk."""
        if self._file is not None:
            os.fsync(self._file)
            os.close(self._file)
