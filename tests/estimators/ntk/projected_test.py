"""Projected Jacobians: exact where nothing is left out, unbiased elsewhere, and errors that are what they say."""

import numpy as np
import pytest

from estimators import errors, ntk
from estimators.ntk import projected
from tests.estimators.ntk import truth

_NUM_DRAWS = 200


@pytest.fixture(name="case", scope="module")
def _case():
    return truth.CASES["mlp_10"]()


@pytest.fixture(name="jacobian", scope="module")
def _jacobian(case):
    return truth.jacobian(case.target, case.inputs)


@pytest.mark.parametrize("kind", projected.KINDS)
def test_kernels_of_features_are_right_on_average(monkeypatch, case, jacobian, kind):
    """Within five standard errors of the mean of 200 draws, every entry; maps are those that features are made by."""
    outputs = projected.outputs_lib.of(case.target, case.inputs)
    kernel = jacobian @ jacobian.T
    found = []
    monkeypatch.setattr(projected.explicit, "rows", lambda *_: rows)
    monkeypatch.setattr(projected.explicit, "by_parameter", lambda *_: parts)
    rows = jacobian.reshape(7, 10, -1)
    ends = np.cumsum([parameter.size for parameter in case.target.parameters])
    parts = np.split(rows, ends[:-1], axis=2)
    dimension = 6 if kind == "random_subset" else 32
    for seed in range(_NUM_DRAWS):
        _, project = projected._map(outputs, ntk.Projection(kind, dimension, seed))
        features = np.asarray(project(None)).reshape(70, -1)
        found.append(features @ features.T)
    errors_of_mean = np.std(found, axis=0, ddof=1) / np.sqrt(_NUM_DRAWS)
    z = (np.mean(found, axis=0) - kernel) / np.maximum(errors_of_mean, 1e-12 * np.abs(kernel).max())
    assert np.abs(z).max() < 5
    assert np.std(found, axis=0).max() > 0.01 * np.abs(kernel).max()


@pytest.mark.parametrize(
    "kind", [*projected.KINDS[:1], *(pytest.param(k, marks=pytest.mark.slow) for k in projected.KINDS[1:])]
)
def test_features_do_not_depend_on_batches_and_follow_the_seed(case, jacobian, kind):
    config = ntk.Projection(kind, 8, seed=3)
    whole = ntk.projected_jacobians(case.target, case.inputs, config)
    parts = ntk.projected_jacobians(case.target, case.inputs, config, batch_size=2)
    np.testing.assert_allclose(parts.values, whole.values, rtol=0, atol=1e-13)
    few = ntk.projected_jacobians(case.target, case.inputs[2:4], config)
    np.testing.assert_allclose(few.values, whole.values[20:40], rtol=0, atol=1e-13)
    other = ntk.projected_jacobians(case.target, case.inputs, ntk.Projection(kind, 8, seed=4))
    assert np.abs(other.values - whole.values).max() > 0.01


@pytest.mark.parametrize("kind", projected.KINDS)
def test_the_measured_error_is_that_of_the_kernel(case, jacobian, kind):
    found = ntk.projected_jacobians(case.target, case.inputs, ntk.Projection(kind, 16), num_sample=3)
    np.testing.assert_array_equal(found.sample, [0, 3, 6])
    rows = np.concatenate([np.arange(10 * i, 10 * i + 10) for i in (0, 3, 6)])
    kernel, features = jacobian[rows] @ jacobian[rows].T, found.values[rows]
    expected = np.linalg.norm(features @ features.T - kernel) / np.linalg.norm(kernel)
    np.testing.assert_allclose(found.relative_error, expected, rtol=1e-9)
    assert 0.01 < found.relative_error < 2


def test_a_subset_takes_small_tensors_whole_and_scales_large_ones(case, jacobian):
    """Sizes 6, 4, 10, 40, 24 and 30 by name b, c, d, u, v, w."""
    found = ntk.projected_jacobians(case.target, case.inputs, ntk.Projection("random_subset", 24))
    assert found.values.shape == (70, 6 + 4 + 10 + 24 + 24 + 24)
    np.testing.assert_allclose(found.values[:, :20], jacobian[:, :20], atol=1e-13)
    large = found.values[:, 20:44] / np.sqrt(40 / 24)
    differences = np.abs(large[:, :, None] - jacobian[:, None, 20:60]).max(axis=0)
    places = differences.argmin(axis=1)
    assert differences.min(axis=1).max() < 1e-13
    assert len(set(places)) == 24
    whole = ntk.projected_jacobians(case.target, case.inputs, ntk.Projection("random_subset", 40))
    np.testing.assert_allclose(whole.values, jacobian, atol=1e-13)
    assert whole.relative_error < 1e-12


def test_a_full_hadamard_transform_keeps_the_kernel(case, jacobian, tmp_path):
    out = np.lib.format.open_memmap(tmp_path / "features.npy", "w+", np.float64, (70, 128))
    found = ntk.projected_jacobians(case.target, case.inputs, ntk.Projection("hadamard", 128), out=out, batch_size=3)
    assert found.values is out
    np.testing.assert_allclose(out @ out.T, jacobian @ jacobian.T, atol=1e-12)
    assert found.relative_error < 1e-12


def test_arguments_are_checked(case):
    with pytest.raises(errors.InvalidArgumentError, match="projection 'fast': expected one of random_subset, sparse"):
        ntk.Projection("fast")
    with pytest.raises(errors.InvalidArgumentError, match="dimension 0: must be at least 1"):
        ntk.Projection(dimension=0)
    with pytest.raises(errors.InvalidArgumentError, match="seed -1: must be from 0"):
        ntk.Projection(seed=-1)
    with pytest.raises(errors.InvalidArgumentError, match="num_sample -1: must be 0 or more"):
        ntk.projected_jacobians(case.target, case.inputs, ntk.Projection(), num_sample=-1)
    with pytest.raises(errors.InvalidArgumentError, match="hadamard chooses among 128"):
        ntk.projected_jacobians(case.target, case.inputs, ntk.Projection("hadamard", 129))
    none = ntk.projected_jacobians(case.target, case.inputs, ntk.Projection("signs", 4), num_sample=0)
    assert np.isnan(none.relative_error)
