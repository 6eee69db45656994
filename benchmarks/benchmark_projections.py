"""Times projecting gradients of single examples beside a product with a random matrix that is there.

    python -m benchmarks.benchmark_projections                      # the MLP 784-128-64-10 and SmallInception
    python -m benchmarks.benchmark_projections --models=mlp --batch_size=128

Milliseconds for one batch: of the gradients alone; of the gradients with each projection of estimators/projections;
of the gradients times a matrix [P, d] of normal numbers made by TensorFlow for every batch ("dense, drawn"), which is
what serves several models without keeping their matrices, and made once ("dense, stored"). Least of several repeats, in
turn; the slow "dense, drawn" only once after it was traced. Random images, random weights. A healthy run shows all
projections quicker than "dense, drawn", and two_sided quicker than all others where layers are wide.
Results go to benchmarks/results/projections.json.
"""

from collections.abc import Callable
import time

from absl import app, flags
import numpy as np
import tensorflow as tf

from benchmarks import environment
from estimators import targets
from estimators.derivatives import per_example, plans
from estimators.projections import projected_gradients
from heldout.models import registry

_MODELS = flags.DEFINE_list("models", ["mlp", "small_inception"], "Which.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Examples at a time.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Timings of which the least counts.")
# Architecture, options, image shape, dimension d.
_CASES = {
    "mlp": ("mlp", {"hidden_sizes": [128, 64]}, (28, 28, 1), 2048),
    "small_inception": ("small_inception", {}, (32, 32, 3), 256),
}


def _functions(plan: plans.Plan, dimension: int) -> dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]:
    """What is timed, by name: functions of a batch."""
    gradients = per_example.make_gradients(plan, "measured")
    shape = [plan.target.num_parameters, dimension]

    @tf.function(autograph=False)
    def normal(seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_normal(shape, seed, alg="philox") / dimension**0.5

    functions: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {"gradients alone": gradients}
    for kind in ("signs", "hadamard", "sparse_signs", "coordinates", "two_sided"):
        config = projected_gradients.Config(kind, _layer_dimension(plan, dimension) if "two" in kind else dimension)
        compute = projected_gradients.make_projected(plan, config, "measured")
        draw = projected_gradients.draw(plan, config)
        functions[kind] = lambda x, y, compute=compute, draw=draw: compute(x, y, draw)
    functions["dense, drawn"] = lambda x, y: tf.matmul(gradients(x, y), normal(tf.constant([0, 1])))
    stored = normal(tf.constant([0, 1]))
    functions["dense, stored"] = lambda x, y: tf.matmul(gradients(x, y), stored)
    return functions


def _layer_dimension(plan: plans.Plan, dimension: int) -> int:
    """Of each layer, so that all together have about as many as the other projections."""
    return max(1, dimension // sum(len(p.shape) > 1 for p in plan.target.parameters))


def _measure(name: str) -> dict[str, float]:
    architecture, options, shape, dimension = _CASES[name]
    generator = np.random.default_rng(0)
    images = tf.constant(generator.uniform(size=(_BATCH_SIZE.value, *shape)).astype(np.float32))
    labels = tf.constant(generator.integers(0, 10, _BATCH_SIZE.value))
    module = registry.build(architecture, 10, shape, options)
    plan = plans.make(targets.of(module, measured="margin"), (images.numpy(), labels.numpy()))
    functions = _functions(plan, dimension)
    seconds: dict[str, list[float]] = {key: [] for key in functions}
    for repeat in range(_REPEATS.value + 1):
        for key, function in functions.items():
            start = time.perf_counter()
            if repeat < 2 or key != "dense, drawn":
                function(images, labels).numpy()
                taken = time.perf_counter() - start
                # The first call traces.
                seconds[key] += [taken] if repeat else []
    milliseconds = {key: 1e3 * min(values) for key, values in seconds.items()}
    print(f"{name}: {plan.target.num_parameters} parameters, d = {dimension}, {_BATCH_SIZE.value} examples")
    for key, value in milliseconds.items():
        print(f"  {key:<16} {value:9.1f} ms")
    return {"num_parameters": plan.target.num_parameters, "dimension": dimension, **milliseconds}


def main(argv: list[str]) -> None:
    """Measures, prints and stores."""
    del argv
    figures = {name: _measure(name) for name in _MODELS.value}
    print(environment.save("projections", {"batch_size": _BATCH_SIZE.value, "milliseconds": figures}))


if __name__ == "__main__":
    app.run(main)
