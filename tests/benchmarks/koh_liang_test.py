"""Exact refits without single examples, and the program that holds influence functions against them."""

import json

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest
import scipy.special

from benchmarks import koh_liang, softmax_regression
from tests.estimators import linear_cases


def _problem(num=40, size=6, num_classes=3):
    rng = np.random.default_rng(0)
    return softmax_regression.Problem(
        rng.normal(size=(num, size)), rng.integers(0, num_classes, num), num_classes, 0.05
    )


def _gradient(problem, weights, kept):
    """Of (1/n) the losses of some examples and the weight decay, by the derivative in closed form."""
    slopes = scipy.special.softmax(problem.features @ weights, axis=1) - np.eye(problem.num_classes)[problem.labels]
    return problem.features[kept].T @ slopes[kept] / len(kept) + problem.decay * weights


def test_fits_with_and_without_an_example_have_no_gradient_left(monkeypatch):
    monkeypatch.setattr(softmax_regression, "_ELEMENTS", 60)  # some rows at a time
    problem = _problem()
    weights, step = softmax_regression.fit(problem)
    everything = np.ones(40, bool)
    np.testing.assert_allclose(_gradient(problem, weights, everything), 0.0, atol=1e-10)
    left_out = np.array([3, 39, 14])
    for position, without in zip(
        left_out, softmax_regression.leave_one_out(problem, weights, step, left_out), strict=True
    ):
        kept = everything.copy()
        kept[position] = False
        np.testing.assert_allclose(_gradient(problem, without, kept), 0.0, atol=1e-10)
        assert np.abs(without - weights).max() > 1e-3


def test_the_objective_has_the_gradient_that_is_said():
    problem, rng = _problem(), np.random.default_rng(1)
    weights, direction = rng.normal(size=(2, 6, 3)), rng.normal(size=(6, 3))
    for left_out in (None, np.array([5, 30])):
        ends = [problem.gradients(weights + sign * 1e-5 * direction, left_out)[0] for sign in (1, -1)]
        slopes = np.sum(problem.gradients(weights, left_out)[1] * direction, axis=(1, 2))
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-5, slopes, rtol=1e-6)


def test_two_classes_are_logistic_regression():
    """The two columns are opposite at the optimum, so that |W|^2 = |w|^2 / 2 for their difference w."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(50, 4)), rng.integers(0, 2, 50)
    weights, _ = softmax_regression.fit(softmax_regression.Problem(x, y, 2, 0.1))
    np.testing.assert_allclose(weights[:, 1] - weights[:, 0], linear_cases.logistic_fit(x, y, 0.05), atol=1e-8)


def test_a_tolerance_that_is_not_reached_is_said():
    with pytest.raises(ArithmeticError, match="are left after 50 rounds, above 0"):
        softmax_regression.fit(_problem(), tolerance=0.0)


def test_the_program_draws_points_on_the_line(tmp_path, capsys):
    flags.FLAGS.mark_as_parsed()
    options = {"dataset": "digits", "num_train": 400, "num_top": 30, "recursion_depth": 1000, "r": 2}
    with flagsaver.flagsaver(outdir=str(tmp_path / "out"), **options):
        koh_liang.main([])
    stored = json.loads((tmp_path / "out" / "koh_liang.json").read_text(encoding="utf-8"))
    figures, points = stored["figures"], stored["examples"]
    assert figures["num_train"] == 400
    assert figures["test_label"] != figures["test_prediction"]
    assert figures["solvers"]["conjugate_gradient"]["correlation"] > 0.99
    assert figures["solvers"]["lissa"]["correlation"] > 0.9
    found = np.corrcoef(points["predicted_conjugate_gradient"], points["actual"])[0, 1]
    np.testing.assert_allclose(found, figures["solvers"]["conjugate_gradient"]["correlation"], atol=1e-4)
    assert len(points["train_ids"]) == 30
    assert np.abs(points["actual"]).min() > 0
    assert (tmp_path / "out" / "koh_liang.png").read_bytes()[:4] == b"\x89PNG"
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "--dataset=digits" in text
    assert f"a\n{figures['test_label']} that it takes for a {figures['test_prediction']}" in text
    assert "conjugate_gradient   correlation 0.99" in capsys.readouterr().out
