"""Every compute path as it is by default, and on the two replicas of a strategy, compiled by XLA, or both.

    python -m tests.estimators.compute_paths replicas derivatives

prints as JSON, for every check of a group, the largest relative difference and what each device ran. It is a program
because devices are divided before TensorFlow has begun.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import json
import sys
import traceback
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

from estimators import (
    early_scores,
    examples,
    gradient_similarity,
    group_effects,
    influence_functions,
    representer_points,
    sharding,
    solvers,
    tracin,
    trak,
)
from estimators.curvature import kronecker, operators
from estimators.derivatives import per_example, plans
from estimators.projections import projected_gradients
from tests.estimators import models

# "one_program": which replica it is turns out when it runs, as on TPUs.
MODES = ("replicas", "xla", "replicas_xla", "replicas_one_program")
# [largest difference over the largest value, operations that computed by device, functions that XLA compiled]
Outcome = list[Any]
Check = Callable[[models.Case], Any]

_SIZES = (7, 4, 1)  # one that two does not divide, one that it does, and fewer than there are replicas


def _first(case: models.Case, num: int) -> tuple[Any, np.ndarray]:
    return tf.nest.map_structure(lambda array: array[:num], (case.inputs, case.labels))


def _plan(case: models.Case) -> plans.Plan:
    return plans.make(case.target, (case.inputs, case.labels))


def gradients(case):
    """Of losses and measured outputs."""
    functions = [per_example.make_gradients(_plan(case), of) for of in per_example.OF]
    return [function(*_first(case, num)) for function in functions for num in _SIZES]


def all_gradients(case):
    """Of the losses of all examples."""
    return per_example.make_gradients(_plan(case))(case.inputs, case.labels)


def squared_norms(case):
    """Of losses."""
    function = per_example.make_squared_norms(_plan(case))
    return [function(*_first(case, num)) for num in _SIZES]


def dot_products(case):
    """Of losses with measured outputs."""
    function = per_example.make_dot_products(_plan(case), "loss", "measured")
    return [function(*_first(case, num), *_first(case, 3)) for num in _SIZES]


def curvature(kind: str, batch_sizes: Sequence[int] = (1, 3, 7)) -> Check:
    """Products over all examples and over a few, and a recursion."""

    def check(case: models.Case) -> Any:
        random, found = np.random.default_rng(0), []
        for batch_size in batch_sizes:
            operator = operators.Curvature(_plan(case), (case.inputs, case.labels), kind, batch_size=batch_size)
            vectors = tf.constant(random.normal(size=(2, operator.size)), operator.dtype)
            found += [operator.products(vectors), operator.batch_products(vectors, np.array([5, 2, 3]))]
            positions = np.array([[0, 3, 5], [1, 2, 6]])
            found += operator.make_recursion(3)(vectors, vectors, positions, 0.9, 10.0)
        return found

    return check


def products(case):
    """One product with the Gauss-Newton matrix."""
    operator = operators.Curvature(_plan(case), (case.inputs, case.labels), "gauss_newton")
    return operator.products(tf.ones([1, operator.size], operator.dtype))


def factors(labels: str) -> Check:
    """Kronecker factors: second moments along their eigenvectors, and what they solve."""

    def check(case: models.Case) -> Any:
        plan = _plan(case)
        fitted = kronecker.fit(plan, (case.inputs, case.labels), labels=labels, batch_size=4, seed=3)
        vectors = np.random.default_rng(0).normal(size=(2, plan.target.num_parameters))
        solver = kronecker.KroneckerSolver(plan, fitted, 0.1)
        return [
            solver.apply(tf.constant(vectors, plan.target.dtype)),
            *(np.sort(b.moments, None) for b in fitted.blocks),
        ]

    return check


def influence(solver: str, **options: Any) -> Check:
    """Scores, those of a set, and self-scores."""

    def check(case: models.Case) -> Any:
        train, test = examples.of((case.inputs, case.labels)), examples.of(_first(case, 5))
        fitted = influence_functions.InfluenceFunctions(case.target, solver, batch_size=3, **options).fit(train)
        scores = fitted.scores(train, test, "measured").values
        return [scores, fitted.set_scores(train, test), fitted.self_scores(train)]

    return check


def groups(case):
    """Effects of second order of leaving groups out."""
    fitted = influence_functions.InfluenceFunctions(case.target, "explicit", batch_size=3, damping=0.1)
    fitted.fit((case.inputs, case.labels))
    return group_effects.scores(fitted, [np.array([0, 3, 4]), np.array([5])], _first(case, 5), order=2).values


def similarity(case):
    """Cosines, and TracIn over two checkpoints."""
    pair = (case.inputs, case.labels), _first(case, 5)
    start = [variable.numpy() for variable in case.target.variables]

    def load(number: int) -> None:
        for variable, value in zip(case.target.variables, start, strict=True):
            variable.assign(value * (1 + 0.1 * number))

    steps = tracin.scores(case.target, *pair, tracin.loaded(load, [0.1, 0.2]), batch_size=3)
    load(0)
    return [gradient_similarity.cosine(case.target, *pair, batch_size=3).values, steps.values]


def early(case):
    """EL2N and GraNd."""
    data = (case.inputs, case.labels)
    return [function(case.target, data, batch_size=4).values for function in (early_scores.el2n, early_scores.grand)]


def features(case):
    """Predictions in the place of features of a last layer."""
    target = case.target
    return representer_points.features_of(
        target.predict,
        (case.inputs, case.labels),
        batch_size=4,
        strategy=target.strategy,
        jit_compile=target.jit_compile,
    )


def projected(case):
    """Every projection."""
    plan, found = _plan(case), []
    for kind in projected_gradients.KINDS:
        config = projected_gradients.Config(kind, dimension=8)
        function = projected_gradients.make_projected(plan, config, "measured")
        found += [function(*_first(case, num), projected_gradients.draw(plan, config)) for num in _SIZES]
    return found


def traks(case):
    """TRAK in output units."""
    config = trak.Config(projected_gradients.Config("signs", dimension=6), leverage=True)
    fitted = trak.Trak(_plan(case), config, batch_size=3).fit((case.inputs, case.labels))
    scores = fitted.scores((case.inputs, case.labels), _first(case, 5)).values
    return [scores, fitted.self_scores((case.inputs, case.labels))]


_DERIVATIVES = {"gradients": gradients, "squared_norms": squared_norms, "dot_products": dot_products}
_SOLVERS: dict[str, dict[str, Any]] = {
    "explicit": {"damping": 0.1},
    "conjugate_gradient": {"damping": 0.1, "tolerance": 1e-12, "preconditioner": "ekfac"},
    "lissa": {"scale": 30.0, "recursion_depth": 40, "damp": 0.1, "step_batch_size": 3},
    "lanczos": {"damping": 0.1, "num_eigenvalues": 39, "num_steps": 39},
    "nystroem": {"damping": 0.1, "rank": 20},
    "kfac": {"damping": 0.1},
    "ekfac": {"damping": 0.1, "check": True},
    "ekfac_neumann": {"damping": 0.1, "tolerance": 1e-12, "max_iterations": 500},
    "identity": {},
}
assert _SOLVERS.keys() == solvers.SOLVERS.keys() - {"arnoldi"}

# Group -> name -> (model, check).
GROUPS: dict[str, dict[str, tuple[str, Check]]] = {
    "few": {"gradients": ("several_inputs", gradients), "hessian": ("mlp", curvature("hessian", [7]))},
    "derivatives": {
        **{
            f"{check} of {name}": (name, _DERIVATIVES[check])
            for name in ("mlp", "conv2d_strided")
            for check in _DERIVATIVES
        },
        **{
            name: (name, gradients)
            for name in ("weight_norm", "class_token", "several_inputs", "branching", "embedding")
        },
    },
    "curvature": {
        **{f"{kind} of {name}": (name, curvature(kind)) for kind in operators.KINDS for name in ("mlp", "tied")},
        **{f"factors by {kind} labels": ("conv2d_strided", factors(kind)) for kind in kronecker.LABELS},
        "factors of a regression": ("regression", factors("sampled")),
    },
    "solvers": {name: ("mlp", influence(name, **options)) for name, options in _SOLVERS.items()},
    "estimators": {
        "group_effects": ("mlp", groups),
        "similarity": ("conv2d_strided", similarity),
        "early_scores": ("mlp", early),
        "representer_features": ("mlp", features),
        "projections": ("mlp", projected),
        "trak": ("mlp", traks),
    },
    "float32": {
        "sonnet": ("sonnet_batch_norm", gradients),
        "sonnet_factors": ("sonnet_batch_norm", factors("expected")),
        "keras": ("keras_zoo", all_gradients),
        "keras_products": ("keras_zoo", products),
    },
}


# What moves numbers without computing any.
_PLUMBING = {"Const", "Identity", "NoOp", "Reshape", "StridedSlice", "GatherV2", "Pack", "ConcatV2", "ReadVariableOp"}


@contextlib.contextmanager
def _watched(ran: collections.Counter[str], compiled: list[Any]) -> Iterator[None]:
    """Counts operations of the graphs that are run on each device, as they are once TensorFlow has placed them."""
    from tensorflow.python.eager import context  # nothing public tells

    make = sharding._compiled

    def kept(strategy: Any, function: Any, jit_compile: bool) -> Any:
        found = make(strategy, function, jit_compile)
        compiled.extend([found] if jit_compile else [])
        return found

    context.context().enable_run_metadata()
    try:
        with mock.patch.object(sharding, "_compiled", kept):
            yield
        for graph in context.context().export_run_metadata().partition_graphs:
            for node in graph.node:
                computes = node.op not in _PLUMBING and not node.op.startswith("_")
                ran[node.device.rpartition("device:")[2]] += computes
    finally:
        context.context().disable_run_metadata()


def _built(name: str, scope: contextlib.AbstractContextManager[Any], jit_compile: bool) -> models.Case:
    with scope:
        case = models.ALL[name]()
    return dataclasses.replace(case, target=dataclasses.replace(case.target, jit_compile=jit_compile))


def outcome(mode: str, name: str, check: Check) -> Outcome:
    """See `Outcome`."""
    scope: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if "replicas" in mode:
        scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
    plain, other = _built(name, contextlib.nullcontext(), False), _built(name, scope, "xla" in mode)
    for ours, theirs in zip(other.target.variables, plain.target.variables, strict=True):
        ours.assign(theirs)
    assert plain.target.strategy is None
    assert (other.target.strategy is not None) == ("replicas" in mode)
    ran, compiled = collections.Counter[str](), list[Any]()
    one_program = mock.patch.object(sharding, "_replica_number", _number_when_run)
    with _watched(ran, compiled), one_program if "one_program" in mode else contextlib.nullcontext():
        found = check(other)
    worst = 0.0
    for ours, theirs in zip(tf.nest.flatten(found), tf.nest.flatten(check(plain)), strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape
        assert np.isfinite(theirs).all()
        worst = max(worst, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    return [worst, ran, sum(function.experimental_get_tracing_count() for function in compiled)]


def _number_when_run() -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    return tf.identity(context.replica_id_in_sync_group)


def main(mode: str, group: str) -> None:
    """Prints the outcomes of a group; a check that fails is told by its error."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    tf.config.threading.set_intra_op_parallelism_threads(2)
    found: dict[str, Any] = {}
    for name, pair in GROUPS[group].items():
        try:
            found[name] = outcome(mode, *pair)
        except (ValueError, TypeError, RuntimeError, AssertionError, tf.errors.OpError):
            found[name] = traceback.format_exc()[-3000:]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
