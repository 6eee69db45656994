"""The report on consistency scores: its figures against plain arithmetic, its files against their readers."""

import dataclasses
import json
import re

import numpy as np
import pytest

from heldout.report import consistency_report
from heldout.scoring import published_formats, scores
from tests.heldout.scoring import reliability_test
from zoo import errors


@pytest.fixture(scope="module")
def table():
    return reliability_test.a_table(num_runs=6).with_labels(
        np.arange(reliability_test.NUM_TRAIN) % 10, np.zeros(5, int)
    )


@pytest.fixture(scope="module")
def findings(table):
    return consistency_report.examine(table)


def test_accuracies_are_means_over_runs_of_what_each_held_out(table, findings):
    masks, right = table.subset_mask(), table.train_correctness()
    for row, ratio in enumerate(findings.subset_ratios):
        of_runs = [right[run][~masks[run]].mean() for run in range(table.num_runs) if table.subset_ratio[run] == ratio]
        assert findings.accuracy[row] == pytest.approx(np.mean(of_runs))
        assert findings.accuracy_error[row] == pytest.approx(np.std(of_runs, ddof=1) / np.sqrt(6))
    assert findings.num_runs.tolist() == [6, 6]
    assert findings.share_of_ones == np.mean(scores.consistency(table).score == 1)


def test_runs_needed_are_predicted_where_they_were_not_measured(findings):
    assert findings.reliability.pearson.mean(axis=1)[-1] < 0.9
    assert not findings.runs_needed_measured
    assert findings.runs_needed > 3
    assert findings.runs_needed_for_ranks is None
    linear, ranks = consistency_report.needed_texts(findings)
    assert f"takes about {findings.runs_needed:.0f} runs of each ratio (by Spearman and Brown)" in linear
    assert "rank correlation of 0.9 is not reached with 3 runs of each ratio" in ranks


def test_runs_needed_are_measured_where_there_are_enough():
    found = consistency_report.examine(reliability_test.a_table(num_runs=60))
    assert found.runs_needed_measured
    means = found.reliability.pearson.mean(axis=1)
    reached = found.reliability.num_runs[np.argmax(means >= 0.9)]
    # Found from the first number of runs that is enough, and therefore not above it.
    assert reached / 2 < found.runs_needed <= reached
    assert found.runs_needed_for_ranks in found.reliability.num_runs
    linear, ranks = consistency_report.needed_texts(found)
    assert linear.endswith("(measured)")
    assert f"is reached with {found.runs_needed_for_ranks} runs of each ratio" in ranks


@pytest.mark.parametrize(("num_runs", "spread"), [(2, True), (40, False)])
def test_few_runs_and_scores_that_do_not_agree_are_not_extrapolated(num_runs, spread):
    found = consistency_report.examine(reliability_test.a_table(num_runs, (0.5,), spread))
    assert np.isnan(found.runs_needed)
    assert not found.runs_needed_measured
    linear, _ = consistency_report.needed_texts(found)
    halves = "1 run of each ratio" if num_runs == 2 else "20 runs of each ratio"
    mean, error = found.reliability.pearson[-1].mean(), found.reliability.spread(-1)
    assert linear.startswith(
        "too few runs to say how many a linear correlation of 0.9 between scores from disjoint runs"
    )
    assert linear.endswith(f"scores from {halves} it is {mean:.3f} (standard error {error:.3f} or more)")
    assert consistency_report.to_json(found)["runs_needed"] is None


@pytest.fixture(scope="module")
def lopsided():
    """Three runs of one ratio, one of another."""
    whole = reliability_test.a_table(num_runs=3)
    return whole.take(np.array([0, 1, 2, 3])).with_labels(np.arange(whole.num_train) % 10, np.zeros(5, int))


def test_a_ratio_with_one_run_leaves_all_but_the_reliability(tmp_path, lopsided):
    found = consistency_report.examine(lopsided)
    assert found.reliability is None
    lines = consistency_report.lines(found)
    assert lines[0].startswith("ratio 0.3, 3 runs: accuracy 0.")
    assert "(standard error 0.0" in lines[0]
    assert lines[1] == f"ratio 0.7, 1 run: accuracy {found.accuracy[1]:.4f} held out (no standard error)"
    assert lines[2:] == ["ratio 0.7 has 1 run; the reliability of scores takes two of each ratio"]
    written = consistency_report.write(tmp_path, found, lopsided, {})
    names = {"accuracy.png", "consistency.json", "consistency.md", "cscores.npz", "cscores.npy"}
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()} == names

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    value = json.loads((tmp_path / "consistency.json").read_text(), parse_constant=refuse)
    assert (value["reliability"], value["runs_needed"], value["runs_needed_for_ranks"]) == (None, None, None)
    assert value["heldout_accuracy_standard_error"] == [found.accuracy_error[0], None]
    text = (tmp_path / "consistency.md").read_text()
    assert "Ratio 0.7 has 1 run; the reliability of scores takes two of each ratio.\n" in text
    assert f"| 0.7 | 1 | {found.accuracy[1]:.4f} |  |\n" in text
    assert "reliability.png" not in text


def test_what_has_no_correlation_is_null_in_json(findings):
    gaps = dataclasses.replace(findings.reliability, pearson=np.full_like(findings.reliability.pearson, np.nan))
    value = consistency_report.to_json(dataclasses.replace(findings, reliability=gaps))
    assert json.loads(json.dumps(value, allow_nan=False))["reliability"]["pearson"] == [[None] * 5] * 3


def test_files_tell_the_same(tmp_path, table, findings):
    written = consistency_report.write(tmp_path / "out", findings, table, {"command": "c"}, published=0.5)
    assert {path.name for path in written} == {path.name for path in (tmp_path / "out").iterdir()}
    value = json.loads((tmp_path / "out" / "consistency.json").read_text())
    assert value["heldout_accuracy"] == findings.accuracy.tolist()
    assert value["reliability"]["runs_of_each_ratio"] == [1, 2, 3]
    assert value["correlation_with_published"] == 0.5
    assert value["provenance"] == {"command": "c"}
    stored = published_formats.read_cscores(tmp_path / "out" / "cscores.npz", label=table.train_label)
    np.testing.assert_array_equal(stored.score, findings.consistency.score)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "cscores.npy"), findings.consistency.score)
    text = (tmp_path / "out" / "consistency.md").read_text()
    assert f"| 0.3 | 6 | {findings.accuracy[0]:.4f} |" in text
    assert "made by `c`" in text
    assert "| runs of each ratio | linear correlation | rank correlation |" in text
    linear, ranked = (values[2].mean() for values in (findings.reliability.pearson, findings.reliability.spearman))
    assert re.search(rf"\| 3 \| {linear:.3f} ± 0\.\d+ \| {ranked:.3f} ± 0\.\d+ \|", text)
    for name in ("accuracy.png", "reliability.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in text


def test_without_labels_there_is_no_file_that_needs_them(tmp_path):
    table = reliability_test.a_table(num_runs=2)
    consistency_report.write(tmp_path, consistency_report.examine(table), table, {})
    assert not (tmp_path / "cscores.npz").exists()
    assert (tmp_path / "cscores.npy").exists()


def test_published_scores_are_compared_by_rank(tmp_path, table, findings):
    score = findings.consistency.score
    path = tmp_path / "published.npz"
    published_formats.write_cscores(path, published_formats.CScores(table.train_label, score**3))
    assert consistency_report.rank_correlation_with(score, path, table.train_label) == pytest.approx(1)
    with pytest.raises(errors.MismatchError, match="labels"):
        consistency_report.rank_correlation_with(score, path, table.train_label[::-1])
    np.save(tmp_path / "mnist.npy", np.linspace(0, 1, 60000))
    with pytest.raises(errors.MismatchError, match="scores of 60000 examples, the zoo has 4000"):
        consistency_report.rank_correlation_with(score, tmp_path / "mnist.npy", None)


def test_the_terminal_gets_every_figure(findings):
    lines = consistency_report.lines(findings, published=0.25)
    assert lines[0].startswith("ratio 0.3, 6 runs: accuracy ")
    assert lines[2].startswith("scores from 1 run of each ratio and 1 other: correlation ")
    assert lines[3].startswith("scores from 2 runs of each ratio and 2 others: correlation ")
    assert lines[-1] == "rank correlation with the published scores: 0.250"
