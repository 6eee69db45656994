"""Columns of scores by training example, from an npz file or a table.

A file has train_index, whole numbers [n], and beside it columns of a number for each of these examples. Of an npz file
all members of that shape are columns, of Parquet and CSV all columns of numbers; but for what says how sure another
column is, such as its standard error. known_scores.py lists files that are read without train_index.
"""

from collections.abc import Collection, Mapping
import dataclasses
import pathlib

import numpy as np

from scripts.unique_information import column_files, known_scores
from zoo import errors, files, npz

INDEX_NAME = known_scores.INDEX_NAME
# Of the example, not of how it scores.
_LABELS = ("train_label", "label")
_NO_SCORES = (*_LABELS, "clean_train_label", "clean_label", "is_changed")
_POSITIONS = "_index"


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreColumns:
    """Scores of some training examples.

    Attributes:
        path: where they were read from.
        train_index: int64 [n], positions in the training split, each once.
        columns: float64 [n] by name; NaN where there is no value.
        label: int64 [n], labels that the file has beside the scores; None where it has none.
    """

    path: pathlib.Path
    train_index: np.ndarray
    columns: dict[str, np.ndarray]
    label: np.ndarray | None = None

    def column(self, name: str | None) -> np.ndarray:
        """One column; None for the only one.

        Raises:
            InvalidValueError: there is no such column, or there are several and none is named.
        """
        if name is None and len(self.columns) == 1:
            return next(iter(self.columns.values()))
        if name not in self.columns:
            asked = "names none of them" if name is None else f"--column={name} is none of them"
            raise errors.InvalidValueError(f"{self.path}: has the columns {', '.join(self.columns)}; {asked}")
        return self.columns[name]

    def at(self, train_index: np.ndarray) -> dict[str, np.ndarray]:
        """The columns at other examples, float64; NaN where an example has no score."""
        order = np.argsort(self.train_index)
        places = np.searchsorted(self.train_index, train_index, sorter=order)
        places = order[np.minimum(places, len(order) - 1)]
        known = self.train_index[places] == train_index
        return {name: np.where(known, values[places], np.nan) for name, values in self.columns.items()}


def read(path: files.PathLike) -> ScoreColumns:
    """Reads scores.

    Args:
        path: ends in .npz, .parquet or .csv; or the published .npy of MNIST.

    Raises:
        MissingFileError: there is no such file.
        InvalidValueError: it has another ending, no train_index, or no column of numbers; an example is there twice.
        DamagedFileError: it cannot be read.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.MissingFileError(f"{path}: no such file; expected scores as .npz, .parquet or .csv")
    readers = {".npz": _npz, ".npy": known_scores.of_mnist, **dict.fromkeys(column_files.TABLES, _table)}
    if path.suffix not in readers:
        raise errors.InvalidValueError(f"{path}: expected the ending .npz, .parquet or .csv; rename or convert it")
    arrays = readers[path.suffix](path)
    index = arrays.pop(INDEX_NAME, None)
    if index is None or index.dtype.kind not in "iu" or index.ndim != 1 or not len(index):
        raise errors.InvalidValueError(
            f"{path}: has no column {INDEX_NAME} of whole numbers, expected the position of each example in the "
            f"training split; its other columns are {', '.join(arrays) or 'none'}"
        )
    columns = {
        name: array.astype(np.float64)
        for name, array in arrays.items()
        if array.dtype.kind in "iufb" and array.shape == index.shape and _is_score(name, arrays)
    }
    if not columns or len(np.unique(index)) < len(index):
        raise errors.InvalidValueError(
            f"{path}: has {len(columns)} columns of numbers for {len(np.unique(index))} examples in {len(index)} rows; "
            "expected at least one column, and each example once"
        )
    return ScoreColumns(path, index.astype(np.int64), columns, _label(arrays, index.shape))


def _label(arrays: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray | None:
    for name in _LABELS:
        if name in arrays and arrays[name].dtype.kind in "iu" and arrays[name].shape == shape:
            return arrays[name].astype(np.int64)
    return None


def _is_score(name: str, names: Collection[str]) -> bool:
    return name not in _NO_SCORES and not name.endswith(_POSITIONS) and known_scores.is_score(name, names)


def _npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    names = column_files.npz_names(path)
    known = known_scores.of_npz(path, names)
    return npz.read(path, names) if known is None else known


def _table(path: pathlib.Path) -> dict[str, np.ndarray]:
    return known_scores.of_table(path, column_files.table(path))
