"""Influence functions by every solver, against inverses written out, and the golden values they are known by."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.accuracy_checks import networks, rows
from estimators import influence_functions, targets
from estimators.curvature import lissa, operators
from estimators.derivatives import plans
from tests.estimators import linear_cases

_GN = {"curvature": "gauss_newton"}
_D = {"damping": networks.DAMPING}
_TIGHT = {**_D, "tolerance": 1e-11}
_WHOLE = {"damp": networks.DAMPING, "scale": 8.0, "recursion_depth": 700, "r": 2, "step_batch_size": 12}
_KRONECKER = {**_D, "labels": "expected"}
# Solver, options, truth, bound beyond that of rounding.
_SOLVERS: tuple[tuple[str, dict[str, Any], str, float], ...] = (
    ("explicit", {**_D, "curvature": "hessian"}, "hessian", 0.0),
    ("explicit", {**_D, **_GN}, "gauss_newton", 0.0),
    ("explicit", {**_D, "curvature": "empirical_fisher"}, "empirical_fisher", 0.0),
    ("conjugate_gradient", _TIGHT, "gauss_newton", 1e-8),
    ("conjugate_gradient", {**_TIGHT, "preconditioner": "nystroem", "rank": 10}, "gauss_newton", 1e-8),
    ("conjugate_gradient", {**_TIGHT, "preconditioner": "ekfac"}, "gauss_newton", 1e-8),
    ("lissa", {**_WHOLE, **_GN}, "gauss_newton", 1e-4),
    ("arnoldi", {**_D, "num_eigenvalues": 40, "curvature": "hessian"}, "hessian", 1e-7),
    ("arnoldi", {**_D, **_GN, "num_eigenvalues": 10}, "largest of gauss_newton", 1e-7),
    ("nystroem", {**_D, "rank": 40}, "gauss_newton", 1e-6),
    ("nystroem", {**_D, "rank": 10}, "low rank of gauss_newton", 1e-6),
    ("kfac", _KRONECKER, "kfac", 0.0),
    ("ekfac", _KRONECKER, "ekfac", 0.0),
    ("ekfac_neumann", {**_D, "tolerance": 1e-6, "max_iterations": 2000}, "gauss_newton", 1e-4),
    ("identity", {}, "identity", 0.0),
)
_IN_FLOAT32 = (1, 3, 11, 12, 14)
_TRUTHS = {
    "hessian": "inverse of the Hessian",
    "gauss_newton": "inverse of the Gauss-Newton matrix",
    "empirical_fisher": "inverse of the empirical Fisher matrix",
    "largest of gauss_newton": "10 largest eigenvalues of the Gauss-Newton matrix",
    "low rank of gauss_newton": "Nystroem's formula, rank 10",
    "kfac": "A (x) S written out",
    "ekfac": "diagonal in the eigenvectors of A (x) S",
    "identity": "inner products / n",
}


def of_solvers() -> Iterator[rows.Row]:
    """Scores of loss and margin and self-influence of the network, by every solver."""
    for number, (solver, options, truth, bound) in enumerate(_SOLVERS):
        for dtype in ("float64", "float32") if number in _IN_FLOAT32 else ("float64",):
            case = networks.make(dtype)
            settings = options | {"tolerance": 1e-6} if dtype == "float32" and "tolerance" in options else options
            fitted = influence_functions.InfluenceFunctions(case.target, solver, batch_size=5, **settings)
            fitted.fit(case.train)
            pairs = [(fitted.scores(case.train, case.test, of).values, _scores(truth, of)) for of in _OF]
            pairs.append((fitted.self_scores(case.train), _self_scores(truth)))
            name = f"influence functions: {solver}{_described(options)}"
            yield rows.errors(name, _TRUTHS[truth], dtype, max(bound, case.tolerance), *pairs)


_OF = ("loss", "measured")


def _described(options: dict[str, Any]) -> str:
    told = [f"{options[name]}" for name in ("preconditioner",) if name in options]
    return f" with {told[0]}" if told else ""


def _inverse(truth: str) -> np.ndarray:
    """[P, P], what stands in the place of (C + damping I)^-1."""
    size = len(networks.curvature_matrix("gauss_newton"))
    matrix = networks.curvature_matrix(truth.rpartition(" ")[2]) if "gauss_newton" in truth else np.eye(size)
    if truth.startswith("largest"):
        values, vectors = np.linalg.eigh(matrix)
        return (vectors[:, -10:] / (values[-10:] + networks.DAMPING)) @ vectors[:, -10:].T
    if truth.startswith("low rank"):
        test = np.linalg.qr(np.random.default_rng(0).normal(size=(size, 10)))[0]
        matrix = matrix @ test @ np.linalg.solve(test.T @ matrix @ test, test.T @ matrix)
    elif truth in ("kfac", "ekfac"):
        matrix = networks.kronecker_matrix(truth == "ekfac")
    elif truth == "identity":
        return np.eye(size)
    else:
        matrix = networks.curvature_matrix(truth)
    return np.linalg.inv(matrix + networks.DAMPING * np.eye(size))


def _scores(truth: str, of: str) -> np.ndarray:
    train, test = networks.gradient_rows("train", "loss"), networks.gradient_rows("test", of)
    return -train @ _inverse(truth) @ test.T / len(train)


def _self_scores(truth: str) -> np.ndarray:
    train = networks.gradient_rows("train", "loss")
    return np.einsum("ip,pq,iq->i", train, _inverse(truth), train) / len(train)


def golden() -> Iterator[rows.Row]:
    """Values known in closed form."""
    target, train, test = linear_cases.intercepts()
    fitted = influence_functions.InfluenceFunctions(target, "explicit", pseudo_inverse=True).fit(train)
    expected = np.full((10, 3), -0.1)
    expected[:5, 0], expected[5:8, 1], expected[8:, 2] = 0.1, 0.7 / 3, 0.4
    matrix = fitted.scores(train, test)
    found = np.stack([matrix.helpfulness(column) for column in range(3)], axis=1)
    own = (fitted.self_scores(train), np.repeat([0.1, 0.7 / 3, 0.4], [5, 3, 2]))
    yield rows.errors(
        "effect of removal, intercept alone, pseudo-inverse",
        "(1/n)(delta / p - 1), counts 5, 3, 2",
        "float64",
        1e-9,
        (found, expected),
        own,
    )
    yield _ridge()
    yield rows.errors(
        "LiSSA as first published",
        "2.907139 after 3 steps, limit 4.7619048",
        "float64",
        1e-6,
        *((10 * _lissa(depth, published=True), value) for depth, value in ((3, 2.907139), (400, 4.7619048))),
    )
    yield rows.errors(
        "LiSSA with damping added to eigenvalues", "1 / 2.01", "float64", 1e-9, (_lissa(400, published=False), 1 / 2.01)
    )


def _ridge() -> rows.Row:
    ridge = linear_cases.ridge()
    train, test = (ridge.x, ridge.y), (ridge.x_test, ridge.y_test)
    fitted = influence_functions.InfluenceFunctions(ridge.target, "explicit").fit(train)
    found = fitted.scores(train, test, of="measured").values
    leverages = np.einsum("id,de,ie->i", ridge.x, np.linalg.inv(ridge.hessian), ridge.x) / len(ridge.x)
    exact = [ridge.x_test @ (ridge.theta - ridge.without([i])) * (1 - leverages[i]) for i in range(len(ridge.x))]
    return rows.errors(
        "influence functions: ridge regression",
        "exact leave-one-out times (1 - leverage)",
        "float64",
        1e-9,
        (found, np.array(exact)),
        num_cases=len(ridge.x),
    )


def _lissa(depth: int, *, published: bool) -> float:
    """The limit for second derivative 2, scale 10 and damp .01, from the vector 1."""
    module = tf.Module()
    module.w = tf.Variable([[0.3]], dtype=tf.float64)
    target = targets.of(module, loss="squared_error", measured="output", predict=lambda x: x @ module.w)
    train = (np.full((4, 1), np.sqrt(2.0)), np.zeros(4))
    curvature = operators.Curvature(plans.make(target, train), train)
    config = lissa.LissaConfig(depth, scale=10.0, damp=0.01, published=published)
    return float(lissa.LissaSolver(curvature, config).solve(tf.ones([1, 1], tf.float64)).values[0, 0])
