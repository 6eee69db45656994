"""The rows of a journal give the run table that the records themselves would give."""

import dataclasses
import pathlib

import pytest

from tests.zoo import runs as simulated_runs
from tests.zoo.archive import archives
from zoo import layout, run_scan, run_table, run_table_update
from zoo.archive import journal, run_rows

OTHER_SIZE = {"num_train": 30, "num_test": 8}


@pytest.fixture
def log(tmp_path):
    with journal.Journal(tmp_path / "journal") as opened:
        yield opened


def add_runs(zoo, log, runs):
    """Writes the records and adds their rows in another order."""
    for ratio, run_id, sizes in runs:
        simulated_runs.add_run(zoo, ratio, run_id, **sizes)
    for ratio, run_id, _ in reversed(runs):
        run = layout.Run(zoo, "e", ratio, run_id)
        log.add_row(run_scan.row_from_record(run, run.aux_arrays_path.read_bytes()))


def test_the_table_is_that_of_the_records(tmp_path, log):
    add_runs(tmp_path, log, [(0.3, 0, {}), (0.3, 11, {}), (0.3, 2, {}), (0.7, 1, {}), (0.25, 5, {})])
    expected = run_table_update.update(tmp_path, "e")[0]
    run_rows.write_table(log, tmp_path / "table.npz", "e")
    found = run_table.read(tmp_path / "table.npz")
    simulated_runs.assert_equal(dataclasses.replace(found, source_mtime_ns=expected.source_mtime_ns), expected)
    run_table.write(tmp_path / "again.npz", found)
    assert (tmp_path / "table.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_runs_that_do_not_belong_are_named_as_a_scan_of_the_records_does(tmp_path, log):
    runs = [(0.3, 0, OTHER_SIZE), (0.3, 1, {}), (0.5, 3, {}), (0.7, 2, OTHER_SIZE), (0.7, 4, {})]
    add_runs(tmp_path, log, runs)
    copied = layout.Run(tmp_path, "e", 0.5, 3).aux_arrays_path.read_bytes()
    for run_id in (7, 6):
        copy = layout.Run(tmp_path, "e", 0.5, run_id)
        copy.directory.mkdir()
        copy.aux_arrays_path.write_bytes(copied)
        log.add_row(run_scan.row_from_record(copy, copied))
    rows, problems = run_scan.scan(layout.runs(tmp_path, "e"), {})
    assert run_rows.usable(log) == [(row.run.subset_ratio, row.run.run_id) for row in rows]
    reasons = run_rows.unusable(log)
    assert reasons.keys() == {(problem.run.subset_ratio, problem.run.run_id) for problem in problems}
    assert reasons[0.3, 0] == "30 training and 8 test examples, most runs have 21 and 10"
    assert reasons[0.5, 6] == reasons[0.5, 7] == "the same record as run 0.5/3"
    run_rows.write_table(log, tmp_path / "table.npz", "e")
    assert simulated_runs.runs_of(run_table.read(tmp_path / "table.npz")) == [(0.3, 1), (0.5, 3), (0.7, 4)]


def test_of_two_sizes_equally_frequent_the_first_run_decides(tmp_path, log):
    add_runs(tmp_path, log, [(0.3, 0, OTHER_SIZE), (0.3, 1, {})])
    assert run_rows.usable(log) == [(0.3, 0)]
    rows, _ = run_scan.scan(layout.runs(tmp_path, "e"), {})
    assert [row.run.run_id for row in rows] == [0]


def test_no_rows(log):
    assert (run_rows.usable(log), run_rows.unusable(log)) == ([], {})


def test_rows_of_one_run_only(tmp_path, log):
    run = layout.Run(pathlib.Path(), "e", 0.5, 3)
    log.add_row(run_scan.row_from_record(run, archives.record(3)))
    run_rows.write_table(log, tmp_path / "table.npz", "e")
    assert simulated_runs.runs_of(run_table.read(tmp_path / "table.npz")) == [(0.5, 3)]
