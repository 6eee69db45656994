"""Event files, read back by TensorBoard's own reader."""

import os
import pathlib

import pytest
from tensorboard.backend.event_processing import directory_watcher, event_accumulator, event_file_loader

from heldout.experiments import training_config
from heldout.training import run_results, train_runs_config
from heldout.watching import event_files, training_events
from zoo import layout


def scalars(folder, tag):
    """(step, value) of a tag, as TensorBoard has them."""
    accumulator = event_accumulator.EventAccumulator(str(folder))
    accumulator.Reload()
    if tag not in accumulator.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def write(folder, *events):
    writer = event_files.EventWriter(folder)
    for step, values in events:
        writer.write(step, values)
    writer.close()


def test_scalars_read_back(tmp_path):
    long_tag = "a/" + "long " * 100
    write(tmp_path / "new", (0, {"a/b": 0.5, long_tag: -1e30}), (127, {"a/b": 2.0}), (300_000_000_000, {"a/b": 3.0}))
    assert scalars(tmp_path / "new", "a/b") == [(0, 0.5), (127, 2.0), (300_000_000_000, 3.0)]
    assert scalars(tmp_path / "new", long_tag) == [(0, pytest.approx(-1e30))]


def test_the_file_says_its_version_and_when(tmp_path):
    write(tmp_path, (1, {"a": 1.0}))
    (path,) = tmp_path.iterdir()
    assert f".{os.getpid()}." in path.name
    first, second = event_file_loader.LegacyEventFileLoader(str(path)).Load()
    assert first.file_version == "brain.Event:2"
    assert first.wall_time == pytest.approx(path.stat().st_mtime, abs=60)
    assert second.wall_time >= first.wall_time


def test_nothing_is_written_before_the_first_scalar(tmp_path):
    write(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_writers_of_one_process_and_second_have_files_of_their_own(tmp_path):
    for step in range(3):
        write(tmp_path, (step, {"a": 1.0 + step}))
    assert len(list(tmp_path.iterdir())) == 3
    assert scalars(tmp_path, "a") == [(0, 1.0), (1, 2.0), (2, 3.0)]


def test_readers_stop_at_an_event_that_was_cut_off(tmp_path):
    write(tmp_path, (1, {"a": 1.0}), (2, {"a": 2.0}))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    assert scalars(tmp_path, "a") == [(1, 1.0)]


def test_a_folder_that_is_in_the_way_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        write(tmp_path / "file", (1, {"a": 1.0}))


def config(zoo):
    return train_runs_config.TrainRunsConfig(
        zoo=str(zoo),
        experiment="e",
        dataset="digits",
        data_dir=None,
        architecture="mlp",
        architecture_options={},
        subset_ratios=(0.5, 0.7),
        run_ids=(0, 1),
        training=training_config.TrainingConfig(num_epochs=2),
    )


def result(ratio, run_id, loss, failure=None):
    run = layout.Run(pathlib.Path("z"), "e", ratio, run_id)
    return run_results.RunResult(run, failure, loss, accuracy_in=1.0, accuracy_heldout=0.75, accuracy_test=0.5)


def test_a_training_writes_what_becomes_of_its_runs(tmp_path):
    with training_events.TrainingEvents(config(tmp_path)) as events:
        events.starting(4, 10, 2)
        events.run_epochs(1)
        events.result(result(0.5, 0, 0.25))
        events.run_epochs(1)
        events.appeared()
        events.result(result(0.7, 0, float("nan"), "the training loss is nan"))
        events.result(result(0.5, 1, 0.125))
    folder = layout.tensorboard_directory(tmp_path, "e")
    assert folder == tmp_path / "e" / "tensorboard"
    assert scalars(folder / "0.5", "loss") == [(11, 0.25), (13, 0.125)]
    assert scalars(folder / "0.5", "accuracy/in") == [(11, 1.0), (13, 1.0)]
    assert scalars(folder / "0.5", "accuracy/held_out") == [(11, 0.75), (13, 0.75)]
    assert scalars(folder / "0.5", "accuracy/test") == [(11, 0.5), (13, 0.5)]
    assert not (folder / "0.7").exists()
    assert scalars(folder, "runs/done") == [(11, 11), (12, 12), (13, 13)]
    assert scalars(folder, "runs/failed") == [(11, 0), (12, 1), (13, 1)]
    assert [step for step, _ in scalars(folder, "runs/per_hour")] == [12, 13]


def test_tensorboard_follows_files_that_grow(tmp_path):
    writer = event_files.EventWriter(tmp_path)
    writer.write(1, {"a": 1.0})
    watcher = directory_watcher.DirectoryWatcher(str(tmp_path), event_file_loader.EventFileLoader)
    assert [event.step for event in watcher.Load()] == [0, 1]
    writer.write(2, {"a": 2.0})
    assert [event.step for event in watcher.Load()] == [2]
    writer.close()
