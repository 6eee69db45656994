"""Linearised networks against explicit Jacobians, and trained explicitly against the closed form."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, ntk, targets
from estimators.linearized import agreement, descents, dynamics, leave_out, linear_models
from tests.estimators import models


def _jacobian(target, inputs):
    """[B k, P] by differentiation of every output."""
    with tf.GradientTape(persistent=True) as tape:
        outputs = target.predict(tf.nest.map_structure(tf.convert_to_tensor, inputs))
    rows = tape.jacobian(outputs, target.variables, experimental_use_pfor=False)
    size = int(np.prod(outputs.shape))
    return np.concatenate([tf.reshape(row, [size, -1]).numpy() for row in rows], axis=1), outputs.numpy()


def _tolerance(target):
    return 1e-11 if target.dtype == tf.float64 else 2e-4


@pytest.mark.parametrize(
    ("name", "batch_size"),
    [
        ("mlp", 256),
        ("mlp", 3),
        ("tied", 3),
        ("embedding", 3),
        ("several_inputs", 3),
        ("sonnet_batch_norm", 3),
        ("keras_zoo", 4),
    ],
)
def test_products_equal_the_jacobian(name, batch_size):
    case = models.ALL[name]()
    model = linear_models.of(case.target)
    jacobian, outputs = _jacobian(case.target, case.inputs)
    rng, tolerance = np.random.default_rng(0), _tolerance(case.target)
    change = 0.1 * rng.normal(size=model.num_parameters)
    found = model.predict(case.inputs, model.initial_weights + change, batch_size=batch_size)
    np.testing.assert_allclose(found, outputs + (jacobian @ change).reshape(outputs.shape), atol=tolerance)
    np.testing.assert_allclose(model.initial_predictions(case.inputs), outputs, atol=tolerance)
    coefficients = rng.normal(size=outputs.size)
    weights = model.weights(case.inputs, coefficients, batch_size=batch_size)
    np.testing.assert_allclose(weights, model.initial_weights + jacobian.T @ coefficients, atol=10 * tolerance)


def test_predictions_without_an_axis_of_outputs():
    case = models.ALL["regression"]()
    flat = targets.of(
        case.target, predict=lambda x: case.target.predict(x)[:, 0], parameters=case.target.parameters,
        loss="squared_error",
    )  # fmt: skip
    model, plain = linear_models.of(flat), linear_models.of(case.target)
    weights = model.initial_weights + 1.0
    np.testing.assert_allclose(model.predict(case.inputs, weights), plain.predict(case.inputs, weights))
    np.testing.assert_allclose(model.weights(case.inputs, np.arange(7.0)), plain.weights(case.inputs, np.arange(7.0)))


def test_predictions_of_several_axes_are_numbered_as_in_the_kernel():
    case = models.ALL["mlp"]()

    def stacked(x):
        found = case.target.predict(x)
        return tf.stack([found, 2 * found], axis=2)

    folded = targets.of(None, predict=stacked, parameters=case.target.parameters, loss="squared_error")
    model, jacobian = linear_models.of(folded), ntk.jacobians(folded, case.inputs)
    change = 0.1 * np.random.default_rng(0).normal(size=model.num_parameters)
    initial = stacked(tf.constant(case.inputs)).numpy().reshape(7, 6)
    found = model.predict(case.inputs, model.initial_weights + change, batch_size=3)
    np.testing.assert_allclose(found, initial + (jacobian @ change).reshape(7, 6), atol=1e-11)
    coefficients = np.random.default_rng(1).normal(size=(7, 6))
    expected = model.initial_weights + jacobian.T @ coefficients.ravel()
    np.testing.assert_allclose(model.weights(case.inputs, coefficients), expected, atol=1e-11)


def test_explicit_training_of_the_linear_network_equals_the_closed_form():
    """Gradient descent that sees the network through `predict` and `weights` only, with and without an example."""
    case = models.ALL["mlp"]()
    model = linear_models.of(case.target, mode="checkpoint")
    jacobian, initial = _jacobian(case.target, case.inputs)
    labels = np.random.default_rng(1).normal(size=initial.shape)
    kernel = jacobian @ jacobian.T
    rate, l2 = 7 / np.linalg.eigvalsh(kernel)[-1], 0.01
    descent = descents.GradientDescent(rate, l2)

    def train(kept, steps):
        inputs, wanted, weights = case.inputs[kept], labels[kept], model.initial_weights
        for _ in range(steps):
            errors_now = model.predict(inputs, weights) - wanted
            pulled = model.weights(inputs, errors_now / len(kept)) - model.initial_weights
            weights = weights - rate * (pulled + l2 * (weights - model.initial_weights))
        return weights

    solved = dynamics.Dynamics(kernel, initial - labels, descent)
    weights = train(np.arange(7), 30)
    np.testing.assert_allclose(model.weights(case.inputs, solved.coefficients(30)), weights, atol=1e-11)
    np.testing.assert_allclose(solved.train_predictions(initial, 30), model.predict(case.inputs, weights), atol=1e-11)
    removed = leave_out.solve(kernel, initial - labels, descent, 30, groups=[[2]])
    expected = train(np.delete(np.arange(7), 2), 30)
    np.testing.assert_allclose(model.weights(case.inputs, removed.without[0]), expected, atol=1e-11)


def test_a_network_near_its_start_is_followed():
    """The true network, trained by small steps, beside the prediction: close at first, less later."""
    case = models.ALL["mlp"]()
    jacobian, initial = _jacobian(case.target, case.inputs)
    labels = initial + 0.3 * np.random.default_rng(1).normal(size=initial.shape)
    rate, times, true = 0.5, np.array([1, 10, 300]), []
    solved = dynamics.Dynamics(jacobian @ jacobian.T, initial - labels, descents.GradientDescent(rate))
    model = linear_models.of(case.target)
    for step in range(1, 301):
        with tf.GradientTape() as tape:
            outputs = case.target.predict(tf.constant(case.inputs))
            loss = 0.5 * tf.reduce_sum((outputs - labels) ** 2) / 7
        for variable, slope in zip(case.target.variables, tape.gradient(loss, case.target.variables), strict=True):
            variable.assign_sub(rate * slope)
        if step in times:
            true.append(case.target.predict(tf.constant(case.inputs)).numpy())
    model.restore()
    np.testing.assert_array_equal(model.initial_predictions(case.inputs), initial)
    predicted = np.stack([solved.train_predictions(initial, time) for time in times])
    found = agreement.compare(times, predicted, np.stack(true), initial, tolerance=0.05)
    assert found.relative_errors[0] < found.relative_errors[1] < found.relative_errors[2]
    assert found.holds_until >= 1
    assert found.correlations[0] > 0.99


def test_the_head_is_linear_as_it_is():
    case = models.ALL["sonnet_batch_norm"]()
    model = linear_models.of(case.target, mode="head", head="head/", inputs=case.inputs)
    assert {p.name for p in model.target.parameters} == {"head/b", "head/w"}
    moved = model.initial_weights + 1.0
    linear = model.predict(case.inputs, moved)
    for variable in model.target.variables:
        variable.assign_add(tf.ones_like(variable))
    np.testing.assert_allclose(case.target.predict(case.inputs).numpy(), linear, atol=1e-5)


def test_what_is_no_head_is_refused_and_left_as_it_was():
    case = models.ALL["mlp"]()
    before = [variable.numpy() for variable in case.target.variables]
    with pytest.raises(errors.InvalidTargetError, match="not linear in the parameters that 'weights/w'"):
        linear_models.of(case.target, mode="head", head="weights/w", inputs=case.inputs)
    for variable, old in zip(case.target.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)


def test_modes_that_cannot_be_are_refused():
    case = models.ALL["mlp"]()
    with pytest.raises(errors.InvalidArgumentError, match="mode 'end'"):
        linear_models.of(case.target, mode="end")
    with pytest.raises(errors.InvalidArgumentError, match="mode='head'"):
        linear_models.of(case.target, mode="head", head="weights/v")
    with pytest.raises(errors.InvalidArgumentError, match="mode='head'"):
        linear_models.of(case.target, head="weights/v")


def test_other_shapes_and_moved_weights_are_refused():
    case = models.ALL["mlp"]()
    model = linear_models.of(case.target)
    with pytest.raises(errors.MismatchError, match="weights of shape"):
        model.predict(case.inputs, model.initial_weights[1:])
    with pytest.raises(errors.MismatchError, match="20 coefficients of 7 examples"):
        model.weights(case.inputs, np.ones(20))
    with pytest.raises(errors.MismatchError, match="2 coefficients an example beside 3 outputs"):
        model.weights(case.inputs, np.ones(14))
    with pytest.raises(errors.InvalidArgumentError, match="batch_size 0"):
        model.predict(case.inputs, model.initial_weights, batch_size=0)
    case.target.variables[0].assign_add(tf.ones_like(case.target.variables[0]))
    with pytest.raises(errors.MismatchError, match=r"call restore\(\)"):
        model.predict(case.inputs, model.initial_weights)
    with pytest.raises(errors.MismatchError, match=r"call restore\(\)"):
        model.weights(case.inputs, np.ones(21))
