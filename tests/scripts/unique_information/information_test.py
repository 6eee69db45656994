"""compute_unique_information: its files, what it does a second time, what it refuses; and its parts."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

from matplotlib import figure
import numpy as np
import pyarrow.parquet
import pytest
from scipy import stats

from heldout.training import leave_out_config, leave_out_files
from scripts.unique_information import (
    file_digests,
    information_config,
    information_figures,
    information_files,
    information_run,
    linearised_networks,
    linearised_problem,
    linearised_scores,
    network_source,
    score_columns,
    scoring_config,
)
from tests.scripts.unique_information import problems
from zoo import errors

_ROOT = pathlib.Path(__file__).parents[3]
_EXPERIMENT = (
    *("--dataset=digits", "--classes=3,8", "--num_train=40", "--num_val=20", '--arch_options={"hidden_sizes": [64]}'),
    *("--learning_rate=0.05", "--num_steps=100"),
)

_OWN_MODEL = """
import keras
from sklearn import datasets

def make():
    images, labels = datasets.load_digits(return_X_y=True)
    images = images.astype("float32") / 16
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    return model, (images[:30], labels[:30]), (images[30:40], labels[30:40])
"""


def start(program, *arguments):
    command = [sys.executable, "-m", f"scripts.{program}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False)


def information(outdir, *arguments):
    return start("compute_unique_information", f"--outdir={outdir}", *arguments)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    outdir = tmp_path_factory.mktemp("truth")
    result = start("ground_truth_effects", *_EXPERIMENT, f"--outdir={outdir}", "--workers=1", "--record_steps=50")
    assert result.returncode == 0, result.stderr
    return outdir


@pytest.fixture(scope="module")
def scored(truth, tmp_path_factory):
    outdir, groups = tmp_path_factory.mktemp("scored") / "a", tmp_path_factory.mktemp("groups") / "groups.txt"
    index = leave_out_files.read_full_run(truth)["train_index"]
    groups.write_text(f"{index[1]} {index[7]}\n{index[30]}, {index[2]}\n")
    measures = "--measure=weights,predictions,effects,self_effect"
    result = information(outdir, f"--experiment={truth}", measures, f"--groups={groups}", "--num_checked=3")
    assert result.returncode == 0, result.stderr
    return outdir, groups, result.stdout


def test_scores_are_close_to_the_truth(truth, scored):
    outdir, _, said = scored
    effects = leave_out_files.read_ground_truth(truth)
    found = score_columns.read(outdir / "unique_information.npz")
    np.testing.assert_array_equal(found.train_index, effects.train_index)
    for column, quantity in (("weights", "squared_weight_change"), ("predictions", "squared_prediction_change")):
        assert stats.pearsonr(found.columns[column], getattr(effects, quantity))[0] > 0.9
    with np.load(outdir / "effects.npz") as stored:
        apart = stored["prediction_change"] - effects.prediction_change
        assert np.linalg.norm(apart) < 0.4 * np.linalg.norm(effects.prediction_change)
        np.testing.assert_allclose(
            np.mean(np.sum(stored["prediction_change"] ** 2.0, axis=2), axis=1),
            found.columns["predictions_squared"],
            rtol=1e-5,
        )
    with np.load(outdir / "unique_information.npz") as stored:
        assert stored["self_effect"].shape == (40, 1)
        np.testing.assert_allclose(stored["self_effect"][:, 0] ** 2, stored["self_effect_squared"])
    assert "40 training, 20 validation examples, 1 output" in said
    assert "next: python -m scripts.aggregate_ground_truth" in said


def test_the_files_say_what_they_are(scored):
    outdir, *_ = scored
    results = json.loads((outdir / "unique_information.json").read_text())
    assert results["agreement"]["steps"] == [50, 100]
    assert max(results["agreement"]["train_relative_error"]) < 0.3
    assert results["times"]["100"]["num_checked"] == 3
    assert results["times"]["100"]["change_error"] < 1e-3
    found = score_columns.read(outdir / "unique_information.npz")
    assert set(results["columns"]) == set(found.columns)
    highest = results["ends"]["weights"]["highest"]
    values = found.columns["weights"]
    assert highest[0] == [int(found.train_index[values.argmax()]), highest[0][1], values.max()]
    assert [one[2] for one in highest] == sorted(values, reverse=True)[: len(highest)]
    assert results["ends"]["weights"]["lowest"][0][2] == values.min()
    table = pyarrow.parquet.read_table(outdir / "unique_information.parquet")
    np.testing.assert_array_equal(table["weights"].to_numpy(), values)
    pictures = {"histogram.png", "most_informative.png", "least_informative.png"}
    assert pictures <= set(results["files"]) <= {path.name for path in outdir.iterdir()}


def test_pairs_are_held_against_their_members(scored):
    outdir, groups, _ = scored
    found = score_columns.read(outdir / "unique_information.npz")
    single = dict(zip(found.train_index.tolist(), found.columns["weights_squared"], strict=True))
    pairs = [[int(one) for one in line.replace(",", " ").split()] for line in groups.read_text().splitlines()]
    with np.load(outdir / "group_information.npz") as stored:
        assert stored["group_train_index"].tolist() == [one for pair in pairs for one in sorted(pair)]
        apart = [sum(single[one] for one in pair) for pair in pairs]
        np.testing.assert_allclose(stored["pair_separate"], apart)
        np.testing.assert_allclose(stored["pair_excess"], stored["weights_squared"] - apart)


def test_it_does_nothing_again_and_keeps_the_kernel_for_other_measures(truth, scored):
    outdir, groups, _ = scored
    kernel = (outdir / "kernel" / "train.npy").stat().st_mtime_ns
    content = (outdir / "unique_information.npz").read_bytes()
    measures = "--measure=weights,predictions,effects,self_effect"
    again = information(outdir, *_EXPERIMENT, measures, f"--groups={groups}", "--num_checked=3")
    assert again.returncode == 0, again.stderr
    assert "(was there, nothing to do)" in again.stdout
    assert (outdir / "unique_information.npz").read_bytes() == content
    other = information(outdir, f"--experiment={truth}", "--t=50,inf")
    assert other.returncode == 1
    assert "scoring.times: stored [None], asked for [50.0, 'inf']" in other.stderr
    assert "Traceback" not in other.stderr
    replaced = information(outdir, f"--experiment={truth}", "--t=50,inf", "--overwrite")
    assert replaced.returncode == 0, replaced.stderr
    columns = score_columns.read(outdir / "unique_information.npz").columns
    assert {"weights_t50", "predictions_squared_tinf"} <= set(columns)
    assert (outdir / "kernel" / "train.npy").stat().st_mtime_ns == kernel
    assert not (outdir / "effects.npz").exists()
    assert not (outdir / "group_information.npz").exists()


@pytest.mark.slow
def test_a_model_of_ones_own_is_scored(tmp_path):
    (tmp_path / "own_model_of_test.py").write_text(_OWN_MODEL)
    command = [sys.executable, "-m", "scripts.compute_unique_information", "--model=own_model_of_test:make"]
    command += ["--learning_rate=0.02", "--num_steps=300", f"--outdir={tmp_path}/a", "--noprogress"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    assert "30 training, 10 validation examples, 10 outputs, 650 parameters; dual form, 300 rows" in result.stdout
    assert "next:" not in result.stdout
    assert json.loads((tmp_path / "a" / "unique_information.json").read_text())["agreement"] is None
    found = score_columns.read(tmp_path / "a" / "unique_information.npz")
    np.testing.assert_array_equal(found.train_index, np.arange(30))


@pytest.mark.slow
def test_the_aggregate_reads_what_it_writes(truth, tmp_path):
    result = information(tmp_path / "a", f"--experiment={truth}", "--nokeep_kernel", "--noprogress")
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "a" / "kernel").exists()
    scores = f"--scores={tmp_path}/a/unique_information.npz"
    told = start("aggregate_ground_truth", f"--ground_truth={truth}", scores, f"--outdir={tmp_path}/b")
    assert told.returncode == 0, told.stderr
    assert "unique_information.npz: weights_squared" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "which network: give --experiment"),
        (("--dataset=digits", "--run=a"), 2, "--run is not read by this program"),
        (("--model=a:b", "--experiment=c"), 2, "--experiment with --model: both say which network"),
        (("--model=a:b", "--num_train=3"), 2, "--num_train says nothing beside --model; leave it out"),
        (("--experiment=/none",), 1, "/none/config.json: no such file"),
        (("--experiment=/none", "--l2=1"), 2, "--l2 says nothing beside --experiment"),
        (("--dataset=digits", "--measure=weight"), 2, "'weight' is none of weights, "),
        (("--dataset=digits", "--t=x"), 2, "--t=x: expected numbers of steps, inf, or experiment"),
        (("--dataset=digits", "--noise_floors=x"), 2, "--noise_floors=x: expected variances from 0 up"),
        (("--dataset=digits", "--num_features=9"), 2, "--num_features: says nothing without --projection"),
        (("--dataset=digits", "--groups=/none"), 1, "--groups=/none: no such file"),
        (("--dataset=digits", "--init_checkpoint=/none"), 1, "--init_checkpoint=/none: /none.data-00000-of-00001"),
    ],
)
def test_wrong_flags_are_refused_in_a_line(tmp_path, arguments, status, message):
    result = information(tmp_path, *arguments)
    assert result.returncode == status, result.stderr
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_it_answers_before_tensorflow_is_imported():
    code = "import sys; import scripts.compute_unique_information as p; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=_ROOT, check=False).returncode == 0


def config(**options):
    experiment = leave_out_config.LeaveOutConfig("digits", (3, 8), 30, 12)
    members = {
        "outdir": "a",
        "source": network_source.NetworkSource(experiment=experiment),
        "training": scoring_config.Training(0.1, 10),
        "linearisation": scoring_config.LinearisationConfig(),
        "scoring": scoring_config.ScoringConfig(),
    }
    return information_config.InformationConfig(**{**members, **options})


def test_a_config_is_the_same_from_its_json():
    one = config(groups="g", groups_sha256="0", scoring=scoring_config.ScoringConfig(times=(float("inf"), None)))
    assert information_config.InformationConfig.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_shown": 0}, r"--num_shown=0: expected at least 1"),
        ({"memory_limit_mb": 0.0}, r"--memory_limit_mb=0: expected a number above 0"),
        (
            {"groups": "g", "scoring": scoring_config.ScoringConfig(("accumulation",))},
            r"--groups: accumulation is of single examples",
        ),
        ({"scoring": scoring_config.ScoringConfig(times=(None, 10.0))}, r"--t=10,10: expected each time once"),
    ],
)
def test_configs_that_cannot_be_are_refused(options, match):
    with pytest.raises(errors.InvalidValueError, match=match):
        config(**options)


def test_results_of_other_settings_go_with_them(tmp_path):
    def adopt(value, *, overwrite=False, keeps_arrays=True):
        information_config.adopt(tmp_path, {"a": value}, ["x.npz"], keeps_arrays=keeps_arrays, overwrite=overwrite)

    adopt(1)
    (tmp_path / "x.npz").touch()
    adopt(1, overwrite=True)
    assert (tmp_path / "x.npz").exists()
    with pytest.raises(errors.MismatchError, match=r"a: stored 1, asked for 2\n(.|\n)*--overwrite"):
        adopt(2)
    adopt(2, overwrite=True)
    assert (tmp_path / "x.npz").exists()  # what is asked for now may be refused yet
    assert json.loads((tmp_path / "config.json").read_text())["a"] == 1
    information_config.replace(tmp_path, {"a": 1}, ["x.npz"])
    assert (tmp_path / "x.npz").exists()
    information_config.replace(tmp_path, {"a": 2}, ["x.npz"])
    assert not (tmp_path / "x.npz").exists()
    with pytest.raises(errors.MismatchError, match=r"a: stored 2, asked for 3"):
        adopt(3, keeps_arrays=False)
    adopt(3)
    assert json.loads((tmp_path / "config.json").read_text())["a"] == 3


def test_results_are_of_their_settings_and_whole(tmp_path):
    identity = {"a": 1}
    (tmp_path / "x.npz").write_bytes(b"scores")
    described = file_digests.described([tmp_path / "x.npz"])
    written = {"identity_sha256": information_config.digest(identity), **described}
    (tmp_path / "x.npz").unlink()
    assert information_files.read_results(tmp_path, identity) is None
    path = information_files.write_results(tmp_path, written)
    assert information_files.read_results(tmp_path, identity) is None
    (tmp_path / "x.npz").write_bytes(b"scores")
    assert information_files.read_results(tmp_path, identity)["files"] == ["x.npz"]
    assert information_files.read_results(tmp_path, {"a": 2}) is None
    (tmp_path / "x.npz").write_bytes(b"scoreS")
    with pytest.raises(errors.DamagedFileError, match=r"x\.npz: its SHA-256 is not that of unique_information\.json"):
        information_files.read_results(tmp_path, identity)
    information_files.write_results(tmp_path, {**written, "sha256": {}})
    with pytest.raises(errors.DamagedFileError, match=r"expected files, and sha256 of each; delete it and run"):
        information_files.read_results(tmp_path, identity)
    path.write_text('{"schema_version": 9}')
    with pytest.raises(errors.DamagedFileError, match=r"schema version 9, expected 1; delete it"):
        information_files.read_results(tmp_path, identity)


def test_what_is_refused_costs_no_results_and_damage_is_noticed(tmp_path):
    experiment = leave_out_config.LeaveOutConfig(
        "digits", (3, 8), 12, 6, architecture_options={"hidden_sizes": [5]}, learning_rate=0.05, num_steps=10
    )
    source = network_source.NetworkSource(experiment=experiment)
    asked = config(outdir=str(tmp_path), source=source, training=source.training())
    network = linearised_networks.load(source, asked.linearisation)

    def run(one, **options):
        return information_run.run(one, network, lambda *told: None, **options)

    assert not run(asked)["up_to_date"]
    there = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "g.txt").write_text("999998 999999\n")
    for options, match in (
        ({"groups": str(tmp_path / "groups" / "g.txt"), "groups_sha256": "0"}, "2 positions that were not drawn"),
        ({"training": scoring_config.Training(1e6, 10)}, "--learning_rate=1e.06: steps of the linearised network"),
        (
            {"memory_limit_mb": 1e-6, "linearisation": scoring_config.LinearisationConfig(kernel_dtype="float64")},
            "--memory_limit_mb=1e-06: 12 rows",
        ),
    ):
        with pytest.raises(errors.InvalidValueError, match=match):
            run(dataclasses.replace(asked, **options), overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == there
    assert run(asked)["up_to_date"]
    kernel = tmp_path / "kernel" / "train.npy"
    content = bytearray(kernel.read_bytes())
    content[-1] ^= 1
    kernel.write_bytes(content)
    (tmp_path / "unique_information.npz").unlink()
    with pytest.raises(errors.DamagedFileError, match=r"train\.npy: the SHA-256 is not that of contents\.json"):
        run(asked)


def test_full_runs_of_other_data_are_refused(tmp_path):
    experiment = leave_out_config.LeaveOutConfig("digits", (3, 8), 9, 5, learning_rate=0.1, num_steps=10)
    problem = problems.problem(*problems.jacobians(num_outputs=1))
    names = {name: np.zeros(0) for name in leave_out_files.FULL_RUN_MEMBERS}
    leave_out_files.write_full_run(tmp_path, names | {"train_index": np.arange(9)}, experiment.sha256)
    source = network_source.NetworkSource(experiment=experiment, folder=str(tmp_path))
    asked = config(source=source, training=source.training())
    with pytest.raises(errors.MismatchError, match=r"full_run.npz is of other training examples"):
        information_run._agreement(asked, problem)
    other = dataclasses.replace(asked, training=scoring_config.Training(0.2, 10))
    assert information_run._agreement(other, problem) is None


def test_examples_are_counted_in_whole_numbers():
    axes = figure.Figure().add_subplot()
    information_figures._histogram(axes, "weights", np.array([1.0, 2.0, 3.0]), np.zeros(3, np.int64))
    ticks = axes.get_yticks()
    np.testing.assert_array_equal(ticks, np.round(ticks))


def test_pictures_of_what_has_no_classes_and_no_images(tmp_path):
    problem: linearised_problem.Problem = problems.problem(*problems.jacobians())
    found = linearised_scores.compute(problem, scoring_config.Training(0.5, 5), scoring_config.ScoringConfig())
    labels = information_files.Labels(problem.train_index, problem.train_target)
    paths = information_figures.write(tmp_path, ["weights"], found, labels, np.zeros((9, 4)), 3)
    assert [path.name for path in paths] == ["histogram.png"]
    assert "train_label" not in labels.columns()
    found.columns["weights"][:] = 0.0
    information_figures.write(tmp_path, ["weights"], found, labels, np.zeros((9, 4)), 3)
    found.columns["weights"][:] = np.nan
    assert len(information_figures.write(tmp_path, ["weights"], found, labels, np.zeros((9, 8, 8, 3)), 3)) == 1
    found.columns["weights"][3:] = 1.0
    assert len(information_figures.write(tmp_path, ["weights"], found, labels, np.zeros((9, 8, 8, 3)), 3)) == 3
