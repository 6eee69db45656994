"""The noise of stochastic gradient descent against its stationary covariance, written out in the weights."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg

from estimators import errors
from estimators.linearized import descents, dynamics, leave_out, spectra
from estimators.unique_information import sgd_noise
from tests.estimators.linearized import problems

_RATE, _TIME, _BATCH, _FLOORS = 0.02, 120, 4, (1e-9, 1e-5, 1.0)


def _case(l2, form="dual", **options):
    problem = problems.make(**{"outputs": 2, "width": 25, **options})
    descent = descents.GradientDescent(_RATE, l2)
    solve, rows = (leave_out.solve, problem.kernel) if form == "dual" else (leave_out.solve_primal, problem.jacobian)
    removed = solve(rows, problem.residuals, descent, _TIME)
    residuals = dynamics.Dynamics(problem.kernel, problem.residuals, descent).residuals(_TIME)
    return problem, removed, residuals


def _gradients(problem, residuals):
    return np.stack([
        problem.jacobian[2 * i : 2 * i + 2].T @ residuals[i] for i in range(len(residuals))
    ])  # fmt: skip


def _covariance(problem, residuals, l2):
    """Sigma [P, P] by SciPy's solver of Lyapunov equations; for l2 = 0 by the equation in coordinates of the range."""
    curvature = problem.jacobian.T @ problem.jacobian / len(residuals) + l2 * np.eye(problem.jacobian.shape[1])
    noise = np.cov(_gradients(problem, residuals).T, bias=True) * _RATE / _BATCH
    if l2 > 0:
        return scipy.linalg.solve_continuous_lyapunov(curvature, noise)
    basis = scipy.linalg.orth(problem.jacobian.T)
    inside = scipy.linalg.solve_continuous_lyapunov(basis.T @ curvature @ basis, basis.T @ noise @ basis)
    return basis @ inside @ basis.T


def _expected(problem, removed, covariance):
    moved = removed.without - removed.full
    moved = moved @ problem.jacobian if removed.form == "dual" else moved
    floored = [covariance + floor * np.eye(len(covariance)) for floor in _FLOORS]
    return np.stack([0.5 * np.sum(moved * np.linalg.solve(matrix, moved.T).T, axis=1) for matrix in floored])


@pytest.mark.parametrize("l2", [0.0, 0.03])
@pytest.mark.parametrize("form", ["dual", "primal"])
def test_reduced_equals_the_covariance_of_all_weights(l2, form):
    problem, removed, residuals = _case(l2, form)
    expected = _expected(problem, removed, _covariance(problem, residuals, l2))
    found = sgd_noise.reduced(removed, residuals, batch_size=_BATCH, floors=_FLOORS)
    np.testing.assert_allclose(found.nats, expected, rtol=1e-5)
    np.testing.assert_allclose(found.nats[1:], expected[1:], rtol=1e-8)
    assert found.nats.shape == (3, 9)
    assert found.outside.max() < 1e-9
    np.testing.assert_allclose(found.squared_norms, removed.squared_weight_changes())


@pytest.mark.parametrize("l2", [0.0, 0.03])
def test_full_equals_the_covariance_of_all_weights(l2):
    problem, removed, residuals = _case(l2)
    expected = _expected(problem, removed, _covariance(problem, residuals, l2))
    found = sgd_noise.full(removed, problem.jacobian, residuals, batch_size=_BATCH, floors=_FLOORS)
    np.testing.assert_allclose(found.nats, expected, rtol=1e-5)
    np.testing.assert_allclose(found.variances[-1], np.linalg.eigvalsh(_covariance(problem, residuals, l2))[-1])


def test_a_spectrum_serves_again():
    problem, removed, residuals = _case(0.03)
    once = sgd_noise.reduced(
        removed, residuals, batch_size=_BATCH, floors=_FLOORS, spectrum=spectra.decompose(problem.kernel)
    )
    anew = sgd_noise.reduced(removed, residuals, batch_size=_BATCH, floors=_FLOORS)
    np.testing.assert_array_equal(once.nats, anew.nats)


def test_diagonal():
    """Every weight as if it were the only one."""
    problem, removed, residuals = _case(0.03)
    gradients, moved = _gradients(problem, residuals), (removed.without - removed.full) @ problem.jacobian
    expected = np.zeros((3, 9))
    for weight in range(25):
        curvature = np.sum(problem.jacobian[:, weight] ** 2) / 9 + 0.03
        variance = _RATE / _BATCH * gradients[:, weight].var() / (2 * curvature)
        expected += moved[:, weight] ** 2 / (2 * (variance + np.array(_FLOORS)[:, None]))
    found = sgd_noise.diagonal(removed, problem.jacobian, residuals, batch_size=_BATCH, floors=_FLOORS)
    np.testing.assert_allclose(found.nats, expected, rtol=1e-9)


def test_the_covariance_is_that_of_noisy_training():
    """Stochastic gradient descent on three weights, simulated: 1/2 dw^T Sigma^-1 dw within its standard error.

    The stationary equation is the limit of small steps, of relative error about learning_rate times the curvature.
    """
    problem, _, residuals = _case(0.0, num=6, outputs=1, width=3, duplicate=False, seed=12, least=1.0)
    jacobian, rng = problem.jacobian, np.random.default_rng(0)
    curvature = jacobian.T @ jacobian / 6
    slowest, *_, fastest = np.linalg.eigvalsh(curvature)
    root = np.linalg.cholesky(np.cov((jacobian * residuals).T, bias=True) / _BATCH)
    # Many independent runs, until e^-6 of where they began is left in the slowest direction.
    num_runs = 4000
    weights = np.zeros((num_runs, 3))
    for _ in range(int(6 / (_RATE * slowest))):
        weights -= _RATE * (weights @ curvature + rng.normal(size=weights.shape) @ root.T)
    removed = leave_out.solve(problem.kernel, problem.residuals, descents.GradientDescent(_RATE), _TIME, num_checked=0)
    found = sgd_noise.reduced(removed, residuals, batch_size=_BATCH, floors=[0.0])
    moved = (removed.without - removed.full) @ jacobian
    expected = 0.5 * np.sum(moved * np.linalg.solve(np.cov(weights.T), moved.T).T, axis=1)
    tolerance = 4 * np.sqrt(2 / num_runs) + _RATE * fastest
    np.testing.assert_allclose(found.nats[0], expected, rtol=tolerance)


def test_a_singular_covariance_needs_a_floor():
    """Of weights that no example moves, or where all gradients are equal."""
    problem, removed, residuals = _case(0.0)
    with pytest.raises(errors.SolverError, match=r"variances are 0.* give floors above 0"):
        sgd_noise.full(removed, problem.jacobian, residuals, batch_size=_BATCH, floors=[0.0, 1.0])
    with pytest.raises(errors.SolverError, match="16 of 16 variances are 0"):
        sgd_noise.reduced(removed, np.zeros_like(residuals), batch_size=_BATCH, floors=[0.0])


@pytest.mark.parametrize("floors", [[], [-1.0], [float("nan")]])
def test_floors_that_cannot_be_are_refused(floors):
    _, removed, residuals = _case(0.0)
    with pytest.raises(errors.InvalidArgumentError, match="floors"):
        sgd_noise.reduced(removed, residuals, batch_size=_BATCH, floors=floors)


def test_what_does_not_fit_is_refused():
    problem, removed, residuals = _case(0.0)
    options = {"batch_size": _BATCH, "floors": [1.0]}
    with pytest.raises(errors.MismatchError, match="a Jacobian of shape"):
        sgd_noise.full(removed, problem.jacobian[1:], residuals, **options)
    with pytest.raises(errors.MismatchError, match="in primal form use `reduced`"):
        sgd_noise.diagonal(_case(0.0, "primal")[1], problem.jacobian, residuals, **options)
    with pytest.raises(errors.MismatchError, match="residuals"):
        sgd_noise.reduced(removed, residuals[1:], **options)
    for batch_size in (0, 0.5, float("nan"), float("inf")):
        with pytest.raises(errors.InvalidArgumentError, match=f"batch_size {batch_size}: must be a number from 1 up"):
            sgd_noise.reduced(removed, residuals, batch_size=batch_size, floors=[1.0])


@pytest.mark.parametrize("shape", [(18,), (18, 1), (6, 3)])
def test_residuals_of_other_outputs_are_refused(shape):
    """As many numbers as there are rows, but not [9, 2]."""
    problem, removed, residuals = _case(0.0)
    options = {"batch_size": _BATCH, "floors": [1.0]}
    for measure, rows in ((sgd_noise.reduced, ()), (sgd_noise.full, (1,)), (sgd_noise.diagonal, (1,))):
        arguments = (removed, *(problem.jacobian for _ in rows), residuals.reshape(shape))
        with pytest.raises(errors.MismatchError, match="expected 2 outputs an example"):
            measure(*arguments, **options)


def test_what_lies_outside_the_basis_is_said():
    problem, removed, residuals = _case(0.0)
    spectrum = spectra.decompose(problem.kernel, accuracy=1e-3)
    assert 0 < spectrum.rank < removed.spectrum.rank
    found = sgd_noise.reduced(removed, residuals, batch_size=_BATCH, floors=[1.0], spectrum=spectrum)
    moved = (removed.without - removed.full) @ problem.jacobian
    basis = np.linalg.svd(problem.jacobian)[2][: spectrum.rank]
    expected = 1 - np.sum((moved @ basis.T) ** 2, axis=1) / np.sum(moved**2, axis=1)
    np.testing.assert_allclose(found.outside, expected, rtol=1e-6)
    assert found.outside.min() > 1e-6
    of_double = sgd_noise.diagonal(removed, 2 * problem.jacobian, residuals, batch_size=_BATCH, floors=[1.0])
    np.testing.assert_allclose(of_double.outside, 3.0)


class _Watched:
    """An array that says how many numbers are read at most at a time, as a memory map would be."""

    def __init__(self, values):
        self._values, self.shape, self.ndim, self.most = values, values.shape, values.ndim, 0

    def __len__(self):
        return len(self._values)

    def __getitem__(self, key):
        found = self._values[key]
        self.most = max(self.most, found.size)
        return found


def test_jacobians_and_features_are_read_part_by_part(monkeypatch):
    problem, removed, residuals = _case(0.03)
    _, primal, _ = _case(0.03, "primal")
    options = {"batch_size": _BATCH, "floors": _FLOORS}
    diagonal = sgd_noise.diagonal(removed, problem.jacobian, residuals, **options)
    reduced = sgd_noise.reduced(primal, residuals, **options)
    monkeypatch.setattr(sgd_noise, "_CHUNK_BYTES", 8.0 * 25 * 3 * 2)
    columns, rows = _Watched(problem.jacobian), _Watched(primal.train_rows)
    of_parts = sgd_noise.diagonal(removed, columns, residuals, **options)
    np.testing.assert_allclose(of_parts.nats, diagonal.nats, rtol=1e-12)
    np.testing.assert_array_equal(of_parts.variances, diagonal.variances)
    of_parts = sgd_noise.reduced(dataclasses.replace(primal, train_rows=rows), residuals, **options)
    np.testing.assert_allclose(of_parts.nats, reduced.nats, rtol=1e-6)
    assert (columns.most, rows.most) == (18 * 3, 2 * 2 * 25)
