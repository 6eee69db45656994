"""reliability.json: what it says of a simulated zoo, that it is read back as written, and what is refused."""

import json

import numpy as np
import pytest

from heldout.scoring import reliability, reliability_files, score_config, score_files, scores
from tests.heldout.scoring import reliability_test as zoos
from zoo import errors, files, layout, run_table

PROVENANCE = {"table_digest": "abc", "num_runs": 80}


@pytest.fixture(scope="module")
def table():
    return zoos.a_table(num_runs=24)  # 4000 examples, ratios 0.3 and 0.7


@pytest.fixture(scope="module")
def found(table):
    return reliability_files.compute(table, table.subset_ratios, num_draws=3)


def test_curves_are_those_of_all_examples(table, found):
    assert [(one.statistic, one.subset_ratios) for one in found.curves] == [
        ("memorization", (0.3,)),
        ("subset_influence", (0.3,)),
        ("memorization", (0.7,)),
        ("subset_influence", (0.7,)),
        ("consistency", (0.3, 0.7)),
    ]
    expected = reliability.split_half(table, lambda half: scores.consistency(half).score, num_draws=3)
    curve = found.curve("consistency")
    np.testing.assert_array_equal(curve.reliability.pearson, expected.pearson)
    np.testing.assert_array_equal(curve.reliability.spearman, expected.spearman)
    assert curve.num_all_runs == 24
    assert curve.reliability.num_ratios == 2
    mean = expected.pearson[-1].mean()
    assert curve.of_all_runs == pytest.approx(2 * mean / (1 + mean))  # twice as many runs as in a half
    runs = table.select(0.7)
    expected = reliability.split_half(runs, lambda half: scores.memorization(half, 0.7).values, num_draws=3)
    np.testing.assert_array_equal(found.curve("memorization", 0.7).reliability.pearson, expected.pearson)
    assert found.curve("memorization", 0.5) is None


def test_memorization_of_the_simulated_runs_is_reliable_and_influence_is_not(found):
    # Right when trained on, else with a chance of their own: memorization varies as much as that chance.
    assert found.curve("memorization", 0.7).reliability.pearson[-1].mean() > 0.4
    influence = found.curve("subset_influence", 0.7)
    # No test example is ever right: nothing varies, and there is nothing to correlate.
    assert np.isnan(influence.reliability.pearson).all()
    assert np.isnan(influence.of_all_runs)
    assert np.isnan(influence.reliability.spearman).all()


def test_accuracy_is_that_of_each_run_on_what_it_held_out(table, found):
    for one, ratio in zip(found.heldout_accuracy, (0.3, 0.7), strict=True):
        runs = table.select(ratio)
        plain = [right[~mask].mean() for mask, right in zip(runs.subset_mask(), runs.train_correctness(), strict=True)]
        assert (one.subset_ratio, one.num_runs) == (ratio, 24)
        assert one.mean == pytest.approx(np.mean(plain))
        assert one.standard_error == pytest.approx(np.std(plain, ddof=1) / np.sqrt(24))


def test_a_random_part_of_the_examples_tells_the_same(table):
    part = reliability_files.sampled(table, 1000, seed=3)
    assert (part.num_train, part.num_test) == (1000, 5)
    columns = np.sort(np.random.default_rng(3).choice(4000, 1000, replace=False))
    np.testing.assert_array_equal(part.subset_mask(), table.subset_mask()[:, columns])
    np.testing.assert_array_equal(part.train_correctness(), table.train_correctness()[:, columns])
    np.testing.assert_array_equal(part.test_correctness(), table.test_correctness())
    assert reliability_files.sampled(table, 4000, seed=3) is table
    whole, some = (
        reliability_files.compute(table, [0.7], num_draws=3, max_examples=size).curve("memorization").reliability
        for size in (4000, 1500)
    )
    assert some.num_examples.max() <= 1500
    # Correlations near 0.5 of 1500 examples have a standard error near 0.02.
    assert np.abs(some.pearson[-1].mean() - whole.pearson[-1].mean()) < 0.06


def test_pairs_are_all_or_drawn():
    rows, columns = reliability_files._random_pairs(3, 4, 12, 0)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(i, j) for i in range(3) for j in range(4)]
    rows, columns = reliability_files._random_pairs(1000, 2000, 5000, 0)
    assert len(rows) == len(columns) == 5000
    assert rows.max() in range(900, 1000)
    assert columns.max() in range(1900, 2000)


def test_ratios_with_one_run_are_named_and_the_others_remain(table):
    rows = np.concatenate([np.flatnonzero(table.subset_ratio == 0.3)[:1], np.flatnonzero(table.subset_ratio == 0.7)])
    found = reliability_files.compute(table.take(rows), (0.3, 0.7), num_draws=2)
    assert found.notes == ("ratio 0.3 has 1 run; the reliability of scores takes two of each ratio",)
    assert {one.subset_ratios for one in found.curves} == {(0.7,)}
    assert list(found.strongest) == [0.7]
    assert np.isnan(found.heldout_accuracy[0].standard_error)


def test_only_the_ratios_that_were_asked_for_count(table):
    found = reliability_files.compute(table, [0.7], num_draws=2)
    assert {one.subset_ratios for one in found.curves} == {(0.7,)}
    assert len(found.heldout_accuracy) == 1


def test_what_is_written_is_read_back(found, tmp_path):
    value = reliability_files.to_json(found, PROVENANCE)
    files.write_json(tmp_path / reliability_files.NAME, value)
    again = reliability_files.read(tmp_path, PROVENANCE)
    assert reliability_files.to_json(again, PROVENANCE) == value
    assert again.notes == found.notes
    np.testing.assert_array_equal(again.strongest[0.7].num_pairs, found.strongest[0.7].num_pairs)
    for one, other in zip(again.curves, found.curves, strict=True):
        np.testing.assert_array_equal(one.reliability.pearson, other.reliability.pearson)
        assert one.reliability.num_ratios == other.reliability.num_ratios


def test_scores_of_earlier_versions_have_none(tmp_path):
    assert reliability_files.read(tmp_path, PROVENANCE) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 9}, "schema version 9, expected 1; delete it and compute"),
        ({"provenance": {"table_digest": "other"}}, "belongs to another computation"),
        ({"curves": [{"statistic": "memorization"}]}, "not what compute_scores writes"),
        ({"curves": None}, "not what compute_scores writes"),
        ({"heldout_accuracy": [{"subset_ratio": 0.3}]}, "not what compute_scores writes"),
    ],
)
def test_other_files_are_refused(found, tmp_path, change, message):
    files.write_json(tmp_path / reliability_files.NAME, reliability_files.to_json(found, PROVENANCE) | change)
    with pytest.raises(errors.DamagedFileError, match=rf"reliability\.json: {message}"):
        reliability_files.read(tmp_path, PROVENANCE)


def test_curves_of_uneven_length_are_refused(found, tmp_path):
    value = reliability_files.to_json(found, PROVENANCE)
    value["curves"][0]["runs_of_each_ratio"] += [99]
    files.write_json(tmp_path / reliability_files.NAME, value)
    with pytest.raises(errors.DamagedFileError, match="reliability of"):
        reliability_files.read(tmp_path, PROVENANCE)


def test_compute_scores_writes_it_and_mends_its_loss(tmp_path):
    table = zoos.a_table(num_runs=6)
    run_table.write(layout.run_table_path(tmp_path, "e"), table)
    config = score_config.ScoreConfig(zoo=str(tmp_path), experiment="e", num_draws=5)
    summary = score_files.compute_scores(config)
    path = summary.directory / reliability_files.NAME
    assert path in summary.files
    saved = score_files.load_scores(summary.directory)
    first = path.read_bytes()
    assert reliability_files.read(summary.directory, saved.provenance).curve("consistency").num_all_runs == 6
    assert score_files.compute_scores(config).up_to_date
    path.unlink()
    assert not score_files.compute_scores(config).up_to_date
    assert path.read_bytes() == first  # the halves follow from a seed
    assert json.loads(first)["provenance"] == dict(saved.provenance)
