"""Gradients of single examples, and their inner products, beside the plain TensorFlow ways.

    python -m benchmarks.benchmark_per_example

Gradients: a convolutional network of 24 thousand parameters on 32 x 32 images, a batch of 128, by

    rules   per_example.make_gradients: one backward pass for the whole batch
    pfor    tape.jacobian of the losses, vectorised, of as many examples at a time as --pfor_batch says (all 128 take
            some 6 GB); its time is for 128 examples, so many times a smaller batch
    single  one tape for each example, compiled once

Inner products: 256 x 256 gradients of an MLP 784-128-64-10, by `per_example.make_dot_products` and by two jacobians and
a matrix product. Each way runs in a process of its own, in turn, so that its peak of memory is its own: what the
process takes at most less what it took before the first call. All give the same numbers, which is checked. Compiling
is left out. Writes benchmarks/results/per_example.json.
"""

from collections.abc import Callable
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
from estimators import targets
from estimators.derivatives import per_example, plans

_REPEATS = flags.DEFINE_integer("repeats", 5, "Runs of each way; the median counts.")
_PFOR_BATCH = flags.DEFINE_integer("pfor_batch", 128, "Images that pfor differentiates at a time.")
_WAY = flags.DEFINE_string("way", None, "One way alone, in this process, printed as JSON: cnn_rules and its like.")

_LEAST_SECONDS = 0.3
_NUM_IMAGES, _NUM_PRODUCTS = 128, 256
_WAYS = ("cnn_rules", "cnn_single", "cnn_pfor", "mlp_rules", "mlp_pfor")


def main(argv: list[str]) -> None:
    """Runs every way in its own process, or the one that is asked for in this."""
    del argv
    if _WAY.value:
        print(json.dumps(_measure(*_WAY.value.split("_"))))
        return
    found = {}
    for way in _WAYS:
        options = [f"--way={way}", f"--repeats={_REPEATS.value}", f"--pfor_batch={_PFOR_BATCH.value}"]
        command = [sys.executable, "-m", "benchmarks.benchmark_per_example", *options]
        found[way] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{way:<10} {found[way]['seconds'] * 1e3:10.1f} ms {found[way]['megabytes']:8.0f} MB")
    figures = {"ways": found, "num_images": _NUM_IMAGES, "pfor_batch": _PFOR_BATCH.value, "ratios": _ratios(found)}
    print(json.dumps(figures["ratios"]))
    print(environment.save("per_example", figures))


def _ratios(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """How many times faster and leaner ours is than the others; refuses ways that differ."""
    ratios = {}
    for model, others in (("cnn", ("pfor", "single")), ("mlp", ("pfor",))):
        ours = found[f"{model}_rules"]
        for other in (found[f"{model}_{name}"] for name in others):
            np.testing.assert_allclose(ours["checksum"], other["checksum"], rtol=1e-3)
        for name in others:
            for quantity in ("seconds", "megabytes"):
                # Less than a megabyte above the peak of what was there before cannot be measured so.
                ours_at_least = max(ours[quantity], 1.0) if quantity == "megabytes" else ours[quantity]
                ratios[f"{model}_{name}_{quantity}"] = found[f"{model}_{name}"][quantity] / ours_at_least
    return ratios


def _measure(model: str, way: str) -> dict[str, float]:
    target, inputs, labels = _cnn() if model == "cnn" else _mlp()
    function = _function(target, inputs, labels, model, way)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    values = function()
    start = time.perf_counter()
    function()
    # What takes milliseconds is called as often as a repeat of the others takes: single calls find a cold cache.
    num_calls = max(1, int(_LEAST_SECONDS / (time.perf_counter() - start)))
    seconds = []
    for _ in range(_REPEATS.value):
        start = time.perf_counter()
        for _ in range(num_calls):
            values = function()
        seconds.append((time.perf_counter() - start) / num_calls)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checksum = float(np.square(values.astype(np.float64)).sum())
    return {"seconds": statistics.median(seconds), "megabytes": (peak - before) / 1024, "checksum": checksum}


def _function(target: targets.Target, inputs: tf.Tensor, labels: tf.Tensor, model: str, way: str) -> Callable:
    if way == "rules":
        plan = plans.make(target, (inputs.numpy(), labels.numpy()))
        if model == "cnn":
            compute = per_example.make_gradients(plan)
            return lambda: compute(inputs, labels).numpy()
        products = per_example.make_dot_products(plan)
        return lambda: products(inputs, labels, inputs, labels).numpy()
    if way == "single":
        return lambda: _one_by_one(target, inputs, labels)
    if model == "cnn":
        size = min(_PFOR_BATCH.value, _NUM_IMAGES)
        parts = [slice(k, k + size) for k in range(0, _NUM_IMAGES, size)]
        return lambda: np.concatenate([_jacobian(target, inputs[part], labels[part]).numpy() for part in parts])

    def both() -> np.ndarray:
        first, second = _jacobian(target, inputs, labels), _jacobian(target, inputs, labels)
        return tf.matmul(first, second, transpose_b=True).numpy()

    return both


_COMPILED: dict[str, Callable] = {}


def _jacobian(target: targets.Target, inputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    def compute(inputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            values = target.losses(inputs, labels)
        rows = tape.jacobian(values, target.variables)
        return tf.concat([tf.reshape(row, [inputs.shape[0], -1]) for row in rows], axis=1)

    return _COMPILED.setdefault("jacobian", tf.function(compute))(inputs, labels)


def _one_by_one(target: targets.Target, inputs: tf.Tensor, labels: tf.Tensor) -> np.ndarray:
    def compute(inputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            values = target.losses(inputs, labels)
        return tf.concat([tf.reshape(row, [-1]) for row in tape.gradient(values, target.variables)], axis=0)

    function = _COMPILED.setdefault("single", tf.function(compute))
    return np.stack([function(inputs[k : k + 1], labels[k : k + 1]).numpy() for k in range(len(labels))])


class _Network(tf.Module):
    """Weights by name and the function of them."""

    def __init__(self, apply: Callable, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        generator = np.random.default_rng(0)
        self.weights = {
            name: tf.Variable((generator.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32))
            for name, shape in shapes.items()
        }
        self._apply = apply

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        return self._apply(inputs, **self.weights)


def _cnn() -> tuple[targets.Target, tf.Tensor, tf.Tensor]:
    def apply(x, a, b, c, d, e, f):
        y = tf.nn.relu(tf.nn.conv2d(x, a, 1, "SAME") + b)
        y = tf.nn.relu(tf.nn.conv2d(y, c, 2, "SAME") + d)
        return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(y, e, 2, "SAME")), [1, 2]) @ f

    network = _Network(apply, a=(3, 3, 3, 16), b=(16,), c=(3, 3, 16, 32), d=(32,), e=(3, 3, 32, 64), f=(64, 10))
    return _with_examples(network, (_NUM_IMAGES, 32, 32, 3))


def _mlp() -> tuple[targets.Target, tf.Tensor, tf.Tensor]:
    def apply(x, a, b, c, d, e, f):
        return tf.nn.relu(tf.nn.relu(x @ a + b) @ c + d) @ e + f

    network = _Network(apply, a=(784, 128), b=(128,), c=(128, 64), d=(64,), e=(64, 10), f=(10,))
    return _with_examples(network, (_NUM_PRODUCTS, 784))


def _with_examples(network: _Network, shape: tuple[int, ...]) -> tuple[targets.Target, tf.Tensor, tf.Tensor]:
    generator = np.random.default_rng(1)
    inputs = tf.constant(generator.normal(size=shape).astype(np.float32))
    return targets.of(network), inputs, tf.constant(generator.integers(0, 10, shape[0]))


if __name__ == "__main__":
    app.run(main)
