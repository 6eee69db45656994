"""The counts behind subset influence as products of int8 matrices on a GPU or TPU.

int8 x int8 -> int32 is exact, and what the matrix units of accelerators are quickest at.
"""

from typing import Any

import numpy as np

from heldout import devices
from zoo import run_table


class DeviceCounter:
    """Counts by products on one device; a `joint_counts.Counter`.

    Args:
        runs: whose counts; the correctness [T, M] is held on the device, a byte each.
        device: "gpu", "tpu" or "cpu".
        jit_compile: whether XLA compiles the product, as accelerators need it; TensorFlow's own kernel is for CPUs.

    Raises:
        InvalidValueError: TensorFlow sees no such device.
    """

    def __init__(self, runs: run_table.RunTable, device: str, *, jit_compile: bool = True) -> None:
        devices.configure(device)
        import tensorflow as tf  # takes seconds, and only accelerators need it

        # A scope of the calling thread alone, so each call enters it.
        self._scope = lambda: tf.device(f"/{device.upper()}:0")
        self._mask_of = runs.subset_mask
        with self._scope():
            self._correctness = tf.constant(runs.test_correctness().astype(np.int8))

        @tf.function(jit_compile=jit_compile, reduce_retracing=True)
        def product(mask: Any) -> Any:
            counts = tf.linalg.matmul(mask, self._correctness, transpose_a=True, output_type=tf.int32)
            return tf.cast(counts, tf.float32)

        self._product = product

    def count(self, start: int, out: np.ndarray) -> None:
        """As `joint_counts.Counter.count`."""
        mask = self._mask_of(start, start + len(out)).astype(np.int8)
        with self._scope():
            out[:] = self._product(mask).numpy()
