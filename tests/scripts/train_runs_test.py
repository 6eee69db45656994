"""Recipes by name, wrong labels, balanced subsets, margins and failures, as a user asks for them, on digits."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

from heldout import subsets
from heldout.datasets import digits
from heldout.experiments import label_noise, recipes
from heldout.training import failures
from tests.scripts import smoke_test
from zoo import aux_arrays, layout, run_table

_NOISY = (
    "--recipe=digits-mlp",
    "--run_ids=0:2",
    "--num_epochs=6",
    '--arch_options={"hidden_sizes": [32]}',
    "--label_noise=asymmetric:0.2",
    "--label_seed=3",
    "--subset_sampling=class_balanced",
    "--margins",
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    result = smoke_test.start("train_runs", f"--zoo={folder}", *_NOISY)
    assert result.returncode == 0, result.stderr
    assert "2 runs trained" in result.stdout
    return folder


def _labels():
    noise = label_noise.LabelNoise("asymmetric", share=0.2, seed=3, class_map=label_noise.CLASS_MAPS["digits"])
    return label_noise.apply(noise, digits.load()).train.label


def test_the_recipe_of_a_name_with_what_flags_say_otherwise(zoo):
    recipe = recipes.read(zoo, "digits-mlp")
    assert (recipe.architecture, recipe.architecture_options) == ("mlp", {"hidden_sizes": [32]})
    assert (recipe.training.num_epochs, recipe.training.batch_size) == (6, 64)  # the flag's, the recipe's
    assert recipe.subset_sampling == "class_balanced"
    assert [(run.subset_ratio, run.run_id) for run in layout.runs(zoo, "digits-mlp")] == [(0.7, 0), (0.7, 1)]


def test_every_file_has_the_same_wrong_labels(zoo):
    label = _labels()
    assert np.count_nonzero(label != digits.load().train.label) == round(0.2 * 1438)
    np.testing.assert_array_equal(run_table.read(layout.run_table_path(zoo, "digits-mlp")).train_label, label)
    with np.load(layout.labels_path(zoo, "digits-mlp")) as stored:
        np.testing.assert_array_equal(stored["train_label"], label)
    aux = aux_arrays.read(layout.Run(zoo, "digits-mlp", 0.7, 1).aux_arrays_path)
    np.testing.assert_array_equal(aux.index_train, subsets.balanced_indices("digits-mlp", 0.7, 1, label))
    assert np.isfinite(aux.train_margin()).all()


def test_every_program_judges_by_the_wrong_labels(zoo):
    for split, count in (("train", 1438), ("test", 359)):
        evaluated = smoke_test.start("evaluate_run", f"--run={zoo}/digits-mlp/0.7/1", f"--split={split}")
        assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
        assert f"{count} of {count} predictions match" in evaluated.stdout
    verified = smoke_test.start("zoo_verify", f"--zoo={zoo}", "--predictions=1")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    # A table that was built again has no labels: they come from the data set by the recipe.
    layout.run_table_path(zoo, "digits-mlp").unlink()
    scored = smoke_test.start("compute_scores", f"--zoo={zoo}", "--dataset=digits", "--num_draws=10")
    assert scored.returncode == 0, scored.stderr
    with np.load(layout.scores_directory(zoo, "digits-mlp") / "scores-0.7.npz") as scores:
        np.testing.assert_array_equal(scores["train_label"], _labels())
    rendered = smoke_test.start("render_report", f"--zoo={zoo}")
    assert rendered.returncode == 0, rendered.stderr
    listed = smoke_test.start("list_zoo", f"--zoo={zoo}")
    assert listed.returncode == 0
    assert "not part of a zoo" not in listed.stdout


def test_the_clean_labels_are_another_recipe(zoo):
    arguments = [flag for flag in _NOISY if "label" not in flag]
    result = smoke_test.start("train_runs", f"--zoo={zoo}", *arguments)
    assert result.returncode == 1
    assert "label_noise.kind: stored 'asymmetric', asked for None" in result.stderr


def test_help_with_recipes_prints_them_all():
    result = smoke_test.start("train_runs", "--recipe=help")
    assert result.returncode == 0
    for name in ("mnist-mlp-consistency", "svhn-lenet", "cifar100-inception", "imagenet-resnet50"):
        assert f"\n\n{name}\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe=mnist"], "--recipe=mnist: no such recipe"),
        (["--recipe=digits-mlp", "--label_noise=symmetric"], "--label_noise=symmetric: expected none, or a kind"),
        (["--recipe=digits-mlp", "--label_map={"], "--label_map={: not JSON"),
        (["--recipe=digits-mlp", "--step_epochs=a"], "--step_epochs=a: expected whole numbers"),
        (["--recipe=imagenet-resnet50", "--num_epochs=10"], "--step_epochs=(30, 60, 80)"),
        ([], "--dataset is required"),
        (["--recipe=digits-mlp", "--zoo=gs://b/z", "--tensorboard"], "--tensorboard: event files grow, objects of gs:"),
    ],
)
def test_wrong_usage_is_explained_in_a_line(tmp_path, arguments, message):
    result = smoke_test.start("train_runs", f"--zoo={tmp_path}", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_recipe_whose_data_is_not_there_says_so(tmp_path):
    result = smoke_test.start("train_runs", f"--zoo={tmp_path}", "--recipe=imagenet-resnet50", "--run_ids=0")
    assert result.returncode in (1, 2)
    assert "records:imagenet" in result.stderr or "imagenet: " in result.stderr
    assert "Traceback" not in result.stderr


def test_flags_win_over_a_recipe_one_by_one(tmp_path):
    code = """
import json, sys
from absl import flags
from scripts import train_runs
flags.FLAGS(sys.argv)
config = train_runs._config()
shown = {name: getattr(config, name) for name in sys.stdin.read().split()}
print(json.dumps(shown | config.training.to_json(), default=list))
"""
    names = "experiment dataset architecture architecture_options subset_ratios run_ids noise margins max_failures"

    def settings(*arguments):
        command = [sys.executable, "-c", code, f"--zoo={tmp_path}", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, input=names, check=True)
        return json.loads(result.stdout)

    plain = settings("--recipe=mnist-mlp-consistency")
    assert (plain["experiment"], plain["dataset"], plain["architecture"]) == ("mnist-mlp-consistency", "mnist", "mlp")
    assert plain["subset_ratios"] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert plain["run_ids"] == list(range(200))
    assert (plain["noise"], plain["margins"], plain["max_failures"]) == (None, False, 5)
    changed = settings(
        *("--recipe=cifar10-inception", "--experiment=own", "--dataset=digits", "--arch=lenet", "--subset_ratio=0.2"),
        *("--run_ids=7", "--schedule=step", "--step_epochs=3,4", "--augmentation=flip", "--nonesterov"),
    )
    assert (changed["experiment"], changed["dataset"], changed["architecture"]) == ("own", "digits", "lenet")
    assert (changed["architecture_options"], changed["subset_ratios"], changed["run_ids"]) == ({}, [0.2], [7])
    assert (changed["schedule"], changed["step_epochs"], changed["augmentation"]) == ("step", [3, 4], ["flip"])
    assert (changed["num_epochs"], changed["weight_decay"]) == (100, 5e-4)
    # Another architecture does not get the options of the recipe's.
    assert settings("--recipe=mnist-mlp", "--arch=lenet")["architecture_options"] == {}
    assert settings("--recipe=mnist-mlp", "--arch=mlp")["architecture_options"] == {"hidden_sizes": [512, 256]}


def test_failures_are_noted_and_the_retry_command_trains_the_same_run(tmp_path):
    wild = ("--recipe=digits-mlp", "--learning_rate=1e30", "--label_noise=pair:0.1", "--experiment=wild run")
    result = smoke_test.start("train_runs", f"--zoo={tmp_path}", *wild, "--run_ids=0:6", "--max_failures=2")
    assert result.returncode == 1
    assert "stopped: the last 2 runs in a row failed (--max_failures=2; 0 never stops)" in result.stdout
    noted = failures.current(tmp_path, "wild run")
    assert len(noted) == 2
    assert noted[0].retry in result.stdout
    program, *arguments = shlex.split(noted[0].retry)
    again = smoke_test.start(program, *arguments)
    assert again.returncode == 1
    assert "stopped" not in again.stdout
    assert [failure.run_id for failure in failures.read(tmp_path, "wild run")][2:] == [noted[0].run_id]


_TINY = ("--dataset=digits", '--arch_options={"hidden_sizes": [8]}', "--num_epochs=1", "--experiment=e")


def test_machines_of_a_cluster_train_their_shares_at_the_same_time(tmp_path):
    cluster = {"chief": ["here:1"], "worker": ["there:1"]}
    tasks = [{"type": "chief", "index": 0}, {"type": "worker", "index": 0}]
    command = [sys.executable, "-m", "scripts.train_runs", f"--zoo={tmp_path}", *_TINY, "--run_ids=0:4"]
    command += ["--strategy=multi_worker", "--num_replicas=2"]
    machines = [
        subprocess.Popen(
            command,
            env=os.environ | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for task in tasks
    ]
    said = [machine.communicate() for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert all("2 runs trained, 0 skipped" in out for out, _ in said)
    assert [run.run_id for run in layout.runs(tmp_path, "e") if run.aux_arrays_path.exists()] == [0, 1, 2, 3]
    # Whatever the table of the last one lacks is added by whoever comes next.
    again = smoke_test.start("train_runs", f"--zoo={tmp_path}", *_TINY, "--run_ids=0:4")
    assert "0 runs trained, 4 skipped" in again.stdout
    assert run_table.read(layout.run_table_path(tmp_path, "e")).run_id.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--share=3/2"], "--share=3/2: expected 1/4"),
        (["--strategy=multi_worker", "--num_replicas=1"], "TF_CONFIG is not set"),
        (["--strategy=multi_worker", "--share=1/2"], "leave one out"),
        (["--label_seed=3"], "--label_seed=3: no labels are changed; give --label_noise, or leave it out"),
    ],
)
def test_flags_that_cannot_be_are_refused(tmp_path, flags, message):
    result = smoke_test.start("train_runs", f"--zoo={tmp_path}", *_TINY, *flags)
    assert result.returncode == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())
