"""EL2N and GraNd by their definitions."""

import dataclasses

import numpy as np
import pytest
import scipy.special

from estimators import early_scores, errors, losses
from estimators.derivatives import per_example, plans
from tests.estimators import models


def _shifted(case, num=3):
    """The same target under several sets of weights."""
    start = [variable.numpy() for variable in case.target.variables]
    for k in range(num):
        for variable, value in zip(case.target.variables, start, strict=True):
            variable.assign(value + 0.3 * k)
        yield case.target


def test_el2n_is_the_length_of_the_error_averaged_over_models():
    case = models.ALL["mlp"]()
    expected = []
    for target in _shifted(case):
        p = scipy.special.softmax(target.predict(case.inputs).numpy(), axis=1)
        expected.append([np.linalg.norm(p[i] - np.eye(3)[case.labels[i]]) for i in range(7)])
    case = models.ALL["mlp"]()
    found = early_scores.el2n(_shifted(case), (case.inputs, case.labels), batch_size=2)
    np.testing.assert_allclose(found.values, np.mean(expected, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.standard_errors, np.std(expected, axis=0, ddof=1) / np.sqrt(3), rtol=1e-10)
    assert found.num_models == 3


def test_grand_is_the_length_of_the_gradient_averaged_over_models():
    case = models.ALL["conv2d_strided"]()
    train, expected = (case.inputs, case.labels), []
    gradients = per_example.make_gradients(plans.make(case.target, train))
    for _ in _shifted(case):
        expected.append(np.linalg.norm(gradients(*train).numpy(), axis=1))
    case = models.ALL["conv2d_strided"]()
    found = early_scores.grand(_shifted(case), train, batch_size=3)
    np.testing.assert_allclose(found.values, np.mean(expected, axis=0), rtol=1e-10)
    single = early_scores.grand(case.target, train)
    np.testing.assert_allclose(single.values, expected[-1], rtol=1e-10)
    assert np.isnan(single.standard_errors).all()


@pytest.mark.parametrize("compute", [early_scores.el2n, early_scores.grand])
def test_models_of_different_kinds_are_averaged(compute):
    """What was compiled for one target is not used for another."""
    first = models.ALL["mlp"]()
    second = dataclasses.replace(first.target, predict=lambda x: 2.0 * first.target.predict(x) + x[:, :3])
    train = (first.inputs, first.labels)
    alone = [compute(target, train).values for target in (first.target, second)]
    found = compute([first.target, second], train)
    np.testing.assert_allclose(found.values, np.mean(alone, axis=0), rtol=1e-12)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_el2n_of_other_losses():
    case = models.ALL["multi_label"]()
    p = scipy.special.expit(case.target.predict(case.inputs).numpy())
    found = early_scores.el2n(case.target, (case.inputs, case.labels))
    np.testing.assert_allclose(found.values, np.linalg.norm(p - case.labels, axis=1), rtol=1e-12)
    case = models.ALL["regression"]()
    error = case.target.predict(case.inputs).numpy()[:, 0] - case.labels
    found = early_scores.el2n(case.target, (case.inputs, case.labels))
    np.testing.assert_allclose(found.values, np.abs(error), rtol=1e-12)


def test_misuse_is_refused():
    case = models.ALL["mlp"]()
    train = (case.inputs, case.labels)
    with pytest.raises(errors.InvalidArgumentError, match="GraNd of no models"):
        early_scores.grand([], train)
    with pytest.raises(errors.InvalidArgumentError, match="the model has 3 classes"):
        early_scores.el2n(case.target, (case.inputs, case.labels + 7))
    custom = dataclasses.replace(case.target, loss=losses.find(lambda predictions, labels: predictions[:, 0]))
    with pytest.raises(errors.InvalidArgumentError, match=r"EL2N of the loss .*lambda.*: what its predictions are"):
        early_scores.el2n(custom, train)
    broken = case.inputs.copy()
    broken[4, 0] = np.nan
    with pytest.raises(errors.NotFiniteError, match="EL2N of example 4 under model 0 is not finite, as are 1 in all"):
        early_scores.el2n(case.target, (broken, case.labels))
