"""Tests of heldout.report.reliability_figures: what is drawn, read back from the axes."""

import numpy as np
import pytest

from heldout.report import drawing, reliability_figures
from heldout.scoring import pair_reliability, reliability


@pytest.fixture
def drawn(monkeypatch):
    """The axes of every chart that is made."""
    seen = []

    def keep(name, draw):
        from matplotlib.figure import Figure

        axes = Figure().add_subplot()
        draw(axes)
        axes.chart_name = name
        seen.append(axes)

    monkeypatch.setattr(drawing, "chart", keep)
    return seen


def a_reliability(means, num_runs, spread=0.0, num_ratios=1):
    """Draws evenly around means, whose standard deviation is the spread."""
    values = np.array(means)[:, np.newaxis] + spread * np.sqrt(1.5) * np.array([-1, 0, 1])
    return reliability.Reliability(np.array(num_runs), values, values / 2, np.full(values.shape, 1000), num_ratios)


def line(axes, label):
    """Both coordinates of the line with this label."""
    found = [one for one in axes.get_lines() if one.get_label() == label]
    found += [one.lines[0] for one in axes.containers if one.get_label() == label]
    (only,) = found
    return only.get_xdata(), only.get_ydata()


@pytest.mark.parametrize(
    ("correlation", "predicted", "lowest"), [(0.5, True, 0), (0.01, False, 0), (-0.3, False, -0.3)]
)
def test_reliability_is_extrapolated_only_where_it_tells_something(drawn, correlation, predicted, lowest):
    values = np.full((1, 5), correlation)
    found = reliability.Reliability(np.array([8]), values, values, np.full((1, 5), 1000), num_ratios=1)
    reliability_figures.split_half_reliability(found, wanted=0.9)
    reliability_figures.split_half_reliability(found, num_all_runs=16)
    for axes in drawn:
        assert ("predicted" in axes.get_legend_handles_labels()[1]) == predicted
        assert axes.get_ylim() == (lowest, 1.02)


def test_the_prediction_goes_on_to_all_runs(drawn):
    reliability_figures.split_half_reliability(a_reliability([0.4, 0.6], [20, 50]), num_all_runs=150)
    x, y = line(drawn[0], "predicted")
    assert (x[0], x[-1]) == pytest.approx((50, 150))
    assert (y[0], y[-1]) == pytest.approx((0.6, 3 * 0.6 / (1 + 2 * 0.6)))  # Spearman and Brown by hand
    assert [int(tick) for tick in drawn[0].get_xticks()] == [20, 50, 150]


def test_the_prediction_goes_on_until_what_is_wanted(drawn):
    reliability_figures.split_half_reliability(a_reliability([0.6], [50]), wanted=0.9)
    x, y = line(drawn[0], "predicted")
    assert y[-1] > 0.9
    assert np.interp(0.9, y, x) == pytest.approx(50 * 0.9 * 0.4 / (0.6 * 0.1), rel=1e-3)
    assert "0.9" in drawn[0].get_legend_handles_labels()[1]


def test_bands_are_as_wide_as_the_spread_over_halvings(drawn):
    reliability_figures.split_half_reliability(a_reliability([0.4, 0.6], [20, 50], spread=0.05))
    x, y = line(drawn[0], "linear")
    assert (x.tolist(), y.tolist()) == ([20, 50], pytest.approx([0.4, 0.6]))
    low = min(path.vertices[:, 1].min() for one in drawn[0].collections for path in one.get_paths())
    high = max(path.vertices[:, 1].max() for one in drawn[0].collections for path in one.get_paths())
    assert (low, high) == pytest.approx((0.2 - 0.025, 0.6 + 0.05))


def test_what_was_not_computed_is_not_drawn(drawn):
    found = a_reliability([0.4, 0.6], [20, 50])
    nothing = reliability.Reliability(found.num_runs, found.pearson, np.full((2, 3), np.nan), found.num_examples, 2)
    reliability_figures.split_half_reliability(nothing)
    assert drawn[0].get_legend_handles_labels()[1] == ["linear"]
    assert drawn[0].get_xlabel() == "runs behind each score, of each ratio (log scale)"


def test_strongest_pairs_in_both_halves(drawn):
    chosen = np.array([[0.9, 0.9], [0.5, 0.7]])
    found = pair_reliability.Strongest(np.array([4, 8]), chosen, chosen / 2, np.full((2, 2), 10))
    reliability_figures.strongest_found_again(found)
    assert line(drawn[0], "in the half that chose them")[1].tolist() == pytest.approx([0.9, 0.6])
    assert line(drawn[0], "in the other half")[1].tolist() == pytest.approx([0.45, 0.3])


def test_charts_without_any_value_can_be_drawn():
    nothing = np.full((2, 3), np.nan)
    none = np.zeros((2, 3), np.int64)
    found = reliability.Reliability(np.array([1, 2]), nothing, nothing, none, 1)
    pairs = pair_reliability.Strongest(np.array([1, 2]), nothing, nothing, none)
    for chart in (
        reliability_figures.split_half_reliability(found, num_all_runs=4),
        reliability_figures.strongest_found_again(pairs),
    ):
        assert chart.png.startswith(b"\x89PNG")
        assert "var(--" in chart.svg
