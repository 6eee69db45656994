"""Updating the table of an experiment: what is read, kept, reported and refused, on run folders made by hand."""

import errno
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.zoo import runs
from zoo import aux_arrays, errors, layout, run_scan, run_table, run_table_update


def test_update_reads_all_runs(zoo):
    calls = []
    table, problems = run_table_update.update(zoo, "e", progress=lambda done, total: calls.append((done, total)))
    runs.assert_holds(table)
    assert problems == []
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    runs.assert_equal(run_table.read(layout.run_table_path(zoo, "e")), table)
    assert table.digest() == runs.example_table().digest()


def overwrite_in_place(path, data):
    """Other bytes of the same length under the same time of modification."""
    status = path.stat()
    path.write_bytes(data.ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_unchanged_runs_are_not_read_again_and_nothing_is_written(zoo):
    first, _ = run_table_update.update(zoo, "e")
    path = layout.run_table_path(zoo, "e")
    before = path.stat()
    overwrite_in_place(layout.Run(zoo, "e", 0.3, 2).aux_arrays_path, b"garbage that would not be accepted")
    table, problems = run_table_update.update(zoo, "e")
    runs.assert_equal(table, first)
    assert problems == []
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_touched_runs_are_kept_by_digest(zoo, monkeypatch):
    run_table_update.update(zoo, "e")
    run = layout.Run(zoo, "e", 0.3, 2)
    os.utime(run.aux_arrays_path, ns=(5, 5))
    monkeypatch.delattr(aux_arrays, "read")
    table, problems = run_table_update.update(zoo, "e")
    runs.assert_holds(table)
    assert problems == []
    assert table.source_mtime_ns[1] == 5
    assert run_table.read(layout.run_table_path(zoo, "e")).source_mtime_ns[1] == 5


def fresh_table(zoo):
    """What an update without a stored table gives."""
    path = layout.run_table_path(zoo, "e")
    kept = path.read_bytes()
    path.unlink()
    table, problems = run_table_update.update(zoo, "e")
    path.write_bytes(kept)
    return table, problems


def test_update_follows_the_folders(zoo):
    run_table_update.update(zoo, "e")
    _, new = runs.add_run(zoo, 0.5, 4)
    _, changed = runs.add_run(zoo, 0.7, 10, seed=99)
    partial = layout.Run(zoo, "e", 0.3, 7)
    partial.checkpoints_directory.mkdir(parents=True)
    damaged = layout.Run(zoo, "e", 0.7, 1)
    damaged.aux_arrays_path.write_bytes(damaged.aux_arrays_path.read_bytes()[:-20])

    table, problems = run_table_update.update(zoo, "e")
    assert runs.runs_of(table) == [(0.3, 0), (0.3, 2), (0.5, 4), (0.7, 10)]
    for row, arrays in ((2, new), (3, changed)):
        for method, array in zip(("subset_mask", "train_correctness", "test_correctness"), arrays, strict=True):
            np.testing.assert_array_equal(getattr(table, method)()[row], array)
    assert [(problem.run, problem.state) for problem in problems] == [(partial, "partial"), (damaged, "damaged")]
    assert "aux_arrays.npz: not there" in problems[0].reason
    assert "not a sound npz file" in problems[1].reason
    assert str(damaged.aux_arrays_path) in problems[1].reason
    runs.assert_equal(run_table.read(layout.run_table_path(zoo, "e")), table)
    fresh, fresh_problems = fresh_table(zoo)
    runs.assert_equal(table, fresh)
    assert problems == fresh_problems

    runs.add_run(zoo, 0.7, 1)
    table, problems = run_table_update.update(zoo, "e")
    assert runs.runs_of(table) == [(0.3, 0), (0.3, 2), (0.5, 4), (0.7, 1), (0.7, 10)]
    assert [problem.run for problem in problems] == [partial]


def test_rows_stay_when_their_folders_or_records_go(zoo):
    first, _ = run_table_update.update(zoo, "e")
    shutil.rmtree(layout.Run(zoo, "e", 0.3, 0).directory)
    layout.Run(zoo, "e", 0.7, 1).aux_arrays_path.unlink()
    table, problems = run_table_update.update(zoo, "e")
    runs.assert_equal(table, first)
    assert problems == []
    runs.assert_equal(run_table.read(layout.run_table_path(zoo, "e")), first)

    shutil.rmtree(zoo / "e" / "0.3")
    (zoo / "e" / "0.3").write_text("a file, where a folder was")
    _, new = runs.add_run(zoo, 0.5, 4)
    table, _ = run_table_update.update(zoo, "e")
    assert runs.runs_of(table) == [(0.3, 0), (0.3, 2), (0.5, 4), (0.7, 1), (0.7, 10)]
    np.testing.assert_array_equal(table.subset_mask()[2], new[0])


def test_rows_are_forgotten_by_deleting_the_table(zoo):
    run_table_update.update(zoo, "e")
    shutil.rmtree(layout.Run(zoo, "e", 0.3, 0).directory)
    layout.Run(zoo, "e", 0.7, 1).aux_arrays_path.unlink()
    layout.run_table_path(zoo, "e").unlink()
    table, problems = run_table_update.update(zoo, "e")
    runs.assert_holds(table, [runs.RUNS[1], runs.RUNS[3]])
    assert [problem.state for problem in problems] == ["partial"]


def test_a_folder_that_was_renamed_is_a_copy_of_the_row_that_stays(zoo):
    first, _ = run_table_update.update(zoo, "e")
    renamed = layout.Run(zoo, "e", 0.7, 0)
    layout.Run(zoo, "e", 0.7, 1).directory.rename(renamed.directory)
    table, problems = run_table_update.update(zoo, "e")
    runs.assert_equal(table, first)
    assert [(problem.run, problem.state) for problem in problems] == [(renamed, "damaged")]
    assert f"the same record as {zoo}/e/0.7/1" in problems[0].reason


@pytest.mark.parametrize("sizes", [{"num_train": runs.N + 1}, {"num_test": runs.M + 1}])
def test_runs_of_another_size_are_damaged(zoo, sizes):
    runs.add_run(zoo, 0.5, 4, **sizes)
    table, problems = run_table_update.update(zoo, "e")
    runs.assert_holds(table)
    assert [problem.state for problem in problems] == ["damaged"]
    assert "training and" in problems[0].reason
    assert f"most runs, such as {zoo}/e/0.3/0, have {runs.N} and {runs.M}" in problems[0].reason
    again, _ = run_table_update.update(zoo, "e")
    runs.assert_equal(again, table)


def test_the_majority_decides_on_sizes_and_then_the_table(zoo):
    runs.add_run(zoo, 0.1, 0, num_train=runs.N + 1)
    table, problems = run_table_update.update(zoo, "e")
    runs.assert_holds(table)
    assert [problem.run.subset_ratio for problem in problems] == [0.1]
    for run_id in range(9):
        runs.add_run(zoo, 0.2, run_id, num_train=runs.N + 1)
    again, problems = run_table_update.update(zoo, "e")
    runs.assert_equal(again, table)
    assert len(problems) == 10
    assert f"22 training and 10 test examples, but the run table has {runs.N} and {runs.M}" in problems[0].reason


def test_runs_that_all_changed_size_are_a_mismatch(zoo):
    run_table_update.update(zoo, "e")
    for ratio, run_id in runs.RUNS:
        runs.add_run(zoo, ratio, run_id, num_train=runs.N + 1)
    with pytest.raises(errors.MismatchError, match="run table has 21 training and 10 test examples, the runs now 22"):
        run_table_update.update(zoo, "e")


def test_update_without_a_good_run(tmp_path):
    with pytest.raises(errors.MissingFileError, match="no finished run: 0 run folders"):
        run_table_update.update(tmp_path, "e")
    layout.Run(tmp_path, "e", 0.5, 0).directory.mkdir(parents=True)
    with pytest.raises(errors.MissingFileError, match=r"1 run folders, .*; the first: .*aux_arrays.npz: not there"):
        run_table_update.update(tmp_path, "e")
    assert not layout.run_table_path(tmp_path, "e").exists()


def test_update_once_no_run_is_good_any_more(zoo):
    table, _ = run_table_update.update(zoo, "e")
    for run in layout.runs(zoo, "e"):
        run.aux_arrays_path.write_bytes(b"PK")
    with pytest.raises(errors.MissingFileError, match="no finished run: 4 run folders"):
        run_table_update.update(zoo, "e")
    runs.assert_equal(run_table.read(layout.run_table_path(zoo, "e")), table)


def test_a_streamed_table_without_run_folders_is_kept(tmp_path):
    table = runs.example_table()
    run_table.write(layout.run_table_path(tmp_path, "e"), table)
    kept, problems = run_table_update.update(tmp_path, "e")
    runs.assert_equal(kept, table)
    assert problems == []
    labelled, _ = run_table_update.update(tmp_path, "e", train_label=np.arange(runs.N), test_label=np.arange(runs.M))
    runs.assert_equal(run_table.read(layout.run_table_path(tmp_path, "e")), labelled)
    assert labelled.test_label is not None


def test_a_streamed_table_with_a_few_fetched_runs(tmp_path):
    table = runs.example_table()
    run_table.write(layout.run_table_path(tmp_path, "e"), table)
    runs.add_run(tmp_path, 0.3, 2)
    layout.Run(tmp_path, "e", 0.7, 1).checkpoints_directory.mkdir(parents=True)
    unknown = layout.Run(tmp_path, "e", 0.7, 2)
    unknown.directory.mkdir()
    updated, problems = run_table_update.update(tmp_path, "e")
    runs.assert_holds(updated)
    assert updated.source_sha256.any(axis=1).tolist() == [False, True, False, False]
    assert [(problem.run, problem.state) for problem in problems] == [(unknown, "partial")]


class Killed(BaseException):
    """Ends an update as a kill does."""


def kill_after(number):
    def progress(done, total):
        if done == number:
            raise Killed

    return progress


def test_a_long_update_saves_what_it_has(zoo, monkeypatch):
    path = layout.run_table_path(zoo, "e")
    with pytest.raises(Killed):
        run_table_update.update(zoo, "e", progress=kill_after(2))
    assert not path.exists(), "short updates write at the end only"
    monkeypatch.setattr(run_scan, "SAVE_INTERVAL_S", 0)
    with pytest.raises(Killed):
        run_table_update.update(zoo, "e", progress=kill_after(2))
    runs.assert_holds(run_table.read(path), runs.RUNS[:2])
    overwrite_in_place(layout.Run(zoo, "e", 0.3, 2).aux_arrays_path, b"known already, so not read again")
    table, problems = run_table_update.update(zoo, "e")
    runs.assert_holds(table)
    assert problems == []


def test_what_is_saved_on_the_way_keeps_the_rows_to_come_and_no_copies_in_the_end(zoo, monkeypatch):
    monkeypatch.setattr(run_scan, "SAVE_INTERVAL_S", 0)
    path = layout.run_table_path(zoo, "e")
    table, _ = run_table_update.update(zoo, "e")
    shutil.copytree(layout.Run(zoo, "e", 0.3, 2).directory, layout.Run(zoo, "e", 0.3, 3).directory)
    with pytest.raises(Killed):
        run_table_update.update(zoo, "e", progress=kill_after(3))
    assert runs.runs_of(run_table.read(path)) == [(0.3, 0), (0.3, 2), (0.3, 3), (0.7, 1), (0.7, 10)]
    again, problems = run_table_update.update(zoo, "e")
    runs.assert_equal(again, table)
    runs.assert_equal(run_table.read(path), table)
    assert len(problems) == 1


NAMESPACE = ["unshare", "--mount", "--map-root-user"]


def test_a_zoo_that_cannot_be_written_is_read_all_the_same(zoo):
    mount = f"mount --bind {zoo} {zoo} && mount -o remount,ro,bind {zoo}"
    try:
        possible = subprocess.run([*NAMESPACE, "sh", "-c", mount], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("needs Linux with unprivileged mount namespaces (util-linux's unshare)")
    program = f"from zoo import run_table_update; print(run_table_update.update({str(zoo)!r}, 'e')[0].digest())"
    command = f"{mount} && {sys.executable} -c {shlex.quote(program)}"
    result = subprocess.run(
        [*NAMESPACE, "sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert result.stdout.strip() == runs.example_table().digest(), result.stderr
    assert not layout.run_table_path(zoo, "e").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_other_errors_in_writing_are_not_passed_over(zoo, monkeypatch, number):
    def fail(path, table):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_table, "write", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        run_table_update.update(zoo, "e")


def test_labels_are_stored_and_defended(zoo):
    run_table_update.update(zoo, "e", train_label=np.arange(runs.N), test_label=np.arange(runs.M))
    runs.add_run(zoo, 0.5, 4)
    table, _ = run_table_update.update(zoo, "e")
    assert table.train_label.tolist() == list(range(runs.N))
    assert table.test_label.tolist() == list(range(runs.M))
    with pytest.raises(errors.MismatchError, match=r"train_label: example 0 has label 20, .* says 0"):
        run_table_update.update(zoo, "e", train_label=np.arange(runs.N)[::-1])
    with pytest.raises(errors.MismatchError, match=r"test_label has dtype int64 and shape \(9,\)"):
        run_table_update.update(zoo, "e", test_label=np.arange(runs.M - 1))


def test_update_refuses_the_table_of_another_experiment(zoo):
    run_table_update.update(zoo, "e")
    (zoo / "e").rename(zoo / "f")
    with pytest.raises(errors.MismatchError, match="the table of experiment e, found in the folder of f"):
        run_table_update.update(zoo, "f")


def test_update_refuses_a_damaged_table(zoo):
    layout.run_table_path(zoo, "e").write_bytes(b"nothing of use")
    with pytest.raises(errors.DamagedFileError, match=r"run_table\.npz: not a sound npz file"):
        run_table_update.update(zoo, "e")
