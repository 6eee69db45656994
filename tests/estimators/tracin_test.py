"""TracIn against a training that is followed step by step, and against sums of inner products."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, examples, gradient_similarity, parameters, tracin
from tests.estimators import models

_RATES = [0.1, 0.05, 0.3]


def _case_and_load():
    case = models.ALL["mlp"]()
    rng = np.random.default_rng(0)
    weights = [[0.5 * rng.normal(size=p.shape) for p in case.target.parameters] for _ in _RATES]

    def load(k):
        for variable, value in zip(case.target.variables, weights[k], strict=True):
            variable.assign(value)

    return case, load


@pytest.mark.parametrize("of", ["loss", "measured"])
def test_checkpoints_add_up_with_their_learning_rates(of):
    case, load = _case_and_load()
    train, test = (case.inputs, case.labels), (case.inputs[:3], case.labels[:3])
    expected = 0.0
    for k, rate in enumerate(_RATES):
        load(k)
        expected = expected + rate * gradient_similarity.dot(case.target, train, test, of).values
    out = np.full((7, 3), 9.0)
    found = tracin.scores(case.target, train, test, tracin.loaded(load, _RATES), of, batch_size=4, out=out)
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    assert found.config["learning_rates"] == _RATES
    assert found.lower_is_better == (of == "loss")


def test_small_steps_on_one_example_do_what_is_said():
    """Training on example 2 alone, whose checkpoints are all its steps, changes every loss by its score."""
    case = models.ALL["mlp"]()
    data = examples.Examples(case.inputs, case.labels)
    labels = tf.constant(case.labels)
    before = case.target.losses(case.inputs, labels).numpy()

    def checkpoints():
        for _ in range(20):
            yield 1e-4
            with tf.GradientTape() as tape:
                loss = case.target.losses(case.inputs[2:3], labels[2:3])
            for variable, gradient in zip(
                case.target.variables, tape.gradient(loss, case.target.variables), strict=True
            ):
                variable.assign_sub(1e-4 * gradient)

    found = tracin.scores(case.target, data.take(np.array([2])), data, checkpoints())
    after = case.target.losses(case.inputs, labels).numpy()
    np.testing.assert_allclose(found.values[0], after - before, atol=1e-3 * np.abs(after - before).max())


def test_self_scores_are_the_diagonal_turned_positive():
    case, load = _case_and_load()
    train = (case.inputs, case.labels)
    own = tracin.self_scores(case.target, train, tracin.loaded(load, _RATES), batch_size=2)
    pairs = tracin.scores(case.target, train, train, tracin.loaded(load, _RATES))
    np.testing.assert_allclose(own, -np.diag(pairs.values), rtol=1e-10)
    assert (own > 0).all()


def test_the_last_layer_alone():
    case, load = _case_and_load()
    train = (case.inputs, case.labels)
    parts = [parameters.matching(case.target.parameters, pattern) for pattern in ("/[vc]$", "/[wb]$")]
    last, first = (
        tracin.scores(case.target.restricted(part), train, train, tracin.loaded(load, _RATES)).values for part in parts
    )
    whole = tracin.scores(case.target, train, train, tracin.loaded(load, _RATES)).values
    np.testing.assert_allclose(last + first, whole, atol=1e-12)
    assert np.abs(first).max() > 0.01


def test_no_checkpoints_or_rates_that_are_none_are_refused():
    case, _ = _case_and_load()
    train = (case.inputs, case.labels)
    for call in (
        lambda c: tracin.scores(case.target, train, train, c),
        lambda c: tracin.self_scores(case.target, train, c),
    ):
        with pytest.raises(errors.InvalidArgumentError, match="no checkpoints"):
            call([])
        with pytest.raises(errors.InvalidArgumentError, match=r"learning rate -0\.1 of a checkpoint"):
            call([-0.1])
