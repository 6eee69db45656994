"""What a training says of itself, written by the listener of a training and read back."""

import dataclasses
import os
import pathlib
import subprocess
import time

import pytest

from heldout.experiments import training_config, training_files
from heldout.running import shares
from heldout.training import run_results, train_runs_config, zoo_training
from heldout.watching import training_log
from zoo import errors, files, layout


def config(zoo, **options):
    defaults = {
        "experiment": "e",
        "dataset": "digits",
        "data_dir": None,
        "architecture": "mlp",
        "architecture_options": {},
        "subset_ratios": (0.5, 0.7),
        "run_ids": (0, 1, 2, 7),
        "training": training_config.TrainingConfig(),
    }
    return train_runs_config.TrainRunsConfig(zoo=str(zoo), **(defaults | options))


def result(zoo, ratio, run_id, failure=None):
    return run_results.RunResult(layout.Run(pathlib.Path(zoo), "e", ratio, run_id), failure, 0.1)


def only(zoo):
    ((training, _),) = training_files.read(zoo, "e")
    return training


def gone():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def write(zoo, training, process=None, machine=None):
    """Another process's file."""
    name = f".training-{machine or files.machine()}-{process or training.process}.json"
    path = layout.experiment_directory(zoo, "e") / name
    files.write_json(path, training.to_json())
    return path


@pytest.fixture
def training():
    now = training_files.now()
    return training_files.Training(files.machine(), "host", os.getpid(), now, (0.7,), ((0, 4),))


def test_what_is_wanted_and_being_trained(tmp_path):
    with training_log.TrainingLog(config(tmp_path)) as log:
        log.starting(8, 0, 10)
        training = only(tmp_path)
        assert training.wanted == [(0.5, 0), (0.5, 1), (0.5, 2), (0.5, 7), (0.7, 0), (0.7, 1), (0.7, 2), (0.7, 7)]
        assert training.state(time.time()) == "running"
        assert (training.groups, training.ended, training.process) == ((), None, os.getpid())
        log.began(0.5, [0, 1], "a", 11)
        log.began(0.7, [0, 1], "b", 12)
        groups = only(tmp_path).groups
        assert [(g.subset_ratio, g.run_ids, g.host, g.process) for g in groups] == [
            (0.5, (0, 1), "a", 11),
            (0.7, (0, 1), "b", 12),
        ]
        log.began(0.5, [2], "a", 11)  # in the place of the worker's last group
        log.began(0.7, [1], "b", 13)  # a run that lost its worker
        assert [group.run_ids for group in only(tmp_path).groups] == [(2,), (0,), (1,)]
        log.result(result(tmp_path, 0.7, 0))
        log.began(0.7, [7], "c", 14)
        assert [group.run_ids for group in only(tmp_path).groups] == [(2,), (1,), (7,)]


def test_a_share_wants_its_own_runs_in_whatever_order_they_were_asked_for(tmp_path):
    wanted = config(tmp_path, run_ids=(8, 9, 3, 0, 1), share=shares.Share(1, 3))
    with training_log.TrainingLog(wanted) as log:
        log.starting(3, 0, 10)
        assert only(tmp_path).wanted == wanted.wanted == [(0.5, 9), (0.5, 1), (0.7, 3)]


def test_the_file_goes_when_all_is_done(tmp_path):
    with training_log.TrainingLog(config(tmp_path)) as log:
        log.starting(2, 6, 10)
        log.result(result(tmp_path, 0.5, 0))
        log.appeared()
        assert training_files.read(tmp_path, "e")
    assert not list((tmp_path / "e").iterdir())


def test_nothing_is_written_where_nothing_is_to_do(tmp_path):
    with training_log.TrainingLog(config(tmp_path)) as log:
        log.starting(0, 8, 10)
        log.run_epochs(1)
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (errors.DiskSpaceError("too little room\nand more"), "too little room"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_an_early_end_stays_and_says_why(tmp_path, error, end):
    def work():
        with training_log.TrainingLog(config(tmp_path)) as log:
            log.starting(8, 0, 10)
            log.began(0.5, [0], "a", 11)
            raise error

    with pytest.raises(type(error)):
        work()
    training = only(tmp_path)
    assert training.end == end
    assert training.ended is not None
    assert training.groups == ()
    assert training.state(time.time()) == "ended"


def test_failed_runs_are_said_to_be_left(tmp_path):
    with training_log.TrainingLog(config(tmp_path)) as log:
        log.starting(2, 6, 10)
        log.result(result(tmp_path, 0.5, 0))
        log.result(result(tmp_path, 0.5, 1, "the training loss is nan"))
    assert only(tmp_path).end == "1 run came to nothing"


def test_progress_is_written_now_and_then(tmp_path, monkeypatch):
    with training_log.TrainingLog(config(tmp_path)) as log:
        log.starting(8, 0, 10)
        path = training_files.path(tmp_path, "e")
        os.utime(path, (1, 1))
        log.run_epochs(4)
        assert path.stat().st_mtime == 1
        monkeypatch.setattr(training_log, "_SECONDS_BETWEEN_WRITES", 0.0)
        log.run_epochs(4)
        assert path.stat().st_mtime > 1


def test_a_training_goes_on_where_the_file_cannot_be_written(tmp_path):
    (tmp_path / "e").touch()
    with training_log.TrainingLog(config(tmp_path)) as log:
        log.starting(2, 0, 10)
        log.began(0.5, [0], "a", 11)
    assert training_files.read(tmp_path, "e") == []


def test_the_next_training_removes_what_others_have_left(tmp_path, training):
    lost = write(tmp_path, dataclasses.replace(training, process=gone()))
    ended = write(tmp_path, dataclasses.replace(training, ended=training_files.now(), end="interrupted"), process=1)
    half = lost.with_name(files.temporary_beside(lost).name.replace(f"-{os.getpid()}-", f"-{gone()}-"))
    half.touch()
    elsewhere = dataclasses.replace(training, machine="0123abcd")
    old = write(tmp_path, elsewhere, machine="0123abcd")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    damaged = old.with_name(".training-0123abcd-5.json")
    damaged.write_text("{")
    there = write(tmp_path, elsewhere, process=7, machine="0123abcd")
    here = write(tmp_path, training, process=os.getppid())
    other = here.with_name(".training-notes.json")
    other.touch()
    with training_log.TrainingLog(config(tmp_path)) as log:
        log.starting(0, 8, 10)
    assert sorted((tmp_path / "e").iterdir()) == sorted([there, here, other])
    assert not any(path.exists() for path in (lost, ended, half, old, damaged))


def test_several_listeners_hear_everything(tmp_path):
    heard = []

    class Listener(zoo_training.Progress):
        def __getattribute__(self, name):
            return lambda *arguments: heard.append((name, *arguments))

    several = training_log.Several([Listener(), Listener()])
    calls = [("starting", 1, 2, 3), ("began", 0.7, [1], "a", 2), ("appeared",), ("run_epochs", 4), ("result", 5)]
    calls += [("note", "text"), ("ended",)]
    for name, *arguments in calls:
        getattr(several, name)(*arguments)
    assert heard == [call for call in calls for _ in range(2)]
    assert {name for name, *_ in calls} == {name for name in vars(zoo_training.Progress) if not name.startswith("_")}
