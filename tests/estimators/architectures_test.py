"""The architectures of the zoos are differentiated by rules entirely: nothing falls back to single examples."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import targets
from estimators.derivatives import per_example, plans
from heldout import models


def _plan(architecture, image_shape, options=None, num_classes=10):
    model = models.build(architecture, num_classes, image_shape, options)
    rng = np.random.default_rng(0)
    inputs, labels = rng.uniform(size=(3, *image_shape)).astype(np.float32), rng.integers(0, num_classes, 3)
    model(tf.constant(inputs), is_training=True)  # moving statistics that fit, so that no layer multiplies by hundreds
    return plans.make(targets.of(model, measured="margin"), (inputs, labels)), inputs, labels


_CASES = [
    ("mlp", (28, 28, 1), {}),
    ("lenet", (28, 28, 1), {}),
    ("small_inception", (16, 16, 3), {}),
    ("conv5_4", (16, 16, 3), {"initialisation": "kaiming_normal"}),
    ("resnet18_4", (16, 16, 3), {"initialisation": "kaiming_normal"}),
    ("vit_8", (16, 16, 3), {"depth": 2}),
]
_SLOW_CASES = [
    ("resnet50", (64, 64, 3), {}),
    ("conv5_4", (16, 16, 3), {"pooling": "average", "batch_norm": True}),
    ("resnet18_4", (16, 16, 3), {"batch_norm": True}),
    ("resnet34_4", (16, 16, 3), {"batch_norm": True}),
    ("vgg11_4", (16, 16, 3), {"initialisation": "kaiming_normal"}),
    ("vgg13_4", (16, 16, 3), {"batch_norm": True}),
    ("vgg16_4", (16, 16, 3), {"initialisation": "kaiming_normal"}),
    ("vgg19_4", (16, 16, 3), {"batch_norm": True}),
]


@pytest.mark.parametrize(
    ("architecture", "image_shape", "options"),
    [*_CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in _SLOW_CASES)],
)
def test_every_parameter_has_a_rule(architecture, image_shape, options):
    plan, inputs, labels = _plan(architecture, image_shape, options)
    assert plan.looped == {}, plan.describe()
    norms = per_example.make_squared_norms(plan)(inputs, labels)
    rows = per_example.make_gradients(plan)(inputs, labels).numpy().astype(np.float64)
    np.testing.assert_allclose(norms, np.sum(rows**2, axis=1), rtol=1e-3)
