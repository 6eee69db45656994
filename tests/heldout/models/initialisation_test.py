"""How weights begin: their moments, in every place of a network, and what a Fixup network computes."""

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

from heldout.models import initialisation, registry, small_resnet
from zoo import errors

_NUM_DRAWN = 3 * 3 * 64 * 200
_FAN_IN = 3 * 3 * 64


def _drawn(initialiser):
    tf.random.set_seed(0)
    return initialiser([3, 3, 64, 200], tf.float64).numpy()


@pytest.mark.parametrize(
    ("name", "place", "expected_variance"),
    [
        ("kaiming_normal", "weights", 2 / _FAN_IN),
        ("kaiming_normal", "branch", 2 / _FAN_IN),
        ("kaiming_normal", "branch_end", 2 / _FAN_IN),
        ("kaiming_normal", "logits", 2 / _FAN_IN),
        ("fixup", "weights", 2 / _FAN_IN),
        ("fixup", "branch", 2 / _FAN_IN / 8),
        ("fixup", "branch_end", 0.0),
        ("fixup", "logits", 0.0),
    ],
)
def test_moments_by_place(name, place, expected_variance):
    values = _drawn(getattr(initialisation.of(name, batch_norm=False, num_branches=8), place))
    # The variance of a sample of a normal has a relative standard error of sqrt(2 / n); 5 of them.
    assert values.var() == pytest.approx(expected_variance, rel=5 * np.sqrt(2 / _NUM_DRAWN))
    assert abs(values.mean()) <= 5 * np.sqrt(expected_variance / _NUM_DRAWN)
    if expected_variance:
        # A normal is not cut off; of so many, the largest lies far outside two standard deviations.
        assert np.abs(values).max() > 3.5 * np.sqrt(expected_variance)


@pytest.mark.parametrize("place", ["weights", "branch", "branch_end", "logits"])
def test_the_default_is_left_to_sonnet(place):
    assert getattr(initialisation.of("default", batch_norm=True, num_branches=8), place) is None


def test_every_place_of_a_resnet_begins_as_fixup_says():
    tf.random.set_seed(0)
    model = registry.build("resnet18_16", 10, (8, 8, 3), {"initialisation": "fixup"})
    blocks = [layer for layer in model.layers if isinstance(layer, small_resnet.BasicBlock)]
    assert len(blocks) == 8
    for block in blocks:
        first, last = (layer for layer in block.branch if isinstance(layer, snt.Conv2D))
        weights = first.w.numpy()
        assert not last.w.numpy().any()
        expected = np.sqrt(2 / np.prod(weights.shape[:3]) / 8)
        assert weights.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * weights.size))
        for convolution in (layer for layer in block.shortcut if isinstance(layer, snt.Conv2D)):
            shortcut = convolution.w.numpy()
            expected = np.sqrt(2 / shortcut.shape[2])
            assert shortcut.std() == pytest.approx(expected, rel=5 / np.sqrt(2 * shortcut.size))


def test_fixup_blocks_begin_as_their_shortcuts():
    model = registry.build("resnet18_4", 10, (8, 8, 3), {"initialisation": "fixup"}, dtype=tf.float64)
    inputs = tf.constant(np.random.default_rng(0).uniform(size=(2, 4, 4, 4)))
    block = model.layers[2]
    assert block.shortcut == []
    np.testing.assert_array_equal(block(inputs, is_training=True), inputs)


@pytest.mark.parametrize("name", initialisation.NAMES)
@pytest.mark.parametrize("architecture", ["conv5_4", "resnet18_4", "vgg11_4", "vit_8"])
def test_initial_values_follow_from_the_seed_and_biases_are_zero(architecture, name):
    drawn = []
    for seed in (1, 1, 2):
        tf.random.set_seed(seed)
        model = registry.build(architecture, 10, (16, 16, 1), {"initialisation": name})
        drawn.append(next(v.numpy() for v in model.trainable_variables if v.shape.rank == 4))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    offsets = [v.numpy() for v in model.trainable_variables if v.name.split("/")[-1] in ("b:0", "offset:0")]
    assert len(offsets) > 4
    assert not any(values.any() for values in offsets)


def test_unknown_names():
    with pytest.raises(errors.InvalidValueError, match="'he': expected one of default, kaiming_normal, fixup"):
        registry.build("vgg11_4", 10, (16, 16, 1), {"initialisation": "he"})


@pytest.mark.parametrize("architecture", ["conv5_4", "resnet18_4", "vgg11_4"])
def test_fixup_and_batch_normalisation_exclude_each_other(architecture):
    with pytest.raises(errors.InvalidValueError, match="'fixup' with batch_norm=True"):
        registry.build(architecture, 10, (16, 16, 1), {"initialisation": "fixup", "batch_norm": True})
