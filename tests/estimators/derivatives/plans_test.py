"""What is refused when a plan is made, and how rules are chosen."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, targets
from estimators.derivatives import per_example, plans
from tests.estimators import models


def _with(case, **changes):
    return dataclasses.replace(case.target, **changes)


def test_a_model_that_draws_is_refused():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])
    target = targets.of(model, predict=lambda x: model(x, training=True))
    with pytest.raises(errors.InvalidTargetError, match="two evaluations of the same examples differ"):
        plans.make(target, (np.ones((4, 5), np.float32), np.zeros(4, int)))


def test_a_model_that_mixes_its_batch_is_refused():
    case = models.mlp()
    target = _with(case, predict=lambda x: case.target.predict(x - tf.reduce_mean(x, 0)))
    with pytest.raises(errors.InvalidTargetError, match="depends on the others in its batch"):
        plans.make(target, (case.inputs, case.labels))


def test_predictions_and_losses_are_one_row_and_one_number_for_each():
    case = models.mlp()
    with pytest.raises(errors.InvalidTargetError, match=r"predictions of 3 examples have shape \(\)"):
        plans.make(_with(case, predict=lambda x: tf.reduce_sum(case.target.predict(x))), (case.inputs, case.labels))
    target = _with(case, measured=lambda p, y: tf.reduce_sum(p), measured_name="sum")
    with pytest.raises(errors.InvalidTargetError, match=r"sum of 3 examples has shape \(\), expected \[3\]"):
        plans.make(target, (case.inputs, case.labels))


def test_losses_and_gradients_that_are_no_numbers_are_refused():
    case = models.mlp()
    with pytest.raises(errors.NotFiniteError, match=r"loss is \[.*nan"):
        plans.make(case.target, (case.inputs * np.nan, case.labels))
    module = tf.Module()
    module.w = tf.Variable([0.0])
    target = targets.of(module, loss=lambda p, y: p[:, 0], predict=lambda x: tf.sqrt(module.w) * x)
    with pytest.raises(errors.NotFiniteError, match="the gradient of the loss with respect to w is not finite"):
        plans.make(target, (np.ones((3, 1), np.float32), np.zeros(3)))


def test_labels_are_checked_over_all_examples():
    case = models.mlp()
    labels = np.array([0, 1, 2, 0, 1, 2, 7])
    with pytest.raises(errors.InvalidArgumentError, match="label 7 of example 6"):
        plans.make(case.target, (case.inputs, labels))


def test_what_tensorflow_cannot_differentiate_is_said(monkeypatch):
    case = models.mlp()

    @tf.custom_gradient
    def refuse(x):
        def gradient(upstream):
            raise LookupError("no gradient defined for operation 'Refuse'")

        return x, gradient

    target = _with(case, predict=lambda x: refuse(case.target.predict(x)))
    monkeypatch.setattr(plans, "_by_rules", lambda *_: plans._Probed(True, {}, {}, {}, False))
    with pytest.raises(errors.InvalidTargetError, match="cannot differentiate this model on this device: no gradient"):
        plans.make(target, (case.inputs, case.labels))


def test_one_example_is_enough():
    case = models.mlp()
    assert plans.make(case.target, (case.inputs[:1], case.labels[:1])).looped == {}


def test_a_plan_says_how_each_parameter_is_differentiated():
    case = models.weight_norm()
    text = plans.make(case.target, (case.inputs, case.labels)).describe()
    assert "weights/g [3]: example by example, because MatMul takes a tensor that mixes elements of weights/g" in text
    case = models.mlp()
    assert plans.make(case.target, (case.inputs, case.labels)).describe().count("all examples at once") == 4


def test_functions_must_not_run_eagerly():
    case = models.mlp()
    tf.config.run_functions_eagerly(True)
    try:
        with pytest.raises(errors.InvalidTargetError, match="functions run eagerly"):
            plans.make(case.target, (case.inputs, case.labels))
    finally:
        tf.config.run_functions_eagerly(False)


def test_a_parameter_that_is_not_used_has_gradient_zero():
    case = models.mlp()
    module = tf.Module()
    module.used, module.idle = case.target.variables, tf.Variable([1.0, 2.0], dtype=tf.float64)
    target = targets.of(module, predict=case.target.predict)
    plan = plans.make(target, (case.inputs, case.labels))
    assert plan.looped == {}


@pytest.mark.parametrize("size", [1, 3, 4, 8])
@pytest.mark.parametrize("name", ["class_token", "tiled_token", "repeated_by_chance"])
def test_what_repeats_a_parameter_is_known_in_batches_of_any_size(name, size):
    """Also of as many examples as a repetition has by chance."""
    case = models.ALL[name]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    order = np.arange(size) % 7
    function = per_example.make_gradients(plan)
    whole = function(case.inputs, case.labels).numpy()
    np.testing.assert_allclose(function(case.inputs[order], case.labels[order]), whole[order], atol=1e-12)


def test_a_model_of_other_operations_for_another_size_is_refused():
    case = models.class_token()

    def predict(x):
        return case.target.predict(x if x.shape[0] < 6 else tf.identity(tf.tanh(x)))

    plan = plans.make(_with(case, predict=predict), (case.inputs, case.labels))
    with pytest.raises(errors.InvalidTargetError, match="computes a batch of this size in another way than others"):
        per_example.make_gradients(plan)(case.inputs, case.labels)


def test_a_rule_that_fails_for_another_size_is_said():
    case = models.mlp()
    w = case.target.parameters[3].variable

    def predict(x):
        return case.target.predict(x) if x.shape[0] < 6 else tf.transpose(tf.matmul(w, x, True, True))[:, :3]

    plan = plans.make(_with(case, predict=predict), (case.inputs, case.labels))
    with pytest.raises(errors.InvalidTargetError, match="weights/w in a batch of 7: a matrix product with the param"):
        per_example.make_squared_norms(plan)(case.inputs, case.labels)


def test_predictions_in_a_dict_are_refused():
    case = models.mlp()
    with pytest.raises(errors.InvalidTargetError, match="predictions are a dict; give predict="):
        plans.make(_with(case, predict=lambda x: {"logits": x}), (case.inputs, case.labels))


def test_probabilities_in_the_place_of_logits_are_refused():
    """What a Keras classifier usually ends in."""
    case = models.ALL["mlp"]()
    wrong = dataclasses.replace(case.target, predict=lambda x: tf.nn.softmax(case.target.predict(x)))
    with pytest.raises(errors.InvalidTargetError, match=r"predictions are probabilities, .* the loss takes logits"):
        plans.make(wrong, (case.inputs, case.labels))
    right = dataclasses.replace(case.target, predict=lambda x: tf.math.log(wrong.predict(x)))
    plan = plans.make(right, (case.inputs, case.labels))
    np.testing.assert_allclose(
        plan.target.losses(case.inputs, case.labels), case.target.losses(case.inputs, case.labels), rtol=1e-12
    )
