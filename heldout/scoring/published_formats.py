"""Result files in the formats that were published with the papers.

Feldman & Zhang (2020), influence and memorization of CIFAR-100 and ImageNet:

- class-wise influence npz: per class K `tr_classidx_K`, `tt_classidx_K` (original indices) and `infl_matrix_classK`
  [n_train_K, n_test_K]; and `tr_labels` [N], `tt_labels` [M], `tr_mem` [N];
- high-influence pairs npz: `tr_idx`, `tt_idx`, `infl`, `mem`, one entry per pair;
- ImageNet index npz (read only): `tr_filenames`, `tr_labels`, `tt_filenames`, `tt_labels`, `tr_mem`.

Jiang et al. (2021), C-scores: npz with `labels` and `scores` in the original order of the data set; for MNIST a bare
npy [60000] in TFDS order (read only).

Labels prove the order: every reader of a file that carries labels takes the labels that are expected, and refuses a
file that has others. The MNIST file and the pairs carry none, so their order has to be taken on trust.
"""

from collections.abc import Callable, Iterable
import dataclasses
import os
import tokenize

import numpy as np

from zoo import errors, files, npz

# Rates and their differences may exceed their range by rounding, never by more.
_SLACK = 1e-6
_PAIR_MEMBERS = ("tr_idx", "tt_idx", "infl", "mem")
_NUM_MNIST = 60000
# Blocks of rows of subset influence, float32, for original indices of rows and of columns.
WithinClass = Callable[[np.ndarray, np.ndarray], Iterable[np.ndarray]]
# What NumPy's npy header parser raises over bytes that are not as promised.
_NPY_ERRORS = (ValueError, EOFError, SyntaxError, TypeError, KeyError, tokenize.TokenError, MemoryError, RecursionError)


@dataclasses.dataclass(frozen=True)
class ClassInfluence:
    """Subset influence within each class.

    Attributes:
        train_label: int64 [N].
        test_label: int64 [M].
        memorization: float64 [N] in [-1, 1]; NaN where not estimated.
        train_index: per class, int64 [n_train_K], original indices of the rows.
        test_index: per class, int64 [n_test_K], original indices of the columns.
        subset_influence: per class, floats [n_train_K, n_test_K] in [-1, 1]; positive helps.
    """

    train_label: np.ndarray
    test_label: np.ndarray
    memorization: np.ndarray
    train_index: dict[int, np.ndarray]
    test_index: dict[int, np.ndarray]
    subset_influence: dict[int, np.ndarray]


@dataclasses.dataclass(frozen=True)
class HighInfluencePairs:
    """Pairs of a memorized training example and a test example that it helps; arrays of equal length.

    Attributes:
        train_index: int64, original index.
        test_index: int64, original index.
        subset_influence: float64 in [-1, 1], of the pair; positive helps.
        memorization: float64 in [-1, 1], of the training example.
    """

    train_index: np.ndarray
    test_index: np.ndarray
    subset_influence: np.ndarray
    memorization: np.ndarray


@dataclasses.dataclass(frozen=True)
class ImageNetIndex:
    """Which ImageNet file each original index means: file names (str) and labels of train [N] and test [M],
    and `memorization` float64 [N].
    """

    train_filename: np.ndarray
    train_label: np.ndarray
    test_filename: np.ndarray
    test_label: np.ndarray
    memorization: np.ndarray


@dataclasses.dataclass(frozen=True)
class CScores:
    """Consistency scores: `label` int64 [N], `score` float64 [N] in [0, 1], NaN where not estimated."""

    label: np.ndarray
    score: np.ndarray


def write_class_influence(
    path: files.PathLike,
    within_class: WithinClass,
    memorization: np.ndarray,
    train_label: np.ndarray,
    test_label: np.ndarray,
) -> None:
    """Writes the class-wise influence npz, whole or not at all, in little memory.

    Args:
        path: the file to create or replace.
        within_class: given the original indices of the rows and columns of one class, yields consecutive blocks of
            rows of their subset influence, float32.
        memorization: floats [N].
        train_label: integers [N].
        test_label: integers [M].

    Raises:
        MismatchError: the shapes disagree.
    """
    if memorization.shape != train_label.shape:
        raise errors.MismatchError(
            f"memorization has shape {memorization.shape}, but train_label {train_label.shape}; expected the same"
        )
    with npz.StreamWriter(path) as writer:
        writer.array("tr_labels", train_label.astype(np.int64))
        writer.array("tt_labels", test_label.astype(np.int64))
        writer.array("tr_mem", memorization.astype(np.float64))
        for label in _classes(train_label, test_label):
            rows, columns = np.flatnonzero(train_label == label), np.flatnonzero(test_label == label)
            writer.array(f"tr_classidx_{label}", rows)
            writer.array(f"tt_classidx_{label}", columns)
            shape = (len(rows), len(columns))
            writer.blocks(f"infl_matrix_class{label}", np.float32, shape, within_class(rows, columns))


def _classes(train_label: np.ndarray, test_label: np.ndarray) -> list[int]:
    return [int(label) for label in np.union1d(train_label, test_label)]


def read_class_influence(
    path: files.PathLike, *, train_label: np.ndarray | None = None, test_label: np.ndarray | None = None
) -> ClassInfluence:
    """Reads the class-wise influence npz; the matrices are memory-mapped where they are stored uncompressed.

    Args:
        path: the file.
        train_label: expected labels [N] in original order; None to take the file's word.
        test_label: expected labels [M].

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: a member is missing, has another shape or kind than the rest demands, or indices that are
            not those of the class.
        MismatchError: the labels are not the expected ones.
    """
    head = npz.read(path, ["tr_labels", "tt_labels", "tr_mem"])
    train, test = (_integers(path, name, head[name]) for name in ("tr_labels", "tt_labels"))
    memorization = _rates(path, "tr_mem", head["tr_mem"], len(train), -1)
    _check_labels(path, "tr_labels", train, train_label)
    _check_labels(path, "tt_labels", test, test_label)
    classes = _classes(train, test)
    names = [[f"tr_classidx_{label}", f"tt_classidx_{label}", f"infl_matrix_class{label}"] for label in classes]
    matrices = [name for _, _, name in names]
    members = npz.read(path, [name for three in names for name in three], memory_map=matrices)
    result = ClassInfluence(train, test, memorization, {}, {}, {})
    for label, (row_name, column_name, matrix_name) in zip(classes, names, strict=True):
        result.train_index[label] = _class_index(path, row_name, members[row_name], train, label)
        result.test_index[label] = _class_index(path, column_name, members[column_name], test, label)
        matrix = members[matrix_name]
        shape = (len(result.train_index[label]), len(result.test_index[label]))
        if matrix.shape != shape or matrix.dtype.kind != "f":
            raise _damaged(path, matrix_name, matrix, f"floats of shape {shape}")
        result.subset_influence[label] = matrix
    return result


def _class_index(path: files.PathLike, name: str, index: np.ndarray, label: np.ndarray, number: int) -> np.ndarray:
    index = _integers(path, name, index)
    if not np.array_equal(np.sort(index), np.flatnonzero(label == number)):
        raise errors.DamagedFileError(f"{path}: {name} is not the list of the examples with label {number}")
    return index


def write_high_influence_pairs(path: files.PathLike, pairs: HighInfluencePairs) -> None:
    """Writes the high-influence pairs npz, whole or not at all."""
    columns = (pairs.train_index, pairs.test_index, pairs.subset_influence, pairs.memorization)
    dtypes = (np.int64, np.int64, np.float64, np.float64)
    npz.write(path, {n: np.asarray(c, d) for n, c, d in zip(_PAIR_MEMBERS, columns, dtypes, strict=True)})


def read_high_influence_pairs(path: files.PathLike) -> HighInfluencePairs:
    """Reads the high-influence pairs npz, in the file's order.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: a member is missing or unsound, the lengths differ, an index is negative, a pair is there
            twice, or a training example has two memorization values.
    """
    members = npz.read(path, _PAIR_MEMBERS)
    train, test = (_integers(path, name, members[name]) for name in _PAIR_MEMBERS[:2])
    subset_influence, memorization = (_rates(path, name, members[name], len(train), -1) for name in _PAIR_MEMBERS[2:])
    if len(test) != len(train):
        raise _damaged(path, "tt_idx", test, f"as many entries as tr_idx has, {len(train)}")
    if min(train.min(initial=0), test.min(initial=0)) < 0:
        raise errors.DamagedFileError(f"{path}: tr_idx or tt_idx holds negative indices")
    if len(np.unique(np.stack([train, test]), axis=1).T) != len(train):
        raise errors.DamagedFileError(f"{path}: a pair of tr_idx and tt_idx is there twice")
    _, first, inverse = np.unique(train, return_index=True, return_inverse=True)
    if not np.array_equal(memorization, memorization[first][inverse], equal_nan=True):
        raise errors.DamagedFileError(f"{path}: mem gives one training example two values")
    return HighInfluencePairs(train, test, subset_influence, memorization)


def read_imagenet_index(path: files.PathLike) -> ImageNetIndex:
    """Reads the ImageNet index npz.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: a member is missing, unsound, or of another length than its companions.
    """
    members = npz.read(path, ["tr_filenames", "tr_labels", "tt_filenames", "tt_labels", "tr_mem"])
    labels = {side: _integers(path, f"{side}_labels", members[f"{side}_labels"]) for side in ("tr", "tt")}
    names = {}
    for side, label in labels.items():
        name = members[f"{side}_filenames"]
        if name.shape != label.shape or name.dtype.kind not in "SU":
            raise _damaged(path, f"{side}_filenames", name, f"strings of shape {label.shape}")
        names[side] = _text(path, f"{side}_filenames", name)
    memorization = _rates(path, "tr_mem", members["tr_mem"], len(labels["tr"]), -1)
    return ImageNetIndex(names["tr"], labels["tr"], names["tt"], labels["tt"], memorization)


def _text(path: files.PathLike, name: str, array: np.ndarray) -> np.ndarray:
    try:
        return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    except UnicodeDecodeError as error:
        raise errors.DamagedFileError(f"{path}: {name} is not UTF-8 ({error})") from error


def write_cscores(path: files.PathLike, scores: CScores) -> None:
    """Writes the C-score npz, whole or not at all.

    Raises:
        MismatchError: labels and scores differ in shape.
    """
    if scores.label.shape != scores.score.shape:
        raise errors.MismatchError(f"label has shape {scores.label.shape}, but score {scores.score.shape}")
    npz.write(path, {"labels": scores.label.astype(np.int64), "scores": scores.score.astype(np.float64)})


def read_cscores(path: files.PathLike, *, label: np.ndarray | None = None) -> CScores:
    """Reads a C-score npz.

    Args:
        path: the file.
        label: expected labels [N] in original order; None to take the file's word.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: a member is missing or unsound, or the lengths differ.
        MismatchError: the labels are not the expected ones.
    """
    members = npz.read(path, ["labels", "scores"])
    labels = _integers(path, "labels", members["labels"])
    score = _rates(path, "scores", members["scores"], len(labels), 0)
    _check_labels(path, "labels", labels, label)
    return CScores(labels, score)


def read_mnist_cscores(path: files.PathLike) -> np.ndarray:
    """Reads the MNIST C-scores, float64 [60000] in [0, 1], in TFDS order, which the file cannot prove.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is not an npy file of 60000 scores.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115 (closed by the with below)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise errors.MissingFileError(f"{path}: no such file") from error
    with stream:
        try:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError("expected npy version 1.0")
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        except _NPY_ERRORS as error:
            raise errors.DamagedFileError(f"{path}: not a sound npy file ({error}); download it again") from error
        num_bytes = os.fstat(stream.fileno()).st_size - stream.tell()
        if shape != (_NUM_MNIST,) or dtype.kind != "f" or num_bytes != _NUM_MNIST * dtype.itemsize:
            raise errors.DamagedFileError(
                f"{path}: dtype {dtype}, shape {shape} and {num_bytes} bytes, expected floats of shape {(_NUM_MNIST,)}"
            )
        return _rates(path, "the array", np.frombuffer(stream.read(), dtype), _NUM_MNIST, 0)


def _damaged(path: files.PathLike, name: str, array: np.ndarray, expected: str) -> errors.DamagedFileError:
    return errors.DamagedFileError(
        f"{path}: {name} has dtype {array.dtype} and shape {array.shape}, expected {expected}; restore the file"
    )


def _integers(path: files.PathLike, name: str, array: np.ndarray) -> np.ndarray:
    """A vector of integers as int64."""
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise _damaged(path, name, array, "a vector of integers")
    if array.dtype == np.uint64 and array.max(initial=0) > np.iinfo(np.int64).max:
        raise errors.DamagedFileError(f"{path}: {name} holds {array.max()}, which is no index or label")
    return array.astype(np.int64)


def _rates(path: files.PathLike, name: str, array: np.ndarray, size: int, low: int) -> np.ndarray:
    """A vector of `size` floats in [low, 1] or NaN, as float64."""
    if array.shape != (size,) or array.dtype.kind != "f":
        raise _damaged(path, name, array, f"floats of shape {(size,)}")
    array = array.astype(np.float64)
    outside = (array < low - _SLACK) | (array > 1 + _SLACK)
    if outside.any():
        index = int(np.flatnonzero(outside)[0])
        raise errors.DamagedFileError(f"{path}: {name}[{index}] is {array[index]}, expected {low} to 1 or NaN")
    return array


def _check_labels(path: files.PathLike, name: str, found: np.ndarray, expected: np.ndarray | None) -> None:
    if expected is None:
        return
    if found.shape != np.shape(expected):
        raise errors.MismatchError(
            f"{path}: {name} has {len(found)} labels, expected {len(expected)}: it is of another data set"
        )
    if not np.array_equal(found, expected):
        index = int(np.flatnonzero(found != expected)[0])
        raise errors.MismatchError(
            f"{path}: {name}[{index}] is {found[index]}, expected {expected[index]}: it is in another order, "
            "or of another data set"
        )
