"""How far an experiment is, by files as trainings write them."""

import dataclasses
import datetime
import json
import os
import shutil
import time

import numpy as np
import pytest

from heldout.experiments import training_files
from heldout.training import failures
from heldout.watching import training_status
from tests.heldout.watching import training_log_test
from zoo import aux_arrays, errors, files, layout, run_table_update


def moment(seconds_ago):
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds_ago)
    return then.isoformat(timespec="seconds")


def complete(zoo, ratio, run_id, seconds_ago=0.0):
    mask = np.arange(10) < round(10 * ratio)
    path = layout.Run(zoo, "e", ratio, run_id).aux_arrays_path
    aux_arrays.write(path, aux_arrays.from_masks(mask, np.arange(10) < run_id, mask))
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


def fail(zoo, ratio, run_id, seconds_ago):
    failure = failures.Failure(
        ratio, run_id, "the training loss is nan", "0", None, 3, "1", moment(seconds_ago), "again"
    )
    failures.append(zoo, "e", failure)


def train(zoo, groups=(), began=100, **members):
    defaults = {"machine": files.machine(), "host": "ada", "process": os.getpid(), "began": moment(began)}
    defaults |= {"subset_ratios": (0.5, 0.7), "run_ids": ((0, 4),)}
    groups = tuple(training_files.Group(ratio, ids, "ada", 5, moment(ago)) for ratio, ids, ago in groups)
    training = training_files.Training(**(defaults | members), groups=groups)
    training_log_test.write(zoo, training)
    return training


def counts(status):
    return {ratio: tuple(by_state.values()) for ratio, by_state in status.counts.items()}


def test_every_state_is_told(tmp_path):
    complete(tmp_path, 0.5, 0, 50)
    complete(tmp_path, 0.5, 1, 30)
    complete(tmp_path, 0.5, 2, 5000)
    complete(tmp_path, 0.7, 9, 10)  # nobody's wish, and counted all the same
    layout.Run(tmp_path, "e", 0.7, 0).checkpoints_directory.mkdir(parents=True)
    layout.Run(tmp_path, "e", 0.7, 1).checkpoints_directory.mkdir(parents=True)
    fail(tmp_path, 0.7, 2, 10)
    fail(tmp_path, 0.7, 3, 10)
    training = train(tmp_path, groups=[(0.5, (2, 3), 20), (0.7, (1, 2), 20), (0.7, (3,), 5)])
    status = training_status.take(tmp_path, "e")
    # complete, in the making, failed, unfinished, waiting; 0.7/3 has failed, and was begun again since.
    assert counts(status) == {0.5: (3, 1, 0, 0, 0), 0.7: (1, 2, 1, 1, 0)}
    assert (status.num_expected, status.count("complete"), status.is_running) == (8, 4, True)
    assert [failure.run_id for failure in status.failures] == [2]
    assert [(run.subset_ratio, run.run_id) for run in status.unfinished] == [(0.7, 0)]
    assert 0 <= status.unfinished[0].changed_s < 50
    ((watched),) = status.trainings
    assert (watched.training, watched.state) == (training, "running")
    # Three records since it began 100 s ago; four runs are left, one of them 0.7/0.
    assert status.window_s == pytest.approx(100, abs=5)
    assert status.runs_per_hour == pytest.approx(3 / status.window_s * 3600)
    assert status.left_s == pytest.approx(4 / status.runs_per_hour * 3600)


def test_the_rate_is_that_of_the_last_minutes(tmp_path):
    for run_id, ago in enumerate((5, 100, 500, 700)):
        complete(tmp_path, 0.5, run_id, ago)
    train(tmp_path, began=1000)
    status = training_status.take(tmp_path, "e")
    assert status.window_s == pytest.approx(600)
    assert status.runs_per_hour == pytest.approx(18)
    assert status.left_s == pytest.approx(800)


def test_a_training_that_is_gone_makes_nothing(tmp_path):
    complete(tmp_path, 0.5, 0, 10)
    layout.Run(tmp_path, "e", 0.5, 1).directory.mkdir()
    train(tmp_path, groups=[(0.5, (1, 2), 5)], process=training_log_test.gone())
    train(tmp_path, process=1, ended=moment(3), end="interrupted", run_ids=((0, 5),))
    status = training_status.take(tmp_path, "e")
    assert counts(status) == {0.5: (1, 0, 0, 1, 3), 0.7: (0, 0, 0, 0, 5)}
    assert sorted(watched.state for watched in status.trainings) == ["ended", "lost"]
    assert (status.runs_per_hour, status.left_s, status.is_running) == (None, None, False)


def test_a_share_expects_its_own_runs_alone(tmp_path):
    complete(tmp_path, 0.5, 1)
    train(tmp_path, share_index=1, share_count=4)
    status = training_status.take(tmp_path, "e")
    assert counts(status) == {0.5: (1, 0, 0, 0, 0), 0.7: (0, 0, 0, 0, 1)}
    assert status.num_expected == 2


def test_a_failure_before_the_training_is_tried_again(tmp_path):
    complete(tmp_path, 0.5, 0, 10)
    fail(tmp_path, 0.5, 1, 1000)
    train(tmp_path, began=100, subset_ratios=(0.5,), run_ids=((0, 2),))
    status = training_status.take(tmp_path, "e")
    assert counts(status) == {0.5: (1, 0, 1, 0, 0)}
    assert status.left_s == pytest.approx(status.window_s)
    fail(tmp_path, 0.5, 1, 10)
    assert training_status.take(tmp_path, "e").left_s == 0


def test_without_a_training_there_are_counts_alone(tmp_path):
    for run_id in range(3):
        complete(tmp_path, 0.5, run_id)
    run_table_update.update(tmp_path, "e")
    shutil.rmtree(layout.Run(tmp_path, "e", 0.5, 1).directory)
    layout.Run(tmp_path, "e", 0.5, 2).aux_arrays_path.unlink()  # a folder says more than the table
    status = training_status.take(tmp_path, "e")
    assert counts(status) == {0.5: (2, 0, 0, 1, 0)}
    assert (status.num_expected, status.trainings, status.runs_per_hour) == (None, [], None)


def test_it_can_be_told_as_json(tmp_path):
    complete(tmp_path, 0.5, 0)
    fail(tmp_path, 0.5, 1, 10)
    layout.Run(tmp_path, "e", 0.5, 2).directory.mkdir()
    train(tmp_path, groups=[(0.5, (3,), 5)])
    told = json.loads(json.dumps(training_status.take(tmp_path, "e").to_json(), allow_nan=False))
    assert set(told) == {field.name for field in dataclasses.fields(training_status.Status)}
    assert told["counts"][0] == {
        "subset_ratio": 0.5,
        "complete": 1,
        "in_the_making": 1,
        "failed": 1,
        "unfinished": 1,
        "waiting": 0,
    }
    assert told["trainings"][0]["groups"][0]["run_ids"] == [3]
    assert told["failures"][0]["retry"] == "again"
    assert told["unfinished"][0]["run_id"] == 2


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    complete(tmp_path, 0.5, 0)
    layout.run_table_path(tmp_path, "e").write_bytes(b"PK")
    with pytest.raises(errors.DamagedFileError, match=r"run_table\.npz"):
        training_status.take(tmp_path, "e")
