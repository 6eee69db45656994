"""Rows, means and intervals of records that were written by hand; the picture is one."""

import json
import math
import re

import numpy as np
import PIL.Image
import pyarrow.csv
import pyarrow.parquet
import pytest

from heldout.experiments import subset_rankings
from scripts.attribution import retraining_figure, retraining_results
from zoo import aux_arrays, errors, layout

N, M = 10, 8
# Of eight examples; to drop the top two is to train on 0..5.
_RANKING = subset_rankings.SubsetRanking(np.arange(8), np.arange(8.0))
_TARGET = np.array([1, 6])


def write_run(zoo, kind, seed_id, size, margin, **changes):
    """A run whose margins on the test examples are given; right where they are positive."""
    ratio = subset_rankings.ratio_of(size, N)
    run = layout.Run(zoo, "e", ratio, subset_rankings.run_id(kind, seed_id))
    mask = np.zeros(N, bool)
    mask[_RANKING.subset_indices(("e", ratio, run.run_id), N)] = True
    margin = np.asarray(margin, np.float16)
    margins = changes.get("margins", (np.zeros(N, np.float16), margin))
    aux = aux_arrays.from_masks(changes.get("mask", mask), np.zeros(N, bool), margin > 0, margins)
    aux_arrays.write(run.aux_arrays_path, aux)
    return run


def constant(positive):
    """Margins log 3 of the first test examples and -log 3 of the others: losses log(4 / 3) and log 4."""
    return np.where(np.arange(M) < positive, math.log(3), -math.log(3))


@pytest.fixture
def zoo(tmp_path):
    for seed_id, (whole, top, chance) in enumerate([(8, 2, 7), (7, 3, 5), (6, 1, 6)]):
        write_run(tmp_path, "random", seed_id, 8, constant(whole))
        write_run(tmp_path, "lowest", seed_id, 6, constant(top))
        write_run(tmp_path, "random", seed_id, 6, constant(chance))
    write_run(tmp_path, "lowest", 3, 6, constant(8))  # without a random one of its seed
    write_run(tmp_path, "largest", 0, 6, constant(8))  # of another comparison
    layout.Run(tmp_path, "e", 0.6, 99).directory.mkdir()
    return tmp_path


def rows_of(zoo, action="drop", test_index=_TARGET):
    return retraining_results.read_rows(zoo, "e", action, _RANKING, test_index)


def test_rows_are_what_the_records_say(zoo):
    rows = rows_of(zoo)
    assert [(row.selection, row.num_selected, row.seed) for row in rows] == [
        *(("none", 0, seed) for seed in range(3)),
        *(("top", 2, seed) for seed in range(4)),
        *(("random", 2, seed) for seed in range(3)),
    ]
    top = rows[3]
    assert (top.fraction, top.num_train, top.subset_ratio, top.run_id) == (0.25, 6, 0.6, 2)
    # Of the first two of eight that are right, the target examples are 1 and 6.
    assert (top.test_accuracy, top.target_test_accuracy, top.other_test_accuracy) == (2 / 8, 1 / 2, 1 / 6)
    low, high = math.log(4 / 3), math.log(4)
    assert top.test_loss == pytest.approx((2 * low + 6 * high) / 8, rel=1e-3)
    assert top.target_test_loss == pytest.approx((low + high) / 2, rel=1e-3)
    assert top.other_test_loss == pytest.approx((low + 5 * high) / 6, rel=1e-3)


def test_the_loss_is_the_cross_entropy_whatever_the_margin():
    margin = np.array([-60000.0, -20.0, -1.0, 0.0, 1.0, 15.0, 60000.0])
    found = [
        retraining_results._measures(np.ones(1, bool), np.array([one], np.float16), {"all": np.ones(1, bool)})
        for one in margin
    ]
    expected = [60000.0, 20.0, 1.3132617, 0.6931472, 0.3132617, 3.0590218e-7, 0.0]
    np.testing.assert_allclose([one["test_loss"] for one in found], expected, rtol=1e-3)


def test_to_keep_reads_the_same_runs_otherwise(zoo):
    assert {(row.selection, row.num_selected) for row in rows_of(zoo, "keep")} == {
        *(("none", 0), ("bottom", 6), ("extreme", 6), ("random", 6))
    }


def test_without_target_examples_there_is_one_part(zoo):
    rows = rows_of(zoo, test_index=None)
    assert all(math.isnan(row.target_test_loss) and math.isnan(row.other_test_accuracy) for row in rows)
    assert retraining_results.known_parts(retraining_results.summarise(rows)) == ["all"]
    assert retraining_results.known_parts(retraining_results.summarise(rows_of(zoo))) == ["all", "target", "other"]


def test_if_all_test_examples_are_target_examples_there_are_no_others(zoo):
    points = retraining_results.summarise(rows_of(zoo, test_index=np.arange(M)))
    assert retraining_results.known_parts(points) == ["all"]  # the target ones would be the same again


def test_means_intervals_and_pairs(zoo):
    reference, top, chance = retraining_results.summarise(rows_of(zoo))
    assert [one.selection for one in (reference, top, chance)] == ["none", "top", "random"]
    # 8, 7 and 6 of 8: a standard error of 1 / sqrt(3) examples, and the t of two degrees of freedom.
    found, half = reference.measures["test_accuracy"], 4.302653 / math.sqrt(3) / 8
    np.testing.assert_allclose([found.mean, found.low, found.high], [7 / 8, 7 / 8 - half, 7 / 8 + half], rtol=1e-6)
    assert top.measures["test_accuracy"].count == 4
    # Seed by seed 2 - 7, 3 - 5, 1 - 6: a mean of -4, a standard deviation of sqrt(3).
    paired = top.minus_random["test_accuracy"]
    np.testing.assert_allclose(
        [paired.mean, paired.low, paired.high], [-4 / 8, (-4 - 4.302653) / 8, (-4 + 4.302653) / 8], rtol=1e-6
    )
    assert paired.count == 3
    assert not reference.minus_random
    assert not chance.minus_random


def test_intervals_of_random_numbers_hold_their_mean_as_often_as_they_say():
    draws = np.random.default_rng(3).normal(size=(2000, 4))
    held = np.mean([one.low <= 0 <= one.high for one in map(retraining_results.interval, draws)])
    assert abs(held - 0.95) < 5 * math.sqrt(0.95 * 0.05 / 2000)


def test_too_few_values_have_no_interval():
    one, none = retraining_results.interval([0.5, math.nan]), retraining_results.interval([math.nan])
    assert (one.mean, one.count, none.count) == (0.5, 1, 0)
    assert math.isnan(one.low)
    assert math.isnan(none.mean)
    assert one.to_json() == {"mean": 0.5, "low": None, "high": None, "count": 1}


@pytest.mark.parametrize("table_format", ["parquet", "csv"])
def test_table_and_results_hold_the_same(zoo, tmp_path, table_format):
    rows = rows_of(zoo, test_index=None)
    points = retraining_results.summarise(rows)
    retraining_results.write(tmp_path, rows, points, {"action": "drop"}, table_format)
    read = {"parquet": pyarrow.parquet.read_table, "csv": pyarrow.csv.read_csv}[table_format]
    table = read(tmp_path / f"trainings.{table_format}").to_pydict()
    assert table["selection"] == [row.selection for row in rows]
    assert table["test_loss"] == [row.test_loss for row in rows]
    # The reader of CSV takes nan for null.
    assert all(value is None or math.isnan(value) for value in table["other_test_loss"])
    stored = json.loads((tmp_path / "results.json").read_text())
    assert (stored["schema_version"], stored["action"], len(stored["points"])) == (1, "drop", 3)
    top = stored["points"][1]
    assert (top["selection"], top["num_selected"], top["num_train"]) == ("top", 2, 6)
    assert top["measures"]["test_accuracy"]["mean"] == pytest.approx((2 + 3 + 1 + 8) / 32)
    assert top["minus_random"]["test_accuracy"]["mean"] == -0.5
    assert top["measures"]["other_test_loss"] == {"mean": None, "low": None, "high": None, "count": 0}


def test_the_text_is_a_table(zoo):
    points = retraining_results.summarise(rows_of(zoo))
    lines = retraining_results.text(points, "drop", "all").splitlines()
    titles = ["drop", "trained on", "seeds", "accuracy", "minus random", "loss", "minus random"]
    assert re.split(" {2,}", lines[0]) == titles
    assert lines[1].startswith("nothing          8           3      0.8750 [")
    assert lines[2].startswith("top 25 % (2)     6           4      0.4375 [")
    assert "-0.5000 [-1.0378, 0.0378]" in lines[2]
    assert retraining_results.text(points, "keep", "all").splitlines()[1].startswith("everything")


def test_a_run_on_other_examples_is_refused(zoo):
    mask = np.arange(N) >= 4
    write_run(zoo, "highest", 0, 6, constant(8), mask=mask)
    with pytest.raises(errors.MismatchError, match="was not trained on the 6 examples that the ranking says; delete"):
        rows_of(zoo)


def test_a_run_without_margins_is_refused(zoo):
    write_run(zoo, "highest", 0, 6, constant(8), margins=None)
    with pytest.raises(errors.DamagedFileError, match="has no margins, which the loss follows from; delete"):
        rows_of(zoo)


@pytest.mark.parametrize("test_index", [None, _TARGET])
def test_the_picture_has_a_column_for_each_part(zoo, tmp_path, test_index):
    points = retraining_results.summarise(rows_of(zoo, test_index=test_index))
    path = retraining_figure.write(tmp_path, points, "drop")
    with PIL.Image.open(path) as image:
        width, height = image.size
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    columns = 1 if test_index is None else 3
    assert (width, height) == (round(columns * 4.2 * 160), round(2 * 2.9 * 160))
    colours = {tuple(colour) for colour in pixels.tolist()}
    assert {(0x1F, 0x6A, 0x78), (0x68, 0x71, 0x7A)} < colours  # top and random
    assert (0xB0, 0x53, 0x2C) not in colours  # no bottom here
