"""Operator norms of input Jacobians beside the published way and beside plain TensorFlow.

    python -m benchmarks.benchmark_jacobian

The 5-layer convolutional network of width 64 and ResNet-18 of width 64 without batch normalisation, on 32 x 32 images,
with 10 and 100 outputs; the largest singular value of the logits' Jacobian of each example to a relative 1e-4, by

    ours        what measuring.Measurer chooses: K passes to all singular values at 10, an iteration to the top at 100,
                until a singular value certainly lies within 1e-4
    gap         the same with lanczos.Config(stop="gap"): until the largest lies within 1e-4 by Temple's inequality;
                that all values are right to 1e-4 is measured, as it is for all ways
    published   K backward passes that form the gradients of the parameters too, then power iteration on the matrix;
                corrected: until sigma changes by less than 1e-8 of itself, instead of by an absolute number
    input_only  the same K passes by the input alone, then eigenvalues
    pfor        tape.batch_jacobian, then eigenvalues

All have as many examples at a time. They run in turn in one process, again and again, and what counts is the median of
the ratios of each turn, by the clock and by the seconds of processors: others may use the machine. Compiling is left
out. The peak of memory above that of the network is measured in a process for each way (Linux). The norms are
checked against those of the dense Jacobian. Writes benchmarks/results/jacobian.json.
"""

from collections.abc import Callable
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import time

from absl import app, flags
import numpy as np
import tensorflow as tf

from benchmarks import environment
from estimators.jacobian import functions, gram, lanczos, measuring

_REPEATS = flags.DEFINE_integer("repeats", 3, "Turns; the median counts.")
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", 16, "Images.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 4, "Images at a time.")
_ONLY = flags.DEFINE_multi_string("only", [], "Cases to run, such as cnn_10; all, and a file of results, if none.")
_WAYS_FLAG = flags.DEFINE_multi_string("ways", [], "Ways beside ours; all if none.")
_MEMORY_OF = flags.DEFINE_string(
    "memory_of", None, "One way, as cnn_10_ours, whose memory is printed and nothing else."
)

_CASES = ("cnn_10", "resnet_10", "cnn_100", "resnet_100")
_WAYS = ("ours", "gap", "published", "input_only", "pfor")
_WIDTH = 64


def main(argv: list[str]) -> None:
    """Runs every case, or measures the memory that is asked for."""
    del argv
    if _MEMORY_OF.value:
        print(_megabytes(*_MEMORY_OF.value.split("_", 2)))
        return
    found = {}
    for case in _ONLY.value or _CASES:
        found[case] = _compare(case, ["ours", *(_WAYS_FLAG.value or _WAYS[1:])])
        print(case, json.dumps(found[case], indent=1), flush=True)
    if not _ONLY.value:
        settings = {"num_examples": _NUM_EXAMPLES.value, "batch_size": _BATCH_SIZE.value, "repeats": _REPEATS.value}
        print(environment.save("jacobian", {"cases": found, **settings}))


def _compare(case: str, ways: list[str]) -> dict[str, dict[str, float]]:
    """Seconds, memory and error of each way, and how many times faster ours is."""
    network, function, inputs = _network(case)
    computes = {way: _MAKE[way](network, function) for way in ways}
    truth = _dense_norms(function, inputs)
    worst = {way: float(np.abs(compute(inputs) / truth - 1).max()) for way, compute in computes.items()}
    if max(worst.values()) > 1e-4:
        raise ValueError(f"{case}: norms are off by {worst}")
    clock: dict[str, list[float]] = {way: [] for way in ways}
    processors: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(_REPEATS.value):
        for way, compute in computes.items():
            start, used = time.perf_counter(), time.process_time()
            compute(inputs)
            clock[way].append(time.perf_counter() - start)
            processors[way].append(time.process_time() - used)
    return {
        way: {
            "seconds": statistics.median(clock[way]),
            "processor_seconds": statistics.median(processors[way]),
            "ratio_of_seconds": _median_ratio(clock[way], clock["ours"]),
            "ratio_of_processor_seconds": _median_ratio(processors[way], processors["ours"]),
            **{f"ratio_to_{name}": _median_ratio(clock[way], clock[name]) for name in ("gap",) if name in ways},
            "megabytes": _memory_of(f"{case}_{way}"),
            "largest_error": worst[way],
        }
        for way in ways
    }


def _median_ratio(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def _memory_of(name: str) -> float:
    options = [f"--memory_of={name}", f"--num_examples={_NUM_EXAMPLES.value}", f"--batch_size={_BATCH_SIZE.value}"]
    command = [sys.executable, "-m", "benchmarks.benchmark_jacobian", *options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _megabytes(model: str, num_outputs: str, way: str) -> float:
    network, function, inputs = _network(f"{model}_{num_outputs}")
    compute = _MAKE[way](network, function)
    before = _status("VmRSS")
    compute(inputs[: _BATCH_SIZE.value])
    # Compiling is done; the peak begins anew from here.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    compute(inputs)
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """Kilobytes."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _network(case: str) -> tuple["_Network", functions.Function, np.ndarray]:
    model, num_outputs = case.split("_")
    network = _Network(model, int(num_outputs))
    inputs = np.random.default_rng(1).normal(size=(_NUM_EXAMPLES.value, 32, 32, 3)).astype(np.float32)
    return network, functions.of(network, inputs), inputs


def _batched(compute: Callable[[tf.Tensor], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    size = _BATCH_SIZE.value
    return lambda inputs: np.concatenate(
        [compute(tf.constant(inputs[k : k + size])) for k in range(0, len(inputs), size)]
    )


def _dense_norms(function: functions.Function, inputs: np.ndarray) -> np.ndarray:
    """By singular values of whole Jacobians, two examples at a time."""
    compute = gram.make_jacobians(function)
    rows = [compute(inputs[k : k + 2])[1].numpy().astype(np.float64) for k in range(0, len(inputs), 2)]
    return np.linalg.norm(np.concatenate(rows), 2, axis=(1, 2))


def _ours(
    network: "_Network", function: functions.Function, config: lanczos.Config | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    measurer = measuring.Measurer(function, batch_size=_BATCH_SIZE.value, config=config)
    return lambda inputs: measurer.measure((inputs, np.zeros(len(inputs), np.int64))).columns[0].values


def _gap(network: "_Network", function: functions.Function) -> Callable[[np.ndarray], np.ndarray]:
    return _ours(network, function, lanczos.Config(stop="gap"))


def _published(network: "_Network", function: functions.Function) -> Callable[[np.ndarray], np.ndarray]:
    variables = list(network.trainable_variables)

    @tf.function(autograph=False)
    def compute(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(inputs)
            outputs = network(inputs)

        def one(k: tf.Tensor, rows: tf.TensorArray, total: tf.Tensor) -> tuple[tf.Tensor, tf.TensorArray, tf.Tensor]:
            cotangent = tf.broadcast_to(tf.one_hot(k, outputs.shape[1]), outputs.shape)
            row, *gradients = tape.gradient(outputs, [inputs, *variables], output_gradients=cotangent)
            # What keeps the gradients of the parameters from being left out of the graph.
            total += tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])
            return k + 1, rows.write(k, tf.reshape(row, [inputs.shape[0], -1])), total

        rows = tf.TensorArray(tf.float32, outputs.shape[1], element_shape=[inputs.shape[0], function.input_size])
        state = tf.while_loop(
            lambda k, *_: k < outputs.shape[1], one, (0, rows, tf.constant(0.0)), parallel_iterations=1
        )
        return _power_iteration(tf.transpose(state[1].stack(), [1, 0, 2])), state[2]

    return _batched(lambda inputs: compute(inputs)[0].numpy())


def _power_iteration(rows: tf.Tensor) -> tf.Tensor:
    """Largest singular values of [B, K, D], until no value changes by more than 1e-8 of itself, which takes float64."""
    rows = tf.cast(rows, tf.float64)

    def step(k: tf.Tensor, u: tf.Tensor, sigma: tf.Tensor, change: tf.Tensor) -> tuple[tf.Tensor, ...]:
        v = tf.linalg.l2_normalize(tf.linalg.matvec(rows, u, transpose_a=True), axis=1)
        image = tf.linalg.matvec(rows, v)
        found = tf.norm(image, axis=1)
        return k + 1, image / found[:, None], found, tf.reduce_max(tf.abs(found - sigma) / found)

    start = tf.random.stateless_normal(rows.shape[:2], [0, 1], dtype=tf.float64)
    state = (
        0,
        tf.linalg.l2_normalize(start, axis=1),
        tf.zeros(rows.shape[:1], tf.float64),
        tf.constant(1.0, tf.float64),
    )
    return tf.while_loop(lambda k, u, s, change: (change > 1e-8) & (k < 5000), step, state)[2]


def _input_only(network: "_Network", function: functions.Function) -> Callable[[np.ndarray], np.ndarray]:
    @tf.function(autograph=False)
    def compute(inputs: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(inputs)
            outputs = network(inputs)

        def one(k: tf.Tensor, rows: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            cotangent = tf.broadcast_to(tf.one_hot(k, outputs.shape[1]), outputs.shape)
            row = tape.gradient(outputs, inputs, output_gradients=cotangent)
            return k + 1, rows.write(k, tf.reshape(row, [inputs.shape[0], -1]))

        rows = tf.TensorArray(tf.float32, outputs.shape[1], element_shape=[inputs.shape[0], function.input_size])
        _, rows = tf.while_loop(lambda k, _: k < outputs.shape[1], one, (0, rows), parallel_iterations=1)
        return _products(tf.transpose(rows.stack(), [1, 0, 2]))

    return _batched(lambda inputs: _largest(compute(inputs)))


def _pfor(network: "_Network", function: functions.Function) -> Callable[[np.ndarray], np.ndarray]:
    @tf.function(autograph=False)
    def compute(inputs: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = network(inputs)
        rows = tape.batch_jacobian(outputs, inputs)
        return _products(tf.reshape(rows, [*outputs.shape, -1]))

    return _batched(lambda inputs: _largest(compute(inputs)))


def _products(rows: tf.Tensor) -> tf.Tensor:
    wide = tf.cast(rows, tf.float64)
    return tf.matmul(wide, wide, transpose_b=True)


def _largest(products: tf.Tensor) -> np.ndarray:
    return np.sqrt(np.linalg.eigvalsh(products.numpy())[:, -1])


_MAKE = {"ours": _ours, "gap": _gap, "published": _published, "input_only": _input_only, "pfor": _pfor}


class _Network(tf.Module):
    """The 5-layer network, four convolutions and a head, or ResNet-18 with biases and without batch normalisation."""

    def __init__(self, model: str, num_outputs: int) -> None:
        super().__init__()
        self._generator = np.random.default_rng(0)
        self._apply = self._convolutional if model == "cnn" else self._residual
        widths = [_WIDTH * factor for factor in (1, 2, 4, 8)]
        if model == "cnn":
            channels = [3, *widths]
            self.kernels = [self._weights(3, 3, a, b) for a, b in itertools.pairwise(channels)]
        else:
            self.kernels = [self._weights(3, 3, 3, _WIDTH)]
            self.blocks = []
            before = _WIDTH
            for stage, width in enumerate(widths):
                for stride in (2 if stage else 1, 1):
                    shortcut = self._weights(1, 1, before, width) if before != width else None
                    pair = (self._weights(3, 3, before, width), self._weights(3, 3, width, width, gain=0.3))
                    self.blocks.append((*pair, self._biases(width), self._biases(width), shortcut, stride))
                    before = width
        self.biases = [self._biases(kernel.shape[3]) for kernel in self.kernels]
        self.head = self._weights(widths[-1], num_outputs)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return self._apply(images)

    def _weights(self, *shape: int, gain: float = 1.0) -> tf.Variable:
        deviation = gain * np.sqrt(2 / np.prod(shape[:-1]))
        return tf.Variable((deviation * self._generator.normal(size=shape)).astype(np.float32))

    def _biases(self, size: int) -> tf.Variable:
        return tf.Variable((0.1 * self._generator.normal(size=size)).astype(np.float32))

    def _convolutional(self, y: tf.Tensor) -> tf.Tensor:
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            y = tf.nn.relu(tf.nn.conv2d(y, kernel, 1, "SAME") + bias)
            if layer:
                y = tf.nn.max_pool2d(y, 2, 2, "VALID")
        return tf.reshape(tf.nn.max_pool2d(y, 4, 4, "VALID"), [y.shape[0], -1]) @ self.head

    def _residual(self, y: tf.Tensor) -> tf.Tensor:
        y = tf.nn.relu(tf.nn.conv2d(y, self.kernels[0], 1, "SAME") + self.biases[0])
        for first, second, bias, other, shortcut, stride in self.blocks:
            z = tf.nn.relu(tf.nn.conv2d(y, first, stride, "SAME") + bias)
            z = tf.nn.conv2d(z, second, 1, "SAME") + other
            y = tf.nn.relu(z + (y if shortcut is None else tf.nn.conv2d(y, shortcut, stride, "SAME")))
        return tf.reduce_mean(y, [1, 2]) @ self.head


if __name__ == "__main__":
    app.run(main)
