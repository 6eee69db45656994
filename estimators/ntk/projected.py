"""Projected Jacobians: features Phi [n k, r] with E[Phi Phi^T] = K, and how far Phi Phi^T is from K on some examples.

    config = ntk.Projection("sparse_signs", dimension=10000, seed=0)
    features = ntk.projected_jacobians(target, x, config)
    features.values                                    # [n k, r]; row index = example * k + output
    features.relative_error                            # measured, |Phi Phi^T - K| / |K| on a sample

    random_subset   min(s, q) coordinates of each tensor of s elements, without repetition, times sqrt(s / min(s, q));
                    r is the sum of min(s, q) over tensors (Harutyunyan et al., 2021, arXiv:2101.06640)
    sparse_signs    four signs in each column, divided by 2 (Kane & Nelson, 2014), r = dimension
    hadamard        signs, Walsh-Hadamard transform, r coordinates: SRHT (Ailon & Chazelle, 2006)
    signs           independent signs (Achlioptas, 2003)

All but the first are those of `projections.sketches`, with the variances that are given there; the random numbers
follow from the seed and from where in a parameter vector they stand, so that examples can come in any batches and at
any time. A random subset is exact for small tensors and errs where few coordinates of a large one matter.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, gradient_products, targets
from estimators.derivatives import per_example
from estimators.ntk import explicit, kernels, tiles
from estimators.ntk import outputs as outputs_lib
from estimators.projections import random_signs, sketches

KINDS = ("random_subset", "sparse_signs", "hadamard", "signs")


@dataclasses.dataclass(frozen=True)
class Projection:
    """Which projection.

    Attributes:
        kind: one of `KINDS`.
        dimension: r; for "random_subset" q, the coordinates of one tensor at most.
        seed: of the random bits, from 0 to 2^32 - 1.

    Raises:
        InvalidArgumentError: a value lies outside what is allowed.
    """

    kind: str = "sparse_signs"
    dimension: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise errors.InvalidArgumentError(f"projection {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.dimension < 1:
            raise errors.InvalidArgumentError(f"dimension {self.dimension}: must be at least 1")
        random_signs.packed(self.seed, 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Projected gradients of all outputs.

    Attributes:
        values: Phi [n k, r]; row index = example * k + output.
        num_outputs: k.
        relative_error: |Phi Phi^T - K| / |K| in Frobenius norm on the sample, 0 or more; NaN if none was looked at.
        sample: [s] positions of the examples that it was measured on.
        projection: which projection.
    """

    values: np.ndarray
    num_outputs: int
    relative_error: float
    sample: np.ndarray
    projection: Projection


def projected_jacobians(
    target: targets.Target,
    x: Any,
    projection: Projection,
    *,
    num_sample: int = 16,
    out: np.ndarray | None = None,
    batch_size: int = 256,
    memory_limit_mb: float = 2048.0,
    jit_compile: bool | None = None,
) -> Features:
    """Features Phi [n k, r] of examples, with E[Phi Phi^T] = K over seeds.

    Args:
        target: what is differentiated.
        x: inputs of n examples, see `TangentKernel`.
        projection: which projection.
        num_sample: examples whose kernel is computed exactly to measure the error, spread evenly over all; 0 for none.
        out: [n k, r] floats to fill, such as a memory map; None for a new array.
        batch_size: examples at a time at most; changes nothing but rounding.
        memory_limit_mb: of the gradients of a batch.
        jit_compile: compile by XLA; None for what the target says.

    Returns:
        The features, with the measured error. One forward and k backward passes for each example.

    Raises:
        InvalidArgumentError: the dimension is above what the projection can give, `num_sample` below 0, or one example
            takes more than the memory.
        InvalidTargetError, NotFiniteError: see `plans.make`; or a gradient is NaN or infinite.
        MismatchError: `out` has another shape.
    """
    if num_sample < 0:
        raise errors.InvalidArgumentError(f"num_sample {num_sample}: must be 0 or more")
    outputs, data = outputs_lib.of(target, x), outputs_lib.data(x)
    dimension, project = _map(outputs, projection)
    num = outputs.num_outputs
    size = tiles.rows_at_a_time(outputs, batch_size, memory_limit_mb)
    values = tiles.output_array(out, (len(data) * num, dimension), outputs.dtype)

    def compute(inputs: Any, labels: tf.Tensor) -> tf.Tensor:
        del labels
        return project(inputs)

    compiled = per_example.compiled_rows(outputs.plan, compute, jit_compile)
    start = 0
    for batch, count in gradient_products.even_batches(data, size):
        found = tf.reshape(compiled(batch.inputs, np.zeros(len(batch), np.float32))[:count], [count * num, -1])
        gradient_products.check_finite(found, np.repeat(batch.ids[:count], num))
        values[start : start + count * num] = found.numpy()
        start += count * num
    sample = np.unique(np.linspace(0, len(data) - 1, min(num_sample, len(data))).round().astype(np.int64))
    options = {"batch_size": batch_size, "memory_limit_mb": memory_limit_mb, "jit_compile": jit_compile}
    error = _relative_error(target, data.take(sample), values, sample, num, options) if len(sample) else math.nan
    return Features(values, num, error, sample, projection)


def _relative_error(
    target: targets.Target, data: Any, values: np.ndarray, sample: np.ndarray, num: int, options: dict[str, Any]
) -> float:
    exact = kernels.ntk_full(target, data, **options).astype(np.float64)
    rows = values[(sample[:, None] * num + np.arange(num)).ravel()].astype(np.float64)
    norm = np.linalg.norm(exact)
    return float(np.linalg.norm(rows @ rows.T - exact) / norm) if norm else math.nan


# inputs [B, ...] -> [B, k, r], within a function that is being traced.
_Map = Callable[[Any], tf.Tensor]


def _map(outputs: outputs_lib.Outputs, projection: Projection) -> tuple[int, _Map]:
    """(r, the map)."""
    if projection.kind == "random_subset":
        return _random_subset(outputs, projection)
    sketch = sketches.SKETCHES[projection.kind](outputs.target.num_parameters, projection.dimension)
    draw = sketch.draw(projection.seed)

    def project(inputs: Any) -> tf.Tensor:
        rows = explicit.rows(outputs, inputs)
        found = sketch.project(tf.reshape(rows, [-1, rows.shape[2]]), draw)
        return tf.reshape(found, [rows.shape[0], rows.shape[1], sketch.dimension])

    return sketch.dimension, project


def _random_subset(outputs: outputs_lib.Outputs, projection: Projection) -> tuple[int, _Map]:
    parameters, most = outputs.target.parameters, projection.dimension
    chosen = [
        # A tensor's number tells its coordinates from another's, as a member of an ensemble.
        sketches.Coordinates(parameter.size, min(parameter.size, most)).draw(projection.seed, number)[0]
        for number, parameter in enumerate(parameters)
    ]

    def project(inputs: Any) -> tf.Tensor:
        parts = [
            tf.gather(tf.cast(rows, outputs.dtype), places, axis=2) * math.sqrt(rows.shape[2] / len(places))
            for rows, places in zip(explicit.by_parameter(outputs, inputs), chosen, strict=True)
        ]
        return tf.concat(parts, axis=2)

    return sum(len(places) for places in chosen), project
