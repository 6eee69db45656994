"""Estimators against models that were fitted again without single examples, or without groups."""

from collections.abc import Iterator
import functools

import numpy as np
import tensorflow as tf

from benchmarks import softmax_regression
from benchmarks.accuracy_checks import rows
from estimators import group_effects, influence_functions, targets, trak
from estimators.derivatives import plans
from estimators.projections import projected_gradients
from heldout.datasets import registry

_NUM_TRAIN, _NUM_TEST = 200, 40
# Weight decay by the number of classes.
_DECAY = {2: 0.05, 10: 0.02}


@functools.cache
def _fits(num_classes: int) -> tuple[softmax_regression.Problem, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """(problem, weights [D, K], weights without each example [N, D, K], test examples) of the first classes of digits.

    With two classes, 3 and 8, which are hard to tell apart.
    """
    data = registry.load("digits")
    chosen = (3, 8) if num_classes == 2 else tuple(range(num_classes))
    positions = np.flatnonzero(np.isin(data.train.label, chosen))[: _NUM_TRAIN + _NUM_TEST]
    images = data.normalise(data.train.images[positions], np.float64).reshape(len(positions), -1)
    features = np.concatenate([images, np.ones((len(images), 1))], axis=1)
    labels = np.searchsorted(chosen, data.train.label[positions])
    problem = softmax_regression.Problem(features[:_NUM_TRAIN], labels[:_NUM_TRAIN], num_classes, _DECAY[num_classes])
    weights, step = softmax_regression.fit(problem)
    without = softmax_regression.leave_one_out(problem, weights, step, np.arange(_NUM_TRAIN))
    return problem, weights, without, (features[_NUM_TRAIN:], labels[_NUM_TRAIN:])


def _target(problem: softmax_regression.Problem, weights: np.ndarray) -> targets.Target:
    module = tf.Module()
    module.weights = tf.Variable(weights)
    return targets.of(module, predict=lambda x: x @ module.weights, measured="margin", weight_decay=problem.decay)


def _outputs(features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(losses, margins) [..., M] of test examples under weights [..., D, K]."""
    logits = features @ weights
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shares = np.exp(shifted)
    at = np.arange(len(labels))
    others = shares.sum(axis=-1) - shares[..., at, labels]
    losses = np.log(shares.sum(axis=-1)) - shifted[..., at, labels]
    return losses, shifted[..., at, labels] - np.log(others)


def influence() -> Iterator[rows.Row]:
    """Scores of loss and margin, and self-influence, on softmax regression of all ten digits."""
    problem, weights, without, test = _fits(10)
    train = (problem.features, problem.labels)
    fitted = influence_functions.InfluenceFunctions(_target(problem, weights), "explicit").fit(train)
    truth = "exact leave-one-out, 10 digits"
    exact = [whole - left for whole, left in zip(_outputs(*test, weights), _outputs(*test, without), strict=True)]
    for of, name, differences in zip(("loss", "measured"), ("loss", "margin"), exact, strict=True):
        found = fitted.scores(train, test, of).values
        yield rows.correlation(f"influence functions: {name}", truth, "float64", 0.99, found, differences, _NUM_TRAIN)
    at = np.arange(_NUM_TRAIN)
    own = _outputs(*train, without)[0][at, at] - _outputs(*train, weights)[0]
    yield rows.correlation("self-influence", truth, "float64", 0.99, fitted.self_scores(train), own, _NUM_TRAIN)


def traks() -> Iterator[rows.Row]:
    """TRAK in output units, and corrected for leverage, on two classes, where its output is all that the loss takes."""
    problem, weights, without, test = _fits(2)
    train = (problem.features, problem.labels)
    plan = plans.make(_target(problem, weights), train)
    exact = _outputs(*test, weights)[1] - _outputs(*test, without)[1]
    for leverage, bound in ((False, 0.999), (True, 0.9999)):
        config = trak.Config(projected_gradients.Config("none"), relative_ridge=0.0, leverage=leverage)
        found = trak.Trak(plan, config).fit(train).scores(train, test).values
        name = "TRAK, output units" + (", with leverage" if leverage else "")
        yield rows.correlation(name, "exact leave-one-out, digits 3 and 8", "float64", bound, found, exact, _NUM_TRAIN)
        slope = float(np.sum(found * exact) / np.sum(found**2))
        quantity, limit = f"{name}: slope less 1", 0.005 if leverage else 0.15
        yield rows.Row(quantity, "exact leave-one-out, digits 3 and 8", _NUM_TRAIN, abs(slope - 1), "float64", limit)


def groups() -> Iterator[rows.Row]:
    """Groups of a tenth of the training examples, drawn among those of largest self-influence or at random."""
    problem, weights, _, test = _fits(10)
    train, rng = (problem.features, problem.labels), np.random.default_rng(0)
    fitted = influence_functions.InfluenceFunctions(_target(problem, weights), "explicit").fit(train)
    first = np.argsort(-fitted.self_scores(train))[: _NUM_TRAIN // 3]
    pools = (first, np.arange(_NUM_TRAIN))
    some = [rng.choice(pool, _NUM_TRAIN // 10, replace=False) for pool in pools for _ in range(5)]
    exact = np.array([_outputs(*test, weights)[1] - _outputs(*test, _refit(problem, weights, g))[1] for g in some])
    for order, bound in ((1, 0.95), (2, 0.99)):
        found = group_effects.scores(fitted, some, test, "measured", order=order).values
        name = f"group effects of order {order}: margin"
        yield rows.correlation(
            name, "exact refit without a tenth, 10 digits", "float64", bound, found, exact, len(some)
        )


def _refit(problem: softmax_regression.Problem, weights: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Weights without a group, 1/n being kept: the mean over those left with a weight decay that grows as much."""
    left = np.delete(np.arange(len(problem.labels)), group)
    share = len(left) / len(problem.labels)
    smaller = softmax_regression.Problem(
        problem.features[left], problem.labels[left], problem.num_classes, problem.decay / share
    )
    return softmax_regression.fit(smaller)[0]
