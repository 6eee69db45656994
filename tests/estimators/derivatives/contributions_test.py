"""Inner products and norms that are had without gradients, at several places and in groups, against gradients."""

import numpy as np
import pytest
import tensorflow as tf

from estimators.derivatives import contributions, layouts


def _product(num, places, seed):
    """Rows of 4 and cotangents of 3 in two groups."""
    rng = np.random.default_rng(seed)
    rows, cotangents = (tf.constant(rng.normal(size=(num, 2, places, size))) for size in (4, 3))
    return contributions.Product(layouts.convolution((1, 1, 4, 6), 2), rows, cotangents)


def _convolution(num, seed):
    rng = np.random.default_rng(seed)
    window = contributions.Window((3, 2), (2, 1), (1, 1), (1, 0), (0, 1), (3, 5))
    images, cotangents = rng.normal(size=(num, 6, 5, 2)), rng.normal(size=(num, 3, 5, 4))
    return contributions.Convolution(layouts.convolution((3, 2, 2, 4), 1), window, tf.constant(images), cotangents)


def _flat(part):
    gradients = np.asarray(part.gradients())
    return gradients.reshape(len(gradients), -1)


@pytest.mark.parametrize("part", [_product(3, 1, 0), _product(3, 5, 0), _convolution(3, 0)])
def test_norms_count_every_pair_of_places(part):
    np.testing.assert_allclose(contributions.ghost_squared_norms(part), np.sum(_flat(part) ** 2, axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    ("first", "second"), [(_product(3, 5, 0), _product(2, 4, 1)), (_convolution(3, 0), _convolution(2, 1))]
)
def test_inner_products_count_every_pair_of_places(first, second):
    found = contributions.ghost_dot_products(first, second)
    np.testing.assert_allclose(found, _flat(first) @ _flat(second).T, atol=1e-12)
