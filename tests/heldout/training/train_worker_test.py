"""The worker of `train_runs`: what is complete stays as it is, and groups shrink to the memory there is, for real."""

import contextlib
import os
import signal
import sys

import numpy as np
import pytest
import tensorflow as tf

from heldout.experiments import recipes, training_config
from heldout.running import dispatch, group_recovery, workers
from heldout.training import run_results, train_worker
from tests import cases
from zoo import errors, files, layout

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory as Linux has them")

# Weights, gradients and momentum of eight such networks take 400 MB and more, of one 50 MB.
WIDE = {"hidden_sizes": [2048, 2048]}


def messages(
    zoo,
    run_ids,
    *,
    module="heldout.training.train_worker",
    options=None,
    recover=None,
    shared=True,
    architecture="mlp",
    **setup,
):
    data = cases.tiny_digits()
    recipe = recipes.Recipe(
        "e",
        data.fingerprint(),
        architecture,
        {"hidden_sizes": [8]} if options is None else options,
        training_config.TrainingConfig(num_epochs=2, batch_size=20),
        "digits",
    )
    if shared:
        recipes.adopt(zoo, recipe)
    defaults = {"zoo": str(zoo), "recipe": recipe.to_json(), "device": "cpu", "num_threads": 1, "margins": False}
    defaults |= {"store": None, "strategy": "none", "num_replicas": None}
    return workers.run_tasks(
        module,
        defaults | {"runs_per_group": 8, "num_workers": 1, "strategy": "none", "num_replicas": None} | setup,
        [{"subset_ratio": 0.7, "run_ids": list(run_ids)}],
        num_workers=1,
        threads_per_worker=1,
        supplies={"dataset": data.save},
        recover=recover,
    )


def results(answers, zoo):
    return [run_results.RunResult.from_json(m["result"], zoo, "e") for m in answers if "result" in m]


def test_a_run_that_is_complete_is_not_trained_again(tmp_path):
    stream = messages(tmp_path, range(3))
    there = layout.Run(tmp_path, "e", 0.7, 1)
    there.directory.mkdir(parents=True)
    there.aux_arrays_path.write_bytes(b"another program's record")
    answers = list(stream)
    assert [result.run.run_id for result in results(answers, tmp_path)] == [0, 2]
    assert [m["appeared"] for m in answers if "appeared" in m] == [1]
    assert there.aux_arrays_path.read_bytes() == b"another program's record"
    assert not there.checkpoints_directory.exists()


def another_recipe(zoo):
    """What a program with other flags may have written meanwhile."""
    path = layout.recipe_path(zoo, "e")
    stored = files.read_json(path)
    files.write_json(path, stored | {"training": stored["training"] | {"num_epochs": 1}})


def test_nothing_is_trained_for_an_experiment_of_another_recipe(tmp_path):
    stream = messages(tmp_path, range(3))
    another_recipe(tmp_path)
    answers = []
    with pytest.raises(dispatch.TaskError, match=r"e/recipe\.json: is no longer the recipe of this training"):
        answers.extend(stream)  # which keeps what came before
    assert not any("began" in message for message in answers)
    assert layout.runs(tmp_path, "e") == []


def test_a_recipe_replaced_while_a_group_is_trained_is_noticed_before_its_files_are_written(tmp_path):
    class Trainer:
        """Two epochs, then the files; the recipe is replaced between the epochs."""

        def train_group(self, group, on_epoch, *, batched):
            on_epoch(0, np.zeros(len(group)))
            another_recipe(tmp_path)
            on_epoch(1, np.zeros(len(group)))
            group[0].directory.mkdir(parents=True)

    messages(tmp_path, [])
    recipe, sent = recipes.read(tmp_path, "e"), []
    groups = train_worker.Groups(Trainer(), 8, str(tmp_path), recipe)
    with pytest.raises(errors.MismatchError, match="is no longer the recipe"):
        groups.train([layout.Run(tmp_path, "e", 0.7, i) for i in range(2)], sent.append)
    assert [message for message in sent if "run_epochs" in message] == [{"run_epochs": 2}]
    assert layout.runs(tmp_path, "e") == []


def test_a_group_of_an_architecture_without_a_batched_form_is_refused(tmp_path):
    own = {"architecture": "tests.heldout.small_models:OwnModel", "options": {}}
    with pytest.raises(dispatch.TaskError, match=r"--runs_per_group=8: architecture tests\..*OwnModel has no batched"):
        list(messages(tmp_path, [0], **own))
    for runs_per_group in (None, 1):
        assert results(messages(tmp_path / str(runs_per_group), [0], runs_per_group=runs_per_group, **own), tmp_path)


def test_a_worker_that_does_not_see_the_zoo_is_refused(tmp_path):
    with pytest.raises(dispatch.TaskError, match=r"recipe\.json: not seen by the worker on .*all machines share"):
        list(messages(tmp_path, [0], shared=False))


@pytest.mark.slow
def test_groups_shrink_to_the_memory_there_is(tmp_path):
    recover = group_recovery.GroupRecovery()
    answers = list(
        messages(
            tmp_path,
            range(8),
            module="tests.heldout.training.limited_train_worker",
            options=WIDE,
            more_bytes=400 << 20,
            recover=recover,
        )
    )
    assert sorted(result.run.run_id for result in results(answers, tmp_path)) == list(range(8))
    assert any("in groups of 4" in m.get("note", "") for m in answers)
    # The epochs that were lost are taken back.
    assert sum(m.get("run_epochs", 0) for m in answers) == 8 * 2


@pytest.mark.slow
def test_memory_that_does_not_suffice_for_one_run_ends_the_training(tmp_path):
    with pytest.raises(dispatch.TaskError, match=r"e/0\.7/3: memory does not suffice to train a single run") as error:
        list(
            messages(
                tmp_path,
                [3],
                module="tests.heldout.training.limited_train_worker",
                options=WIDE,
                more_bytes=100 << 20,
                recover=group_recovery.GroupRecovery(),
            )
        )
    assert "--batch_size" in str(error.value)


def test_a_worker_killed_in_training_is_replaced_and_its_group_halved(tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert len(results(messages(undisturbed, range(4)), undisturbed)) == 4
    answers, killed = [], False
    with contextlib.closing(messages(disturbed, range(4), recover=group_recovery.GroupRecovery())) as stream:
        for message in stream:
            answers.append(message)
            if "run_epochs" in message and not killed:
                killed = True
                os.kill(child_of(os.getpid()), signal.SIGKILL)
    assert sorted(result.run.run_id for result in results(answers, disturbed)) == list(range(4))
    (note,) = [m["note"] for m in answers if "note" in m]
    assert "SIGKILL" in note
    assert "4 runs at ratio 0.7 will be done again in groups of 2" in note
    for run_id in range(4):
        one, other = (layout.Run(zoo, "e", 0.7, run_id) for zoo in (undisturbed, disturbed))
        assert one.aux_arrays_path.read_bytes() == other.aux_arrays_path.read_bytes()
        assert_nearly_equal(one.checkpoint_prefix(2), other.checkpoint_prefix(2))


def assert_nearly_equal(one, other):
    """Equal up to rounding: the size of a group decides about the order of sums, so about last bits."""
    readers = [tf.train.load_checkpoint(str(prefix)) for prefix in (one, other)]
    names = set(readers[0].get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    assert any("model/" in name for name in names)
    for name in names:
        values = [reader.get_tensor(name) for reader in readers]
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6, err_msg=name)


def child_of(process):
    with open(f"/proc/{process}/task/{process}/children") as stream:
        (child,) = stream.read().split()
    return int(child)
