"""Models that compute in numbers of 16 bits: gradients, norms and factors are of 32."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from estimators import targets
from estimators.curvature import kronecker
from estimators.derivatives import per_example, plans

_GENERATOR = np.random.default_rng(0)
_IMAGES = _GENERATOR.normal(size=(6, 8, 8, 3)).astype(np.float32)
_LABELS = np.arange(6) % 3


@pytest.fixture(name="target", params=["mixed_bfloat16", "mixed_float16"], scope="module")
def _target(request):
    """Convolution, normalisation and dense layers; the logits are of 16 bits as well."""
    keras.utils.set_random_seed(1)
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy(request.param)
    try:
        layers = keras.layers
        layer_list = [layers.Conv2D(4, 3, activation="relu"), layers.LayerNormalization(), layers.Flatten()]
        model = keras.Sequential([keras.Input((8, 8, 3)), *layer_list, layers.Dense(3)])
    finally:
        keras.mixed_precision.set_global_policy(before)
    return targets.of(model)


def _truth(target):
    rows = []
    for k in range(6):
        with tf.GradientTape() as tape:
            losses = target.losses(_IMAGES[k : k + 1], _LABELS[k : k + 1])
        rows.append(np.concatenate([np.ravel(g) for g in tape.gradient(losses, target.variables)]))
    return np.stack(rows)


def test_gradients_norms_and_factors_are_of_full_precision(target):
    assert target.predict(_IMAGES).dtype == target.dtype == tf.float32
    plan = plans.make(target, (_IMAGES, _LABELS))
    assert not plan.looped
    truth, found = _truth(target), per_example.make_gradients(plan)(_IMAGES, _LABELS)
    assert found.dtype == tf.float32
    # bfloat16 keeps 8 bits.
    np.testing.assert_allclose(found, truth, atol=0.02 * np.abs(truth).max())
    norms = per_example.make_squared_norms(plan)(_IMAGES, _LABELS)
    np.testing.assert_allclose(norms, np.sum(np.square(found), axis=1), rtol=1e-4)
    factors = kronecker.fit(plan, (_IMAGES, _LABELS))
    solver = kronecker.KroneckerSolver(plan, factors, 0.1)
    assert solver.solve(tf.ones([2, target.num_parameters])).values.dtype == tf.float32


def test_norms_do_not_overflow(target):
    """|gradient|^2 above 65504, the largest number of float16."""
    plan = plans.make(target, (_IMAGES, _LABELS))
    images = 30 * _IMAGES
    norms = per_example.make_squared_norms(plan)(images, _LABELS)
    assert np.isfinite(norms).all()
