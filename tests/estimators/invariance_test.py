"""What no estimator depends on: the size of batches, the order of examples, and precision but for rounding.

One network in float32 and float64 with the same weights, held through every estimator. That shares of a batch on
several devices change nothing either is tested beside `estimators.sharding`.
"""

from collections.abc import Callable
import functools

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.accuracy_checks import networks
from estimators import (
    early_scores,
    examples,
    gradient_similarity,
    group_effects,
    influence_functions,
    representer_points,
    tracin,
    trak,
)
from estimators.curvature import operators
from estimators.derivatives import per_example, plans
from estimators.projections import projected_gradients

_NUM_TRAIN, _NUM_TEST = 12, 5


def _influence(solver, **options):
    def run(target, train, test, batch_size):
        fitted = influence_functions.InfluenceFunctions(target, solver, batch_size=batch_size, **options).fit(train)
        scores = fitted.scores(train, test, "measured").values
        return scores, fitted.self_scores(train)[:, None]

    return run


def _gradients(target, train, test, batch_size):
    compute = per_example.make_gradients(plans.make(target, train))
    found = np.concatenate([compute(batch.inputs, batch.labels) for batch in train.batches(batch_size)])
    return (found @ found[np.argsort(train.ids)][:5].T,)


def _groups(target, train, test, batch_size):
    options = {"damping": 0.1, "curvature": "gauss_newton"}
    fitted = influence_functions.InfluenceFunctions(target, "explicit", batch_size=batch_size, **options).fit(train)
    place = np.argsort(train.ids)
    some = [place[:5], place[[1, 6, 11]]]
    found = [group_effects.scores(fitted, some, test, order=order).values.sum(axis=0) for order in (1, 2)]
    return tuple(np.tile(one, (_NUM_TRAIN, 1)) for one in found)  # the order of training examples is none of groups'


def _similarity(compute):
    return lambda target, train, test, size: (compute(target, train, test, "measured", batch_size=size).values,)


def _tracin(target, train, test, batch_size):
    rates = [0.1, 0.3]
    scores = tracin.scores(target, train, test, tracin.loaded(lambda k: None, rates), batch_size=batch_size).values
    own = tracin.self_scores(target, train, tracin.loaded(lambda k: None, rates), batch_size=batch_size)
    return scores, own[:, None]


def _trak(kind, scaling):
    def run(target, train, test, batch_size):
        projection = projected_gradients.Config(kind, dimension=16)
        config = trak.Config(projection, scaling=scaling, ridge=0.5)
        fitted = trak.Trak(plans.make(target, train), config, batch_size=batch_size).fit(train)
        return fitted.scores(train, test).values, fitted.self_scores(train)[:, None]

    return run


def _early(compute):
    return lambda target, train, test, size: (compute(target, train, batch_size=size).values[:, None],)


def _representers(target, train, test, batch_size):
    read = functools.partial(
        representer_points.features_of, lambda inputs: tf.reduce_sum(inputs, axis=2), batch_size=batch_size
    )
    found = representer_points.fit(read(train), train.labels, 0.1)
    return (found.scores(read(test), test.labels).values,)


def _products(kind):
    def run(target, train, test, batch_size):
        curvature = operators.Curvature(plans.make(target, train), train, kind, batch_size=batch_size)
        return (operators.explicit(curvature)[: len(train)],)  # the order of examples is not one of its rows

    return run


_D = {"damping": 0.1}
_KRONECKER = {**_D, "labels": "expected"}
_ESTIMATORS: dict[str, Callable] = {
    "gradients": _gradients,
    "explicit": _influence("explicit", **_D, curvature="gauss_newton"),
    "conjugate_gradient": _influence("conjugate_gradient", **_D, tolerance=1e-6),
    "lanczos": _influence("lanczos", **_D, curvature="gauss_newton", num_eigenvalues=40),
    "nystroem": _influence("nystroem", **_D, rank=40),
    "kfac": _influence("kfac", **_KRONECKER),
    "ekfac": _influence("ekfac", **_KRONECKER),
    "ekfac_neumann": _influence("ekfac_neumann", **_KRONECKER, tolerance=1e-4, max_iterations=500),
    "identity": _influence("identity"),
    "groups": _groups,
    "dot": _similarity(gradient_similarity.dot),
    "cosine": _similarity(gradient_similarity.cosine),
    "tracin": _tracin,
    "trak": _trak("signs", "output"),
    "trak, published, two-sided": _trak("two_sided", "published"),
    "el2n": _early(early_scores.el2n),
    "grand": _early(early_scores.grand),
    "representer points": _representers,
}


def _case(dtype):
    case = networks.make(dtype)
    train, test = examples.Examples(*case.train), examples.Examples(*case.test, 100 + np.arange(_NUM_TEST))
    return case.target, train, test


@functools.cache
def _whole(name):
    """In float64, all examples in one batch."""
    return _ESTIMATORS[name](*_case("float64"), _NUM_TRAIN)


def _close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


def _tolerance(name):
    # Solvers that stop at a tolerance stop elsewhere.
    return {"conjugate_gradient": 1e-5, "ekfac_neumann": 1e-3, "representer points": 1e-5}.get(name, 1e-7)


# Those that take long have tests of their own for batches and order, but for precision.
_QUICK = ("gradients", "groups", "tracin", "el2n", "grand", "representer points")
_NAMES = [pytest.param(name, marks=[] if name in _QUICK else [pytest.mark.slow]) for name in _ESTIMATORS]


@pytest.mark.parametrize("name", _NAMES)
def test_neither_the_size_of_batches_nor_the_order_of_examples_changes_a_score(name):
    target, train, test = _case("float64")
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(_NUM_TRAIN), rng.permutation(_NUM_TEST)
    has_tests = [one.shape[1] == _NUM_TEST and name != "gradients" for one in _whole(name)]
    found = _ESTIMATORS[name](target, train.take(rows), test.take(columns), 7)
    expected = [
        one[rows][:, columns] if is_pair else one[rows] for one, is_pair in zip(_whole(name), has_tests, strict=True)
    ]
    _close(found, expected, _tolerance(name))


@pytest.mark.parametrize("name", _NAMES)
def test_single_examples_in_float32_give_the_same_but_for_rounding(name):
    found = _ESTIMATORS[name](*_case("float32"), 1)
    _close(found, _whole(name), max(_tolerance(name), 1e-4))


@pytest.mark.parametrize("kind", operators.KINDS)
def test_products_with_curvatures_depend_on_none_either(kind):
    target, train, test = _case("float64")
    (truth,) = _products(kind)(target, train, test, _NUM_TRAIN)
    turned = train.take(np.random.default_rng(0).permutation(_NUM_TRAIN))
    _close(_products(kind)(target, turned, test, 7), [truth], 1e-12)
    _close(_products(kind)(*_case("float32"), 1), [truth], 1e-5)
