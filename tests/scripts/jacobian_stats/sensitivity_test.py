"""Sensitivity joined with scores: means over the right runs, correlations, files that are not made twice."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
from scipy import stats
import tensorflow as tf

from heldout import devices
from heldout.datasets import dataset
from heldout.scoring import saved_scores, score_config, score_files
from scripts.jacobian_stats import (
    sensitivity,
    sensitivity_figure,
    sensitivity_files,
    sensitivity_worker,
    stats_config,
    stats_files,
)
from tests import cases
from tests.scripts.jacobian_stats import networks, tables
from zoo import errors, layout

_ROOT = pathlib.Path(__file__).parents[3]
RUNS = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Four runs of an experiment with scores."""
    folder = tmp_path_factory.mktemp("zoo")
    for run_id in RUNS:
        networks.zoo_run(folder, run_id)
    score_files.compute_scores(score_config.ScoreConfig(str(folder / "zoo"), "e", dataset=f"npz:{folder / 'tiny.npz'}"))
    return folder / "zoo"


def config(zoo, outdir, **options):
    usual = {
        "scores": str(zoo / "e" / "scores"),
        "subset_ratio": 0.5,
        "run_ids": RUNS,
        "stats": stats_config.StatsConfig(metrics=("jacobian",), dataset_split="all_train"),
        "num_draws": 50,
    }
    return sensitivity.SensitivityConfig(
        **{"zoo": str(zoo), "experiment": "e", "outdir": str(outdir)} | usual | options
    )


def program(zoo, outdir, *options):
    command = [sys.executable, "-m", "scripts.plot_sensitivity", f"--zoo={zoo}", f"--outdir={outdir}", "--noprogress"]
    return subprocess.run([*command, *options], capture_output=True, text=True, cwd=_ROOT, check=False)


def test_means_are_over_the_runs_of_each_side(zoo):
    generator = np.random.default_rng(0)
    values, masks = generator.random((5, 3)), np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]], bool)
    found = saved_scores.load(zoo / "e" / "scores")
    joined = sensitivity.join(values, masks, np.array([2, 7, 50]), found, 0.5, found.train_label)
    np.testing.assert_allclose(joined.mean["in"][0], values[[0, 1, 3], 0].mean())
    np.testing.assert_allclose(joined.mean["heldout"][0], values[[2, 4], 0].mean())
    np.testing.assert_allclose(joined.mean["all"], values.mean(axis=0))
    np.testing.assert_allclose(joined.standard_error["in"][0], values[[0, 1, 3], 0].std(ddof=1) / np.sqrt(3))
    np.testing.assert_allclose(joined.mean["difference"], joined.mean["in"] - joined.mean["heldout"])
    assert np.isnan(joined.mean["in"][1])
    assert np.isnan(joined.mean["difference"][1])
    assert (joined.num_in.tolist(), joined.num_heldout.tolist()) == ([3, 0, 3], [2, 5, 2])
    memorization = found.ratios[0.5].memorization.values
    np.testing.assert_array_equal(joined.scores["memorization"], memorization[[2, 7, 50]])


def joined(sensitive, memorization, clean_label=None):
    num = len(sensitive)
    label = np.zeros(num, int)
    mean = {side: np.asarray(sensitive, float) for side in sensitivity.SIDES}
    scores = {"memorization": np.asarray(memorization, float), "consistency": -np.asarray(memorization, float)}
    clean = label if clean_label is None else clean_label
    counts = np.ones(num, int)
    return sensitivity.Joined(np.arange(num), label, clean, mean, mean, counts, counts, scores)


def test_rank_correlations_with_both_scores():
    generator = np.random.default_rng(1)
    memorization = generator.random(60)
    sensitive = np.exp(memorization + 0.3 * generator.random(60))
    found = sensitivity.correlations(joined(sensitive, memorization), 200, 0)
    one = sensitivity.of(found, "all", "in", "memorization")
    assert one.value == pytest.approx(stats.spearmanr(sensitive, memorization)[0])
    assert one.low < one.value < one.high <= 1
    assert one.num_examples == 60
    other = sensitivity.of(found, "all", "heldout", "consistency")
    assert other.value == pytest.approx(-one.value)
    assert {one.subset for one in found} == {"all"}


def test_clean_and_changed_labels_are_apart():
    clean = np.arange(40) % 4 == 0
    memorization = np.arange(40.0)
    found = sensitivity.correlations(
        joined(np.where(clean, -1, 1) * memorization, memorization, clean.astype(int)), 20, 0
    )
    assert sensitivity.of(found, "clean", "all", "memorization").value == pytest.approx(1.0)
    assert sensitivity.of(found, "changed", "all", "memorization").value == pytest.approx(-1.0)
    assert sensitivity.of(found, "changed", "all", "memorization").num_examples == 10


def test_scores_of_other_labels_or_ratios_are_refused(zoo):
    found = saved_scores.load(zoo / "e" / "scores")
    values, masks, positions = np.zeros((2, 1)), np.ones((2, 1), bool), np.array([0])
    with pytest.raises(errors.MismatchError, match=r"no scores of ratio 0\.7, only of 0\.5"):
        sensitivity.join(values, masks, positions, found, 0.7, found.train_label)
    with pytest.raises(errors.MismatchError, match="of other training labels"):
        sensitivity.join(values, masks, positions, found, 0.5, 1 - found.train_label)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_examples": 1}, "--num_examples=1"), ({"run_ids": (3,)}, "--run_ids"), ({"num_draws": 0}, "--num_draws=0")],
)
def test_what_cannot_be_is_refused(zoo, tmp_path, options, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        config(zoo, tmp_path, **options)


def test_examples_are_drawn_by_the_seed(zoo, tmp_path):
    drawn = config(zoo, tmp_path, num_examples=10).positions(60)
    assert len(set(drawn.tolist())) == 10
    assert drawn.tolist() == sorted(drawn.tolist())
    assert drawn.tolist() == config(zoo, tmp_path, num_examples=10).positions(60).tolist()
    assert drawn.tolist() != config(zoo, tmp_path, num_examples=10, seed=1).positions(60).tolist()
    assert config(zoo, tmp_path, num_examples=99).positions(60).tolist() == list(range(60))
    stored = config(zoo, tmp_path)
    assert sensitivity.SensitivityConfig.from_json(stored.to_json()) == stored


def test_a_worker_measures_every_run_with_its_own_weights(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "strategy", lambda *args, **options: tf.distribute.get_strategy())
    asked = config(zoo, tmp_path / "out", num_examples=12)
    perform, facts = sensitivity_worker.start({"config": asked.to_json(), "device": "cpu", "num_threads": 1})
    data, answers = cases.tiny_digits(), []
    assert facts["train_label_sha256"] == dataset.label_sha256(data.train.label)
    for run_id in (2, 1):
        perform({"run": run_id}, answers.append)
        run = layout.Run(zoo, "e", 0.5, run_id)
        source = networks.source(run.directory)
        source.restore(source.checkpoints[-1])
        positions = asked.positions(60)
        path = sensitivity_files.run_path(asked, run, positions)
        arrays, _ = stats_files.read_part(path, 12)
        dense = networks.dense(source.predict, data.normalise(data.train.images[positions]))
        np.testing.assert_allclose(arrays["jacobian"], np.linalg.norm(dense, axis=(1, 2)), rtol=1e-4)
    assert answers == [{"measured": 2}, {"measured": 1}]
    assert sensitivity_files.read_run(path, 12, facts["train_label_sha256"]) is not None
    with pytest.raises(errors.MismatchError, match="with other training labels than those of the scores"):
        sensitivity_files.read_run(path, 12, dataset.label_sha256(1 - data.train.label))


def test_values_that_do_not_say_their_labels_are_measured_again(tmp_path):
    path, column = tmp_path / "0.npz", tables.table().columns[0]
    stats_files.write_part(path, {"jacobian": np.ones(3)}, (column,))
    assert sensitivity_files.read_run(path, 3, "digest") is None
    sensitivity_files.write_run(path, {"jacobian": np.ones(3)}, (column,), "digest")
    arrays, columns = sensitivity_files.read_run(path, 3, "digest")
    assert (arrays["jacobian"].tolist(), columns) == ([1.0] * 3, (column,))
    assert sensitivity_files.read_run(path, 4, "other") is None
    assert sensitivity_files.read_run(tmp_path / "gone.npz", 3, "digest") is None


def test_bins_have_quartiles_and_ten_examples_at_least():
    x = np.concatenate([np.zeros(20), np.full(9, 0.55), np.ones(10)])
    y = np.concatenate([np.arange(20.0), np.zeros(9), np.full(9, 3.0), [np.nan]])
    places, quartiles = sensitivity_figure.bins(np.append(x, 1.0), np.append(y, 3.0))
    np.testing.assert_allclose(places, [0, 1])
    np.testing.assert_allclose(quartiles, [np.quantile(np.arange(20), (0.25, 0.5, 0.75)), [3, 3, 3]])
    assert sensitivity_figure.bins(np.array([np.nan]), np.array([1.0]))[1].shape == (0, 3)


def test_the_program_joins_draws_and_continues(zoo, tmp_path):
    done = program(zoo, tmp_path, "--run_ids=0:3", "--num_draws=20", "--metric=jacobian")
    assert done.returncode == 0, done.stderr
    assert "rank correlation" in done.stdout
    table = pyarrow.parquet.read_table(tmp_path / "sensitivity.parquet")
    assert table.num_rows == 60
    assert {"train_index", "sensitivity_in", "sensitivity_heldout", "memorization", "consistency"} <= set(
        table.column_names
    )
    masks = np.array([networks.subset(run_id) for run_id in range(3)])
    np.testing.assert_array_equal(table["num_in"].to_numpy(), masks.sum(axis=0))
    stored = json.loads((tmp_path / "correlations.json").read_text())
    assert len(stored["correlations"]) == 8
    assert (tmp_path / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / ".parts-runs").iterdir()}
    assert len(times) == 3
    more = program(zoo, tmp_path, "--num_draws=20", "--metric=jacobian", "--format=csv")
    assert more.returncode == 0, more.stderr
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(list((tmp_path / ".parts-runs").iterdir())) == 4
    # Scores of other labels are refused although all runs are measured.
    path = next(iter(times))
    arrays, columns = stats_files.read_part(path, 60)
    sensitivity_files.write_run(path, arrays, columns, "0" * 64)
    wrong = program(zoo, tmp_path, "--num_draws=20", "--metric=jacobian")
    assert wrong.returncode == 1
    assert "with other training labels than those of the scores" in wrong.stderr
    other = program(zoo, tmp_path, "--metric=nuclear_norm")
    assert other.returncode == 1
    assert "holds results of other settings" in other.stderr


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--subset_ratio=0.7"], 2, "--subset_ratio=0.7: there are no such runs; e has runs at 0.5"),
        (["--run_ids=0:9"], 1, "run 4 is not there"),
        (["--num_runs=1"], 2, "--num_runs=1: expected 2 to 4"),
        (["--num_runs=2", "--run_ids=0:2"], 2, "--run_ids beside --num_runs"),
        (["--workers=0"], 2, "--workers=0"),
    ],
)
def test_the_program_refuses_what_cannot_be(zoo, tmp_path, options, status, message):
    done = program(zoo, tmp_path, *options)
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr
