"""How many runs to train as one batch, whether by XLA, and what one step of one run costs.

What it costs is read off a trace of the model: multiply-adds of its matrix products and convolutions, bytes of
everything that it computes on the way. How groups fare was measured by benchmarks/benchmark_groups.py:

    on a CPU            a group pays where starting the operations costs as much as computing them, which is so below
                        some twenty million multiply-adds a step; a larger model is quicker alone
    on accelerators     the more the better, as far as memory goes
"""

import dataclasses
import pathlib
import subprocess

import numpy as np
import tensorflow as tf

from zoo import checkpoints

_FULL_STEP_MACS = 20_000_000
_SMALL_STEP_MACS = 2_000_000
_MOST_ON_CPU = 8
_MOST_ON_ACCELERATOR = 256
# Variables, velocities, gradients and one temporary; what a layer computes, and its gradient.
_WEIGHT_COPIES, _ACTIVATION_COPIES = 4, 2
# The rest is for data, TensorFlow itself and others.
_USABLE = 0.5


@dataclasses.dataclass(frozen=True)
class StepCost:
    """One step of one run.

    Attributes:
        macs: multiply-adds of the forward pass.
        weight_bytes: of all variables.
        activation_bytes: of all that the forward pass computes.
        convolves: whether there are convolutions in it.
    """

    macs: int
    weight_bytes: int
    activation_bytes: int
    convolves: bool

    @property
    def memory(self) -> int:
        """Bytes that training a run takes beside the data set, roughly."""
        return _WEIGHT_COPIES * self.weight_bytes + self.memory_of_activations

    @property
    def memory_of_activations(self) -> int:
        """Of these the bytes that grow with the batch."""
        return _ACTIVATION_COPIES * self.activation_bytes


def step_cost(module: tf.Module, image_shape: tuple[int, int, int], batch_size: int, dtype: str) -> StepCost:
    """Traces the model, training, on one batch; computes nothing.

    Args:
        module: built; called as module(images, is_training).
        image_shape: (H, W, C).
        batch_size: examples in a step.
        dtype: of images.
    """
    images = tf.TensorSpec([batch_size, *image_shape], dtype)
    trace = tf.function(lambda images: module(images, is_training=True)).get_concrete_function(images)
    operations = trace.graph.get_operations()
    products = [operation for operation in operations if operation.type in _MACS]
    variables = checkpoints.model_variables(module).values()
    return StepCost(
        macs=sum(_MACS[product.type](product) for product in products),
        weight_bytes=sum(variable.shape.num_elements() * variable.dtype.size for variable in variables),
        convolves=any(product.type == "Conv2D" for product in products),
        activation_bytes=sum(_num_bytes(operation) for operation in operations if operation.type not in _FREE),
    )


def _matmul_macs(product: tf.Operation) -> int:
    inner = product.inputs[0].shape[0 if product.get_attr("transpose_a") else 1]
    return int(product.outputs[0].shape.num_elements() or 0) * int(inner or 0)


def _convolution_macs(product: tf.Operation) -> int:
    return int(product.outputs[0].shape.num_elements() or 0) * int(np.prod(product.inputs[1].shape[:-1]))


_MACS = {"MatMul": _matmul_macs, "Conv2D": _convolution_macs}
# They give no new memory.
_FREE = {"Placeholder", "ReadVariableOp", "Const", "Identity", "Reshape", "NoOp"}


def _num_bytes(operation: tf.Operation) -> int:
    return sum((output.shape.num_elements() or 0) * output.dtype.size for output in operation.outputs)


def choose(cost: StepCost, device: str, free_bytes: int | None) -> int:
    """Runs in a group, at least 1.

    Args:
        cost: of one run.
        device: "cpu", "gpu" or "tpu".
        free_bytes: memory that the group may take; None where nobody knows.
    """
    most = _MOST_ON_ACCELERATOR if device != "cpu" else min(_MOST_ON_CPU, _FULL_STEP_MACS // max(1, cost.macs))
    if free_bytes is not None:
        most = min(most, free_bytes // max(1, cost.memory))
    return max(1, most)


def xla_wins(cost: StepCost, device: str) -> bool:
    """Whether XLA should compile the epoch.

    On a CPU it makes very small dense networks quicker (benchmark_groups --jit_compile), larger ones slower, and
    grouped convolutions a hundred times slower. Elsewhere it saves the starting of many small operations, which is
    what dense networks wait for; convolutions stay with the device's own library. A TPU knows nothing else.
    """
    if device == "cpu":
        return not cost.convolves and cost.macs < _SMALL_STEP_MACS
    return device == "tpu" or not cost.convolves


def free_memory(device: str, num_workers: int) -> int | None:
    """Bytes that each of so many workers may take; None where nobody tells.

    Args:
        device: "cpu", "gpu" or "tpu".
        num_workers: processes that share the memory.
    """
    free = {"cpu": _free_host_memory, "gpu": _free_gpu_memory}.get(device, lambda: None)()
    return None if free is None else int(_USABLE * free) // num_workers


def _free_host_memory() -> int | None:
    """What Linux says could be had without swapping; elsewhere nothing is known."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(dict(line.split(":", 1) for line in lines)["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _free_gpu_memory() -> int | None:
    """What the driver says is free on the fullest GPU, before TensorFlow has taken any."""
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return min(int(line) for line in done.stdout.splitlines()) << 20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
