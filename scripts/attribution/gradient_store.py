"""Inverse-Hessian test gradients ("s_test") and training gradients ("grad_z") in files, for who asks for them.

    <save_pth>/s_test-<computation>/<position>.npy   [b, P]: (C + damping I)^-1 grad m_t of test examples from this
                                                     position on; beside it .npz, residuals and converged
    <save_pth>/grad_z-<gradients>/<position>.npy     [B, P]: gradients of the loss of training examples from it on

The names in angle brackets are digests of what they are of: computations share a folder, and gradients of training
examples serve for any solver. Together they take 4 P bytes for every example, which is said before anything is written,
and refused where it is more than was allowed.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import examples, fitted_curvature
from scripts.attribution import influence_config, influence_files, model_sources
from zoo import errors, files, npz

# Rows of a file of training gradients: what a kill can cost.
_PART_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True, eq=False)
class GradientStore:
    """Where the gradients of one computation are kept.

    Attributes:
        solved: folder of s_test.
        trained: folder of grad_z; None where they are not kept.
        train: the training examples.
        num_parameters: P.
        dtype: of all numbers.
        num_bytes: of all files together.
    """

    solved: pathlib.Path
    trained: pathlib.Path | None
    train: examples.Examples
    num_parameters: int
    dtype: np.dtype
    num_bytes: int

    @property
    def _rows(self) -> int:
        return max(1, _PART_BYTES // (self.num_parameters * self.dtype.itemsize))

    def make(self) -> None:
        """Makes the folders.

        Raises:
            DiskSpaceError: the files would fill the disk.
        """
        if not self.solved.exists():
            files.check_room(self.solved.parent, self.num_bytes, f"the gradients in {self.solved.parent}")
        for folder in (self.solved, self.trained):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                files.remove_stale_temporaries(folder)

    def is_complete(self, starts: Sequence[int]) -> bool:
        """Whether nothing is missing, given the first positions of all blocks of test examples."""
        paths = [self.solved / f"{start}.npy" for start in starts]
        paths += [] if self.trained is None else [self.trained / f"{start}.npy" for start in self._train_starts]
        return all(path.exists() for path in paths)

    @property
    def _train_starts(self) -> range:
        return range(0, len(self.train), self._rows)

    def prepare(self, fitted: fitted_curvature.FittedCurvature, advance: Callable[[int, int], None]) -> None:
        """Writes the gradients of the training examples that are not there yet, batch by batch."""
        for start in self._train_starts if self.trained is not None else ():
            assert self.trained is not None
            path, stop = self.trained / f"{start}.npy", min(start + self._rows, len(self.train))
            if not path.exists():
                with files.write_whole(path) as temporary:
                    shape = (stop - start, self.num_parameters)
                    out = np.lib.format.open_memmap(temporary, mode="w+", dtype=self.dtype, shape=shape)
                    done = 0
                    for rows in fitted.train_gradients(self.train.take(slice(start, stop))):
                        out[done : done + len(rows)] = rows
                        done += len(rows)
                    out.flush()
                    del out
            advance(stop, len(self.train))

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
        values_path, path = self.solved / f"{start}.npy", self.solved / f"{start}.npz"
        if values_path.exists() and path.exists():
            values, stored = np.load(values_path), npz.read(path, ["residuals", "converged"])
            if len(values) == len(stored["residuals"]) == len(test):
                return values, stored["residuals"], stored["converged"]
        found = list(fitted.solutions(test, of))
        values = np.concatenate([one.values.numpy() for one in found])
        residuals = np.concatenate([one.residuals for one in found])
        converged = np.concatenate([one.converged for one in found])
        npz.write(path, {"residuals": residuals, "converged": converged})
        with files.write_whole(values_path) as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array(file, values, allow_pickle=False)
        return values, residuals, converged

    def products(
        self,
        fitted: fitted_curvature.FittedCurvature,
        values: np.ndarray,
        advance: Callable[[int, int], None],
    ) -> np.ndarray:
        """[num_train, b], -(1/n) g_i . x_t of solutions x [b, P], from kept gradients or from new ones."""
        out = np.empty((len(self.train), len(values)), values.dtype)
        if self.trained is None:
            fitted.multiply(self.train, tf.convert_to_tensor(values), out, advance)
            return out
        for start in self._train_starts:
            rows = np.load(self.trained / f"{start}.npy", mmap_mode="r")
            np.matmul(rows, -values.T / fitted.num_train, out=out[start : start + len(rows)])
            advance(min(start + self._rows, len(self.train)), len(self.train))
        return out


def find(
    config: influence_config.InfluenceConfig,
    model: model_sources.Loaded,
    num_test: int,
    identity: Mapping[str, Any],
    predictions: Sequence[float],
) -> GradientStore | None:
    """The store, if one is asked for; nothing is written yet.

    Args:
        config: names the folder and says how much it may take.
        model: with its training examples.
        num_test: test examples whose solutions are kept.
        identity: what the solutions are of.
        predictions: of the first examples; they tell weights apart that are not differentiated.

    Raises:
        InvalidValueError: it would take more than was allowed.
    """
    if config.save_pth is None:
        return None
    target, folder = model.target, pathlib.Path(config.save_pth)
    keeps_train = config.mode == influence_config.ALL_GRADIENTS
    num_bytes = target.num_parameters * target.dtype.size * (num_test + (len(model.train) if keeps_train else 0))
    if num_bytes > config.max_save_gb * 1e9:
        raise errors.InvalidValueError(
            f"save_pth {folder}: gradients of {target.num_parameters} parameters for {num_test} test "
            f"{f'and {len(model.train)} training ' if keeps_train else ''}examples take {files.size_text(num_bytes)}, "
            f"and max_save_gb is {config.max_save_gb:g}; raise it, choose fewer parameters, or keep none"
        )
    coarse = [f"{value:.3g}" for value in predictions]
    solved = influence_files.digest({"identity": identity, "predictions": coarse})
    trained = influence_files.digest({"target": identity["target"], "predictions": coarse})
    return GradientStore(
        folder / f"s_test-{solved}",
        folder / f"grad_z-{trained}" if keeps_train else None,
        model.train,
        target.num_parameters,
        np.dtype(target.dtype.as_numpy_dtype),
        num_bytes,
    )
