"""Tests of heldout.report.figures."""

import dataclasses
import io
import re
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
from PIL import Image
import pytest

from heldout.report import drawing, figures, influence_scan, reliability_figures
from heldout.scoring import reliability_files
from tests.heldout.report import simulated


@pytest.fixture(scope="module")
def charts():
    saved = simulated.saved()
    scores = saved.ratios[0.5]
    scan = influence_scan.scan(scores, pairs_influence=0.15, pairs_memorization=0.25, max_pairs=10)
    return [
        figures.memorization_histogram(scores),
        figures.accuracy_scatter(scores),
        figures.influence_bulk(scan),
        figures.influence_tails(scan),
        figures.consistency_histogram(saved.consistency),
        figures.consistency_by_ratio(saved.consistency),
        reliability_figures.heldout_accuracy(np.array([0.1, 0.5]), np.array([0.9, 0.95]), np.array([0.01, 0.005])),
    ]


def test_pictures_hold_a_drawing(charts):
    for chart in charts:
        pixels = np.asarray(Image.open(io.BytesIO(chart.png)).convert("L"))
        assert pixels.shape[0] > 400
        assert 0.005 < (pixels < 200).mean() < 0.6, chart.name


def test_drawings_suit_a_page(charts):
    for chart in charts:
        xml.etree.ElementTree.fromstring(chart.svg)  # raises where it is not well formed
        assert not re.search("|".join(drawing.PALETTE.values()), chart.svg, re.IGNORECASE), chart.name
        assert "var(--" in chart.svg
        assert "DejaVu" not in chart.svg
        assert not re.search(r"<svg[^>]* (width|height)=", chart.svg)
    identifiers = [name for chart in charts for name in re.findall(r'\bid="([^"]+)"', chart.svg)]
    assert len(identifiers) == len(set(identifiers))


def test_references_inside_a_drawing_resolve(charts):
    for chart in charts:
        wanted = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', chart.svg))
        known = set(re.findall(r'\bid="([^"]+)"', chart.svg))
        assert {first or second for first, second in wanted} <= known, chart.name


def test_drawing_twice_gives_the_same_bytes(charts):
    again = figures.memorization_histogram(simulated.saved().ratios[0.5])
    assert again == charts[0]


def test_no_global_figures():
    # In a process of its own: TensorFlow, where a test has imported it, brings pyplot along.
    code = "import sys; from heldout import report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_histogram_bars_begin_at_round_numbers():
    class Axes:
        """Keeps what a histogram draws."""

        def bar(self, centres, counts, width, **_options):
            self.counts = dict(zip(np.round(centres, 3).tolist(), np.asarray(counts).tolist(), strict=True))

        def __getattr__(self, _name):
            return lambda *arguments, **options: self

        yaxis = property(lambda self: self)

    axes = Axes()
    values = np.array([0.15, 3 / 20, 0.1499, 1.0, -0.05])
    figures._histogram(axes, values, np.zeros(5), lowest=-0.05, highest=1.0)
    assert axes.counts[0.175] == 2
    assert axes.counts[0.125] == 1
    assert axes.counts[0.975] == 1
    assert axes.counts[-0.025] == 1
    assert sum(axes.counts.values()) == 5


@pytest.mark.parametrize("factor", [1, 3, 7, 13, 39])
def test_coarser_bins_stay_centred_and_lose_nothing(factor):
    counts = np.arange(influence_scan.NUM_BINS)
    centres, sums = figures._coarser(counts, factor)
    assert sums.sum() == counts.sum()
    middle = influence_scan.NUM_BINS // 2
    assert centres[len(centres) // 2] == 0
    assert sums[len(sums) // 2] == counts[middle - factor // 2 : middle + factor // 2 + 1].sum()


def test_bins_suit_the_steps_of_the_values():
    scores = simulated.saved().ratios[0.5]
    scan = influence_scan.scan(scores, pairs_influence=0.15, pairs_memorization=0.25, max_pairs=10)

    def factor(step, least_width):
        return figures._bin_factor(dataclasses.replace(scan, typical_step=step), least_width)

    assert factor(1 / 50, 0.001) * influence_scan.BIN_WIDTH == pytest.approx(0.042)  # the odd number above 20
    assert factor(1 / 1000, 0.026) == 13
    assert factor(float("nan"), 0.026) == 13
    assert factor(1e-6, 1e-6) == 1


def test_bars_span_no_influence_beyond_1(monkeypatch):
    """Of 8 runs a step is 1/4 or more: bins are so wide that the outermost are centred at 1 and -1."""
    saved = simulated.saved()
    scan = influence_scan.scan(saved.ratios[0.5], pairs_influence=0.15, pairs_memorization=0.25, max_pairs=10)
    counts = np.zeros(influence_scan.NUM_BINS, np.int64)
    counts[[0, influence_scan.NUM_BINS // 2, -1]] = 3, 10, 2
    scan = dataclasses.replace(scan, bin_counts=counts, typical_step=0.5, typical_error=0.4)
    drawn = []

    def keep(name, draw):
        from matplotlib.figure import Figure

        axes = Figure().add_subplot()
        draw(axes)
        drawn.append((axes.patches, axes.get_xlim()))

    monkeypatch.setattr(drawing, "chart", keep)
    figures.influence_tails(scan)
    figures.influence_bulk(scan)
    for patches, limits in drawn:
        bars = [patch for patch in patches if hasattr(patch, "get_width") and patch.get_height()]
        assert sorted(bar.get_height() for bar in bars) == [2, 3, 10]
        assert min(bar.get_x() for bar in bars) == -1
        assert max(bar.get_x() + bar.get_width() for bar in bars) == 1
        for steps in (patch for patch in patches if hasattr(patch, "get_data")):
            assert np.abs(steps.get_data().edges).max() == 1
        assert -1.03 < limits[0] <= -1
        assert 1 <= limits[1] < 1.03


def test_one_wrong_run_leaves_no_hole_at_zero():
    runs_in, runs_out = 280, 120
    values = np.zeros(influence_scan.NUM_BINS, np.int64)
    for share, value in ((0.7, -1 / runs_in), (0.3, 1 / runs_out)):
        values[influence_scan.NUM_BINS // 2 + round(value / influence_scan.BIN_WIDTH)] += round(1000 * share)
    scores = simulated.saved().ratios[0.5]
    scan = influence_scan.scan(scores, pairs_influence=0.15, pairs_memorization=0.25, max_pairs=10)
    factor = figures._bin_factor(dataclasses.replace(scan, typical_step=1 / runs_out), 0.0)
    centres, sums = figures._coarser(values, factor)
    assert sums[centres == 0] == 1000


def test_errors_of_counts_are_those_of_values_that_move(monkeypatch):
    monkeypatch.setattr(figures, "_BLOCK", 7)
    generator = np.random.default_rng(2)
    values, spread = generator.uniform(0, 1, 40), generator.choice([0, 0.02, 0.1], 40)
    edges = np.linspace(0, 1, 6)
    draws = 20_000
    moved = values + spread * generator.standard_normal((draws, 40))
    bins = np.clip(np.digitize(moved, edges) - 1, 0, 4)
    counts = np.stack([(bins == one).sum(axis=1) for one in range(5)], axis=1)
    # A standard deviation of so many draws has a relative error of 1 / sqrt(2 draws), 0.005.
    np.testing.assert_allclose(figures.count_errors(values, spread, edges), counts.std(axis=0), rtol=0.025)
    np.testing.assert_array_equal(figures.count_errors(values, np.zeros(40), edges), np.zeros(5))


def test_a_mean_by_ratio_has_the_error_of_its_ratio(monkeypatch):
    drawn = []

    def keep(name, draw):
        from matplotlib.figure import Figure

        axes = Figure().add_subplot()
        draw(axes)
        drawn.append([one for one in axes.containers if hasattr(one, "has_yerr")])

    monkeypatch.setattr(drawing, "chart", keep)
    consistency = simulated.saved().consistency
    accuracy = [
        reliability_files.HeldoutAccuracy(0.8, 30, 0.7, 0.05),
        reliability_files.HeldoutAccuracy(0.3, 1, 0.7, 9),
    ]
    figures.consistency_by_ratio(consistency, accuracy)
    ((bars,),) = drawn
    (segments,) = (lines.get_segments() for lines in bars.lines[2])
    ends = {round(one[0][0], 6): one[:, 1] for one in segments if len(one) and np.isfinite(one).all()}
    assert list(ends) == [0.8]
    mean = np.nanmean(consistency.profile[1])
    np.testing.assert_allclose(ends[0.8], [mean - 0.1, mean + 0.1])


def test_many_examples_become_a_density(monkeypatch):
    monkeypatch.setattr(figures, "_MAX_POINTS", 10)
    chart = figures.accuracy_scatter(simulated.saved().ratios[0.5])
    assert "opacity" in chart.svg


def test_scores_without_values_can_be_drawn():
    saved = simulated.saved()
    scores = saved.ratios[0.5]
    none = np.zeros(simulated.NUM_TRAIN, np.int64)
    values = np.full(simulated.NUM_TRAIN, np.nan)
    nothing = dataclasses.replace(scores.memorization, values=values, num_heldout=none)
    empty = np.full_like(scores.subset_influence, np.nan)
    scores = simulated.with_influence(dataclasses.replace(scores, memorization=nothing), empty)
    scan = influence_scan.scan(scores, pairs_influence=0.15, pairs_memorization=0.25, max_pairs=10)
    for chart in (
        figures.memorization_histogram(scores),
        figures.accuracy_scatter(scores),
        figures.influence_bulk(scan),
        figures.influence_tails(scan),
        figures.consistency_histogram(dataclasses.replace(saved.consistency, score=values)),
    ):
        assert chart.png


def test_ratios_without_heldout_runs_are_left_out():
    consistency = simulated.saved().consistency
    profile = consistency.profile.copy()
    profile[0] = np.nan
    assert figures.ratios_with_data(dataclasses.replace(consistency, profile=profile)).tolist() == [1]


@pytest.mark.parametrize("number", [0, 1, 50, 5000])
def test_scores_beside_one_another(number):
    generator = np.random.default_rng(number)
    first = generator.random(number)
    first[:1] = np.nan
    chart = figures.score_scatter(first, first + generator.normal(0, 0.1, number), "memorization in a", "in b")
    assert chart.png.startswith(b"\x89PNG")
    assert "memorization in a" in chart.svg
    # Many examples become some hexagons, each drawn once.
    assert chart.svg.count("<use") + chart.svg.count("<path") < 1500
