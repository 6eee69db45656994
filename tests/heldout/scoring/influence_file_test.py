"""The influence matrix on disk: the same numbers, bounded memory, and never half a file."""

import os
import shutil
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from heldout.scoring import influence_file, influence_matrix
from tests.heldout.scoring import influence_matrix_test as cases
from zoo import errors, npz

MEMBERS = (influence_file.VALUES, influence_file.STANDARD_ERROR, "num_in", "num_heldout")


@pytest.mark.parametrize("spare_bytes", [0, 9000, 1 << 30])
def test_equals_the_dense_matrix(tmp_path, spare_bytes):
    table = cases.make_table(*cases.random_arrays())
    dense = influence_matrix.subset_influence(table, 0.5)
    path, calls = tmp_path / "influence.npz", []
    influence_file.write(
        path,
        table,
        0.5,
        extra={"note": np.array("x")},
        memory_limit_bytes=cases.smallest_limit(table) + spare_bytes,
        progress=lambda done, total: calls.append((done, total)),
    )
    found = npz.read(path, [*MEMBERS, "note"], memory_map=MEMBERS)
    for name, expected in zip(
        MEMBERS, (dense.values, dense.standard_error, dense.num_in, dense.num_heldout), strict=True
    ):
        np.testing.assert_array_equal(found[name], expected)
    assert isinstance(found[influence_file.VALUES], np.memmap)
    assert calls == sorted(set(calls))
    assert calls[-1] == (74, 74)
    # The checksums of both members are sound, too.
    npz.read(path, MEMBERS)


@pytest.mark.parametrize("limit", [3 << 20, 6 << 20])
def test_memory_limit_holds(tmp_path, limit):
    table = cases.make_table(*cases.random_arrays(num_runs=64, num_train=1500, num_test=1600))
    tracemalloc.start()
    try:
        influence_file.write(tmp_path / "influence.npz", table, 0.5, memory_limit_bytes=limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit
    assert (tmp_path / "influence.npz").stat().st_size > 5 * limit / 2


@pytest.mark.parametrize("rows_done", [8, 37, 45])
def test_a_kill_leaves_no_half_file(tmp_path, rows_done):
    program = f"""
import os, signal
import numpy as np
from heldout.scoring import influence_file
from tests.heldout.scoring import influence_matrix_test as cases
table = cases.make_table(*cases.random_arrays())
def kill(done, total):
    if done >= {rows_done}:
        os.kill(os.getpid(), signal.SIGKILL)
limit = cases.smallest_limit(table)
influence_file.write({str(tmp_path / "influence.npz")!r}, table, 0.5, memory_limit_bytes=limit, progress=kill)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "influence.npz").exists()


def test_an_error_leaves_nothing_at_all(tmp_path):
    def fail(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        influence_file.write(tmp_path / "x.npz", cases.make_table(*cases.random_arrays()), 0.5, progress=fail)
    assert not list(tmp_path.iterdir())


def test_truncation_by_another_program_is_reported(tmp_path):
    table = cases.make_table(*cases.random_arrays(num_train=400, num_test=600))

    def truncate(done, total):
        if done == 400:
            os.truncate(next(tmp_path.glob(".x.npz*")), 10)

    with pytest.raises(errors.DamagedFileError, match="truncated by another program"):
        influence_file.write(tmp_path / "x.npz", table, 0.5, progress=truncate)
    assert not list(tmp_path.iterdir())


def test_unknown_ratio_writes_nothing(tmp_path):
    with pytest.raises(errors.InvalidValueError, match=r"0\.9"):
        influence_file.write(tmp_path / "x.npz", cases.make_table(*cases.random_arrays()), 0.9)
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_refused(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    rows = free // 8 // 1000
    folder = tmp_path / "not" / "there" / "yet"
    influence_file.check_disk(folder, 1, rows // 2, 1000)
    with pytest.raises(errors.DiskSpaceError, match=rf"{folder}: .*need .*B, .*B are free; make room") as caught:
        influence_file.check_disk(folder, 4, rows, 1000)
    assert isinstance(caught.value, errors.HeldoutError)
    assert isinstance(caught.value, OSError)
    assert not folder.parent.exists()
