"""Operator norms of input Jacobians beside the published way and beside plain TensorFlow.

    python -m benchmarks.benchmark_jacobian

The 5-layer convolutional network of width 64 and ResNet-18 of width 64 without batch normalisation, on 32 x 32 images,
with 10 and 100 outputs; the largest singular value of the logits' Jacobian of each example to a relative 1e-4, by

    ours        what measuring.measure chooses: K passes to all singular values at 10, an iteration to the top at 100
    published   K backward passes that form the gradients of the parameters too, then power iteration on the matrix;
                corrected: until sigma changes by less than 1e-8 of itself, instead of by an absolute number
    input_only  the same K passes by the input alone, then eigenvalues
    pfor        tape.batch_jacobian, then eigenvalues

Each way runs in a process of its own, in turn, so that its peak of memory is its own; compiling is left out, and a
processor's seconds stand beside the clock's, since others may use the machine. The norms are checked against those of
the dense Jacobian. Writes benchmarks/results/jacobian.json.
"""

from collections.abc import Callable
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time

from absl import app, flags
import numpy as np
import tensorflow as tf

from benchmarks import environment
from estimators.jacobian import functions, gram, lanczos, pointwise

_REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each way; the median counts.")
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", 8, "Images.")
_ONLY = flags.DEFINE_multi_string("only", [], "Cases to run, such as cnn_10; all if none.")
_WAY = flags.DEFINE_string("way", None, "One way alone, in this process, printed as JSON: cnn_10_ours and its like.")

_CASES = ("cnn_10", "resnet_10", "cnn_100", "resnet_100")
_WAYS = ("ours", "published", "input_only", "pfor")
_WIDTH = 64


def main(argv: list[str]) -> None:
    """Runs every way in its own process, or the one that is asked for in this."""
    del argv
    if _WAY.value:
        print(json.dumps(_measure(*_WAY.value.split("_", 2))))
        return
    found: dict[str, dict[str, dict[str, float]]] = {}
    for case in _ONLY.value or _CASES:
        found[case] = {}
        for way in _WAYS:
            options = [f"--way={case}_{way}", f"--repeats={_REPEATS.value}", f"--num_examples={_NUM_EXAMPLES.value}"]
            command = [sys.executable, "-m", "benchmarks.benchmark_jacobian", *options]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            found[case][way] = result
            print(
                f"{case:<11} {way:<11} {result['seconds'] * 1e3:9.0f} ms {result['processor_seconds'] * 1e3:9.0f} ms "
                f"of processors {result['megabytes']:7.0f} MB, off by {result['largest_error']:.1e}",
                flush=True,
            )
    ratios = {case: _ratios(ways) for case, ways in found.items()}
    print(json.dumps(ratios, indent=1))
    print(environment.save("jacobian", {"cases": found, "ratios": ratios, "num_examples": _NUM_EXAMPLES.value}))


def _ratios(ways: dict[str, dict[str, float]]) -> dict[str, float]:
    """How many times faster ours is than the others, by the clock and by the processors."""
    return {
        f"{way}_{quantity}": ways[way][quantity] / ways["ours"][quantity]
        for way in _WAYS[1:]
        for quantity in ("seconds", "processor_seconds")
    }


def _measure(model: str, num_outputs: str, way: str) -> dict[str, float]:
    network = _Network(model, int(num_outputs))
    inputs = np.random.default_rng(1).normal(size=(_NUM_EXAMPLES.value, 32, 32, 3)).astype(np.float32)
    function = functions.of(network, inputs)
    compute = {"ours": _ours, "published": _published, "input_only": _input_only, "pfor": _pfor}[way](
        network, function, inputs
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    norms = compute()
    seconds, processors = [], []
    for _ in range(_REPEATS.value):
        start, used = time.perf_counter(), time.process_time()
        norms = compute()
        seconds.append(time.perf_counter() - start)
        processors.append(time.process_time() - used)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = float(np.abs(norms / _dense_norms(function, inputs) - 1).max())
    if error > 1e-4:
        raise ValueError(f"{way} of {model} with {num_outputs} outputs is off by {error}")
    return {
        "seconds": statistics.median(seconds),
        "processor_seconds": statistics.median(processors),
        "megabytes": (peak - before) / 1024,
        "largest_error": error,
    }


def _dense_norms(function: functions.Function, inputs: np.ndarray) -> np.ndarray:
    """By singular values of whole Jacobians, two examples at a time."""
    compute = gram.make_jacobians(function)
    rows = [compute(inputs[k : k + 2])[1].numpy().astype(np.float64) for k in range(0, len(inputs), 2)]
    return np.linalg.norm(np.concatenate(rows), 2, axis=(1, 2))


def _ours(network: "_Network", function: functions.Function, inputs: np.ndarray) -> Callable[[], np.ndarray]:
    metrics = ["jacobian_operator_norm"]
    evaluator = pointwise.Evaluator(
        function,
        metrics,
        ["none"],
        target_logit_only=False,
        method="auto",
        config=lanczos.Config(batch_size=len(inputs)),
        num_samples=1,
    )
    labels, owners = np.zeros(len(inputs), np.int64), np.arange(len(inputs))[:, None]
    return lambda: evaluator.values(inputs, labels, owners)[0]["jacobian_operator_norm", "none"]


def _published(network: "_Network", function: functions.Function, inputs: np.ndarray) -> Callable[[], np.ndarray]:
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

    return lambda: compute(tf.constant(inputs))[0].numpy()


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


def _input_only(network: "_Network", function: functions.Function, inputs: np.ndarray) -> Callable[[], np.ndarray]:
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

    return lambda: _largest(compute(tf.constant(inputs)))


def _pfor(network: "_Network", function: functions.Function, inputs: np.ndarray) -> Callable[[], np.ndarray]:
    @tf.function(autograph=False)
    def compute(inputs: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = network(inputs)
        rows = tape.batch_jacobian(outputs, inputs)
        return _products(tf.reshape(rows, [*outputs.shape, -1]))

    return lambda: _largest(compute(tf.constant(inputs)))


def _products(rows: tf.Tensor) -> tf.Tensor:
    wide = tf.cast(rows, tf.float64)
    return tf.matmul(wide, wide, transpose_b=True)


def _largest(products: tf.Tensor) -> np.ndarray:
    return np.sqrt(np.linalg.eigvalsh(products.numpy())[:, -1])


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
