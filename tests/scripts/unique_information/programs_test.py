"""ground_truth_effects and aggregate_ground_truth as a user starts them; kills, more groups, refusals."""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from heldout.training import leave_out_files

_ROOT = pathlib.Path(__file__).parents[3]
_FLAGS = (
    *("--dataset=digits", "--classes=3,8", "--num_train=60", "--num_val=20", '--arch_options={"hidden_sizes": [8]}'),
    *("--learning_rate=0.1", "--num_steps=30", "--runs_per_group=2", "--workers=1"),
)


def command(program, *arguments):
    return [sys.executable, "-m", f"scripts.{program}", *arguments]


def start(program, *arguments):
    return subprocess.run(command(program, *arguments), capture_output=True, text=True, cwd=_ROOT, check=False)


def truth(outdir, *arguments):
    return start("ground_truth_effects", *_FLAGS, f"--outdir={outdir}", *arguments)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    outdir = tmp_path_factory.mktemp("truth") / "a"
    result = truth(outdir, "--which=0:5")
    assert result.returncode == 0, result.stderr
    return outdir, result.stdout


def test_it_says_what_it_did_and_does_nothing_again(undisturbed):
    outdir, said = undisturbed
    assert "5 groups left out: root mean square change of predictions" in said
    assert "full network: loss" in said
    content = (outdir / leave_out_files.GROUND_TRUTH_NAME).read_bytes()
    again = truth(outdir, "--which=0:5")
    assert again.returncode == 0, again.stderr
    assert "(was there, nothing to do)" in again.stdout
    assert (outdir / leave_out_files.GROUND_TRUTH_NAME).read_bytes() == content


@pytest.mark.slow
def test_a_run_without_some_of_its_blocks_goes_on_to_the_same_bytes_and_more_can_be_added(undisturbed, tmp_path):
    outdir = tmp_path / "b"
    shutil.copytree(undisturbed[0], outdir)
    content = (outdir / leave_out_files.GROUND_TRUTH_NAME).read_bytes()
    effects = leave_out_files.read_ground_truth(outdir)
    leave_out_files.block_path(outdir, effects.groups[2:4]).unlink()
    (outdir / leave_out_files.GROUND_TRUTH_NAME).unlink()
    result = truth(outdir, "--which=0:5")
    assert result.returncode == 0, result.stderr
    assert (outdir / leave_out_files.GROUND_TRUTH_NAME).read_bytes() == content
    more = truth(outdir, "--which=4:6", "--workers=2")
    assert "6 groups left out (4 of earlier calls)" in more.stdout
    both = leave_out_files.read_ground_truth(outdir)
    np.testing.assert_array_equal(both.prediction_change[:5], effects.prediction_change)


def test_another_experiment_and_wrong_flags_are_refused(undisturbed):
    outdir, _ = undisturbed
    for arguments, status, message in (
        (("--seed=1",), 1, "seed: stored 0, asked for 1"),
        (("--runs_per_group=0",), 2, "--runs_per_group=0: expected at least 1, or auto"),
        (("--column=a",), 2, "--column=a: names a column of --scores, which are not given"),
        (("--init_checkpoint=/none",), 1, "--init_checkpoint=/none: /none.data-00000-of-00001 is not there"),
        (("--record_steps=every:x",), 2, "--record_steps=every:x: expected whole numbers"),
        (("--outdir=gs://bucket/a",), 2, "expected a folder"),
    ):
        result = truth(outdir, *arguments)
        assert result.returncode == status, result.stderr
        assert result.stderr.startswith("error: ")
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def test_the_aggregate_of_hand_made_scores(undisturbed, tmp_path):
    outdir, _ = undisturbed
    effects = leave_out_files.read_ground_truth(outdir)
    np.savez(tmp_path / "s.npz", train_index=effects.train_index, weights=2 * effects.squared_weight_change)
    arguments = (f"--ground_truth={outdir}", f"--scores={tmp_path / 's.npz'}", f"--outdir={tmp_path / 'agreement'}")
    result = start("aggregate_ground_truth", *arguments)
    assert result.returncode == 0, result.stderr
    assert "s.npz: weights  Pearson 1.000" in result.stdout
    assert len(list((tmp_path / "agreement").glob("scatter_s_weights_*.png"))) == 2
    for wrong, message in (("--top=x", "--top=x: expected shares"), ("--device=gpu", "computes on the CPU")):
        refused = start("aggregate_ground_truth", *arguments, wrong)
        assert refused.returncode == 2
        assert message in refused.stderr


@pytest.mark.parametrize("program", ["ground_truth_effects", "aggregate_ground_truth"])
def test_programs_answer_before_tensorflow_is_imported(program):
    code = f"import sys; import scripts.{program}; sys.exit('tensorflow' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=_ROOT, check=False).returncode == 0


@pytest.mark.slow
def test_a_training_that_diverges_ends_in_a_line(tmp_path):
    result = truth(tmp_path, "--which=0:5", "--learning_rate=1e9", "--progress=false")
    assert result.returncode == 1
    assert result.stderr.startswith("error: --learning_rate=1000000000.0: the training diverged within 30 steps")
    assert not (tmp_path / leave_out_files.FULL_RUN_NAME).exists()


@pytest.mark.slow
def test_two_workers_give_what_one_gives(undisturbed, tmp_path):
    result = truth(tmp_path, "--which=0:5", "--workers=2")
    assert result.returncode == 0, result.stderr
    one, two = (leave_out_files.read_ground_truth(outdir) for outdir in (undisturbed[0], tmp_path))
    assert one.groups == two.groups
    np.testing.assert_allclose(two.prediction_change, one.prediction_change, atol=1e-6)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    arguments = ("--which=0:8", "--num_steps=3000", "--progress=false")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        command("ground_truth_effects", *_FLAGS, f"--outdir={killed}", *arguments), cwd=_ROOT, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 300
    while not list((killed / leave_out_files.BLOCKS_NAME).glob("*.npz")) and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(process.pid, 9)
    process.wait()
    assert 0 < len(list((killed / leave_out_files.BLOCKS_NAME).glob("*.npz"))) < 4
    for outdir in (killed, whole):
        result = truth(outdir, *arguments)
        assert result.returncode == 0, result.stderr
    contents = [(outdir / leave_out_files.GROUND_TRUTH_NAME).read_bytes() for outdir in (killed, whole)]
    assert contents[0] == contents[1]
