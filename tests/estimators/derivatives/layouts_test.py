"""Kernels as matrices, and products with them."""

import numpy as np
import pytest
import tensorflow as tf

from estimators.derivatives import layouts


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_groups", [1, 2])
def test_products_with_shared_matrices(num_groups, dtype):
    """Compiled, float32 and with one group, a plain `tf.matmul` of these shapes is wrong and breaks the process."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(3, num_groups, 16, 4)).astype(dtype)
    matrices = generator.normal(size=(num_groups, 4, 5)).astype(dtype)
    found = tf.function(layouts.multiplied, autograph=False)(tf.constant(rows), tf.constant(matrices))
    np.testing.assert_allclose(found, np.einsum("ngti,gio->ngto", rows, matrices), atol=1e-5)


_LAYOUTS = {
    "dense": layouts.dense(4, 3),
    "transposed": layouts.dense(4, 3, transposed=True),
    "convolution": layouts.convolution((3, 2, 4, 5), 1),
    "grouped": layouts.convolution((3, 2, 4, 6), 2),
    "depthwise": layouts.depthwise((3, 2, 4, 5)),
}


@pytest.mark.parametrize("name", sorted(_LAYOUTS))
def test_matrices_and_kernels_are_inverse(name):
    layout = _LAYOUTS[name]
    kernels = np.random.default_rng(0).normal(size=(2, *layout.shape))
    matrices = layout.matrices(kernels)
    assert matrices.shape[1:] == layout.sizes
    np.testing.assert_array_equal(layout.kernels(matrices), kernels)


def test_where_the_elements_of_a_grouped_kernel_lie():
    """Output channel c of G groups of O belongs to group c // O; rows run over the window, then over channels."""
    layout = _LAYOUTS["grouped"]
    kernel = np.random.default_rng(0).normal(size=layout.shape)
    matrices = layout.matrices(kernel[None]).numpy()[0]
    assert matrices.shape == (2, 3 * 2 * 4, 3)
    for row, column, channel, output in np.ndindex(3, 2, 4, 6):
        expected = kernel[row, column, channel, output]
        assert matrices[output // 3, (row * 2 + column) * 4 + channel, output % 3] == expected
