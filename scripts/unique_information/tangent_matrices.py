"""Tangent kernels and features on the disk, filled part by part: a killed computation goes on; imports TensorFlow.

A part is some examples of the first side with all of the second. Where both sides are one, a part is computed with
itself and with what follows it, and mirrored: half of the kernel is never computed. Gradients of the second side are
computed anew for each part, of which there are eight at most.
"""

from collections.abc import Callable
import math

import numpy as np

from estimators import examples, ntk, targets
from scripts.unique_information import array_store

KINDS = ("full", "trace", "mean_trace", "diagonal", "blocks")
_MOST_PARTS, _BATCH = 8, 256
_MIRRORED_COLUMNS = 4096
# (examples done, all)
Progress = Callable[[int, int], None]


def shape(kind: str, num_rows: int, num_columns: int, num_outputs: int) -> tuple[int, ...]:
    """The shape of a kernel of so many examples on either side."""
    if kind == "diagonal":
        return (num_rows, num_outputs)
    if kind == "blocks":
        return (num_rows, num_outputs, num_outputs)
    entries = num_outputs if kind == "full" else 1
    return (num_rows * entries, num_columns * entries)


def kernel(
    target: targets.Target,
    data: examples.Examples,
    *,
    dtype: str | None,
    method: str = "auto",
    memory_limit_mb: float,
) -> ntk.TangentKernel:
    """The kernel that `fill` computes, with batches of equal size.

    Raises:
        EstimatorError: the target cannot be differentiated, or one example takes more than the memory.
    """
    even = math.ceil(len(data) / math.ceil(len(data) / _BATCH))
    return ntk.TangentKernel(target, data, method=method, batch_size=even, memory_limit_mb=memory_limit_mb, dtype=dtype)


def fill(
    draft: array_store.Draft,
    name: str,
    tangent: ntk.TangentKernel,
    kind: str,
    first: examples.Examples,
    second: examples.Examples | None,
    progress: Progress,
) -> np.ndarray:
    """A kernel as a memory map, computed as far as it is not there.

    Args:
        draft: the folder.
        name: of the array.
        tangent: the kernel.
        kind: one of `KINDS`.
        first: examples of the rows.
        second: examples of the columns; None for the same.
        progress: hears of the parts.

    Raises:
        NotFiniteError: an entry is NaN or infinite.
        DiskSpaceError: it would fill the disk.
    """
    wanted = shape(kind, len(first), len(first if second is None else second), tangent.num_outputs)
    matrix = draft.matrix(name, wanted, tangent.dtype)
    entries = tangent.num_outputs if kind == "full" else 1
    for part in _parts(draft.done(name), len(first), tangent.sizes.batch):
        progress(part.start, len(first))
        if kind in ("diagonal", "blocks"):
            matrix[part] = getattr(tangent, kind)(first.take(part))
        elif second is None:
            _fill_symmetric(matrix, getattr(tangent, kind), first, part, entries)
        else:
            rows = slice(part.start * entries, part.stop * entries)
            getattr(tangent, kind)(first.take(part), second, out=matrix[rows])
        draft.mark(name, matrix, part.stop)
    progress(len(first), len(first))
    return matrix


def _fill_symmetric(
    matrix: np.ndarray, compute: Callable[..., np.ndarray], data: examples.Examples, part: slice, entries: int
) -> None:
    rows, rest = slice(part.start * entries, part.stop * entries), slice(part.stop * entries, len(matrix))
    own = data.take(part)
    compute(own, out=matrix[rows, rows])
    if part.stop < len(data):
        compute(own, data.take(slice(part.stop, len(data))), out=matrix[rows, rest])
        for start in range(rest.start, rest.stop, _MIRRORED_COLUMNS):
            some = slice(start, min(start + _MIRRORED_COLUMNS, rest.stop))
            matrix[some, rows] = matrix[rows, some].T


def fill_features(
    draft: array_store.Draft,
    name: str,
    target: targets.Target,
    data: examples.Examples,
    projection: ntk.Projection | None,
    num_outputs: int,
    memory_limit_mb: float,
    progress: Progress,
) -> np.ndarray:
    """Features Phi [n k, D] as a memory map, computed as far as they are not there.

    Args:
        draft: the folder.
        name: of the array.
        target: what is differentiated.
        data: the examples.
        projection: of the gradients; None for the Jacobian itself.
        num_outputs: k.
        memory_limit_mb: of the gradients of a batch.
        progress: hears of the parts.

    Raises:
        EstimatorError: see `ntk.projected_jacobians`.
        DiskSpaceError: they would fill the disk.
    """
    dtype = np.promote_types(target.dtype.as_numpy_dtype, np.float32)
    wanted = (len(data) * num_outputs, num_features(target, projection))
    matrix = draft.matrix(name, wanted, dtype)
    for part in _parts(draft.done(name), len(data), _BATCH):
        progress(part.start, len(data))
        out = matrix[part.start * num_outputs : part.stop * num_outputs]
        if projection is None:
            ntk.jacobians(target, data.take(part), out=out, memory_limit_mb=memory_limit_mb)
        else:
            ntk.projected_jacobians(
                target, data.take(part), projection, num_sample=0, out=out, memory_limit_mb=memory_limit_mb
            )
        draft.mark(name, matrix, part.stop)
    progress(len(data), len(data))
    return matrix


def num_features(target: targets.Target, projection: ntk.Projection | None) -> int:
    """D, how many features there are."""
    if projection is None:
        return target.num_parameters
    if projection.kind == "random_subset":
        return sum(min(parameter.size, projection.dimension) for parameter in target.parameters)
    return projection.dimension


def projection_error(
    target: targets.Target,
    data: examples.Examples,
    projection: ntk.Projection,
    num_sample: int,
    memory_limit_mb: float,
) -> tuple[float, int]:
    """|Phi Phi^T - K| / |K| on some examples, spread evenly, and how many they are."""
    count = min(num_sample, len(data))
    sample = np.unique(np.linspace(0, len(data) - 1, count).round().astype(np.int64))
    found = ntk.projected_jacobians(
        target, data.take(sample), projection, num_sample=len(sample), memory_limit_mb=memory_limit_mb
    )
    return found.relative_error, len(sample)


def _parts(start: int, num_examples: int, batch: int) -> list[slice]:
    """Of what is left from `start` on: batches may be of another size than those of an earlier attempt."""
    num_batches = math.ceil(num_examples / batch)
    size = batch * math.ceil(num_batches / _MOST_PARTS)
    return [slice(start, min(start + size, num_examples)) for start in range(start, num_examples, size)]
