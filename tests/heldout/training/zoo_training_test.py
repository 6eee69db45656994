"""Whole trainings with real worker processes: what is skipped, redone, refused."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from heldout.datasets import indexed_records
from heldout.evaluation import run_evaluation
from heldout.experiments import label_noise, recipes, training_config
from heldout.running import shares
from heldout.training import failures, train_runs_config, zoo_training
from heldout.watching import training_log
from tests import cases
from tests.heldout.datasets import record_cases
from zoo import aux_arrays, errors, files, layout, run_table, run_table_update


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return cases.tiny_digits_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


def config(zoo, dataset, **options):
    defaults = {
        "experiment": "e",
        "data_dir": None,
        "architecture": "mlp",
        "architecture_options": {"hidden_sizes": (8,)},
        "subset_ratios": (0.7,),
        "run_ids": tuple(range(6)),
        "training": training_config.TrainingConfig(num_epochs=2, batch_size=10),
        "runs_per_group": 2,
    }
    return train_runs_config.TrainRunsConfig(zoo=str(zoo), dataset=dataset, **(defaults | options))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset):
    zoo = tmp_path_factory.mktemp("zoo")
    return zoo, zoo_training.train_runs(config(zoo, dataset))


def fresh_copy(trained, tmp_path):
    zoo = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(trained[0]), str(zoo)], check=True)
    return zoo


def test_all_runs_are_trained_and_packed_with_labels(trained):
    zoo, summary = trained
    assert len(summary.trained) == 6
    assert not summary.failed
    assert not summary.problems
    table = run_table.read(layout.run_table_path(zoo, "e"))
    assert table.run_id.tolist() == list(range(6))
    np.testing.assert_array_equal(table.train_label, cases.tiny_digits().train.label)


def test_the_same_call_again_does_nothing(trained, dataset):
    zoo, _ = trained
    before = {p: p.stat().st_mtime_ns for p in zoo.rglob("*") if p.is_file()}
    summary = zoo_training.train_runs(config(zoo, dataset))
    assert (len(summary.trained), summary.num_skipped) == (0, 6)
    assert before == {p: p.stat().st_mtime_ns for p in zoo.rglob("*") if p.is_file()}


def test_partial_runs_are_redone_to_the_same_bits(trained, dataset, tmp_path):
    zoo = fresh_copy(trained, tmp_path)
    run = layout.Run(zoo, "e", 0.7, 4)
    before = run.aux_arrays_path.read_bytes()
    run.aux_arrays_path.unlink()
    summary = zoo_training.train_runs(config(zoo, dataset))
    assert [result.run.run_id for result in summary.trained] == [4]
    assert run.aux_arrays_path.read_bytes() == before


def test_runs_that_only_the_table_knows_are_complete_and_kept(trained, dataset, tmp_path):
    zoo = fresh_copy(trained, tmp_path)
    shutil.rmtree(zoo / "e" / "0.7")
    summary = zoo_training.train_runs(config(zoo, dataset, run_ids=(0, 5, 9)))
    assert [result.run.run_id for result in summary.trained] == [9]
    assert summary.num_skipped == 2
    assert summary.table.run_id.tolist() == [0, 1, 2, 3, 4, 5, 9]


def test_a_killed_trainings_leftovers_are_removed(trained, dataset, tmp_path):
    zoo = fresh_copy(trained, tmp_path)
    run = layout.Run(zoo, "e", 0.7, 4)
    run.aux_arrays_path.unlink()
    gone = subprocess.Popen(["true"])
    gone.wait()
    targets = [run.aux_arrays_path, run.checkpoint_prefix(2)]
    ours, theirs = f"-{os.getpid()}-", f"-{gone.pid}-"
    leftovers = [path.with_name(path.name.replace(ours, theirs)) for path in map(files.temporary_beside, targets)]
    leftovers[1] = leftovers[1].with_name(f"{leftovers[1].name}.index")
    for path in leftovers:
        path.write_bytes(b"half")
    zoo_training.train_runs(config(zoo, dataset))
    assert not any(path.exists() for path in leftovers)


def test_no_copy_of_the_data_is_left_behind_by_a_kill(dataset, tmp_path):
    zoo = str(tmp_path / "zoo")
    program = f"""
import os, signal
from heldout.training import zoo_training
from tests.heldout.training import zoo_training_test

class Killer(zoo_training.Progress):
    def result(self, result):
        os.kill(os.getpid(), signal.SIGKILL)

zoo_training.train_runs(zoo_training_test.config({zoo!r}, {dataset!r}, workers=1), Killer())
"""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch)}
    process = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert process.returncode == -signal.SIGKILL
    assert not list(scratch.rglob("*.npy"))


def test_a_signal_while_the_table_is_packed_waits_for_it(dataset, tmp_path, monkeypatch):
    update = run_table_update.update

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return update(*arguments, **options)

    monkeypatch.setattr(run_table_update, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo_training.train_runs(config(tmp_path, dataset, run_ids=(0,)))
    assert run_table.read(layout.run_table_path(tmp_path, "e")).run_id.tolist() == [0]


def test_more_runs_and_ratios_join_the_table(trained, dataset, tmp_path):
    zoo = fresh_copy(trained, tmp_path)
    summary = zoo_training.train_runs(config(zoo, dataset, subset_ratios=(0.7, 0.3), run_ids=(0, 7)))
    assert sorted((r.run.subset_ratio, r.run.run_id) for r in summary.trained) == [(0.3, 0), (0.3, 7), (0.7, 7)]
    assert summary.num_skipped == 1
    assert summary.table.num_runs == 9


def test_damaged_runs_are_named_and_redone_only_on_request(trained, dataset, tmp_path):
    zoo = fresh_copy(trained, tmp_path)
    path = layout.Run(zoo, "e", 0.7, 2).aux_arrays_path
    sound = path.read_bytes()
    path.write_bytes(sound[:-30])
    summary = zoo_training.train_runs(config(zoo, dataset))
    assert not summary.trained
    assert summary.num_skipped == 5
    assert [(p.run.run_id, p.state) for p in summary.problems] == [(2, "damaged")]
    assert path.read_bytes() == sound[:-30]
    summary = zoo_training.train_runs(config(zoo, dataset, redo_damaged=True))
    assert [result.run.run_id for result in summary.trained] == [2]
    assert path.read_bytes() == sound


class Notes(zoo_training.Progress):
    """Keeps what it is told; calls a function when the training starts, and one when it has ended."""

    def __init__(self, at_start=lambda: None, at_end=lambda: None):
        self.notes, self._at_start, self._at_end = [], at_start, at_end

    def note(self, text):
        self.notes.append(text)

    def starting(self, *_):
        self._at_start()

    def ended(self):
        self._at_end()


@pytest.mark.parametrize("state", ["redone", "begun"])
def test_a_damaged_run_that_another_program_has_redone_meanwhile_is_kept(
    trained, dataset, tmp_path, monkeypatch, state
):
    zoo = fresh_copy(trained, tmp_path)
    run = layout.Run(zoo, "e", 0.7, 2)
    sound = run.aux_arrays_path.read_bytes()
    run.aux_arrays_path.write_bytes(sound[:-30])
    checkpoint = run.checkpoint_prefix(2).with_suffix(".index")
    update, at_start = run_table_update.update, []

    def slow_update(*arguments, **options):
        found = update(*arguments, **options)
        if not at_start:
            run.aux_arrays_path.unlink()
            if state == "redone":
                run.aux_arrays_path.write_bytes(sound)
            inode.append(checkpoint.stat().st_ino)
        return found

    inode = []
    monkeypatch.setattr(run_table_update, "update", slow_update)
    progress = Notes(lambda: at_start.append(checkpoint.exists() and checkpoint.stat().st_ino == inode[0]))
    summary = zoo_training.train_runs(config(zoo, dataset, redo_damaged=True), progress)
    assert at_start == [True]
    assert [result.run.run_id for result in summary.trained] == ([] if state == "redone" else [2])
    assert run.aux_arrays_path.read_bytes() == sound


def test_what_a_kill_has_left_of_a_deletion_goes(trained, dataset, tmp_path):
    zoo = fresh_copy(trained, tmp_path)
    gone = subprocess.Popen(["true"])
    gone.wait()
    run = layout.Run(zoo, "e", 0.7, 2)
    shutil.rmtree(run.directory)
    layout.run_table_path(zoo, "e").unlink()
    left = files.temporary_beside(run.directory)
    left = left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
    left.mkdir()
    zoo_training.train_runs(config(zoo, dataset))
    assert not left.exists()


def test_runs_of_a_recipe_that_was_replaced_meanwhile_are_not_packed(dataset, tmp_path):
    other = training_config.TrainingConfig(num_epochs=3, batch_size=10)

    def replace():
        path = layout.recipe_path(tmp_path, "e")
        files.write_json(path, files.read_json(path) | {"training": other.to_json()})

    with pytest.raises(errors.MismatchError, match=r"recipe\.json: is no longer the recipe of this training"):
        zoo_training.train_runs(config(tmp_path, dataset, run_ids=(0,)), Notes(at_end=replace))
    assert not layout.run_table_path(tmp_path, "e").exists()


def test_two_programs_with_two_recipes_make_one_experiment(dataset, tmp_path):
    """The second one comes while the first one trains its first group: it is refused and leaves the recipe alone."""
    slow = training_config.TrainingConfig(num_epochs=5000, batch_size=10)
    first = config(tmp_path, dataset, run_ids=(0,), workers=1, training=slow)

    class Second(zoo_training.Progress):
        def began(self, *_):
            zoo_training.train_runs(config(tmp_path, dataset, run_ids=(1,)))

    with training_log.TrainingLog(first) as log, pytest.raises(errors.MismatchError, match="are being trained, says"):
        zoo_training.train_runs(first, training_log.Several([log, Second()]))
    assert recipes.read(tmp_path, "e").training == slow
    assert layout.runs(tmp_path, "e") == []


def test_runs_that_lack_the_margins_asked_for_are_counted(trained, dataset, tmp_path):
    zoo, progress = fresh_copy(trained, tmp_path), Notes()
    zoo_training.train_runs(config(zoo, dataset, run_ids=tuple(range(7)), margins=True), progress)
    assert progress.notes == [
        "--margins: 6 complete runs without margins will stay so; train under another --experiment to have all runs "
        "with margins"
    ]
    shutil.rmtree(layout.Run(zoo, "e", 0.7, 0).directory)
    progress = Notes()
    zoo_training.train_runs(config(zoo, dataset, run_ids=(0, 6), margins=True), progress)
    assert progress.notes == ["--margins: 1 complete run may be without margins; the records are not here"]


def test_half_a_checkpoint_is_redone_on_request(trained, dataset, tmp_path):
    zoo = fresh_copy(trained, tmp_path)
    run = layout.Run(zoo, "e", 0.7, 3)
    run.checkpoint_prefix(2).with_suffix(".index").unlink()
    summary = zoo_training.train_runs(config(zoo, dataset))
    assert [problem.run.run_id for problem in summary.damaged] == [3]
    assert not summary.trained
    summary = zoo_training.train_runs(config(zoo, dataset, redo_damaged=True))
    assert [result.run.run_id for result in summary.trained] == [3]
    assert not summary.damaged
    assert layout.checkpoint_epochs(run) == [2]


def test_another_recipe_is_refused_and_nothing_changes(trained, dataset, tmp_path):
    zoo = fresh_copy(trained, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in zoo.rglob("*") if p.is_file()}
    other = training_config.TrainingConfig(num_epochs=3, batch_size=10)
    with pytest.raises(errors.MismatchError, match=r"training.num_epochs: stored 2, asked for 3"):
        zoo_training.train_runs(config(zoo, dataset, training=other))
    assert before == {p: p.stat().st_mtime_ns for p in zoo.rglob("*") if p.is_file()}


def test_another_label_order_is_another_recipe(trained, tmp_path):
    zoo = fresh_copy(trained, tmp_path)
    data = cases.tiny_digits()
    order = np.random.default_rng(0).permutation(60)
    np.savez(
        tmp_path / "tiny.npz",
        train__image=data.train.images[order],
        train__label=data.train.label[order],
        test__image=data.test.images,
        test__label=data.test.label,
        __num_classes=10,
        __data_scale=16.0,
    )
    with pytest.raises(errors.MismatchError, match="train_label_sha256"):
        zoo_training.train_runs(config(zoo, f"npz:{tmp_path / 'tiny.npz'}"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run_ids": (0, 1, 1)}, "--run_ids: 1 is given twice"),
        ({"run_ids": ()}, "nothing to train"),
        ({"run_ids": (-1,)}, "negative"),
        ({"subset_ratios": (0.5, 0.5)}, "--subset_ratio: 0.5 is given twice"),
        ({"subset_ratios": (1.2,)}, "1.2"),
        ({"workers": 0}, "--workers=0"),
        ({"runs_per_group": 0}, "--runs_per_group=0"),
        ({"strategy": "Mirrored", "workers": None}, "--strategy=Mirrored: expected one of none, mirrored, tpu,"),
        ({"strategy": "mirrored", "num_replicas": 2, "workers": 2}, "one process has all replicas"),
        ({"strategy": "mirrored", "workers": None}, "--num_replicas=None: goes with --strategy=mirrored"),
        ({"num_replicas": 2}, "--num_replicas=2: goes with --strategy=mirrored or multi_worker"),
        ({"strategy": "multi_worker", "workers": None}, "--num_replicas=None: goes with"),
        (
            {"strategy": "mirrored", "num_replicas": 2, "runs_per_group": 8},
            "--strategy=mirrored with --runs_per_group=8: each replica trains one run at a time",
        ),
        ({"run_ids": (0, 1), "share": shares.Share(2, 3)}, "share 3 of 3 of the runs is empty"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(tmp_path, dataset, options, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        zoo_training.train_runs(config(tmp_path / "zoo", dataset, **options))
    assert not (tmp_path / "zoo").exists()


def test_an_unknown_architecture_comes_back_from_the_worker_as_an_error(tmp_path, dataset):
    with pytest.raises(errors.HeldoutError, match="small_inception"):
        zoo_training.train_runs(config(tmp_path, dataset, architecture="perceptron", architecture_options={}))


def test_shares_make_up_the_whole(trained, tmp_path, dataset):
    whole, _ = trained
    summaries = [zoo_training.train_runs(config(tmp_path, dataset, share=shares.Share(index, 2))) for index in (1, 0)]
    assert [sorted(result.run.run_id for result in each.trained) for each in summaries] == [[1, 3, 5], [0, 2, 4]]
    assert [each.num_skipped for each in summaries] == [0, 0]
    tables = [run_table.read(layout.run_table_path(zoo, "e")) for zoo in (whole, tmp_path)]
    assert tables[0].digest() == tables[1].digest()


def test_replicas_train_what_workers_train(tmp_path, dataset):
    """Three runs on two replicas: the last group is not full."""
    kinds = {
        "workers": {"workers": 1, "runs_per_group": 1},
        "replicas": {"workers": None, "strategy": "mirrored", "num_replicas": 2, "runs_per_group": None},
    }
    for name, options in kinds.items():
        summary = zoo_training.train_runs(config(tmp_path / name, dataset, run_ids=(0, 1, 2), **options))
        assert len(summary.trained) == 3
    for run_id in range(3):
        alone, replica = (
            aux_arrays.read(layout.Run(tmp_path / name, "e", 0.7, run_id).aux_arrays_path) for name in kinds
        )
        np.testing.assert_array_equal(alone.subset_mask(), replica.subset_mask())
        assert np.mean(alone.train_correctness() == replica.train_correctness()) >= 0.95


def test_image_records_are_trained_from_disk(tmp_path):
    """Imagenet records, which are augmented, through worker processes; wrong labels are those of the recipe."""
    record_cases.write_imagenet(tmp_path / "imagenet", num_train=40, num_test=10)
    wanted = config(
        tmp_path / "zoo",
        f"records:{tmp_path / 'imagenet'}",
        architecture="tests.heldout.small_models:OwnModel",
        architecture_options={},
        run_ids=(0,),
        runs_per_group=None,
        subset_ratios=(0.5,),
        noise=label_noise.LabelNoise("symmetric", count=10, seed=1),
        training=training_config.TrainingConfig(num_epochs=1, batch_size=5),
    )
    summary = zoo_training.train_runs(wanted)
    assert [result.failure for result in summary.trained] == [None]
    aux = aux_arrays.read(summary.trained[0].run.aux_arrays_path)
    assert (aux.num_train, aux.num_test) == (40, 10)
    records = indexed_records.open_records(tmp_path / "imagenet")
    assert np.count_nonzero(summary.table.train_label != records.train_label) == 10
    recipe = recipes.read(tmp_path / "zoo", "e")
    assert recipe.dataset_flag == f"records:{tmp_path / 'imagenet'}"
    for split in ("train", "test"):
        assert run_evaluation.evaluate(summary.trained[0].run, split).disagreements == []


def test_diverged_runs_are_reported_as_failed(tmp_path, dataset):
    wild = training_config.TrainingConfig(num_epochs=2, batch_size=10, learning_rate=1e30)
    summary = zoo_training.train_runs(config(tmp_path, dataset, training=wild, run_ids=(0,)))
    assert [result.run.run_id for result in summary.failed] == [0]
    assert summary.failures == failures.read(tmp_path, "e")
    assert [failure.run_id for failure in summary.failures] == [0]
    assert summary.table is None


def test_default_experiment_names():
    assert config("z", "digits", experiment=None).experiment_name == "digits-mlp"
    assert config("z", "npz:/a/b c.npz", experiment=None, architecture="m:f").experiment_name == "b-c-m-f"


@pytest.mark.parametrize("delay", [3.0, 4.5])
def test_a_killed_training_continues_to_the_same_zoo(trained, dataset, tmp_path, delay):
    zoo = tmp_path / "zoo"
    program = (
        "from heldout.experiments import training_config\n"
        "from heldout.training import zoo_training\n"
        "from tests.heldout.training import zoo_training_test as t\n"
        f"zoo_training.train_runs(t.config({str(zoo)!r}, {dataset!r}))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    summary = zoo_training.train_runs(config(zoo, dataset))
    assert len(summary.trained) + summary.num_skipped == 6
    for run_id in range(6):
        ours, theirs = (layout.Run(z, "e", 0.7, run_id).aux_arrays_path for z in (zoo, trained[0]))
        assert ours.read_bytes() == theirs.read_bytes()
    assert summary.table.digest() == trained[1].table.digest()
