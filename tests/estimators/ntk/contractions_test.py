"""Which way a parameter is contracted, from what each takes."""

import numpy as np
import pytest
import tensorflow as tf

from estimators import ntk
from estimators.derivatives import contributions, layouts
from estimators.ntk import contractions, factors
from tests.estimators.ntk import truth


def product(places, num_inputs, num_outputs):
    return factors.Product(layouts.dense(num_inputs, num_outputs), (None,), places)


def chosen(kind, num, k, method="auto", most=1e12, same=True):
    found = contractions.costs(kind, num, num, k, same=same)
    return contractions.choose(kind, found, method, most)


def test_each_way_is_chosen_where_it_takes_the_fewest_operations():
    assert chosen(product(1, 2048, 2048), 16, 8) == "structured"  # dense
    assert chosen(product(1024, 576, 64), 8, 10) == "jacobian"  # many places, few channels
    assert chosen(product(16, 4608, 512), 8, 10) == "structured"  # few places, many channels
    assert chosen(product(64, 4608, 8), 1, 1, same=False) == "vector_products"  # one output of two single examples
    assert chosen(factors.Formed(64), 8, 10) == "jacobian"
    assert chosen(factors.Lookup(30_000, 64, 20), 8, 2) == "structured"


def test_what_does_not_fit_is_not_chosen():
    window = contributions.Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1), (8, 8))
    kind = factors.Product(layouts.convolution((3, 3, 256, 256), 1), (window,), 64)
    elements = {name: cost.elements for name, cost in contractions.costs(kind, 8, 8, 10, same=True).items()}
    assert chosen(kind, 8, 10) == "structured"
    assert chosen(kind, 8, 10, most=elements["structured"] - 1) != "structured"
    assert chosen(kind, 8, 10, most=0) == min(elements, key=elements.get)


@pytest.mark.parametrize("method", contractions.METHODS)
def test_a_way_that_is_asked_for_is_taken(method):
    assert chosen(product(1, 2048, 2048), 16, 8, method, most=0) == method
    assert chosen(factors.Formed(3), 16, 8, method) == "jacobian"


def test_operations_are_those_of_the_formulas():
    """Dense, two examples of each batch, three outputs, counted by hand; what is moved counts eightfold."""
    found = contractions.costs(product(1, 5, 7), 2, 2, 3, same=False)
    assert found["structured"].operations == 4 * 5 + 4 * 9 * 7 + 8 * 4
    assert found["jacobian"].operations == 4 * 3 * 35 + 4 * 9 * 35 + 8 * 4 * 3 * 35
    assert found["vector_products"].operations == 2 * 3 * 35 + 4 * 3 * 7 * 5 + 4 * 9 * 7 + 8 * 4 * 3 * 7


def test_operations_of_batches_of_different_places():
    """Two and three places, two examples of the first batch and one of the second, a single output, by hand."""
    found = contractions.costs(product(2, 5, 7), 2, 1, 1, same=False, other=product(3, 5, 7))
    formed, pairs = (2 * 2 + 1 * 3) * 35, 2
    spread = pairs * 3 * 7
    assert found["jacobian"].operations == formed + pairs * 7 * 5 + 8 * 3 * 35
    assert found["structured"].operations == pairs * 6 * 5 + 2 * spread + 3 * pairs * 7 + 8 * (spread + pairs * 6)
    assert found["vector_products"].operations == 3 * 35 + pairs * 2 * 7 * 5 + 2 * pairs * 7 + 8 * pairs * 2 * 7


def test_elements_of_the_window_one_by_one_where_patches_are_large():
    window = contributions.Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1), (4, 4))
    small = factors.Product(layouts.convolution((3, 3, 3, 5), 1), (window,), 16)
    large = factors.Product(layouts.convolution((3, 3, 4, 5), 1), (window,), 16)
    assert (small.num_taps, large.num_taps) == (1, 9)
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 4))
    cotangents = np.zeros((2, 1, 16, 1, 5))
    taps = large.taps((tf.constant(images), tf.constant(cotangents)))
    assert len(taps) == 9
    (patches,) = large.taps((tf.constant(images), tf.constant(cotangents)), together=True)
    expected = tf.image.extract_patches(images, [1, 3, 3, 1], [1, 1, 1, 1], [1, 1, 1, 1], "SAME")
    np.testing.assert_array_equal(patches, tf.reshape(expected, [2, 1, 16, 36]))
    np.testing.assert_array_equal(tf.concat(taps, axis=3), patches)


def test_auto_mixes_ways_and_gives_the_same():
    case = truth.CASES["cnn_10"]()
    kernel = ntk.TangentKernel(case.target, case.inputs)
    ways = {line.split(": ")[1].split(" (")[0] for line in kernel.describe(case.inputs).splitlines()}
    assert ways >= {"jacobian", "structured"}
