"""Every kind of module, applied to several models at once, gives what each gives alone."""

import numpy as np
import pytest
import sonnet as snt
from sonnet.src.nets import resnet
import tensorflow as tf

from heldout.models import layers, registry, sequential
from heldout.training import ensemble, ensemble_rules, learners
from zoo import checkpoints

NUM_RUNS = 2


def random_values(module, seed):
    """Values under which every variable matters; Sonnet's ResNet starts with zeros at the end of each branch."""
    generator = np.random.default_rng(seed)
    values = {}
    for key, variable in checkpoints.model_variables(module).items():
        last = key.rpartition("/")[2]
        if variable.dtype.is_integer:
            values[key] = np.zeros(variable.shape, variable.dtype.as_numpy_dtype)
        elif "moving" in key or last == "scale":
            values[key] = generator.uniform(0.5, 1.5, variable.shape).astype(np.float32)
        else:
            fan_in = max(1, np.prod(variable.shape[:-1]))
            values[key] = (generator.standard_normal(variable.shape) * np.sqrt(2 / fan_in)).astype(np.float32)
    return values


def models(module, num_runs=NUM_RUNS):
    """The ensemble, and the values of each model in it."""
    group = ensemble.EnsembleLearner(module, num_runs)
    values = [random_values(module, seed) for seed in range(num_runs)]
    group.assign(values)
    return group, values


def images(shape, count=4, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(size=(NUM_RUNS, count, *shape)).astype(np.float32))


def own(layers_of_it):
    module = sequential.SequentialClassifier(layers_of_it)
    module(tf.zeros([1, 9, 9, 3]), is_training=False)
    return module


class OwnList(sequential.SequentialClassifier):
    """A subclass that only says what it is made of."""

    def __init__(self, num_classes, layer=snt.Linear):
        super().__init__([layers.Flatten(), layer(6), layers.Relu(), snt.Linear(num_classes)])

    def describe(self):
        return "a method more"


class Tripled(OwnList):
    """A subclass that computes something else."""

    def __call__(self, images, is_training):
        return 3 * super().__call__(images, is_training)


class Squared(snt.Linear):
    """A layer that computes something else."""

    def __call__(self, inputs):
        return super().__call__(inputs) ** 2


class SmallResNet(resnet.ResNet):
    """Sonnet's network with other sizes."""

    def __init__(self, num_classes, resnet_v2=False):
        sizes = [1, 1, 1, 1], num_classes, None, resnet_v2, [8, 8, 8, 8]
        super().__init__(*sizes)


class TwoHeaded(SmallResNet):
    """One of its parts has no rule."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self._logits = Squared(num_classes)


def test_what_computes_something_else_has_no_rule():
    assert ensemble_rules.supports(OwnList(3))
    assert ensemble_rules.supports(SmallResNet(3))
    for module in (Tripled(3), OwnList(3, Squared), Squared(3), SmallResNet(3, resnet_v2=True), TwoHeaded(3)):
        assert not ensemble_rules.supports(module), module


def test_what_has_no_form_for_many_is_trained_alone():
    assert not ensemble_rules.supports(registry.build("vit_8", 3, (8, 8, 1)))
    of_features = own([layers.Flatten(), snt.BatchNorm(True, True), snt.Linear(3)])
    assert not ensemble_rules.supports(of_features)


def built(module, shape):
    module(tf.zeros([1, *shape]), is_training=False)
    return module, shape


MODULES = {
    "a subclass of a list of layers": lambda: built(OwnList(3), (4, 4, 1)),
    "a subclass of ResNet": lambda: built(SmallResNet(3), (32, 32, 3)),
    "mlp": lambda: (registry.build("mlp", 5, (9, 9, 3)), (9, 9, 3)),
    "lenet": lambda: (registry.build("lenet", 5, (9, 9, 3)), (9, 9, 3)),
    "small_inception": lambda: (registry.build("small_inception", 5, (8, 8, 3)), (8, 8, 3)),
    "small_inception, large": lambda: (
        registry.build("small_inception", 5, (32, 32, 3), {"large_inputs": True}),
        (32, 32, 3),
    ),
    "resnet50": lambda: (registry.build("resnet50", 5, (32, 32, 3)), (32, 32, 3)),
    "conv5": lambda: (registry.build("conv5_3", 5, (9, 9, 3)), (9, 9, 3)),
    "conv5, averages": lambda: (
        registry.build("conv5_3", 5, (9, 9, 3), {"pooling": "average", "batch_norm": True}),
        (9, 9, 3),
    ),
    "resnet18": lambda: (registry.build("resnet18_3", 5, (9, 9, 3)), (9, 9, 3)),
    "resnet34, batch norm": lambda: (registry.build("resnet34_3", 5, (9, 9, 3), {"batch_norm": True}), (9, 9, 3)),
    "vgg11": lambda: (registry.build("vgg11_3", 5, (17, 17, 1)), (17, 17, 1)),
    "vgg13, batch norm": lambda: (registry.build("vgg13_3", 5, (17, 17, 1), {"batch_norm": True}), (17, 17, 1)),
    "globally pooled images": lambda: (own([layers.GlobalMaxPool(), snt.Linear(3)]), (9, 9, 3)),
    "globally averaged images": lambda: (own([layers.GlobalAveragePool(), snt.Linear(3)]), (9, 9, 3)),
    "averages of parts, padded": lambda: (
        own([layers.AveragePool(3, 2, "SAME"), layers.Flatten(), snt.Linear(3)]),
        (9, 9, 3),
    ),
    "strides, dilation, own padding, no bias": lambda: (
        own(
            [
                snt.Conv2D(4, 3, stride=(2, 1), with_bias=False),
                snt.Conv2D(5, (3, 2), rate=2, padding=lambda size: [size // 2, 1]),
                layers.MaxPool(3, 2, "SAME"),
                layers.Flatten(),
                snt.Linear(3, with_bias=False),
            ]
        ),
        (9, 9, 3),
    ),
    "pooled images": lambda: (own([layers.MaxPool(2, 2), layers.Relu(), layers.Flatten(), snt.Linear(3)]), (9, 9, 3)),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("is_training", [False, True])
def test_logits_and_moving_averages_are_those_of_each_model_alone(name, is_training):
    module, shape = MODULES[name]()
    group, values = models(module)
    inputs = images(shape)
    logits = group.logits(inputs, is_training)
    scale = np.abs(logits).max()
    for position in range(NUM_RUNS):
        learners.assign(module, values[position])
        alone = module(inputs[position], is_training=is_training)
        np.testing.assert_allclose(logits[position] / scale, alone / scale, rtol=0, atol=1e-4)
        after = learners.read_values(module)
        group.copy_to(position, module)
        for key, value in learners.read_values(module).items():
            np.testing.assert_allclose(value, after[key], rtol=1e-4, atol=1e-4, err_msg=key)
    assert not np.allclose(logits[0], logits[1], atol=1e-3 * scale)


@pytest.mark.parametrize("name", ["lenet", "small_inception"])
def test_products_can_be_taken_in_bfloat16(name):
    module, shape = MODULES[name]()
    exact, values = models(module)
    rounded = ensemble.EnsembleLearner(module, NUM_RUNS, tf.bfloat16)
    rounded.assign(values)
    inputs = images(shape)
    expected, found = exact.logits(inputs, True), rounded.logits(inputs, True)
    assert found.dtype == tf.float32
    assert all(variable.dtype == tf.float32 for variable in rounded.trainable_variables)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-5 < difference < 0.1  # bfloat16 has 8 bits


def test_gradients_stay_within_their_model():
    module, shape = MODULES["small_inception"]()
    group, _ = models(module)
    inputs = images(shape)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(group.logits(inputs, True)[1])
    for variable, gradient in zip(
        group.trainable_variables, tape.gradient(loss, group.trainable_variables), strict=True
    ):
        assert not np.any(gradient[0]), variable.shape
    assert np.any(gradient[1])
