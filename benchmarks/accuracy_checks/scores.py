"""Estimators beside influence functions: groups, TracIn, inner products, TRAK, representer points, EL2N, GraNd."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.special
import tensorflow as tf

from benchmarks.accuracy_checks import networks, rows
from estimators import (
    early_scores,
    gradient_similarity,
    group_effects,
    influence_functions,
    representer_points,
    tracin,
    trak,
)
from estimators.derivatives import plans
from estimators.projections import projected_gradients, sketches
from tests.estimators import linear_cases

_OF = ("loss", "measured")


def groups() -> Iterator[rows.Row]:
    """Effects of groups of both orders on ridge regression: k orders leave (H^-1 H_U)^k times the effect out."""
    ridge = linear_cases.ridge()
    fitted = influence_functions.InfluenceFunctions(ridge.target, "explicit", batch_size=5).fit((ridge.x, ridge.y))
    some, num = [np.array([3]), np.array([0, 5, 7]), np.arange(6)], len(ridge.x)
    for order in (1, 2):
        pairs = []
        for rescale in (False, True):
            for group in some:
                part = ridge.x[group].T @ ridge.x[group] / num
                part += rescale * len(group) / num * ridge.decay * np.eye(5)
                ratio = np.linalg.matrix_power(np.linalg.solve(ridge.hessian, part), order)
                exact = ridge.without(group, rescale=rescale) - ridge.theta
                found = group_effects.scores(
                    fitted, [group], (ridge.x_test, ridge.y_test), "measured", order=order, rescale=rescale
                )
                pairs.append((found.values[0], ridge.x_test @ (ratio @ exact - exact)))
        truth = "exact refit of ridge regression less the known rest"
        yield rows.errors(f"group effects of order {order}", truth, "float64", 1e-9, *pairs)


def similarities() -> Iterator[rows.Row]:
    """Inner products and cosines of gradients, and TracIn."""
    for dtype in networks.TOLERANCE:
        case = networks.make(dtype)
        first = networks.gradient_rows("train", "loss")
        dots, cosines, sums = [], [], []
        for of in _OF:
            second = networks.gradient_rows("test", of)
            products = -first @ second.T
            lengths = np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)
            arguments = (case.target, case.train, case.test)
            dots.append((gradient_similarity.dot(*arguments, of, batch_size=5).values, products))
            cosines.append((gradient_similarity.cosine(*arguments, of, batch_size=5).values, products / lengths))
            sums.append((_traced(case, of), _tracin_truth(of)))
        truth = "one tape an example, float64"
        yield rows.errors("inner products of gradients", truth, dtype, case.tolerance, *dots)
        yield rows.errors("cosines of gradients", truth, dtype, case.tolerance, *cosines)
        own = tracin.self_scores(case.target, case.train, _checkpoints(case), batch_size=5)
        expected = sum(rate * np.sum(_at(scale, "train", "loss") ** 2, axis=1) for rate, scale in _CHECKPOINTS)
        yield rows.errors("TracIn over 3 checkpoints", truth, dtype, case.tolerance, *sums, (own, expected))


# Learning rates, and what the weights are multiplied by.
_CHECKPOINTS = ((0.1, 0.5), (0.05, 2.0), (0.3, 1.0))


def _checkpoints(case: networks.Case) -> Iterator[float]:
    """The weights are back where they were after the last."""
    before = [variable.numpy() for variable in case.target.variables]

    def load(number: int) -> None:
        for variable, value in zip(case.target.variables, before, strict=True):
            variable.assign(_CHECKPOINTS[number][1] * value)

    return tracin.loaded(load, [rate for rate, _ in _CHECKPOINTS])


def _traced(case: networks.Case, of: str) -> np.ndarray:
    return tracin.scores(case.target, case.train, case.test, _checkpoints(case), of, batch_size=5).values


def _tracin_truth(of: str) -> np.ndarray:
    return sum(-rate * _at(scale, "train", "loss") @ _at(scale, "test", of).T for rate, scale in _CHECKPOINTS)


def _at(scale: float, split: str, of: str) -> np.ndarray:
    """Gradients by one tape each with the weights multiplied."""
    case = networks.make("float64")
    before = [variable.numpy() for variable in case.target.variables]
    for variable, value in zip(case.target.variables, before, strict=True):
        variable.assign(scale * value)
    found = networks.gradients.single(case.target, *getattr(case, split), of)
    for variable, value in zip(case.target.variables, before, strict=True):
        variable.assign(value)
    return found


def traks() -> Iterator[rows.Row]:
    """TRAK of both scalings without projection, and by an orthogonal one."""
    exact = projected_gradients.Config("none")
    for dtype in networks.TOLERANCE:
        case = networks.make(dtype)
        plan = plans.make(case.target, case.train)
        for scaling in trak.SCALINGS:
            expected, own = _trak_truth(scaling)
            config = trak.Config(exact, scaling=scaling, ridge=0.5, relative_ridge=0.0)
            fitted = trak.Trak(plan, config, batch_size=5).fit(case.train)
            pairs = [(fitted.scores(case.train, case.test).values, expected), (fitted.self_scores(case.train), own)]
            if dtype == "float64":
                turned = trak.Config(
                    projected_gradients.Config("hadamard", 64), scaling=scaling, ridge=0.5, relative_ridge=0.0
                )
                pairs.append((trak.Trak(plan, turned).fit(case.train).scores(case.train, case.test).values, expected))
            yield rows.errors(
                f"TRAK, scaling {scaling}", "its formula, gradients by tape", dtype, case.tolerance, *pairs
            )


def _trak_truth(scaling: str) -> tuple[np.ndarray, np.ndarray]:
    """((1 - p_i) phi_i^T K^-1 phi_t, the same of each training example with itself)."""
    case = networks.make("float64")
    first, second = (networks.gradient_rows(split, "measured") for split in ("train", "test"))
    p = scipy.special.softmax(case.target.predict(case.train[0]).numpy(), axis=1)[np.arange(12), case.train[1]]
    weights = p * (1 - p) if scaling == "output" else np.ones(12)
    gram = (first.T * weights) @ first + 0.5 * np.eye(first.shape[1])
    solved = np.linalg.solve(gram, np.concatenate([second, first]).T)
    scores = (1 - p)[:, None] * (first @ solved)
    return scores[:, : len(second)], np.diag(scores[:, len(second) :])


_NUM_MAPS = 300


def projections() -> Iterator[rows.Row]:
    """Inner products of projected gradients: how far their mean is from the truth, in standard errors of the mean."""
    case = networks.make("float64")
    plan = plans.make(case.target, case.train)
    gradients = networks.gradient_rows("train", "loss")
    for kind in (*sketches.SKETCHES, "two_sided"):
        if kind == "none":
            continue
        config = projected_gradients.Config(kind, dimension=8)
        compute, draws = projected_gradients.make_projected(plan, config), []
        for member in range(_NUM_MAPS):
            found = compute(*case.train, projected_gradients.draw(plan, config, member)).numpy()
            draws.append(found @ found.T)
        deviation = np.abs(np.mean(draws, axis=0) - gradients @ gradients.T)
        figure = float((deviation / (np.std(draws, axis=0) / np.sqrt(_NUM_MAPS))).max())
        # Of 78 different pairs one is beyond 4.5 standard errors once in 2000 tables.
        name = f"projected inner products: {kind}, bias in standard errors"
        yield rows.Row(name, "gradients by tape", _NUM_MAPS, figure, "float64", 4.5)


def representers() -> Iterator[rows.Row]:
    """Representer points of ridge regression and of softmax regression."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(20, 2))
    weights = np.linalg.solve(x.T @ x / 20 + 0.5 * np.eye(4), x.T @ y / 20)
    found = representer_points.fit(x, y, 0.5, loss="squared_error", bias=False)
    pairs: list[tuple[Any, Any]] = [(found.weights, weights), (found.alpha, (y - x @ weights) / 10)]
    yield rows.errors("representer points: ridge regression", "closed form", "float64", 1e-6, *pairs)
    labels = rng.integers(0, 3, 20)
    found = representer_points.fit(x, labels, 0.05)
    logits = np.concatenate([x, np.ones((20, 1))], axis=1) @ found.weights
    alpha = (np.eye(3)[labels] - scipy.special.softmax(logits, axis=1)) / (0.05 * 20)
    sums = found.scores(x, labels).values.sum(axis=0)
    pairs = [(found.alpha, alpha), (sums, logits[np.arange(20), labels])]
    yield rows.errors("representer points: softmax", "definition; parts add up to the logit", "float64", 1e-5, *pairs)


def early() -> Iterator[rows.Row]:
    """EL2N and GraNd over two models."""
    for dtype in networks.TOLERANCE:
        case = networks.make(dtype)
        probabilities = scipy.special.softmax(_logits(), axis=1)
        lengths = np.linalg.norm(probabilities - np.eye(3)[case.train[1]], axis=1)
        found = early_scores.el2n([case.target] * 2, case.train, batch_size=5)
        yield rows.errors("EL2N", "definition", dtype, case.tolerance, (found.values, lengths))
        found = early_scores.grand([case.target] * 2, case.train, batch_size=5)
        truth = np.linalg.norm(networks.gradient_rows("train", "loss"), axis=1)
        yield rows.errors("GraNd", "one tape an example, float64", dtype, case.tolerance, (found.values, truth))


def _logits() -> np.ndarray:
    case = networks.make("float64")
    return case.target.predict(tf.constant(case.train[0])).numpy()
