"""Inverse-Hessian test gradients ("s_test") and training gradients ("grad_z") in files, for who asks for them.

    <save_pth>/store.json                what they are of; another computation is refused
    <save_pth>/s_test-<position>.npy     [b, P]: (C + damping I)^-1 grad m_t of test examples from this position on
    <save_pth>/grad_z-<position>.npy     [B, P]: gradients of the loss of training examples from this position on

Together they take 4 P bytes for every example, which is said before anything is written, and refused where it is more
than was allowed.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import examples, fitted_curvature
from scripts.attribution import influence_config, model_sources
from zoo import errors, files

_RECORD = "store.json"
# Rows of a file of training gradients: what a kill can cost.
_PART_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True, eq=False)
class GradientStore:
    """Where the gradients of one computation are kept.

    Attributes:
        folder: `save_pth`.
        train: the training examples.
        keeps_train: whether their gradients are kept, too.
        rows: of a file of them.
    """

    folder: pathlib.Path
    train: examples.Examples
    keeps_train: bool
    rows: int

    def prepare(self, fitted: fitted_curvature.FittedCurvature, advance: Callable[[int, int], None]) -> None:
        """Writes the gradients of the training examples that are not there yet."""
        for start in range(0, len(self.train) if self.keeps_train else 0, self.rows):
            path = self._train_path(start)
            if not path.exists():
                part = self.train.take(slice(start, min(start + self.rows, len(self.train))))
                _write(path, np.concatenate(list(fitted.train_gradients(part))))
            advance(min(start + self.rows, len(self.train)), len(self.train))

    def solutions(
        self, fitted: fitted_curvature.FittedCurvature, test: examples.Examples, start: int, of: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(values [b, P], residuals [b], converged [b]) of a block of test examples, from the files if they are there.

        Args:
            fitted: the curvature.
            test: the block.
            start: position of its first example among those that were chosen.
            of: "loss" or "measured".
        """
        path = self.folder / f"s_test-{start}.npz"
        values_path = path.with_suffix(".npy")
        if path.exists() and values_path.exists():
            with np.load(path) as stored:
                if len(stored["residuals"]) == len(test):
                    return np.load(values_path), stored["residuals"], stored["converged"]
        found = list(fitted.solutions(test, of))
        values = np.concatenate([one.values.numpy() for one in found])
        residuals = np.concatenate([one.residuals for one in found])
        converged = np.concatenate([one.converged for one in found])
        _write(values_path, values)
        with files.write_whole(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, residuals=residuals, converged=converged)
        return values, residuals, converged

    def products(
        self,
        fitted: fitted_curvature.FittedCurvature,
        values: np.ndarray,
        advance: Callable[[int, int], None],
    ) -> np.ndarray:
        """[num_train, b], -(1/n) g_i . x_t of solutions x [b, P], from kept gradients or from new ones."""
        solutions = tf.convert_to_tensor(values)
        out = np.empty((len(self.train), len(values)), values.dtype)
        if not self.keeps_train:
            fitted.multiply(self.train, solutions, out, advance)
            return out
        for start in range(0, len(self.train), self.rows):
            rows = np.load(self._train_path(start), mmap_mode="r")
            np.matmul(rows, -values.T / fitted.num_train, out=out[start : start + len(rows)])
            advance(min(start + self.rows, len(self.train)), len(self.train))
        return out

    def _train_path(self, start: int) -> pathlib.Path:
        return self.folder / f"grad_z-{start}.npy"


def open_store(
    config: influence_config.InfluenceConfig, model: model_sources.Loaded, num_test: int, identity: Mapping[str, Any]
) -> GradientStore | None:
    """The store, if one is asked for.

    Args:
        config: names the folder and says how much it may take.
        model: with its training examples.
        num_test: test examples whose solutions are kept.
        identity: what all of it is of.

    Raises:
        InvalidValueError: it would take more than was allowed.
        DiskSpaceError: it would fill the disk.
        MismatchError: the folder is of another computation.
    """
    if config.save_pth is None:
        return None
    folder, size = pathlib.Path(config.save_pth), model.target.num_parameters * model.target.dtype.size
    keeps_train = config.mode == influence_config.ALL_GRADIENTS
    num_bytes = size * (num_test + (len(model.train) if keeps_train else 0))
    if num_bytes > config.max_save_gb * 1e9:
        raise errors.InvalidValueError(
            f"save_pth {folder}: gradients of {model.target.num_parameters} parameters for {num_test} test "
            f"{f'and {len(model.train)} training ' if keeps_train else ''}examples take {files.size_text(num_bytes)}, "
            f"and max_save_gb is {config.max_save_gb:g}; raise it, choose fewer parameters, or keep none"
        )
    record = folder / _RECORD
    if record.exists():
        if files.read_json(record) != dict(identity):
            raise errors.MismatchError(
                f"{folder}: holds gradients of another computation; choose another folder, or delete it"
            )
    else:
        files.check_room(folder, num_bytes, f"the gradients in {folder}")
        files.write_json(record, identity)
    return GradientStore(folder, model.train, keeps_train, max(1, _PART_BYTES // size))


def _write(path: pathlib.Path, array: np.ndarray) -> None:
    with files.write_whole(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
