"""What `benchmark_influence` measures of ours, each way in a process of its own: arrays in, arrays and seconds out."""

from collections.abc import Callable
import itertools
import json
import pathlib
import resource
import time
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import examples, influence_functions, targets
from estimators.curvature import conjugate_gradient, operators
from estimators.derivatives import per_example, plans
from heldout.datasets import tfds
from heldout.models import small_inception

Arrays = dict[str, np.ndarray]
Settings = dict[str, Any]

_SIZES = (784, 128, 64, 10)


def run(way: str, source: pathlib.Path, destination: pathlib.Path) -> None:
    """Computes one way from a file of arrays and settings, and writes what it gives."""
    with np.load(source) as stored:
        arrays = dict(stored)
    settings = json.loads(str(arrays.pop("settings")))
    tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(settings["threads"])
    np.savez(destination, **_WAYS[way](arrays, settings))


def _timed(function: Callable[[], Any], repeats: int) -> tuple[Any, list[float], list[float]]:
    """(what it returned last, seconds that passed, seconds of all processors), of each repetition."""
    wall, processor, result = [], [], None
    for _ in range(repeats):
        started, begun = time.perf_counter(), time.process_time()
        result = function()
        wall.append(time.perf_counter() - started)
        processor.append(time.process_time() - begun)
    return result, wall, processor


class _Classifier(tf.Module):
    """Dense layers with ReLU between them."""

    def __init__(self, arrays: Arrays, dtype: tf.DType = tf.float32) -> None:
        super().__init__()
        count = len(_SIZES) - 1
        self.layers = [[tf.Variable(arrays[f"{kind}{k}"], dtype=dtype) for kind in "wb"] for k in range(count)]

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        for number, (kernel, bias) in enumerate(self.layers):
            inputs = tf.matmul(tf.nn.relu(inputs) if number else inputs, kernel) + bias
        return inputs


def _target(arrays: Arrays, dtype: tf.DType = tf.float32) -> targets.Target:
    return targets.of(_Classifier(arrays, dtype))


def _examples(arrays: Arrays, name: str, dtype: Any = np.float32) -> examples.Examples:
    return examples.Examples(arrays[f"{name}_inputs"].astype(dtype), arrays[f"{name}_labels"])


def _problem(arrays: Arrays, settings: Settings) -> Arrays:
    """Examples, and weights after ten epochs on them."""
    del arrays
    found = _images(settings)
    generator = np.random.default_rng(0)
    for k, (num_inputs, num_outputs) in enumerate(itertools.pairwise(_SIZES)):
        found[f"w{k}"] = (generator.normal(size=(num_inputs, num_outputs)) * np.sqrt(2 / num_inputs)).astype("float32")
        found[f"b{k}"] = np.zeros(num_outputs, np.float32)
    model = _Classifier(found)
    variables = [variable for layer in model.layers for variable in layer]
    velocities = [tf.Variable(tf.zeros_like(variable)) for variable in variables]

    @tf.function
    def step(inputs: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model(inputs))
            loss = tf.reduce_mean(losses)
        for variable, velocity, slope in zip(variables, velocities, tape.gradient(loss, variables), strict=True):
            velocity.assign(0.9 * velocity + slope)
            variable.assign_sub(0.05 * velocity)

    size = 100
    for _ in range(10):
        order = generator.permutation(settings["num_train"])
        for start in range(0, len(order) - size + 1, size):
            some = order[start : start + size]
            step(found["train_inputs"][some], found["train_labels"][some])
    for k, (kernel, bias) in enumerate(model.layers):
        found[f"w{k}"], found[f"b{k}"] = kernel.numpy(), bias.numpy()
    return found


def _images(settings: Settings) -> Arrays:
    """MNIST, or blurred spots of ten kinds with as many zeros."""
    sizes = {name: settings[f"num_{name}"] for name in ("train", "test")}
    found: Arrays = {}
    if settings["data_dir"]:
        data = tfds.load("mnist", settings["data_dir"])
        for name, split in (("train", data.train), ("test", data.test)):
            images = np.asarray(split.images[: sizes[name]]).reshape(-1, 784)
            found[f"{name}_inputs"] = images.astype(np.float32) / 255
            found[f"{name}_labels"] = np.asarray(split.label[: sizes[name]]).astype(np.int64)
        return found
    generator = np.random.default_rng(0)
    kinds = generator.normal(size=(10, 49)) @ np.kron(np.eye(49), np.ones(16))
    for name, num in sizes.items():
        labels = generator.integers(0, 10, num)
        raw = kinds[labels] + 0.7 * generator.normal(size=(num, 784))
        found[f"{name}_inputs"] = np.clip(raw - 1.0, 0, 1).astype(np.float32)
        found[f"{name}_labels"] = labels
    return found


def _ekfac(arrays: Arrays, settings: Settings) -> Arrays:
    target, train, test = _target(arrays), _examples(arrays, "train"), _examples(arrays, "test")
    options = {name: settings[name] for name in ("damping", "labels")}
    fitted = influence_functions.InfluenceFunctions(target, "ekfac", **options)
    _, fit_wall, fit_processor = _timed(lambda: fitted.fit(train), settings["repeats"])
    scores, wall, processor = _timed(lambda: fitted.scores(train, test).values, settings["repeats"])
    return {
        "scores": scores,
        "fit_wall": fit_wall,
        "fit_processor": fit_processor,
        "score_wall": wall,
        "score_processor": processor,
    }


def _vectors(arrays: Arrays, settings: Settings) -> Arrays:
    """Gradients of the first test examples."""
    test = _examples(arrays, "test").take(slice(0, settings["num"]))
    plan = plans.make(_target(arrays), test)
    return {"vectors": per_example.make_gradients(plan)(test.inputs, test.labels).numpy()}


def _cg(arrays: Arrays, settings: Settings) -> Arrays:
    train = _examples(arrays, "train")
    operator = operators.Curvature(plans.make(_target(arrays), train), train, "hessian", batch_size=len(train))

    def solve() -> np.ndarray:
        solver = conjugate_gradient.ConjugateGradientSolver(
            operator,
            settings["damping"],
            tolerance=settings["tolerance"],
            max_iterations=settings["max_iterations"],
        )
        return solver.solve(tf.constant(arrays["vectors"])).values.numpy()

    solutions, wall, processor = _timed(solve, settings["repeats"])
    return {"solutions": solutions, "solve_wall": wall, "solve_processor": processor}


def _residuals(arrays: Arrays, settings: Settings) -> Arrays:
    """|(H + damping) x - v| / |v| in float64."""
    train = _examples(arrays, "train", np.float64)
    plan = plans.make(_target(arrays, tf.float64), train)
    solutions, vectors = (arrays[name].astype(np.float64) for name in ("solutions", "vectors"))
    products = operators.Curvature(plan, train, "hessian").products(tf.constant(solutions)).numpy()
    left = products + settings["damping"] * solutions - vectors
    return {"residuals": np.linalg.norm(left, axis=1) / np.linalg.norm(vectors, axis=1)}


def _gradients(arrays: Arrays, settings: Settings) -> Arrays:
    train = _examples(arrays, "train")
    compute = per_example.make_gradients(plans.make(_target(arrays), train))
    inputs, labels = tf.constant(train.inputs), tf.constant(train.labels)
    compute(inputs, labels)
    found, wall, processor = _timed(lambda: compute(inputs, labels).numpy(), settings["repeats"])
    return {"gradients": found, "gradients_wall": wall, "gradients_processor": processor}


def _naive(arrays: Arrays, settings: Settings) -> Arrays:
    """For one test example after the other: its solution, and one tape for each training example."""
    target, train, test = _target(arrays), _examples(arrays, "train"), _examples(arrays, "test")
    options = {name: settings[name] for name in ("damping", "labels")}
    fitted = influence_functions.InfluenceFunctions(target, "ekfac", **options).fit(train)

    @tf.function
    def gradient(inputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = target.losses(inputs, labels)
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(loss, target.variables)], axis=0)

    some = train.take(slice(0, settings["num_pairs"] // 2))

    def pairs() -> np.ndarray:
        columns = []
        for k in range(2):
            (solution,) = fitted.solutions(test.take(slice(k, k + 1)))
            rows = (gradient(some.inputs[i : i + 1], some.labels[i : i + 1]) for i in range(len(some)))
            columns.append([float(tf.tensordot(row, solution.values[0], 1)) for row in rows])
        return -np.transpose(columns) / len(train)

    gradient(some.inputs[:1], some.labels[:1])
    naive, _, processor = _timed(pairs, settings["repeats"])
    matrix, _, ours = _timed(lambda: fitted.scores(train, test).values, settings["repeats"])
    return {"naive": naive, "ours": matrix[: len(some), :2], "pairs_processor": processor, "ours_processor": ours}


def _inception(arrays: Arrays, settings: Settings) -> Arrays:
    del arrays
    generator = np.random.default_rng(0)
    sizes = (settings["num_train"], settings["num_test"])
    train, test = (
        (generator.random((num, 32, 32, 3), dtype=np.float32), generator.integers(0, 10, num)) for num in sizes
    )
    network = small_inception.SmallInception(10)
    network(train[0][:2], is_training=True)
    fitted = influence_functions.InfluenceFunctions(
        targets.of(network), "ekfac", damping=settings["damping"], batch_size=32, memory_limit_mb=1000
    )
    _, fit_wall, fit_processor = _timed(lambda: fitted.fit(train), 1)
    after_fit = _peak_megabytes()
    scores, wall, processor = _timed(lambda: fitted.scores(train, test).values, 1)
    if not np.isfinite(scores).all():
        raise SystemExit("scores of SmallInception are not finite")
    return {
        "fit_wall": fit_wall,
        "fit_processor": fit_processor,
        "score_wall": wall,
        "score_processor": processor,
        "fit_megabytes": after_fit,
        "megabytes": _peak_megabytes(),
    }


def _peak_megabytes() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


_WAYS: dict[str, Callable[[Arrays, Settings], Arrays]] = {
    "problem": _problem,
    "ekfac": _ekfac,
    "vectors": _vectors,
    "cg": _cg,
    "residuals": _residuals,
    "gradients": _gradients,
    "naive": _naive,
    "inception": _inception,
}
