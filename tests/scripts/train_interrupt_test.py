"""A training that is told to end, by Ctrl-C or by a scheduler, at random moments: it ends soon and in order."""

import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from heldout.experiments import training_files
from tests import cases
from tests.scripts import smoke_test
from zoo import files, layout, run_table

_ROOT = pathlib.Path(__file__).parents[2]
# More than are trained before the signal comes, however quick the machine.
_NUM_RUNS = 24
# Two groups at a time, each of some tenths of a second or more.
_TRAINING = ("--experiment=e", '--arch_options={"hidden_sizes": [8]}', "--num_epochs=200", "--batch_size=10")
_GROUPS = ("--workers=2", "--runs_per_group=2")


def start(zoo, dataset, *arguments, num_runs=_NUM_RUNS):
    command = [sys.executable, "-m", "scripts.train_runs", f"--zoo={zoo}", f"--dataset={dataset}"]
    return subprocess.Popen(
        [*command, *_TRAINING, *_GROUPS, f"--run_ids=0:{num_runs}", *arguments],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def records(zoo):
    return {run.run_id for run in layout.runs(zoo, "e") if run.aux_arrays_path.exists()}


def wait_for_records(process, zoo, count):
    while len(records(zoo)) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def end_by(process, number):
    """Sends a signal, as a terminal does to all processes of a group; returns status, error stream and seconds."""
    begin = time.monotonic()
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said, time.monotonic() - begin


def assert_in_order(zoo):
    """The table holds what is complete, and nothing is half written."""
    there = records(zoo)
    path = layout.run_table_path(zoo, "e")
    assert set(run_table.read(path).run_id.tolist() if path.exists() else []) == there
    assert not [path for path in zoo.rglob("*") if files.is_temporary(path.name)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return cases.tiny_digits_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, dataset):
    zoo = tmp_path_factory.mktemp("zoo")
    process = start(zoo, dataset)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return zoo


def test_ended_at_a_random_moment_the_same_command_continues_to_the_same_zoo(tmp_path, dataset, undisturbed):
    moments = random.Random(5)
    process = start(tmp_path, dataset)
    wait_for_records(process, tmp_path, moments.randrange(1, 3))
    time.sleep(moments.uniform(0, 0.5))
    found, said, seconds = end_by(process, signal.SIGTERM)
    assert found == 143, said
    assert seconds < 5
    assert "\nterminated: the same command continues" in said
    assert "Traceback" not in said
    assert_in_order(tmp_path)
    assert len(records(tmp_path)) < _NUM_RUNS
    process = start(tmp_path, dataset)
    out, said = process.communicate()
    assert process.returncode == 0, said
    assert re.search(r"\d+ runs trained, [1-9]\d* skipped", out)
    for run in layout.runs(undisturbed, "e"):
        ours = layout.Run(tmp_path, "e", run.subset_ratio, run.run_id)
        assert ours.aux_arrays_path.read_bytes() == run.aux_arrays_path.read_bytes()
    tables = [run_table.read(layout.run_table_path(zoo, "e")) for zoo in (tmp_path, undisturbed)]
    assert tables[0].digest() == tables[1].digest()
    # Nor is there a word left of a training in progress.
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["0.7", "recipe.json", "run_table.npz"]


@pytest.mark.slow
def test_within_the_grace_what_is_begun_is_finished(tmp_path, dataset):
    process = start(tmp_path, dataset, "--grace_s=60")
    wait_for_records(process, tmp_path, 2)
    found, said, seconds = end_by(process, signal.SIGINT)
    assert found == 130, said
    assert "SIGINT: what is being trained has 60 s to be finished" in said
    assert seconds < 40
    assert_in_order(tmp_path)
    # Whole groups, and no run that was begun and given up.
    assert len(records(tmp_path)) % 2 == 0
    assert 4 <= len(records(tmp_path)) < _NUM_RUNS
    assert all(run.aux_arrays_path.exists() for run in layout.runs(tmp_path, "e"))


@pytest.mark.slow
def test_after_the_grace_what_is_begun_is_given_up(tmp_path, dataset):
    process = start(tmp_path, dataset, "--grace_s=1", "--num_epochs=100000")
    while not any(training.groups for training, _ in training_files.read(tmp_path, "e")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(random.Random(2).uniform(0, 2))
    found, said, seconds = end_by(process, signal.SIGTERM)
    assert found == 143, said
    assert 0.9 < seconds < 6
    assert not records(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_ended_at_any_moment_of_its_life(tmp_path, dataset, seed):
    moments = random.Random(seed)
    process = start(tmp_path, dataset, *(["--grace_s=2"] if seed % 3 == 0 else []))
    time.sleep(moments.uniform(2, 14))
    if process.poll() is None:
        found, said, seconds = end_by(process, moments.choice([signal.SIGTERM, signal.SIGINT]))
        assert found in (130, 143, 0), said
        assert seconds < 8
        assert "Traceback" not in said
        assert_in_order(tmp_path)
    result = smoke_test.start(
        "train_runs", f"--zoo={tmp_path}", f"--dataset={dataset}", *_TRAINING, f"--run_ids=0:{_NUM_RUNS}"
    )
    assert result.returncode == 0, result.stderr
    assert records(tmp_path) == set(range(_NUM_RUNS))
