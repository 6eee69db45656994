"""Retraining as a user starts it, on wrong labels whose removal is known to help."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet
import pytest

from heldout.datasets import registry
from heldout.experiments import label_noise, recipes, training_config
from heldout.training import train_runs_config, zoo_training
from tests import cases
from tests.scripts import smoke_test
from zoo import files, layout

_ROOT = pathlib.Path(__file__).parents[2]
_PROGRAM = "train_on_most_influential"
_NUM_TRAIN, _NUM_WRONG = 400, 120


def make_source(folder, noise=None, **training):
    """A zoo with the recipe of an experiment, which is all that is needed of it."""
    dataset = cases.tiny_digits_npz(folder / "digits.npz", _NUM_TRAIN, 300)
    config = train_runs_config.TrainRunsConfig(
        str(folder / "zoo"),
        "e",
        dataset,
        None,
        "mlp",
        {"hidden_sizes": [32]},
        (0.7,),
        (0,),
        training_config.TrainingConfig(num_epochs=20, batch_size=20, **training),
        noise=noise,
    )
    recipe = zoo_training.make_recipe(config, registry.load(dataset))
    recipes.adopt(config.zoo, recipe)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A recipe with 120 of 400 labels wrong, and a ranking that has these at its bottom."""
    noise = label_noise.LabelNoise("symmetric", count=_NUM_WRONG, seed=1)
    folder = make_source(tmp_path_factory.mktemp("noisy"), noise)
    clean = cases.tiny_digits(_NUM_TRAIN, 300)
    label = label_noise.apply(noise, clean).train.label
    value = np.random.default_rng(2).random(_NUM_TRAIN) - (label != clean.train.label)
    members = {"train_index": np.arange(_NUM_TRAIN), "influence": value, "train_label": label}
    np.savez(folder / "ranking.npz", **members, test_index=np.arange(100))
    np.savez(folder / "other.npz", **(members | {"train_label": clean.train.label}))
    return folder


def flags(source, *arguments, ranking="ranking.npz", outdir="out"):
    paths = [f"--zoo={source / 'zoo'}", f"--ranking={source / ranking}", f"--outdir={source / outdir}"]
    return [*paths, "--fractions=0.3", "--workers=1", *arguments]


@pytest.fixture(scope="module")
def retrained(source):
    """What a first call has left when it was killed, and what the same command said and did then."""
    command = [sys.executable, "-m", f"scripts.{_PROGRAM}", *flags(source, "--num_seeds=3")]
    process = subprocess.Popen(
        command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not any(run.aux_arrays_path.exists() for run in layout.runs(source / "out", "e-retrained")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    begun = [run for run in layout.runs(source / "out", "e-retrained") if run.aux_arrays_path.exists()]
    assert not (source / "out" / "results.json").exists()
    result = smoke_test.start(_PROGRAM, *flags(source, "--num_seeds=3"))
    assert result.returncode == 0, result.stderr
    return begun, result.stdout, files.read_json(source / "out" / "results.json")


@pytest.mark.slow
def test_a_killed_comparison_is_continued(source, retrained):
    begun, said, _ = retrained
    assert "12 runs in all: top, bottom, random of 400 ranked examples, drop 120, 3 seeds, and all of them" in said
    counts = re.findall(r"^(\d+) runs? trained, (\d+) skipped", said, re.MULTILINE)
    assert [sum(map(int, pair)) for pair in counts] == [3, 9]
    assert sum(int(skipped) for _, skipped in counts) == len(begun) > 0
    table = pyarrow.parquet.read_table(source / "out" / "trainings.parquet")
    assert table.num_rows == 12


@pytest.mark.slow
def test_to_drop_what_is_wrong_helps(retrained):
    _, said, results = retrained
    points = {point["selection"]: point for point in results["points"]}
    assert set(points) == {"none", "top", "bottom", "random"}
    for part in ("", "target_", "other_"):
        assert points["bottom"]["minus_random"][f"{part}test_accuracy"]["low"] > 0
        assert points["bottom"]["minus_random"][f"{part}test_loss"]["high"] < 0
        for quantity, sign in (("accuracy", 1), ("loss", -1)):
            found = {name: sign * point["measures"][f"{part}test_{quantity}"]["mean"] for name, point in points.items()}
            assert max(found, key=found.__getitem__) == "bottom"
    assert points["bottom"]["num_train"] == 280
    assert "to judge by them is optimistic" in said
    assert said.count("bottom 30 % (120)") == 3


@pytest.mark.slow
def test_results_say_what_they_are_of(source, retrained):
    _, _, results = retrained
    assert (results["action"], results["num_ranked"], results["num_target_test"]) == ("drop", 400, 100)
    assert results["config"]["num_seeds"] == 3
    recipe = recipes.read(source / "out", "e-retrained")
    assert recipe.ranking_sha256 == results["ranking_sha256"]
    assert recipe.noise.count == _NUM_WRONG
    with open(source / "out" / "retraining.png", "rb") as picture:
        assert picture.read(4) == b"\x89PNG"


@pytest.mark.slow
def test_a_larger_comparison_adds_to_what_is_there(source, retrained, tmp_path):
    out = tmp_path / "out"
    subprocess.run(["cp", "-a", str(source / "out"), str(out)], check=True)
    result = smoke_test.start(_PROGRAM, *flags(source, "--num_seeds=3", "--which=bottom,extreme", outdir=out))
    assert result.returncode == 0, result.stderr
    assert "0 runs trained, 3 skipped: nothing to do" in result.stdout
    assert "3 runs trained, 6 skipped" in result.stdout
    found = {point["selection"] for point in files.read_json(out / "results.json")["points"]}
    assert found == {"none", "top", "bottom", "extreme", "random"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--action=keep"], "holds another comparison.\nstored: "),
        (["--test_ids=0:50"], "To judge the runs that are there on other test examples, delete that file"),
        (["--num_epochs=3"], "training.num_epochs: stored 20, asked for 3"),
    ],
)
def test_two_comparisons_are_never_mixed(source, retrained, arguments, message):
    before = (source / "out" / "results.json").read_bytes()
    result = smoke_test.start(_PROGRAM, *flags(source, "--num_seeds=3", *arguments))
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert (source / "out" / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--ranking="], 2, "--ranking is required"),
        (["--outdir="], 2, "--outdir is required"),
        (["--outdir=gs://bucket/out"], 2, "--outdir=gs://bucket/out: expected a folder"),
        (["--which="], 2, "--which is required"),
        (["--which=top,helpful"], 2, "'helpful' is none of top, bottom, extreme"),
        (["--which=top,top"], 2, "--which=top,top: names a selection twice"),
        (["--fractions=2.5"], 2, "--fractions=2.5: '2.5', expected shares"),
        (["--num_seeds=0"], 2, "num_seeds"),
        (["--test_ids=300"], 2, "--test_ids: names 1 test examples, expected at least one, all from 0 to 299"),
        (["--experiment=none"], 1, "no experiment none"),
        (["--ranking=nowhere.npz"], 1, "--ranking=nowhere.npz: no such file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(source, arguments, status, message):
    result = smoke_test.start(_PROGRAM, *flags(source, *arguments, outdir="refused"))
    assert result.returncode == status, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (source / "refused").exists()


def test_a_ranking_of_other_labels_is_refused(source):
    result = smoke_test.start(_PROGRAM, *flags(source, ranking="other.npz", outdir="refused"))
    assert result.returncode == 1
    assert "is not that of the data set" in result.stderr
    assert not (source / "refused").exists()


@pytest.mark.slow
def test_an_experiment_that_cannot_be_retrained_is_refused(source, retrained, tmp_path):
    retrained_itself = smoke_test.start(
        _PROGRAM, f"--zoo={source / 'out'}", f"--ranking={source / 'ranking.npz'}", f"--outdir={tmp_path / 'out'}"
    )
    assert retrained_itself.returncode == 2
    assert "was retrained by a ranking itself" in retrained_itself.stderr
    (tmp_path / "zoo" / "bare" / "0.7" / "0").mkdir(parents=True)
    bare = smoke_test.start(
        _PROGRAM, f"--zoo={tmp_path / 'zoo'}", f"--ranking={source / 'ranking.npz'}", f"--outdir={tmp_path / 'out'}"
    )
    assert bare.returncode == 1
    assert "recipe.json: no such file, so nothing says how to train" in bare.stderr


@pytest.mark.slow
def test_trainings_that_fail_are_told_by_the_status(tmp_path):
    folder = make_source(tmp_path, learning_rate=1e30)
    np.savez(folder / "ranking.npz", train_index=np.arange(_NUM_TRAIN), influence=np.arange(_NUM_TRAIN))
    result = smoke_test.start(_PROGRAM, *flags(folder, "--num_seeds=1"))
    assert result.returncode == 1
    assert "no training has been completed, so there are no results" in result.stdout
    assert not (folder / "out" / "results.json").exists()
