"""Quadratic forms from factors against solutions of formed gradients."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from estimators.curvature import kronecker, quadratic_forms
from estimators.derivatives import per_example, plans
from tests.estimators import models


@pytest.mark.parametrize("name", ["mlp", "tied", "conv2d_strided", "sonnet_batch_norm", "class_token"])
@pytest.mark.parametrize("corrected", [True, False])
def test_forms_are_gradients_times_their_solutions(name, corrected):
    case = models.ALL[name]()
    target = dataclasses.replace(case.target, weight_decay=(0.05,) * len(case.target.parameters))
    train = (case.inputs, case.labels)
    plan = plans.make(target, train)
    factors = kronecker.fit(plan, train, labels="data")
    solver = kronecker.KroneckerSolver(plan, factors, 0.1, eigenvalue_correction=corrected)
    rows = per_example.make_gradients(plan)(*train)
    expected = tf.reduce_sum(rows * solver.solve(rows).values, axis=1)
    found = quadratic_forms.make(plan, solver)(*train)
    np.testing.assert_allclose(found, expected, rtol=1e-9 if target.dtype == tf.float64 else 1e-4)
