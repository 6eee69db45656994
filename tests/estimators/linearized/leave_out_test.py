"""Deletions against explicit training without each group, in the weights."""

import math

import numpy as np
import pytest

from estimators import errors
from estimators.linearized import deletions, descents, leave_out, solutions, spectra
from tests.estimators.linearized import problems

GROUPS = [np.array([place]) for place in range(9)] + [np.array([0, 3]), np.array([1, 4, 5]), np.array([0, 1])]


def solved(problem, form, *args, **options):
    if form == "dual":
        return leave_out.solve(problem.kernel, problem.residuals, *args, **options)
    return leave_out.solve_primal(problem.jacobian, problem.residuals, *args, **options)


def weights(problem, found):
    """[1 + G, P], of all examples and without each group."""
    rows = np.concatenate([found.full[None], found.without])
    return rows @ problem.jacobian if found.form == "dual" else rows


def _assert_equal(problem, found, truth, tolerance):
    expected = np.stack([truth(())] + [truth(group) for group in found.groups])
    scale = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(weights(problem, found) / scale, expected / scale, atol=tolerance)
    assert found.check.solution_error < 10 * tolerance
    assert len(found.check.groups) == 2


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("convention", descents.CONVENTIONS)
@pytest.mark.parametrize("name", problems.ALL)
@pytest.mark.parametrize(("time", "reach", "method"), [(7, 1.9, "recursion"), (150, 0.9, "contour")])
def test_steps_equal_explicit_deletion(form, convention, name, time, reach, method):
    problem = problems.ALL[name]()
    for l2 in (0.0, 0.05):
        rate = problem.learning_rate(reach, l2)
        found = solved(problem, form, descents.GradientDescent(rate, l2), time, groups=GROUPS, convention=convention)
        assert found.method == method
        _assert_equal(problem, found, lambda g: problems.descend(problem, rate, l2, time, g, convention), 1e-11)  # noqa: B023


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("time", [100, 151])
@pytest.mark.parametrize("reach", [1.9, 1.999])
def test_eigenvalues_near_the_edge_of_stability(form, time, reach):
    """There one hyperbola is wrong in the first digit."""
    problem = problems.make(outputs=2, seed=4)
    rate = problem.learning_rate(reach, 0.0, removed=1)
    found = solved(problem, form, descents.GradientDescent(rate), time)
    assert found.method == "contour, both ends"
    _assert_equal(problem, found, lambda g: problems.descend(problem, rate, 0.0, time, g), 1e-11)


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("convention", descents.CONVENTIONS)
@pytest.mark.parametrize("name", problems.ALL)
def test_flow_equals_explicit_deletion(form, convention, name):
    problem = problems.ALL[name]()
    for l2, time in ((0.0, 3.5), (0.05, 400.0)):
        descent = descents.GradientDescent(0.1, l2, continuous=True)
        found = solved(problem, form, descent, time, groups=GROUPS, convention=convention)
        assert found.method == "contour"
        _assert_equal(problem, found, lambda g: problems.flow(problem, 0.1, l2, time, g, convention), 1e-11)  # noqa: B023


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("convention", descents.CONVENTIONS)
@pytest.mark.parametrize("name", problems.ALL)
def test_the_limit_equals_explicit_deletion(form, convention, name):
    """Also without l2 and of singular kernels, where deletion may or may not lower the rank."""
    problem = problems.ALL[name]()
    for l2 in (0.0, 0.05):
        descent = descents.GradientDescent(0.1, l2, continuous=True)
        found = solved(problem, form, descent, math.inf, groups=GROUPS, convention=convention)
        assert found.method == "closed form"
        _assert_equal(problem, found, lambda g: problems.optimum(problem, l2, g, convention), 1e-10)  # noqa: B023


@pytest.mark.parametrize("time", [5, 200, math.inf])
def test_coefficients_of_what_is_left_out_are_zero(time):
    problem = problems.make(outputs=2)
    found = leave_out.solve(problem.kernel, problem.residuals, descents.GradientDescent(0.01), time, groups=GROUPS)
    for solution, group in zip(found.without, found.groups, strict=True):
        blocks = solution.reshape(-1, 2)
        assert not blocks[group].any()
        assert np.all(np.delete(blocks, group, axis=0).any(axis=1))


def test_recursion_by_name_equals_the_contour():
    problem = problems.make(outputs=2)
    descent = descents.GradientDescent(problem.learning_rate(1.2, 0.01), 0.01)
    contour = leave_out.solve(problem.kernel, problem.residuals, descent, 300)
    recursion = leave_out.solve(problem.kernel, problem.residuals, descent, 300, method="recursion")
    assert (contour.method, recursion.method) == ("contour", "recursion")
    np.testing.assert_allclose(recursion.without, contour.without, rtol=0, atol=1e-11 * np.abs(contour.without).max())


def test_few_nodes_are_less_exact_and_the_check_says_so():
    problem = problems.make()
    descent = descents.GradientDescent(problem.learning_rate(0.9, 0.0))
    rough = leave_out.solve(problem.kernel, problem.residuals, descent, 500, num_nodes=6, num_checked=3)
    assert 1e-8 < rough.check.solution_error < 1e-3
    assert rough.check.change_error > rough.check.solution_error
    assert list(rough.check.groups) == [0, 4, 8]
    unchecked = leave_out.solve(problem.kernel, problem.residuals, descent, 500, num_checked=0)
    assert math.isnan(unchecked.check.solution_error)


@pytest.mark.parametrize("time", [20, 300, math.inf])
def test_large_groups(time):
    """Of more rows than pairs of rows are formed of."""
    problem = problems.make(20, 2, 50, seed=5)
    groups = [np.arange(14), np.arange(3, 19)]
    assert len(groups[0]) * 2 > deletions._PAIRS_UP_TO
    rate = problem.learning_rate(0.9, 0.02, removed=16)
    for form in ("dual", "primal"):
        found = solved(problem, form, descents.GradientDescent(rate, 0.02), time, groups=groups)
        truth = (
            (lambda g: problems.optimum(problem, 0.02, g))
            if math.isinf(time)
            else (lambda g: problems.descend(problem, rate, 0.02, time, g))
        )
        _assert_equal(problem, found, truth, 1e-10)


@pytest.mark.parametrize("time", [20, 300, math.inf])
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_order_of_examples_does_not_matter(time, l2):
    problem = problems.make(outputs=3, width=30)
    order = np.random.default_rng(6).permutation(9)
    rows = (order[:, None] * 3 + np.arange(3)).ravel()
    descent = descents.GradientDescent(problem.learning_rate(1.1, l2), l2)
    plain = leave_out.solve(problem.kernel, problem.residuals, descent, time)
    other = leave_out.solve(problem.kernel[np.ix_(rows, rows)], problem.residuals[order], descent, time)
    # In the limit coefficients of a singular kernel are not unique; weights are.
    jacobian = problem.jacobian
    np.testing.assert_allclose(other.without @ jacobian[rows], (plain.without @ jacobian)[order], atol=1e-10)


@pytest.mark.parametrize("time", [20, 300, math.inf])
def test_outputs_that_share_nothing_are_single_problems(time):
    """A kernel that is block diagonal in its outputs."""
    singles = [problems.make(seed=seed, duplicate=False) for seed in (7, 8)]
    joint = np.zeros((9, 2, 9, 2))
    for output, single in enumerate(singles):
        joint[:, output, :, output] = single.kernel
    descent = descents.GradientDescent(min(s.learning_rate(1.1, 0.03) for s in singles), 0.03)
    residuals = np.concatenate([single.residuals for single in singles], axis=1)
    both = leave_out.solve(joint.reshape(18, 18), residuals, descent, time)
    for output, single in enumerate(singles):
        alone = leave_out.solve(single.kernel, single.residuals, descent, time)
        np.testing.assert_allclose(both.without.reshape(9, 9, 2)[..., output], alone.without, atol=1e-11)


def test_groups_may_be_of_any_number_and_are_labelled():
    problem = problems.make()
    found = leave_out.solve(problem.kernel, problem.residuals, descents.GradientDescent(0.01), 3, groups=[[4, 2], [7]])
    assert [list(group) for group in found.groups] == [[4, 2], [7]]
    alone = leave_out.solve(problem.kernel, problem.residuals, descents.GradientDescent(0.01), 3)
    np.testing.assert_allclose(found.without[1], alone.without[7], atol=1e-14)
    assert (found.num_train, found.num_outputs, found.convention, found.time) == (9, 1, "mean", 3)


def test_features_are_read_block_by_block(monkeypatch):
    problem = problems.make(outputs=3, width=30)
    descent = descents.GradientDescent(problem.learning_rate(0.9, 0.0))
    whole = leave_out.solve_primal(problem.jacobian, problem.residuals, descent, 300)
    monkeypatch.setattr(leave_out, "_ROW_BLOCK", 4)
    monkeypatch.setattr(deletions, "_CHUNK_BYTES", 1.0)
    parts = leave_out.solve_primal(problem.jacobian, problem.residuals, descent, 300)
    np.testing.assert_allclose(parts.without, whole.without, atol=1e-12)


def test_changes_of_predictions_and_weights():
    problem = problems.make(outputs=2, width=30)
    for form, cross in (("dual", problem.cross), ("primal", problem.test_jacobian)):
        found = solved(problem, form, descents.GradientDescent(0.01), 50, groups=GROUPS)
        ends = weights(problem, found)
        moved = ends[1:] - ends[0]
        np.testing.assert_allclose(found.squared_weight_changes(), np.sum(moved**2, axis=1), rtol=1e-9)
        (part, changes), *more = found.prediction_changes(cross)
        assert (part, more) == (slice(0, len(GROUPS)), [])
        np.testing.assert_allclose(changes.reshape(len(moved), -1), moved @ problem.test_jacobian.T, atol=1e-12)
        train = moved @ problem.jacobian.T
        own = found.own_prediction_changes()
        for place, group in enumerate(GROUPS):
            np.testing.assert_allclose(own[place], train[place].reshape(-1, 2)[group], atol=1e-12)


@pytest.mark.parametrize("groups", [[], [[]], [[1, 1]], [[9]], [[-1]], [[0.5]], [[[1]]], [list(range(9))]], ids=str)
def test_groups_that_cannot_be_are_refused(groups):
    problem = problems.make()
    with pytest.raises(errors.InvalidArgumentError, match="group"):
        leave_out.solve(problem.kernel, problem.residuals, descents.GradientDescent(0.01), 3, groups=groups)


@pytest.mark.parametrize(
    ("time", "continuous", "options", "message"),
    [
        (50, False, {"method": "contour"}, "'contour' at time 50"),
        (50, True, {"method": "recursion"}, "'recursion' at time 50"),
        (math.inf, True, {"method": "contour"}, "expected closed form"),
        (50, False, {"method": "power"}, "method 'power'"),
        (50, False, {"convention": "sum"}, "convention 'sum'"),
        (50, False, {"num_nodes": 0}, "num_nodes 0"),
        (50, False, {"num_nodes": 25}, "num_nodes 25"),
        (50, False, {"num_checked": -1}, "num_checked -1"),
        (0.5, False, {}, "time 0.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(time, continuous, options, message):
    problem = problems.make()
    descent = descents.GradientDescent(0.01, continuous=continuous)
    with pytest.raises(errors.InvalidArgumentError, match=message):
        leave_out.solve(problem.kernel, problem.residuals, descent, time, **options)


def test_a_rate_that_diverges_only_without_a_group_is_refused():
    problem = problems.make()
    descent = descents.GradientDescent(problem.learning_rate(1.95, 0.0, removed=0))
    leave_out.solve(problem.kernel, problem.residuals, descent, 200, convention="fixed")
    with pytest.raises(errors.InvalidArgumentError, match=r"= 2\.18757, which must be below 2 .* 8 examples"):
        leave_out.solve(problem.kernel, problem.residuals, descent, 200, convention="mean")


def test_other_shapes_are_refused():
    problem = problems.make()
    descent = descents.GradientDescent(0.01)
    with pytest.raises(errors.MismatchError, match="residuals"):
        leave_out.solve(problem.kernel, problem.residuals[1:], descent, 3)
    with pytest.raises(errors.MismatchError, match="features of shape"):
        leave_out.solve_primal(problem.jacobian[:, 0], problem.residuals, descent, 3)
    with pytest.raises(errors.MismatchError, match="a spectrum of 4 eigenvalues"):
        leave_out.solve(problem.kernel, problem.residuals, descent, 3, spectrum=spectra.decompose(np.eye(4)))
    known = spectra.decompose(problem.kernel)
    found = leave_out.solve(problem.kernel, problem.residuals, descent, 3, spectrum=known)
    with pytest.raises(errors.MismatchError, match="cross kernel or features of shape"):
        next(found.prediction_changes(problem.cross[:, 1:]))
    with pytest.raises(errors.MismatchError, match=r"of shape \(0, 9\).* with m of 1 or more"):
        next(found.prediction_changes(problem.cross[:0]))


@pytest.mark.parametrize("form", ["dual", "primal"])
def test_cross_kernels_that_are_not_finite_are_refused(form, monkeypatch):
    problem = problems.make()
    found = solved(problem, form, descents.GradientDescent(0.01), 3)
    cross = (problem.cross if form == "dual" else problem.test_jacobian).copy()
    cross[2, 5] = np.nan
    monkeypatch.setattr(solutions, "_ROW_BLOCK", 2)
    with pytest.raises(errors.InvalidArgumentError, match="row 2 of 4 has entries that are not finite"):
        found.squared_prediction_changes(cross)


def test_nothing_is_left_at_time_zero():
    problem = problems.make()
    for continuous in (False, True):
        found = leave_out.solve(
            problem.kernel, problem.residuals, descents.GradientDescent(0.01, continuous=continuous), 0
        )
        assert not found.without.any()
        assert math.isnan(found.check.solution_error)


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("time", [7, 200, math.inf])
def test_one_example_that_is_all_but_everything(form, time):
    """What is left without it is small beside the round-off of the whole."""
    problem = problems.make(duplicate=False, seed=11)
    problem.jacobian[4] *= 1e4
    descent = descents.GradientDescent(problem.learning_rate(0.5, 0.0))
    found = solved(problem, form, descent, time, groups=[[4], [5]])
    assert found.check.solution_error < 1e-6


def test_lists_are_arrays():
    problem = problems.make()
    descent = descents.GradientDescent(0.01)
    for form, rows in (("dual", problem.kernel), ("primal", problem.jacobian)):
        solve = leave_out.solve if form == "dual" else leave_out.solve_primal
        found = solve(rows.tolist(), problem.residuals.tolist(), descent, 3)
        np.testing.assert_array_equal(found.without, solved(problem, form, descent, 3).without)


def test_the_check_is_of_the_worst_group():
    problem = problems.make()
    descent = descents.GradientDescent(0.01)
    found = leave_out.solve(problem.kernel, problem.residuals, descent, 20, num_checked=0)
    found.without[8] *= 1.5
    checked = leave_out._with_check(found, problem.residuals.ravel(), 3, 1e-16)
    assert checked.check.solution_error == pytest.approx(0.5)
    assert checked.check.change_error > 0.5


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("factor", [1e-1, 1e-2, 1e-3])
def test_rows_that_are_nearly_alone_in_a_direction(form, factor):
    """Of leverage 1 - factor^2: without example 4, example 5 says what the weights are there."""
    problem = problems.make(12, 1, 5, duplicate=False, seed=3)
    problem.jacobian[:, 0] = 0
    problem.jacobian[4, 0], problem.jacobian[5] = 1.0, 0.0
    problem.jacobian[5, 0] = factor
    found = solved(problem, form, descents.GradientDescent(0.1, continuous=True), math.inf)
    _assert_equal(problem, found, lambda g: problems.optimum(problem, 0.0, g), 1e-13 / factor**2)


@pytest.mark.parametrize("form", ["dual", "primal"])
@pytest.mark.parametrize("time", [20, 151, 10**4, math.inf])
@pytest.mark.parametrize(("num", "scale"), [(12, 4.0), (12, 2.0), (80, 4.0), (80, 6.0)])
def test_larger_groups_whose_training_converges_are_not_refused(form, time, num, scale):
    """With the largest eigenvalue of all examples eta' would diverge; with that of those left it does not."""
    problem = problems.make(num, 1, num + 20, seed=5, least=0.3)
    problem.jacobian[0] *= scale
    groups = [np.arange(num // 2), np.arange(num // 2, num)]
    of_all, *of_left = (
        np.linalg.eigvalsh(np.delete(np.delete(problem.kernel, group, 0), group, 1))[-1] for group in ([], *groups)
    )
    rate = min(1.9 * num / of_all, 1.9 * num / 2 / of_left[0])
    descent = descents.GradientDescent(rate)
    assert rate / (num / 2) * of_all > 2
    found = solved(problem, form, descent, time, groups=groups[:1], num_checked=1)
    if 20 < time < 10**4:
        assert found.method == ("contour, both ends" if rate / (num / 2) * of_left[0] > 1.8 else "contour")
    truth = problems.optimum(problem, 0.0, groups[0])
    if not math.isinf(time):
        truth = problems.descend(problem, rate, 0.0, time, groups[0])
    np.testing.assert_allclose(weights(problem, found)[1], truth, atol=1e-9 * np.linalg.norm(truth))
    assert found.check.solution_error < 1e-9
    with pytest.raises(errors.InvalidArgumentError, match=f"must be below 2 .* {num // 2} examples"):
        solved(problem, form, descent, time, groups=groups)
