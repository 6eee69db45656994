"""The demonstration, killed at random moments until it is done, equals an undisturbed one."""

import os
import pathlib
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_EXPERIMENT = "digits-mlp"


def start(folder, num_runs):
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.demo", f"--output={folder}", f"--num_runs={num_runs}"],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(("num_runs", "most_kills", "longest_wait"), [(8, 3, 5), (40, 15, 12)])
@pytest.mark.slow
def test_killed_anywhere_the_demonstration_ends_as_if_undisturbed(tmp_path, num_runs, most_kills, longest_wait):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert start(undisturbed, num_runs).wait() == 0
    moments = random.Random(0)
    num_kills, finished = 0, False
    while not finished:
        process = start(disturbed, num_runs)
        try:
            wait = moments.uniform(1, longest_wait) if num_kills < most_kills else None
            _, errors = process.communicate(timeout=wait)
            assert process.returncode == 0, errors
            finished = True
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            num_kills += 1
    assert num_kills >= 2
    _assert_equal_zoos(undisturbed / _EXPERIMENT, disturbed / _EXPERIMENT)


def _assert_equal_zoos(one, other):
    names = [sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) for folder in (one, other)]
    # Of the files that a kill may leave behind, hidden temporary ones are all there can be.
    assert names[0] == [name for name in names[1] if ".tmp-" not in name]
    for name in names[0]:
        if name.endswith(("aux_arrays.npz", ".data-00000-of-00001", "report.html")) or "published" in name:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
        elif name.startswith("scores/") and name.endswith(".npz"):
            with np.load(one / name) as a, np.load(other / name) as b:
                for member in a.files:
                    np.testing.assert_array_equal(a[member], b[member], err_msg=f"{name} {member}")
