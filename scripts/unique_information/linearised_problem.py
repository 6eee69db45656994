"""A linearised network as arrays: kernel or features, outputs at the linearisation and targets; no TensorFlow.

In dual form `train_rows` is the kernel K = J J^T [n k, n k] and `val_rows` K* = J* J^T [m k, n k]; in primal form they
are features Phi [n k, D] and Phi* [m k, D] with K = Phi Phi^T: the Jacobian itself, or a projection of it.
"""

import dataclasses

import numpy as np

from scripts.unique_information import array_store
from zoo import errors, files

TRAIN_NAME, VAL_NAME = "train", "val"
_SMALL = ("train_output", "val_output", "train_target", "val_target")
_ROW_BLOCK = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """The arrays; matrices may be memory maps.

    Attributes:
        form: "dual" or "primal".
        train_rows: see the module; row = example * k + output.
        val_rows: of validation examples.
        train_index: int64 [n], what training examples are called.
        val_index: int64 [m].
        train_output: float64 [n, k], f0.
        val_output: float64 [m, k].
        train_target: float64 [n, k], y.
        val_target: float64 [m, k].
        accuracy: relative accuracy of the entries of the matrices.
    """

    form: str
    train_rows: np.ndarray
    val_rows: np.ndarray
    train_index: np.ndarray
    val_index: np.ndarray
    train_output: np.ndarray
    val_output: np.ndarray
    train_target: np.ndarray
    val_target: np.ndarray
    accuracy: float

    @property
    def num_train(self) -> int:
        """N."""
        return len(self.train_output)

    @property
    def num_outputs(self) -> int:
        """K."""
        return self.train_output.shape[1]

    @property
    def residuals(self) -> np.ndarray:
        """r0 = f0 - y, [n, k]."""
        return self.train_output - self.train_target

    def take(self, places: np.ndarray) -> "Problem":
        """The problem of some of the training examples, from the same kernel: as if the others had never been there.

        Args:
            places: different places among the training examples; their order is that of the result.
        """
        places = np.asarray(places)
        rows = (places[:, None] * self.num_outputs + np.arange(self.num_outputs)).ravel()
        if self.form == "dual":
            train, val = np.asarray(self.train_rows)[np.ix_(rows, rows)], np.asarray(self.val_rows)[:, rows]
        else:
            train, val = np.asarray(self.train_rows)[rows], self.val_rows
        return dataclasses.replace(
            self,
            train_rows=train,
            val_rows=val,
            train_index=self.train_index[places],
            train_output=self.train_output[places],
            train_target=self.train_target[places],
        )


def products(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Matrix @ vector, float64, block by block: a memory map is never in memory as a whole."""
    blocks = (matrix[start : start + _ROW_BLOCK] for start in range(0, len(matrix), _ROW_BLOCK))
    return np.concatenate([np.asarray(block, np.float64) @ vector for block in blocks])


def transposed_products(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """matrix.T @ vector, float64, block by block."""
    total = np.zeros(matrix.shape[1])
    for start in range(0, len(matrix), _ROW_BLOCK):
        rows = slice(start, start + _ROW_BLOCK)
        total += np.asarray(matrix[rows], np.float64).T @ vector[rows]
    return total


def squared_norms(features: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """|Phi_i^T a_i|^2 of each example [n], from Phi [n k, D] and a [n, k], block by block."""
    num_outputs, found = parts.shape[1], []
    size = max(1, _ROW_BLOCK // num_outputs)
    for start in range(0, len(parts), size):
        some = parts[start : start + size]
        block = np.asarray(features[start * num_outputs : (start + len(some)) * num_outputs], np.float64)
        found.append(np.sum(np.einsum("nkd,nk->nd", block.reshape(*some.shape, -1), some) ** 2, axis=1))
    return np.concatenate(found)


def gram(features: np.ndarray) -> np.ndarray:
    """Phi^T Phi [D, D] float64, block by block."""
    total = np.zeros((features.shape[1], features.shape[1]))
    for start in range(0, len(features), _ROW_BLOCK):
        block = np.asarray(features[start : start + _ROW_BLOCK], np.float64)
        total += block.T @ block
    return total


def read(folder: files.PathLike, *, verify: bool = False) -> Problem:
    """The problem that is stored in a folder; matrices are read-only memory maps.

    Args:
        folder: that `compute_unique_information` calls kernel.
        verify: read all of it and compare the SHA-256.

    Raises:
        MissingFileError: there is none, or it is not complete.
        DamagedFileError: it is unsound.
    """
    store = array_store.read(folder, verify=verify)
    needed = {TRAIN_NAME, VAL_NAME, "train_index", "val_index", *_SMALL}
    if store.facts.get("form") not in ("dual", "primal") or not needed <= set(store.arrays):
        raise errors.DamagedFileError(
            f"{folder}: holds {', '.join(store.arrays)}, expected a kernel or features of compute_unique_information"
        )
    return Problem(
        form=store.facts["form"],
        train_rows=store.arrays[TRAIN_NAME],
        val_rows=store.arrays[VAL_NAME],
        train_index=np.array(store.arrays["train_index"]),
        val_index=np.array(store.arrays["val_index"]),
        **{name: np.array(store.arrays[name], np.float64) for name in _SMALL},
        accuracy=float(store.facts["accuracy"]),
    )
