"""What `benchmark_ntk` measures of TensorFlow, each way in a process of its own: arrays in, arrays and seconds out."""

from collections.abc import Callable
import json
import pathlib
import resource
import time
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import ntk, targets

Arrays = dict[str, np.ndarray]
Settings = dict[str, Any]

_WIDTHS = (64, 128, 256, 512)


def problem(settings: Settings) -> Arrays:
    """Weights of a network by name, and inputs [n, ...]."""
    generator = np.random.default_rng(0)
    dtype = np.float64 if settings["float64"] else np.float32
    make = _dense_weights if settings["network"] == "dense" else _resnet_weights
    found = make(settings, lambda *shape: generator.normal(size=shape))
    shape = (784,) if settings["network"] == "dense" else (settings["image_size"], settings["image_size"], 3)
    found["inputs"] = generator.normal(size=(settings["num_examples"], *shape))
    return {name: value.astype(dtype) for name, value in found.items()}


Normal = Callable[..., np.ndarray]


def _dense_weights(settings: Settings, normal: Normal) -> Arrays:
    sizes = (784, *[settings["width"]] * 3, settings["num_outputs"])
    found = {}
    for k in range(4):
        found[f"w{k}"] = normal(*sizes[k : k + 2]) * np.sqrt(2 / sizes[k])
        found[f"b{k}"] = 0.1 * normal(sizes[k + 1])
    return found


def _resnet_weights(settings: Settings, normal: Normal) -> Arrays:
    """ResNet-18 for small images: a 3 x 3 stem and four stages of two blocks."""
    found = {}

    def convolution(name: str, size: int, before: int, after: int) -> None:
        found[f"{name}_w"] = normal(size, size, before, after) * np.sqrt(2 / (size * size * before))
        found[f"{name}_scale"] = 1 + 0.1 * normal(after)
        found[f"{name}_offset"] = 0.1 * normal(after)

    convolution("stem", 3, 3, _WIDTHS[0])
    before = _WIDTHS[0]
    for number in range(8):
        width = _WIDTHS[number // 2]
        convolution(f"block{number}_first", 3, before, width)
        convolution(f"block{number}_second", 3, width, width)
        if width != before:
            convolution(f"block{number}_skip", 1, before, width)
        before = width
    found["head_w"] = normal(before, settings["num_outputs"]) / np.sqrt(before)
    found["head_b"] = np.zeros(settings["num_outputs"])
    return found


class Network(tf.Module):
    """A network of weights by name."""

    def __init__(self, arrays: Arrays, kind: str) -> None:
        super().__init__()
        self.weights = {name: tf.Variable(value) for name, value in arrays.items()}
        self._apply = _dense if kind == "dense" else _resnet

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """[n, ...] -> [n, k]."""
        return self._apply(self.weights, inputs)


def _dense(weights: dict[str, tf.Variable], x: tf.Tensor) -> tf.Tensor:
    for k in range(4):
        x = (tf.nn.relu(x) if k else x) @ weights[f"w{k}"] + weights[f"b{k}"]
    return x


def _resnet(weights: dict[str, tf.Variable], x: tf.Tensor) -> tf.Tensor:
    def convolved(x: tf.Tensor, name: str, stride: int) -> tf.Tensor:
        y = tf.nn.conv2d(x, weights[f"{name}_w"], stride, "SAME")
        return y * weights[f"{name}_scale"] + weights[f"{name}_offset"]

    x = tf.nn.relu(convolved(x, "stem", 1))
    for number in range(8):
        block = f"block{number}"
        stride = 2 if f"{block}_skip_w" in weights else 1
        y = convolved(tf.nn.relu(convolved(x, f"{block}_first", stride)), f"{block}_second", 1)
        x = tf.nn.relu(y + (convolved(x, f"{block}_skip", stride) if stride == 2 else x))
    return tf.reduce_mean(x, [1, 2]) @ weights["head_w"] + weights["head_b"]


def run(source: pathlib.Path, destination: pathlib.Path) -> None:
    """Computes one way from a file of arrays and settings, and writes what it gives."""
    with np.load(source) as stored:
        arrays = dict(stored)
    settings = json.loads(str(arrays.pop("settings")))
    tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(settings["threads"])
    inputs = arrays.pop("inputs")
    network = Network(arrays, settings["network"])
    compute = _WAYS[settings["way"]](network, inputs, settings)
    started = time.perf_counter()
    kernel = compute()
    compiling, wall, processor = time.perf_counter() - started, [], []
    for _ in range(settings["repeats"]):
        started, begun = time.perf_counter(), time.process_time()
        kernel = compute()
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    np.savez(
        destination,
        kernel=kernel,
        kernel_wall=wall,
        kernel_processor=processor,
        compiling=compiling,
        megabytes=peak,
    )


def _ours(network: Network, inputs: np.ndarray, settings: Settings) -> Callable[[], np.ndarray]:
    kernel = ntk.TangentKernel(targets.of(network), inputs, method=settings["method"])
    return (lambda: kernel.trace(inputs)) if settings["summed"] else (lambda: kernel.full(inputs))


def _tape(network: Network, inputs: np.ndarray, settings: Settings) -> Callable[[], np.ndarray]:
    """`tape.jacobian` of all outputs of all examples at a time, and products of its parts."""
    del settings
    variables = network.trainable_variables

    @tf.function
    def compute(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            outputs = tf.reshape(network(x), [-1])
        rows = [tf.reshape(part, [part.shape[0], -1]) for part in tape.jacobian(outputs, variables)]
        return tf.add_n([tf.matmul(part, part, transpose_b=True) for part in rows])

    return lambda: compute(tf.constant(inputs)).numpy()


def _tape_by_example(network: Network, inputs: np.ndarray, settings: Settings) -> Callable[[], np.ndarray]:
    """`tape.jacobian` of one example after the other, and products of all."""
    del settings
    variables = network.trainable_variables

    @tf.function
    def jacobian(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            outputs = tf.reshape(network(x), [-1])
        rows = tape.jacobian(outputs, variables)
        return tf.concat([tf.reshape(part, [part.shape[0], -1]) for part in rows], axis=1)

    def compute() -> np.ndarray:
        rows = tf.concat([jacobian(tf.constant(inputs[k : k + 1])) for k in range(len(inputs))], axis=0)
        return tf.matmul(rows, rows, transpose_b=True).numpy()

    return compute


_WAYS = {"ours": _ours, "tape": _tape, "tape_by_example": _tape_by_example}
