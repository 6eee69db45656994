"""Training and scoring onto a disk that is too small, for real: a small file system in a mount namespace of its own."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests import cases
from tests.heldout.report import simulated
from zoo import layout, run_table

_ROOT = pathlib.Path(__file__).parents[2]
_NAMESPACE = ["unshare", "--mount", "--map-root-user"]


def _can_mount(folder):
    command = [*_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def start_on_small_disk(folder, size, hidden_size, num_runs):
    """Trains, lists, and prints what temporary files are left, all inside the namespace."""
    dataset = cases.tiny_digits_npz(folder / "tiny.npz")
    disk = folder / "disk"
    disk.mkdir()
    if not _can_mount(disk):
        pytest.skip("needs Linux with unprivileged mount namespaces (util-linux's unshare)")
    train = [
        *(sys.executable, "-m", "scripts.train_runs", f"--zoo={disk}/zoo", f"--dataset={dataset}"),
        *("--experiment=tiny", f"'--arch_options={{\"hidden_sizes\": [{hidden_size}]}}'"),
        *(f"--run_ids=0:{num_runs}", "--num_epochs=1", "--batch_size=10"),
    ]
    script = (
        f"mount -t tmpfs -o size={size} tmpfs {disk}\n"
        f"{' '.join(train)}\necho status $?\n"
        f"{sys.executable} -m scripts.list_zoo --zoo={disk}/zoo\n"
        f"find {disk} -name '.*tmp-*'\n"
    )
    return _run(script)


def _run(script):
    """What a shell script prints in a namespace of its own, on stdout and stderr."""
    result = subprocess.run(
        [*_NAMESPACE, "sh", "-c", script], capture_output=True, text=True, cwd=_ROOT, check=False, env=os.environ
    )
    return result.stdout, result.stderr


def test_a_disk_that_fills_up_ends_the_training_and_keeps_what_is_finished(tmp_path):
    out, err = start_on_small_disk(tmp_path, "200k", hidden_size=8, num_runs=40)
    assert "status 1" in out
    assert "No space left on device: make room or choose another folder" in err
    assert "Traceback" not in err
    complete = int(re.search(r"0\.7\s+(\d+)", out)[1])
    assert 0 < complete < 40
    assert re.search(r"0\.7\s+\d+\s+\d+\s+\d+\s+0\n", out), "nothing may be damaged"
    assert "tmp-" not in out.split("status 1")[1], "no temporary files may be left"


def test_a_disk_that_is_too_small_is_refused_beforehand(tmp_path):
    out, err = start_on_small_disk(tmp_path, "200k", hidden_size=1000, num_runs=4)
    assert "status 1" in out
    assert "the runs to train need" in err
    assert "ask for fewer --run_ids" in err
    assert "Traceback" not in err


def test_influence_matrices_that_do_not_fit_are_refused_beforehand(tmp_path):
    table = simulated.table()
    run_table.write(layout.run_table_path(tmp_path / "zoo", "simulated"), table)
    disk = tmp_path / "disk"
    disk.mkdir()
    if not _can_mount(disk):
        pytest.skip("needs Linux with unprivileged mount namespaces (util-linux's unshare)")
    score = f"{sys.executable} -m scripts.compute_scores --zoo={tmp_path}/zoo --num_draws=5"
    out, err = _run(
        f"mount -t tmpfs -o size=8k tmpfs {disk}\n"
        f"{score} --output={disk}/scores\necho status $?\nls {disk}\n"
        f"mount -o remount,size=2m {disk}\n{score} --output={disk}/scores\necho status $?\n"
    )
    first, rest = out.split("status 1\n")
    assert f"{disk}/scores: the influence matrices of 2 subset ratios, 60 by 24" in err
    assert "need 11.5 kB, 8.2 kB are free; make room or choose another folder" in err
    assert "Traceback" not in err
    assert (first, rest.count("status 0")) == ("", 1), "nothing may be written where it does not fit"
