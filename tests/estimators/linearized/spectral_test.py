"""p_t against exact rational arithmetic and extended precision; the contour against p_t."""

import fractions

import numpy as np
import pytest

from estimators.linearized import descents, spectral

_ETA = 0.01


def _exact_discrete(x, time):
    """In rational numbers, without any rounding but the last."""
    x, eta = fractions.Fraction(float(x)), fractions.Fraction(_ETA)
    return float((1 - (1 - eta * x) ** time) / x) if x else float(eta * time)


@pytest.mark.parametrize("time", [1, 2, 17, 100])
def test_discrete_steps_are_exact_for_small_and_large_eigenvalues(time):
    # Not at places where p_t itself is nearly 0, at which relative errors say nothing: eta x near 2, t even.
    eigenvalues = np.concatenate([[0.0], np.logspace(-12, 2, 40), np.linspace(100, 150, 8)])
    found = spectral.transfer(eigenvalues, descents.Rates(_ETA, 0.0), time, continuous=False)
    expected = [_exact_discrete(x, time) for x in eigenvalues]
    np.testing.assert_allclose(found, expected, rtol=3e-14)


def test_flow_is_exact_for_small_and_large_eigenvalues():
    eigenvalues = np.concatenate([[0.0], np.logspace(-12, 5, 60)])
    found = spectral.transfer(eigenvalues, descents.Rates(_ETA, 0.0), 33.5, continuous=True)
    wide = np.where(eigenvalues > 0, eigenvalues, 1).astype(np.longdouble)
    expected = np.where(eigenvalues > 0, -np.expm1(-np.longdouble(_ETA) * 33.5 * wide) / wide, _ETA * 33.5)
    np.testing.assert_allclose(found, expected.astype(float), rtol=1e-14)


def test_the_limit_is_the_inverse():
    found = spectral.transfer(np.array([0.0, 4.0]), descents.Rates(_ETA, 0.0), float("inf"), continuous=True)
    np.testing.assert_array_equal(found, [np.inf, 0.25])


@pytest.mark.parametrize(("num_nodes", "error"), [(8, 1.2e-6), (12, 1.7e-10), (16, 1.5e-13)])
def test_the_contour_of_flow_has_the_published_accuracy(num_nodes, error):
    """Relative error for eta t x from 0 to 1e8; the bound is tight within a tenth, so that a node gone wrong shows."""
    rates, time = descents.Rates(_ETA, 0.0), 2000.0
    eigenvalues = np.concatenate([[0.0], np.logspace(-6, 8, 600) / (_ETA * time)])
    exact = spectral.transfer(eigenvalues, rates, time, continuous=True)
    found = spectral.contour(rates, time, continuous=True, num_nodes=num_nodes).transfer(eigenvalues)
    largest = np.max(np.abs(found / exact - 1))
    assert largest < error
    assert num_nodes == 16 or largest > 0.5 * error


@pytest.mark.parametrize("time", [100, 101, 2000])
@pytest.mark.parametrize(("num_nodes", "error"), [(8, 1.2e-6), (12, 1.7e-10), (16, 1e-11)])
def test_both_ends_serve_all_stable_steps(time, num_nodes, error):
    rates = descents.Rates(_ETA, 0.0)
    eigenvalues = np.concatenate([[0.0], np.logspace(-8, 2, 300), np.linspace(100, 199.99, 300)])
    exact = spectral.transfer(eigenvalues, rates, time, continuous=False)
    found = spectral.contour(rates, time, continuous=False, num_nodes=num_nodes, both_ends=True)
    assert np.max(np.abs(found.transfer(eigenvalues) / exact - 1)) < error


@pytest.mark.parametrize(("reach", "time"), [(1.9, 100), (1.9, 200), (1.99, 100)])
def test_one_end_misses_what_is_said(reach, time):
    """|(1 - eta x)^t|: 2.7e-5, 7e-10 and 0.37 of 1 - (1 - eta x)^t plus it."""
    rates, x = descents.Rates(_ETA, 0.0), reach / _ETA
    found = spectral.contour(rates, time, continuous=False).transfer(np.array([x]))[0]
    missed = spectral.missed(x, rates, time)
    assert missed == pytest.approx((reach - 1) ** time)
    assert x * found == pytest.approx(1.0, abs=1e-11)
    exact = spectral.transfer(np.array([x]), rates, time, continuous=False)[0]
    assert x * (found - exact) == pytest.approx(missed, rel=1e-3)


def test_nothing_is_missed_below_one():
    assert spectral.missed(99.0, descents.Rates(_ETA, 0.0), 5) == 0.0


@pytest.mark.parametrize("time", [10**4, 10**6, 10**9])
def test_many_steps_lose_no_digits(time):
    """Where the logarithm of 1 + z / t was inaccurate, errors grew with t: 3e-7 at 1e8."""
    rates = descents.Rates(_ETA, 0.0)
    eigenvalues = np.concatenate([[0.0], np.logspace(-4, 3, 200) / (_ETA * time), np.linspace(0.1, 90, 50)])
    exact = spectral.transfer(eigenvalues, rates, time, continuous=False)
    found = spectral.contour(rates, time, continuous=False)
    assert np.max(np.abs(found.transfer(eigenvalues) / exact - 1)) < 1e-11
