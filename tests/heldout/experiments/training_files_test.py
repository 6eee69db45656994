"""What a training in progress says of itself: whether it goes on, and how it is stored."""

import dataclasses
import datetime
import json
import os
import subprocess
import time

import pytest

from heldout.experiments import training_files
from tests.heldout.watching import training_log_test
from zoo import errors, files


@pytest.fixture
def training():
    now = training_files.now()
    return training_files.Training(files.machine(), "host", os.getpid(), now, (0.7,), ((0, 4),))


@pytest.fixture
def young():
    """Id of a process that has just begun."""
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


def an_hour_ago():
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)


def test_a_killed_training_is_told_from_one_that_goes_on(training):
    now = time.time()
    assert training.state(now) == "running"
    lost = dataclasses.replace(training, process=training_log_test.gone())
    assert lost.state(now) == "lost"
    assert dataclasses.replace(lost, ended=training.began).state(now) == "ended"
    assert dataclasses.replace(lost, machine="0123abcd").state(now) == "running"


def test_another_process_of_the_same_id_is_not_the_training(tmp_path, training, young):
    then = an_hour_ago()
    old = dataclasses.replace(training, process=young, began=then.isoformat(timespec="seconds"))
    assert old.state(then.timestamp()) == "lost"
    file = training_log_test.write(tmp_path, old)
    os.utime(file, (then.timestamp(),) * 2)
    assert training_files.in_progress(tmp_path, "e") == []
    training_files.remove_stale(tmp_path, "e")
    assert not file.exists()


def test_a_server_whose_clock_is_behind_ends_no_training(tmp_path, training, young):
    here = dataclasses.replace(training, process=young)
    file = training_log_test.write(tmp_path, here)
    os.utime(file, (an_hour_ago().timestamp(),) * 2)
    assert training_files.in_progress(tmp_path, "e") == [file]


def test_in_progress_are_those_that_go_on_as_far_as_is_known(tmp_path, training):
    assert training_files.in_progress(tmp_path, "e") == []
    training_log_test.write(tmp_path, dataclasses.replace(training, process=training_log_test.gone()))
    training_log_test.write(tmp_path, dataclasses.replace(training, ended=training.began), process=1)
    elsewhere = dataclasses.replace(training, machine="0123abcd")
    silent = training_log_test.write(tmp_path, elsewhere, process=2, machine="0123abcd")
    os.utime(silent, (time.time() - 2 * 24 * 3600,) * 2)
    silent.with_name(".training-0123abcd-5.json").write_text("{")
    there = training_log_test.write(tmp_path, elsewhere, process=3, machine="0123abcd")
    here = training_log_test.write(tmp_path, training)
    assert sorted(training_files.in_progress(tmp_path, "e")) == sorted([here, there])


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 1},
        {"began": "yesterday"},
        {"run_ids": [[0]]},
        {"groups": [{"run_ids": [1]}]},
        {"subset_ratios": None},
        {"share_index": 1},
        {"share_count": None},
    ],
)
def test_what_is_no_training_is_refused(tmp_path, training, change):
    path = training_log_test.write(tmp_path, training)
    path.write_text(json.dumps(training.to_json() | change))
    with pytest.raises(errors.DamagedFileError, match=r"e/\.training-.*: expected what a training of schema version 2"):
        training_files.read(tmp_path, "e")


def test_what_is_written_reads_back(tmp_path, training):
    group = training_files.Group(0.7, (1, 2), "a", 3, training_files.now())
    full = dataclasses.replace(training, groups=(group,), ended=training_files.now(), share_index=1, share_count=2)
    (tmp_path / "e").mkdir()
    training_files.write(training_files.path(tmp_path, "e"), full)
    assert [read for read, _ in training_files.read(tmp_path, "e")] == [full]


def test_ranges_keep_the_order():
    assert training_files.ranges([7, 0, 1, 2]) == ((7, 8), (0, 3))
    assert training_files.ranges([]) == ()
