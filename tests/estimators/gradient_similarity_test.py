"""Inner products and cosines of gradients against gradients of single examples."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, examples, gradient_similarity
from estimators.derivatives import per_example
from tests.estimators import models


def _gradients(case, of):
    """[7, P] float64, one example at a time."""
    rows = []
    for k in range(len(case.labels)):
        with tf.GradientTape() as tape:
            function = case.target.losses if of == "loss" else case.target.measurements
            value = function(case.inputs[k : k + 1], tf.constant(case.labels[k : k + 1]))
        rows.append(np.concatenate([g.numpy().ravel() for g in tape.gradient(value, case.target.variables)]))
    return np.array(rows, np.float64)


@pytest.mark.parametrize("name", ["mlp", "conv2d_strided"])
@pytest.mark.parametrize("of", ["loss", "measured"])
def test_products_and_cosines_of_all_pairs(name, of):
    case = models.ALL[name]()
    train, test = (case.inputs, case.labels), (case.inputs[:4], case.labels[:4])
    first, second = _gradients(case, "loss"), _gradients(case, of)[:4]
    expected = -first @ second.T
    found = gradient_similarity.dot(case.target, train, test, of, batch_size=3)
    np.testing.assert_allclose(found.values, expected, atol=1e-10)
    expected /= np.linalg.norm(first, axis=1)[:, None] * np.linalg.norm(second, axis=1)
    found = gradient_similarity.cosine(case.target, train, test, of, batch_size=3)
    np.testing.assert_allclose(found.values, expected, atol=1e-10)
    assert found.lower_is_better == (of == "loss")


def test_a_step_changes_the_margin_by_its_length_times_the_score():
    case = models.ALL["mlp"]()
    train = (case.inputs, case.labels)
    score = gradient_similarity.dot(case.target, train, train, "measured").values[2]
    labels = tf.constant(case.labels)
    before = case.target.measurements(case.inputs, labels).numpy()
    with tf.GradientTape() as tape:
        loss = case.target.losses(case.inputs[2:3], labels[2:3])
    for variable, gradient in zip(case.target.variables, tape.gradient(loss, case.target.variables), strict=True):
        variable.assign_sub(1e-6 * gradient)
    after = case.target.measurements(case.inputs, labels).numpy()
    np.testing.assert_allclose((after - before) / 1e-6, score, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_tiles_memory_and_order_change_nothing(batch_size):
    case = models.ALL["mlp"]()
    data = examples.Examples(case.inputs, case.labels)
    order = np.random.default_rng(0).permutation(7)
    whole = gradient_similarity.cosine(case.target, data, data)
    out = np.zeros((7, 7))
    found = gradient_similarity.cosine(
        case.target, data.take(order), data, batch_size=batch_size, memory_limit_mb=0.004, out=out
    )
    assert found.values is out
    np.testing.assert_allclose(out, whole.values[order], atol=1e-12)
    np.testing.assert_array_equal(found.train_ids, order)


@pytest.mark.parametrize("name", ["mlp", "conv2d_same"])
def test_gradients_that_are_formed_are_formed_once(name, monkeypatch):
    """Test gradients once, and training gradients once for each block of test examples that the memory holds."""
    case, seen = models.ALL[name](), []
    make = per_example.make_gradients

    def counted(plan, of):
        compute = make(plan, of)

        def count(inputs, labels):
            seen.append(of)
            return compute(inputs, labels)

        return count

    monkeypatch.setattr(per_example, "make_gradients", counted)
    # Of the dense layers ghosts are taken, of the convolution never.
    forms = name == "conv2d_same"
    data, few = (case.inputs, case.labels), (case.inputs[:4], case.labels[:4])
    vector = case.target.num_parameters * 8 / 1e6
    found = gradient_similarity.dot(case.target, data, few, "measured", batch_size=2, memory_limit_mb=100.0)
    assert (seen.count("measured"), seen.count("loss")) == ((2, 4) if forms else (0, 0))
    seen.clear()
    again = gradient_similarity.dot(case.target, data, few, "measured", batch_size=2, memory_limit_mb=8.1 * vector)
    assert (seen.count("measured"), seen.count("loss")) == ((2, 8) if forms else (0, 0))
    np.testing.assert_allclose(again.values, found.values, atol=1e-12)
    expected = -_gradients(case, "loss") @ _gradients(case, "measured")[:4].T
    np.testing.assert_allclose(found.values, expected, atol=1e-10)


def test_a_gradient_of_zero_has_no_cosine():
    case = models.ALL["transposed_dense"]()
    inputs = case.inputs.copy()
    inputs[3] = 0.0
    found = gradient_similarity.cosine(case.target, (inputs, case.labels), (inputs, case.labels))
    assert found.num_undefined == 13
    assert np.isnan(found.values[3]).all()


def test_misuse_is_refused():
    case = models.ALL["transposed_dense"]()
    train = (case.inputs, case.labels)
    with pytest.raises(errors.InvalidArgumentError, match="of='logit': expected one of loss"):
        gradient_similarity.dot(case.target, train, train, "logit")
    with pytest.raises(errors.InvalidArgumentError, match="the model has 3 classes"):
        gradient_similarity.dot(case.target, train, (case.inputs, case.labels + 9))
    broken = case.inputs.copy()
    broken[5, 1] = np.nan
    with pytest.raises(errors.NotFiniteError, match="of the gradient of example 0 with that of 5 is not finite"):
        gradient_similarity.dot(case.target, train, (broken, case.labels))
    with pytest.raises(errors.NotFiniteError, match="of example 5 is not finite"):
        gradient_similarity.cosine(case.target, (broken, case.labels), train)
