"""Gradients of single examples, their norms and inner products against one backward pass for each example."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, parameters, targets
from estimators.derivatives import per_example, plans
from tests.estimators import models


@pytest.fixture(name="case", params=sorted(models.ALL), scope="module")
def _case(request):
    return models.ALL[request.param]()


@pytest.fixture(name="plan", scope="module")
def _plan(case):
    return plans.make(case.target, (case.inputs, case.labels))


@pytest.fixture(name="truth", scope="module")
def _truth(case):
    return {of: reference(case, of) for of in per_example.OF}


def reference(case, of):
    """[B, P] in float64 from one tape for each example."""
    function = case.target.losses if of == "loss" else case.target.measurements

    @tf.function  # eagerly, some convolutions have no gradient
    def gradient(inputs, labels):
        with tf.GradientTape() as tape:
            value = function(inputs, labels)
        found = tape.gradient(value, case.target.variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(g) for g in found]

    rows = []
    for k in range(len(case.labels)):
        one = tf.nest.map_structure(lambda array, k=k: tf.constant(array[k : k + 1]), (case.inputs, case.labels))
        rows.append(np.concatenate([np.ravel(g).astype(np.float64) for g in gradient(*one)]))
    return np.stack(rows)


def tolerance(case):
    return 1e-11 if case.target.dtype == tf.float64 else 2e-5


def close(case, values, truth):
    np.testing.assert_allclose(values, truth, rtol=0, atol=tolerance(case) * np.abs(truth).max())


@pytest.mark.parametrize("of", per_example.OF)
def test_gradients_are_those_of_single_examples(case, plan, truth, of):
    close(case, per_example.make_gradients(plan, of)(case.inputs, case.labels), truth[of])


def test_only_what_has_no_rule_is_looped(case, plan):
    names = [case.target.parameters[k].name for k in plan.looped]
    assert all(any(part in name for part in case.looped) for name in names), plan.describe()
    assert bool(names) == bool(case.looped)


def test_norms_and_inner_products_are_those_of_the_gradients(case, plan, truth):
    losses, measured = truth["loss"], truth["measured"]
    close(case, per_example.make_squared_norms(plan)(case.inputs, case.labels), np.sum(losses**2, axis=1))
    few = tf.nest.map_structure(lambda array: array[:3], (case.inputs, case.labels))
    products = per_example.make_dot_products(plan, "loss", "measured")(case.inputs, case.labels, *few)
    close(case, products, losses @ measured[:3].T)


@pytest.mark.parametrize("name", ["conv2d_grouped", "mlp", "conv1d_strided", "tied_convolution"])
def test_xla_gives_the_same(name):
    case = models.ALL[name]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    close(case, per_example.make_gradients(plan, jit_compile=True)(case.inputs, case.labels), reference(case, "loss"))


def test_a_batch_gives_what_its_examples_give_in_any_order_and_number():
    case = models.ALL["conv2d_same"]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    function = per_example.make_gradients(plan)
    whole = function(case.inputs, case.labels).numpy()
    order = np.array([4, 0, 6])
    close(case, function(case.inputs[order], case.labels[order]), whole[order])
    close(case, function(case.inputs[5:6], case.labels[5:6]), whole[5:6])


def test_one_size_of_batch_is_traced_once():
    case = models.ALL["mlp"]()
    function = per_example.make_gradients(plans.make(case.target, (case.inputs, case.labels)))
    for _ in range(3):
        function(tf.constant(case.inputs), tf.constant(case.labels))
    assert function.experimental_get_tracing_count() == 1


def test_some_parameters_alone():
    case = models.ALL["mlp"]()
    chosen = parameters.matching(case.target.parameters, "/(v|c)$")
    plan = plans.make(case.target.restricted(chosen), (case.inputs, case.labels))
    rows = per_example.make_gradients(plan)(case.inputs, case.labels)
    names = [p.name for p in case.target.parameters]
    assert names == ["weights/b", "weights/c", "weights/v", "weights/w"]
    close(case, rows, reference(case, "loss")[:, 4 : 4 + 3 + 12])


@pytest.mark.parametrize("ghost", [True, False])
@pytest.mark.parametrize("name", ["mlp", "conv2d_grouped", "conv2d_strided", "einsums"])
def test_inner_products_agree_whether_gradients_are_formed_or_not(monkeypatch, name, ghost):
    monkeypatch.setattr(per_example.contributions, "ghost_is_cheaper", lambda *_: ghost)
    case = models.ALL[name]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    products = per_example.make_dot_products(plan)(case.inputs, case.labels, case.inputs, case.labels)
    rows = reference(case, "loss")
    close(case, products, rows @ rows.T)


def test_what_is_differentiated_must_be_known():
    case = models.ALL["mlp"]()
    plan = plans.make(case.target, (case.inputs, case.labels))
    with pytest.raises(errors.InvalidArgumentError, match="of='gain': expected one of loss, measured"):
        per_example.make_gradients(plan, "gain")
    with pytest.raises(errors.InvalidArgumentError, match="of='gain'"):
        per_example.make_dot_products(plan, "loss", "gain")


def test_a_wrong_rule_is_found_out_and_not_used(monkeypatch):
    """Rules are believed only after they gave the truth on examples."""
    case = models.ALL["mlp"]()
    right = plans.passes.rules._RULES["MatMul"]

    def wrong(use, cotangent, num_examples):
        return right(use, 1.01 * cotangent, num_examples)

    monkeypatch.setitem(plans.passes.rules._RULES, "MatMul", wrong)
    plan = plans.make(case.target, (case.inputs, case.labels))
    assert {case.target.parameters[k].name for k in plan.looped} == {"weights/w", "weights/v"}
    assert "its rule does not give" in plan.describe()
    close(case, per_example.make_gradients(plan)(case.inputs, case.labels), reference(case, "loss"))


def test_a_target_of_a_module_of_ours():
    target = targets.of(models.SonnetBatchNorm, predict=lambda x: x, parameters=models.mlp().target.parameters)
    assert target.num_parameters == 20 + 4 + 12 + 3
