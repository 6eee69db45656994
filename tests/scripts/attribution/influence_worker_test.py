"""Workers on a cluster give the scores of one process, also where one is killed."""

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from estimators import artifacts
from tests import cases
from zoo import layout

_ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("influence")
    dataset = cases.tiny_digits_npz(folder / "tiny.npz", num_train=80, num_test=300)
    command = [sys.executable, "-m", "scripts.train_runs", f"--zoo={folder / 'zoo'}", f"--dataset={dataset}"]
    command += ["--experiment=e", "--run_ids=0", "--subset_ratio=0.5", "--num_epochs=4", "--arch=mlp"]
    subprocess.run([*command, '--arch_options={"hidden_sizes": [16]}'], check=True, cwd=_ROOT, capture_output=True)
    return layout.Run(folder / "zoo", "e", 0.5, 0), dataset


def command(run, outdir, *arguments):
    program = [sys.executable, "-m", "scripts.compute_influence_functions", f"--run={run[0].directory}"]
    return [*program, f"--dataset={run[1]}", f"--outdir={outdir}", *arguments]


def scores(folder):
    return artifacts.load_scores(folder / "scores", verify=True).values


def blocks(folder):
    return list(folder.glob(".blocks-*/*.npz"))


@pytest.mark.slow
def test_workers_of_a_cluster_give_the_same_scores(run, tmp_path):
    pytest.importorskip("ray", reason="pip install 'heldout[ray]'")
    for name, arguments in (("here", []), ("there", ["--runner=ray", "--workers=2"])):
        subprocess.run(command(run, tmp_path / name, *arguments), check=True, cwd=_ROOT, capture_output=True)
    here = scores(tmp_path / "here")
    # Workers have fewer threads each, so that sums are rounded otherwise.
    np.testing.assert_allclose(scores(tmp_path / "there"), here, atol=1e-6 * np.abs(here).max())


@pytest.mark.slow
def test_a_killed_computation_goes_on_and_gives_the_same_bytes(run, tmp_path):
    subprocess.run(command(run, tmp_path / "whole"), check=True, cwd=_ROOT, capture_output=True)
    kept = [0]
    for _ in range(3):
        process = subprocess.Popen(command(run, tmp_path / "killed"), cwd=_ROOT, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(blocks(tmp_path / "killed")) <= kept[-1]:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kept.append(len(blocks(tmp_path / "killed")))
    assert kept == sorted(set(kept))
    subprocess.run(command(run, tmp_path / "killed"), check=True, cwd=_ROOT, capture_output=True)
    assert (tmp_path / "killed" / "scores" / "values.npy").read_bytes() == (
        tmp_path / "whole" / "scores" / "values.npy"
    ).read_bytes()
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }
