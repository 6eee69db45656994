"""The folder of networks that were trained with and without some training examples; needs no TensorFlow.

config.json             what decides the networks, see leave_out_config.py
checkpoints/step-0      the initialisation, a tf.train.Checkpoint as `zoo.checkpoints` writes it
checkpoints/step-T      the full network: nothing left out
full_run.npz            its data, predictions and losses
blocks/*.npz            effects of some groups each, written whole; a killed run goes on behind them
ground_truth.npz        the effects of all groups in the blocks

A change is that of the network without the group, less the full network: deleted minus full.
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import itertools
import pathlib

import numpy as np

from zoo import errors, files, npz

SCHEMA_VERSION = 1
FULL_RUN_NAME = "full_run.npz"
GROUND_TRUTH_NAME = "ground_truth.npz"
BLOCKS_NAME = "blocks"
CHECKPOINTS_NAME = "checkpoints"
# A group is a tuple of ascending positions in the training split of the data set.
Group = tuple[int, ...]
FULL_RUN_MEMBERS = (
    *("train_index", "train_label", "clean_train_label", "train_prediction"),
    *("val_index", "val_label", "val_prediction"),
    *("train_loss", "val_loss", "runs_per_group"),
    *("record_steps", "record_train_prediction", "record_val_prediction"),
)
_EFFECTS = (
    *("squared_weight_change", "squared_prediction_change", "squared_train_prediction_change"),
    *("self_effect", "prediction_change"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Effects:
    """What leaving out g groups does.

    Attributes:
        groups: of each, the ascending positions that were left out.
        squared_weight_change: float64 [g], |w_-i - w|^2 over all trained weights.
        squared_prediction_change: float64 [g], mean over the m validation examples of |f_-i(x) - f(x)|^2.
        squared_train_prediction_change: float64 [g], the same over all n training examples.
        self_effect: float32 [g, k], mean over the group of f_-i(x) - f(x).
        prediction_change: float32 [g, m, k], f_-i(x) - f(x) at the validation examples.
    """

    groups: tuple[Group, ...]
    squared_weight_change: np.ndarray
    squared_prediction_change: np.ndarray
    squared_train_prediction_change: np.ndarray
    self_effect: np.ndarray
    prediction_change: np.ndarray

    @property
    def train_index(self) -> np.ndarray | None:
        """The example of each group, int64 [g], where all groups are of one; else None."""
        if any(len(group) > 1 for group in self.groups):
            return None
        return np.array([group[0] for group in self.groups], np.int64)

    def take(self, order: Sequence[int]) -> "Effects":
        """Some of the groups, in an order."""
        arrays = {name: getattr(self, name)[list(order)] for name in _EFFECTS}
        return Effects(groups=tuple(self.groups[place] for place in order), **arrays)


def checkpoint_prefix(folder: files.PathLike, step: int) -> pathlib.Path:
    """What the file names of the checkpoint after so many steps begin with."""
    return pathlib.Path(folder) / CHECKPOINTS_NAME / f"step-{step}"


def joined(parts: Sequence[Effects]) -> Effects:
    """The groups of several in one, in ascending order."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _EFFECTS}
    whole = Effects(groups=tuple(group for part in parts for group in part.groups), **arrays)
    return whole.take(sorted(range(len(whole.groups)), key=lambda place: whole.groups[place]))


def write_full_run(folder: files.PathLike, arrays: dict[str, np.ndarray], config_sha256: str) -> None:
    """Writes full_run.npz, of the members `FULL_RUN_MEMBERS`."""
    members = {name: np.asarray(arrays[name]) for name in FULL_RUN_MEMBERS}
    npz.write(pathlib.Path(folder) / FULL_RUN_NAME, _head(config_sha256) | members)


def read_full_run(folder: files.PathLike, config_sha256: str | None = None) -> dict[str, np.ndarray] | None:
    """The members of full_run.npz; None where there is none.

    Args:
        folder: of the experiment.
        config_sha256: that it must be of; None for any.

    Raises:
        DamagedFileError: it is unsound, or of another experiment.
    """
    path = pathlib.Path(folder) / FULL_RUN_NAME
    return _read(path, FULL_RUN_MEMBERS, config_sha256) if path.exists() else None


def write_effects(path: pathlib.Path, effects: Effects, config_sha256: str, **more: np.ndarray) -> None:
    """Writes effects, whole or not at all.

    Args:
        path: of a block, or ground_truth.npz.
        effects: of some groups.
        config_sha256: of the experiment.
        more: members beside them.
    """
    index, lengths = effects.train_index, [len(group) for group in effects.groups]
    members = {
        **_head(config_sha256),
        **({} if index is None else {"train_index": index}),
        "group_train_index": np.array([one for group in effects.groups for one in group], np.int64),
        "group_offset": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        **{name: getattr(effects, name) for name in _EFFECTS},
        **more,
    }
    npz.write(path, members)


def read_effects(path: pathlib.Path, config_sha256: str | None = None) -> Effects:
    """What `write_effects` wrote.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is unsound, or of another experiment.
    """
    stored = _read(path, ("group_train_index", "group_offset", *_EFFECTS), config_sha256)
    flat, offset = stored.pop("group_train_index"), stored.pop("group_offset")
    num_groups = len(offset) - 1
    if num_groups < 1 or offset[-1] != len(flat) or any(len(array) != num_groups for array in stored.values()):
        raise errors.DamagedFileError(f"{path}: its members are not of one number of groups. {npz.REPAIR}")
    groups = tuple(tuple(map(int, flat[start:stop])) for start, stop in itertools.pairwise(offset))
    return Effects(groups=groups, **stored)


def block_path(folder: files.PathLike, groups: Sequence[Group]) -> pathlib.Path:
    """Where the effects of a block of groups go."""
    digest = hashlib.sha256(repr(tuple(groups)).encode()).hexdigest()[:16]
    return pathlib.Path(folder) / BLOCKS_NAME / f"{digest}.npz"


def read_blocks(folder: files.PathLike, config_sha256: str) -> list[Effects]:
    """All blocks that are there, by their file names.

    Raises:
        DamagedFileError: one is unsound, or of another experiment.
    """
    paths = sorted((pathlib.Path(folder) / BLOCKS_NAME).glob("[0-9a-f]*.npz"))
    return [read_effects(path, config_sha256) for path in paths]


def write_ground_truth(folder: files.PathLike, effects: Effects, full_run: dict[str, np.ndarray], sha256: str) -> None:
    """Writes ground_truth.npz.

    Args:
        folder: of the experiment.
        effects: of all groups.
        full_run: members of full_run.npz.
        sha256: of the config.
    """
    more = {"val_index": full_run["val_index"], "num_train": np.asarray(len(full_run["train_index"]))}
    if effects.train_index is not None:
        places = np.searchsorted(full_run["train_index"], effects.train_index)
        more |= {name: full_run[name][places] for name in ("train_label", "clean_train_label")}
    write_effects(pathlib.Path(folder) / GROUND_TRUTH_NAME, effects, sha256, **more)


def read_ground_truth(folder: files.PathLike) -> Effects:
    """The effects of ground_truth.npz; of a folder, or of the file itself.

    Raises:
        MissingFileError: there is none.
        DamagedFileError: it is unsound.
    """
    path = pathlib.Path(folder)
    path = path / GROUND_TRUTH_NAME if path.is_dir() else path
    if not path.is_file():
        raise errors.MissingFileError(f"{path}: no such file; expected what ground_truth_effects writes at its end")
    return read_effects(path)


def _head(config_sha256: str) -> dict[str, np.ndarray]:
    return {"schema_version": np.asarray(SCHEMA_VERSION), "config_sha256": np.asarray(config_sha256)}


def _read(path: pathlib.Path, names: Sequence[str], config_sha256: str | None) -> dict[str, np.ndarray]:
    stored = npz.read(path, ["schema_version", "config_sha256", *names])
    version, sha256 = stored.pop("schema_version"), stored.pop("config_sha256")
    if version != SCHEMA_VERSION or (config_sha256 is not None and str(sha256) != config_sha256):
        raise errors.DamagedFileError(
            f"{path}: schema version {version} of the experiment {sha256}, expected version {SCHEMA_VERSION}"
            f"{f' of {config_sha256}' if config_sha256 else ''}; delete it and run ground_truth_effects again"
        )
    return stored
