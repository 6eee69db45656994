"""A journal keeps what was committed, all of it and nothing else, and becomes an index."""

import dataclasses
import pathlib
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from tests.zoo.archive import archives
from zoo import errors, layout, run_scan
from zoo.archive import index, journal, names, seek_points

FACTS = index.Facts("a.tar.gz", 10_000, None, 1, 20_000, "e", "e", ("gnu",), 1, "sound", (), "nothing")


def member(member_id, name, state="sound", size=3):
    parsed = None if state == "refused" else names.classify(name)
    return index.Member(member_id, name, size, 77, 1024 * member_id, 0, 500 + member_id, state, "", parsed)


def row(ratio=0.5, run_id=1, **changes):
    record = archives.record(round(100 * ratio) + run_id, ratio)
    made = run_scan.row_from_record(layout.Run(pathlib.Path(), "e", ratio, run_id), record)
    return dataclasses.replace(made, **changes)


def stored_names(log):
    return log.names_of_run(0.5, 1)


def test_only_what_was_committed_is_there_again(tmp_path):
    path = tmp_path / "new" / "journal"
    with journal.Journal(path) as log:
        assert (log.progress(), log.blobs()) == ({}, {})
        log.add_member(member(0, "e/0.5/1/aux_arrays.npz"))
        log.commit({"place": [1, None]}, {"a": b"\0content", "b": b""})
        log.add_member(member(1, "e/0.5/1/checkpoints/ckpt-2.index"))
        log.add_point(0, seek_points.Point(0, 18, 0, b""))
        assert len(stored_names(log)) == 2
    with journal.Journal(path) as log:
        assert log.progress() == {"place": [1, None]}
        assert log.blobs() == {"a": b"\0content", "b": b""}
        assert stored_names(log) == ["e/0.5/1/aux_arrays.npz"]
        log.commit({"place": 2}, {"c": b"c"})
        assert (log.progress(), log.blobs()) == ({"place": 2}, {"c": b"c"})
        assert stored_names(log) == ["e/0.5/1/aux_arrays.npz"]
    assert [entry.name for entry in path.parent.iterdir()] == ["journal"]


KILLED = """
import os, signal
from zoo.archive import journal
log = journal.Journal({path!r})
log.commit({{"n": 1}}, {{}})
for number in range({count}):
    log._execute("INSERT INTO blob VALUES (?, ?)", (str(number), bytes(4000)))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("count", [0, 3000])  # the second is more than SQLite keeps in memory
def test_a_kill_between_two_commits(tmp_path, count):
    path = tmp_path / "journal"
    program = KILLED.format(path=str(path), count=count)
    process = subprocess.run([sys.executable, "-c", program], check=False, cwd=pathlib.Path(__file__).parents[3])
    assert process.returncode == -9
    with journal.Journal(path) as log:
        assert (log.progress(), log.blobs()) == ({"n": 1}, {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["journal"]


def test_what_is_no_journal_is_refused(tmp_path):
    (tmp_path / "text").write_text("no database" * 1000)
    with pytest.raises(errors.DamagedFileError, match=r"text: cannot be continued.*delete the file"):
        journal.Journal(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("CREATE TABLE t (a)")
    database.close()
    with pytest.raises(errors.DamagedFileError, match="schema version 0, expected 1; delete the file"):
        journal.Journal(tmp_path / "other")
    (tmp_path / "folder").mkdir()
    with pytest.raises(errors.DamagedFileError, match="folder: cannot be continued: unable to open"):
        journal.Journal(tmp_path / "folder")


def test_an_index_is_no_journal(tmp_path):
    with journal.Journal(tmp_path / "journal") as log:
        log.commit({}, {})
        log.write_index(tmp_path / "index", FACTS)
    with journal.Journal(tmp_path / "index") as log, pytest.raises(errors.DamagedFileError, match="no such table"):
        log.progress()


def test_a_full_disk_is_not_the_fault_of_the_file(tmp_path):
    with journal.Journal(tmp_path / "journal") as log:
        log.commit({"n": 1}, {})
        pages = log._execute("PRAGMA page_count").fetchone()[0]
        log._execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(errors.DiskSpaceError, match=r"journal: .*full; make room .* the same command continues"):
            log.commit({"n": 2}, {"a": bytes(1 << 20)})
    with journal.Journal(tmp_path / "journal") as log:
        assert log.progress() == {"n": 1}


def test_the_index_is_what_was_added(tmp_path):
    added = [
        member(0, "e/0.5/1/aux_arrays.npz"),
        member(1, "../outside", "refused"),
        member(2, "e/recipe.json", "unchecked"),
    ]
    with journal.Journal(tmp_path / "journal") as log:
        for one in reversed(added):
            log.add_member(one)
        log.add_point(0, seek_points.Point(0, 18, 0, b""))
        log.add_row(row())
        log.commit({"ended": True}, {"a": b"a"})
        for _ in range(2):
            log.write_index(tmp_path / "index", FACTS)
        log.judge_member(2, "damaged", "why")
        assert [log.count_members(state) for state in ("sound", "unchecked", "damaged", "refused")] == [1, 0, 1, 1]
    with index.Index(tmp_path / "index") as stored:
        assert list(stored.members()) == added
        assert stored.facts == FACTS
        assert stored.point(0) == seek_points.Point(0, 18, 0, b"")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["index", "journal"]


def test_an_index_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "index").mkdir()
    with journal.Journal(tmp_path / "journal") as log:
        log.commit({}, {})
        with pytest.raises(IsADirectoryError):
            log.write_index(tmp_path / "index", FACTS)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["index", "journal"]


def test_only_the_record_of_a_run_is_judged_in_whatever_spelling(tmp_path):
    spellings = ["e/0.5/1/aux_arrays.npz", "./e//0.5/2/aux_arrays.npz/.", "0.5/3/aux_arrays.npz"]
    others = ["e/0.5/1/checkpoints/ckpt-1.index", "e/0.7/1/aux_arrays.npz", "e/0.5/10/aux_arrays.npz"]
    with journal.Journal(tmp_path / "journal") as log:
        for number, name in enumerate(spellings + others):
            log.add_member(member(number, name))
        for run_id in (1, 2, 3):
            log.judge_record((0.5, run_id), f"reason {run_id}")
        log.commit({}, {})
        log.add_point(0, seek_points.Point(0, 18, 0, b""))
        log.write_index(tmp_path / "index", FACTS)
    with index.Index(tmp_path / "index") as stored:
        found = {one.name: (one.state, one.reason) for one in stored.members()}
    assert found == {name: ("damaged", f"reason {number}") for number, name in enumerate(spellings, 1)} | dict.fromkeys(
        others, ("sound", "")
    )


def test_rows_come_back_sorted_by_number_not_by_text(tmp_path):
    runs = [(0.5, 10), (0.5, 9), (0.05, 2), (0.123456789, 1)]
    with journal.Journal(tmp_path / "journal") as log:
        rows = {run: row(*run, source_size=100 + place) for place, run in enumerate(runs)}
        for one in rows.values():
            log.add_row(one)
        assert [(ratio, run_id) for ratio, run_id, *_ in log.row_names()] == [runs[2], runs[3], runs[1], runs[0]]
        assert [name[4] for name in log.row_names()] == [
            rows[run].source_sha256.tobytes() for run in (runs[2], runs[3], runs[1], runs[0])
        ]
        assert log.row_source_sizes(runs) == [100, 101, 102, 103]
        for column, field in (
            ("subset_mask", "subset_mask_bits"),
            ("train_correctness", "train_correctness_bits"),
            ("test_correctness", "test_correctness_bits"),
            ("sha256", "source_sha256"),
        ):
            found = np.concatenate(list(log.row_column(column, runs)))
            np.testing.assert_array_equal(found, np.stack([getattr(rows[run], field) for run in runs]))
        with pytest.raises(errors.DamagedFileError, match="UNIQUE"):
            log.add_row(rows[runs[0]])


def test_of_sizes_equally_frequent_that_of_the_first_run_leads(tmp_path):
    with journal.Journal(tmp_path / "journal") as log:
        assert log.row_sizes() == []
        for run_id, num_test in ((3, 5), (0, 9), (1, 5), (2, 9), (4, 7)):
            log.add_row(row(run_id=run_id, num_test=num_test))
        assert log.row_sizes() == [(21, 9, 2), (21, 5, 2), (21, 7, 1)]
