"""What is on the disk while a matrix is made: kills at every point, lost and damaged files, systems without pwrite."""

import os
import pathlib
import shutil
import time

import numpy as np
import pytest

from heldout.scoring import influence_matrix, influence_parts, influence_summary, joint_counts
from tests.heldout.scoring import influence_matrix_test as cases
from tests.heldout.scoring import influence_pass_test as passes

run, contents = passes.run, passes.contents


@pytest.fixture(scope="module")
def table():
    return cases.make_table(*cases.random_arrays(num_train=150, num_test=70))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(influence_parts, "_TILE_ROWS", 48)


class Killed(BaseException):
    """Stands for a kill at a point that no signal would meet."""


def killed_in(directory, table, monkeypatch, when):
    """A run that ends while the parts, which are all there, are put together."""
    replace, write, rmtree = os.replace, influence_summary.write, shutil.rmtree

    def at_name(source, target):
        if pathlib.Path(target).name == "matrix.npy":
            raise Killed
        replace(source, target)

    def at_summary(path, *arguments):
        if path.name == "summary.npz":
            raise Killed
        write(path, *arguments)

    def in_deletion(path, **options):
        if (path / "tile-000000048.npz").exists():
            (path / "tile-000000048.npz").unlink()
            raise Killed
        rmtree(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", at_name if when == "name" else replace)
        patched.setattr(influence_summary, "write", at_summary if when == "summary" else write)
        patched.setattr(shutil, "rmtree", in_deletion if when == "deletion" else rmtree)
        with pytest.raises(Killed):
            run(directory, table)
    there = {path.name for path in directory.iterdir()}
    assert ("matrix.npy" in there) == (when != "name")
    assert ("summary.npz" in there) == (when == "deletion")
    assert (directory / ".matrix.parts" / "tile-000000096.npz").exists()


@pytest.mark.parametrize("when", ["name", "summary", "deletion"])
def test_killed_while_it_is_put_together(tmp_path, table, monkeypatch, when):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    run(tmp_path / "whole", table)
    killed_in(tmp_path / "killed", table, monkeypatch, when)
    (tmp_path / "killed" / "summary.npz").unlink(missing_ok=True)  # as who finds it damaged does
    monkeypatch.setattr(passes.Watched, "starts", [])
    monkeypatch.setattr(joint_counts, "WordCounter", passes.Watched)
    run(tmp_path / "killed", table)
    assert bool(passes.Watched.starts) == (when == "deletion")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_an_older_summary_never_stands_beside_a_newer_matrix(tmp_path, table, monkeypatch):
    other = cases.make_table(*cases.random_arrays(seed=9, num_train=150, num_test=70))
    run(tmp_path, other, identity="before")
    killed_in(tmp_path, table, monkeypatch, "summary")  # which sees that no summary is there
    expected = influence_matrix.subset_influence(table, 0.5).values
    np.testing.assert_array_equal(np.load(tmp_path / "matrix.npy"), expected)


def stopped(directory, table, **options):
    """A run that is interrupted when all tiles are there, before they are put together."""

    def stop(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(directory, table, progress=stop, **options)


@pytest.mark.parametrize("size", [None, 200])
def test_parts_whose_rows_are_lost_are_computed_again(tmp_path, table, size):
    (tmp_path / "whole").mkdir()
    (tmp_path / "lost").mkdir()
    run(tmp_path / "whole", table)
    stopped(tmp_path / "lost", table)
    rows = tmp_path / "lost" / ".matrix.npy.part"
    rows.unlink() if size is None else os.truncate(rows, size)
    run(tmp_path / "lost", table)
    assert contents(tmp_path / "lost") == contents(tmp_path / "whole")


def test_a_named_matrix_that_is_lost_is_computed_again(tmp_path, table, monkeypatch):
    (tmp_path / "whole").mkdir()
    (tmp_path / "lost").mkdir()
    run(tmp_path / "whole", table)
    killed_in(tmp_path / "lost", table, monkeypatch, "summary")
    (tmp_path / "lost" / "matrix.npy").unlink()
    run(tmp_path / "lost", table)
    assert contents(tmp_path / "lost") == contents(tmp_path / "whole")


def test_rows_are_written_where_the_system_has_no_pwrite(tmp_path, table, monkeypatch):
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    run(tmp_path / "with", table)
    seek = os.lseek

    def seek_and_wait(*arguments):  # for another thread to come between
        seek(*arguments)
        time.sleep(0.002)

    monkeypatch.delattr(os, "pwrite")
    monkeypatch.setattr(os, "lseek", seek_and_wait)
    run(tmp_path / "without", table, num_threads=5, rows_per_strip=8)
    assert contents(tmp_path / "without") == contents(tmp_path / "with")


def test_rows_are_on_the_disk_before_their_part_says_so(tmp_path, table, monkeypatch):
    events, sync, write = [], os.fsync, influence_summary.write

    def note_sync(file):
        events.append(pathlib.Path(os.readlink(f"/proc/self/fd/{file}")).name)
        sync(file)

    def note_write(path, *arguments):
        events.append(path.name)
        write(path, *arguments)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(influence_summary, "write", note_write)
    run(tmp_path, table)
    parts = [number for number, name in enumerate(events) if name.startswith("tile-")]
    assert len(parts) == 4
    assert all(events[number - 1] == ".matrix.npy.part" for number in parts)


@pytest.mark.parametrize("name", ["pwrite", "write"])
def test_rows_are_whole_where_the_system_takes_only_a_part_at_a_time(tmp_path, table, monkeypatch, name):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    run(tmp_path / "whole", table)
    at_once = getattr(os, name)
    if name == "write":
        monkeypatch.delattr(os, "pwrite")
    monkeypatch.setattr(os, name, lambda file, data, *offset: at_once(file, data[:1000], *offset))
    run(tmp_path / "parts", table)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_parts_of_another_computation_are_not_used(tmp_path, table):
    (tmp_path / "whole").mkdir()
    (tmp_path / "other").mkdir()
    run(tmp_path / "whole", table)

    def stop(done, total):
        raise KeyboardInterrupt

    other = cases.make_table(*cases.random_arrays(seed=9, num_train=150, num_test=70))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "other", other, identity="two", progress=stop)
    run(tmp_path / "other", table)
    assert contents(tmp_path / "other") == contents(tmp_path / "whole")


def test_a_damaged_part_is_computed_again(tmp_path, table):
    (tmp_path / "whole").mkdir()
    (tmp_path / "damaged").mkdir()
    run(tmp_path / "whole", table)

    stopped(tmp_path / "damaged", table)
    part = tmp_path / "damaged" / ".matrix.parts" / "tile-000000048.npz"
    os.truncate(part, part.stat().st_size // 2)
    run(tmp_path / "damaged", table)
    assert contents(tmp_path / "damaged") == contents(tmp_path / "whole")
