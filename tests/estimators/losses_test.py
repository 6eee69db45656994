"""Losses, measured outputs and model-drawn labels against their formulas."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, losses

_LOGITS = np.random.default_rng(0).normal(size=(4, 3)) * 3
_LABELS = np.array([2, 0, 1, 1])
_P = np.exp(_LOGITS) / np.exp(_LOGITS).sum(1, keepdims=True)


def test_losses_are_their_formulas():
    rows = np.arange(4)
    np.testing.assert_allclose(losses.find("cross_entropy").values(_LOGITS, _LABELS), -np.log(_P[rows, _LABELS]))
    binary = np.random.default_rng(1).integers(0, 2, (4, 3))
    s = 1 / (1 + np.exp(-_LOGITS))
    expected = -(binary * np.log(s) + (1 - binary) * np.log(1 - s)).sum(1)
    np.testing.assert_allclose(losses.find("binary_cross_entropy").values(tf.constant(_LOGITS), binary), expected)
    one = losses.find("squared_error").values(tf.constant(_LOGITS[:, :1]), np.arange(4.0))
    np.testing.assert_allclose(one, 0.5 * (_LOGITS[:, 0] - np.arange(4.0)) ** 2)


def test_measured_outputs_are_their_formulas():
    p = _P[np.arange(4), _LABELS]
    found = {name: losses.measure(name, losses.find("cross_entropy"))[1] for name in ("margin", "logit", "probability")}
    np.testing.assert_allclose(found["margin"](tf.constant(_LOGITS), _LABELS), np.log(p / (1 - p)))
    np.testing.assert_allclose(found["logit"](tf.constant(_LOGITS), _LABELS), _LOGITS[np.arange(4), _LABELS])
    np.testing.assert_allclose(found["probability"](tf.constant(_LOGITS), _LABELS), p)
    output = losses.measure("output", losses.find("squared_error"))[1]
    np.testing.assert_array_equal(output(tf.constant(_LOGITS[:, :1]), None), _LOGITS[:, 0])


def test_the_margin_of_a_confident_model_is_finite_with_its_gradient():
    logits = tf.Variable([[200.0, 0.0], [0.0, 200.0]])
    with tf.GradientTape() as tape:
        margins = losses.MEASURES["margin"](logits, tf.constant([0, 0]))
    np.testing.assert_allclose(margins, [200.0, -200.0])
    np.testing.assert_allclose(tape.gradient(margins, logits), [[1.0, -1.0], [1.0, -1.0]])


def test_expected_labels_weigh_every_class_by_its_probability():
    labels, weights = losses.find("cross_entropy").expected_labels(tf.constant(_LOGITS))
    np.testing.assert_allclose(np.stack(weights, 1), _P)
    np.testing.assert_array_equal(np.stack(labels, 1), np.tile(np.arange(3), (4, 1)))


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "squared_error"])
def test_drawn_labels_have_the_model_s_own_mean(name):
    """The score has mean zero under labels from the model: five standard errors of 20000 draws."""
    num = 20000
    predictions = tf.Variable(np.tile(_LOGITS[:1], (num, 1)))
    labels = losses.find(name).sample_labels(predictions, [1, 2])
    with tf.GradientTape() as tape:
        values = losses.find(name).values(predictions, labels)
    scores = tape.gradient(values, predictions).numpy()
    standard_error = scores.std(0) / np.sqrt(num)
    assert (standard_error > 0).all()
    assert (np.abs(scores.mean(0)) < 5 * standard_error).all()
    np.testing.assert_array_equal(labels, losses.find(name).sample_labels(predictions, [1, 2]))


def test_labels_that_cannot_be_are_refused():
    check = losses.find("cross_entropy").check
    check(np.array([0, 2]), 3)
    with pytest.raises(errors.InvalidArgumentError, match="label 3 of example 1: the model has 3 classes"):
        check(np.array([0, 3, -1]), 3)
    with pytest.raises(errors.InvalidArgumentError, match="cross-entropy takes class numbers"):
        check(np.array([0.0, 1.0]), 3)
    binary = losses.find("binary_cross_entropy").check
    binary(np.array([[0, 1]]), 2)
    with pytest.raises(errors.InvalidArgumentError, match=r"takes \[N, 3\]"):
        binary(np.zeros(2), 3)
    with pytest.raises(errors.InvalidArgumentError, match="label 2 of example 1, output 0"):
        binary(np.array([[0, 1], [2, 1]]), 2)
    with pytest.raises(errors.InvalidArgumentError, match="squared error takes 2 numbers"):
        losses.find("squared_error").check(np.zeros(3), 2)


def test_unknown_names_are_refused_and_functions_taken():
    with pytest.raises(errors.InvalidArgumentError, match="loss 'hinge': expected one of cross_entropy"):
        losses.find("hinge")
    with pytest.raises(errors.InvalidArgumentError, match="measured output 'gain': expected loss, margin"):
        losses.measure("gain", losses.find("cross_entropy"))

    def hinge(predictions, labels):
        return predictions[:, 0] * labels

    assert losses.find(hinge).name == "hinge"
    assert losses.measure(hinge, losses.find(hinge)) == ("hinge", hinge)
    assert losses.find(losses.LOSSES["squared_error"]) is losses.LOSSES["squared_error"]
    assert losses.measure("loss", losses.LOSSES["squared_error"])[1] is losses.LOSSES["squared_error"].values


def test_the_only_output_is_that_of_a_model_with_one():
    _, output = losses.measure("output", losses.LOSSES["squared_error"])
    np.testing.assert_array_equal(output(tf.constant([[1.0], [2.0]]), tf.constant([0, 0])), [1.0, 2.0])
    with pytest.raises(errors.InvalidArgumentError, match=r"of models with one output, not of predictions \[2, 3\]"):
        output(tf.zeros([2, 3]), tf.constant([0, 0]))
