"""Projected gradients of models against their gradients and the maps written out."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, targets
from estimators.derivatives import per_example, plans
from estimators.projections import projected_gradients, random_signs, sketches
from tests.estimators import models

_CASES = ["mlp", "tied_convolution", "conv2d_strided", "einsums", "embedding", "sonnet_batch_norm", "weight_norm"]


def _prepared(name):
    case = models.ALL[name]()
    return case, plans.make(case.target, (case.inputs, case.labels))


def _parallel():
    """Two dense layers of one shape on one input, whose gradients are equal."""
    module = tf.Module()
    module.kernels = [tf.Variable(tf.ones([5, 3], tf.float64)) for _ in range(2)]
    case = models.ALL["transposed_dense"]()
    target = targets.of(module, predict=lambda x: x @ module.kernels[0] + x @ module.kernels[1])
    return case, plans.make(target, (case.inputs, case.labels))


@pytest.mark.parametrize("kind", sorted(sketches.SKETCHES))
@pytest.mark.parametrize("of", ["loss", "measured"])
def test_gradients_are_formed_and_mapped(kind, of):
    case, plan = _prepared("mlp")
    config = projected_gradients.Config(kind, dimension=10, seed=4)
    draw = projected_gradients.draw(plan, config, member=2)
    found = projected_gradients.make_projected(plan, config, of)(case.inputs, case.labels, draw)
    rows = per_example.make_gradients(plan, of)(case.inputs, case.labels)
    sketch = sketches.SKETCHES[kind](39, 10)
    np.testing.assert_allclose(found, sketch.project(rows, sketch.draw(4, 2)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", _CASES)
def test_two_sides_without_reduction_keep_inner_products(name):
    """Where no side is shortened, projected gradients are the gradients in another order."""
    case, plan = _prepared(name)
    config = projected_gradients.Config("two_sided", dimension=10**6)
    found = projected_gradients.make_projected(plan, config)(
        case.inputs, case.labels, projected_gradients.draw(plan, config)
    )
    rows = per_example.make_gradients(plan)(case.inputs, case.labels).numpy()
    assert found.shape == rows.shape
    truth = rows @ rows.T
    tolerance = 1e-10 if case.target.dtype == tf.float64 else 1e-4
    np.testing.assert_allclose(found.numpy() @ found.numpy().T, truth, atol=tolerance * np.abs(truth).max())


@pytest.mark.parametrize("name", ["mlp", "einsums", "embedding", "conv2d_strided"])
def test_two_sides_keep_inner_products_on_average(name):
    case, plan = _prepared(name)
    config = projected_gradients.Config("two_sided", dimension=6, seed=1)
    compute = projected_gradients.make_projected(plan, config)
    draws = []
    for member in range(400):
        rows = compute(case.inputs, case.labels, projected_gradients.draw(plan, config, member)).numpy()
        draws.append(rows @ rows.T)
    truth = per_example.make_dot_products(plan)(case.inputs, case.labels, case.inputs, case.labels).numpy()
    standard_errors = np.std(draws, axis=0) / np.sqrt(400)
    assert (np.abs(np.mean(draws, axis=0) - truth) < 4.5 * standard_errors + 1e-12).all()
    assert np.std(draws, axis=0).max() > 0
    assert rows.shape[1] < plan.target.num_parameters
    assert compute.experimental_get_tracing_count() == 1


def test_the_spread_of_two_sides_is_that_of_both():
    """One dense layer: <P a, P a'> <Q d, Q d'> with independent signs on either side."""
    case, plan = _prepared("transposed_dense")  # rows of 5, cotangents of 3
    config = projected_gradients.Config("two_sided", dimension=4)
    compute = projected_gradients.make_projected(plan, config)
    inputs, labels = case.inputs[:1], case.labels[:1]
    found = []
    for member in range(600):
        row = compute(inputs, labels, projected_gradients.draw(plan, config, member)).numpy()[0]
        found.append(row @ row)
    logits = case.target.predict(inputs)
    cotangent = (tf.nn.softmax(logits) - tf.one_hot(labels, 3, dtype=tf.float64)).numpy()[0]
    second_moment, mean = 1.0, 1.0
    for side in (inputs[0], cotangent):
        norm = side @ side
        second_moment *= norm**2 + (2 * norm**2 - 2 * np.sum(side**4)) / 2
        mean *= norm
    deviations = np.array(found) - mean
    variance = second_moment - mean**2
    assert abs(deviations.mean()) < 4 * np.sqrt(variance / 600)
    assert abs(np.mean(deviations**2) - variance) < 4 * np.std(deviations**2) / np.sqrt(600)


def test_layers_have_signs_of_their_own():
    """Two layers of one shape in one place would share their errors if they shared their signs."""
    case, plan = _parallel()
    config = projected_gradients.Config("two_sided", dimension=4)
    compute = projected_gradients.make_projected(plan, config)
    rows = compute(case.inputs, case.labels, projected_gradients.draw(plan, config)).numpy()
    assert rows.shape == (7, 8)
    assert np.abs(rows[:, :4] - rows[:, 4:]).max() > 1e-3


def test_sides_have_signs_of_their_own():
    """Signs in common would bias the length of a gradient whose two factors are alike."""
    factor = np.random.default_rng(0).normal(size=(1, 1, 1, 6))
    found = []
    for member in range(400):
        key = random_signs.key(0, member)
        row = projected_gradients._from_both_sides(tf.constant(factor), tf.constant(factor), 4, key, 0).numpy()
        found.append(np.sum(row**2))
    deviations = np.array(found) - np.sum(factor**2) ** 2
    assert abs(deviations.mean()) < 3 * np.std(deviations) / np.sqrt(400)


@pytest.mark.parametrize("kind", ["signs", "two_sided"])
def test_batches_order_and_compilation_change_nothing(kind):
    case, plan = _prepared("tied_convolution")
    config = projected_gradients.Config(kind, dimension=8)
    compute, draw = projected_gradients.make_projected(plan, config), projected_gradients.draw(plan, config)
    together = compute(case.inputs, case.labels, draw).numpy()
    for size in (1, 3):
        parts = [compute(case.inputs[k : k + size], case.labels[k : k + size], draw) for k in range(0, 7, size)]
        np.testing.assert_allclose(np.concatenate(parts), together, rtol=1e-9, atol=1e-12)
    turned = compute(case.inputs[::-1].copy(), case.labels[::-1].copy(), draw).numpy()
    np.testing.assert_allclose(turned[::-1], together, rtol=1e-9, atol=1e-12)
    compiled = projected_gradients.make_projected(plan, config, jit_compile=True)
    np.testing.assert_allclose(compiled(case.inputs, case.labels, draw), together, rtol=1e-9, atol=1e-12)


def test_what_cannot_be_is_refused():
    case, plan = _prepared("mlp")
    with pytest.raises(errors.InvalidArgumentError, match="projection 'normal': expected one of signs, hadamard"):
        projected_gradients.Config("normal")
    with pytest.raises(errors.InvalidArgumentError, match="dimension 0: must be at least 1"):
        projected_gradients.Config(dimension=0)
    with pytest.raises(errors.InvalidArgumentError, match="seed -1"):
        projected_gradients.Config(seed=-1)
    with pytest.raises(errors.InvalidArgumentError, match="of='margin': expected one of loss, measured"):
        projected_gradients.make_projected(plan, projected_gradients.Config(), "margin")
    with pytest.raises(errors.InvalidArgumentError, match="dimension 2048: coordinates chooses among 39"):
        projected_gradients.make_projected(plan, projected_gradients.Config("coordinates"))
    assert case.target.num_parameters == 39
