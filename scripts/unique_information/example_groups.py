"""Which group each training example belongs to: by its label, subclass or source, or by a file.

label         class of the experiment, as trained with
clean_label   class of the experiment, before labels were changed
subclass      label of the data set, of which a class of --coarse_labels has several
source        member train__source [N] of the npz file that the data set is read from: where each example comes from
FILE          npz, Parquet or CSV with train_index and a column of whole numbers or texts
"""

import dataclasses
import pathlib
import re

import numpy as np

from heldout.datasets import registry
from heldout.training import leave_out_config, leave_out_files
from scripts.unique_information import column_files
from zoo import errors, npz

BY = ("label", "clean_label", "subclass", "source")
SOURCE_NAME = "train__source"
_ORDER = "train__index"
_INDEX = "train_index"
_NPZ = "npz:"
_MEMBERS = {"label": "train_label", "clean_label": "clean_train_label"}


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleGroups:
    """Groups of n training examples.

    Attributes:
        name: what they are groups by.
        train_index: int64 [n], positions in the training split.
        group: str [n].
    """

    name: str
    train_index: np.ndarray
    group: np.ndarray

    def names(self) -> list[str]:
        """All groups, in order."""
        found = set(self.group.tolist())
        if all(re.fullmatch("-?[0-9]+", name) for name in found):
            return sorted(found, key=int)
        return sorted(found)


def of_experiment(folder: str, by: str, data_dir: str | None = None) -> ExampleGroups:
    """Groups of the training examples of an experiment.

    Args:
        folder: that `ground_truth_effects` has written.
        by: one of `BY`.
        data_dir: of prepared data sets, for subclasses.

    Raises:
        MissingFileError, DamagedFileError: of the folder, the data set, or its member train__source.
        InvalidValueError: the data set is no npz file, and sources are asked for.
        MismatchError: the data set is another than that of the experiment.
    """
    config, full_run = leave_out_config.read(folder), leave_out_files.read_full_run(folder)
    if full_run is None:
        raise errors.MissingFileError(
            f"{pathlib.Path(folder) / leave_out_files.FULL_RUN_NAME}: no such file; expected a folder that "
            "ground_truth_effects has written"
        )
    index = full_run[_INDEX]
    if by in _MEMBERS:
        return ExampleGroups(by, index, full_run[_MEMBERS[by]].astype(str))
    label = _labels(config, data_dir)
    if by == "subclass":
        return ExampleGroups(by, index, label[index].astype(str))
    if not config.dataset.startswith(_NPZ):
        raise errors.InvalidValueError(
            f"--by=source: the examples come from --dataset={config.dataset}, which does not say sources; give an npz "
            f"data set with the member {SOURCE_NAME}, or --groups with a file"
        )
    path = pathlib.Path(config.dataset.removeprefix(_NPZ))
    stored = npz.read(path, [SOURCE_NAME], [_ORDER])
    source = stored[SOURCE_NAME]
    if source.shape != label.shape or source.dtype.kind not in "iubU":
        raise errors.InvalidValueError(
            f"{path}: {SOURCE_NAME} has dtype {source.dtype} and shape {source.shape}, expected a whole number or text "
            f"for each of the {len(label)} training examples"
        )
    if _ORDER in stored:  # rows are put back into the original order
        source = source[np.argsort(stored[_ORDER])]
    return ExampleGroups(by, index, source[index].astype(str))


def _labels(config: leave_out_config.LeaveOutConfig, data_dir: str | None) -> np.ndarray:
    """Labels of all training examples, of the data set that the experiment was of."""
    dataset = registry.load(config.dataset, data_dir)
    found, expected = dataset.fingerprint(), config.fingerprint or {}
    if any(expected.get(name, value) != value for name, value in found.items()):
        raise errors.MismatchError(
            f"--dataset={config.dataset}: not the data of the experiment: found {found}, expected those of "
            f"{dict(expected)}; put the data set back that it was begun with"
        )
    return dataset.train.label


def of_file(path: pathlib.Path, column: str | None) -> ExampleGroups:
    """Groups by a file.

    Args:
        path: ends in .npz, .parquet or .csv.
        column: of the groups; None for the only one beside train_index.

    Raises:
        MissingFileError, DamagedFileError: of the file.
        InvalidValueError: it has no train_index, not this column, or an example twice.
    """
    arrays = _arrays(path)
    index = arrays.pop(_INDEX, np.zeros(0))
    names = [name for name, one in arrays.items() if one.shape == index.shape and one.dtype.kind in "iubUO"]
    chosen = column if column is not None else (names[0] if len(names) == 1 else None)
    if index.dtype.kind not in "iu" or index.ndim != 1 or chosen not in names:
        raise errors.InvalidValueError(
            f"{path}: expected {_INDEX}, whole numbers, and beside it a column of whole numbers or texts, named by "
            f"--group_column where there are several; asked for {column or 'the only one'}, found "
            f"{', '.join(names) or 'none'}"
        )
    if len(np.unique(index)) < len(index):
        raise errors.InvalidValueError(f"{path}: {_INDEX} names an example twice; name each once")
    return ExampleGroups(chosen, index.astype(np.int64), arrays[chosen].astype(str))


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise errors.MissingFileError(f"{path}: no such file; expected groups as .npz, .parquet or .csv")
    if path.suffix == ".npz":
        return npz.read(path, column_files.npz_names(path))
    if path.suffix in column_files.TABLES:
        return column_files.table(path)
    raise errors.InvalidValueError(f"{path}: expected the ending .npz, .parquet or .csv; rename or convert it")
