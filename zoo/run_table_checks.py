"""What must hold of the columns of a run table, wherever they come from."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo import errors, layout, packed_bits

_SHA256_BYTES = 32


def check(fields: Mapping[str, Any]) -> None:
    """Checks sizes, dtypes, shapes, spare bits and the order of the rows.

    Args:
        fields: the fields of a `run_table.RunTable` by name.

    Raises:
        InvalidValueError: something does not hold; the message says which column, what was found and expected.
    """
    num_train, num_test = fields["num_train"], fields["num_test"]
    if num_train < 1 or num_test < 1:
        raise errors.InvalidValueError(f"num_train is {num_train}, num_test {num_test}, expected 1 or more")
    _check_shapes(fields, num_train, num_test)
    for name, size in (
        ("subset_mask_bits", num_train),
        ("train_correctness_bits", num_train),
        ("test_correctness_bits", num_test),
    ):
        packed_bits.check_spare_bits(fields[name], size, name)
    _check_values(fields)
    _check_order(fields["subset_ratio"], fields["run_id"])


def joined_labels(name: str, label: np.ndarray | None, size: int, stored: np.ndarray | None) -> np.ndarray | None:
    """The labels given, held against those stored; None where there are neither.

    Args:
        name: train_label or test_label, for the messages.
        label: [size] integers by original index, or None to leave what is stored.
        size: N or M.
        stored: [size] int64, or None.

    Raises:
        MismatchError: the length or dtype is wrong, or a label differs from the stored one.
    """
    if label is None:
        return stored
    label = np.asarray(label)
    if label.shape != (size,) or label.dtype.kind not in "iu":
        raise errors.MismatchError(
            f"{name} has dtype {label.dtype} and shape {label.shape}, expected integers of shape {(size,)}"
        )
    label = label.astype(np.int64)
    if stored is not None and not np.array_equal(label, stored):
        index = int(np.flatnonzero(label != stored)[0])
        raise errors.MismatchError(
            f"{name}: example {index} has label {label[index]}, but the run table says {stored[index]}; "
            "use the data set, in the order, that the runs were trained on"
        )
    return label


def _check_shapes(fields: Mapping[str, Any], num_train: int, num_test: int) -> None:
    num_runs = fields["run_id"].size
    train_bytes, test_bytes = -(-num_train // 8), -(-num_test // 8)
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {
        "run_id": (np.int64, (num_runs,)),
        "subset_ratio": (np.float64, (num_runs,)),
        "subset_mask_bits": (np.uint8, (num_runs, train_bytes)),
        "train_correctness_bits": (np.uint8, (num_runs, train_bytes)),
        "test_correctness_bits": (np.uint8, (num_runs, test_bytes)),
        "source_sha256": (np.uint8, (num_runs, _SHA256_BYTES)),
        "source_size": (np.int64, (num_runs,)),
        "source_mtime_ns": (np.int64, (num_runs,)),
        "train_label": (np.int64, (num_train,)),
        "test_label": (np.int64, (num_test,)),
    }
    for name, (dtype, shape) in expected.items():
        array = fields[name]
        if array is None and name in ("train_label", "test_label"):
            continue
        if array.dtype != dtype or array.shape != shape:
            raise errors.InvalidValueError(
                f"{name} has dtype {array.dtype} and shape {array.shape}, expected {np.dtype(dtype)} and {shape}"
            )


def _check_values(fields: Mapping[str, Any]) -> None:
    subset_ratio = fields["subset_ratio"]
    if not ((subset_ratio > 0) & (subset_ratio < 1)).all():
        raise errors.InvalidValueError("subset_ratio holds values outside (0, 1)")
    for name in ("run_id", "source_size"):
        if (fields[name] < 0).any():
            raise errors.InvalidValueError(f"{name} holds negative values, the least is {fields[name].min()}")


def _check_order(subset_ratio: np.ndarray, run_id: np.ndarray) -> None:
    ratio_rises = subset_ratio[1:] > subset_ratio[:-1]
    ratio_stays = subset_ratio[1:] == subset_ratio[:-1]
    ordered = ratio_rises | (ratio_stays & (run_id[1:] > run_id[:-1]))
    if not ordered.all():
        row = int(np.flatnonzero(~ordered)[0])
        first, second = (f"{layout.ratio_name(subset_ratio[i])}/{run_id[i]}" for i in (row, row + 1))
        if first == second:
            raise errors.InvalidValueError(f"run {first} is there twice")
        raise errors.InvalidValueError(f"run {first} comes before {second}, expected ratios and ids to ascend")
