"""Recipes: every command is one that its program takes, with the hyper-parameters of the source; and they run."""

import json
import pathlib
import subprocess
import sys

import pytest

from scripts.unique_information import recipes_bodies, recipes_commands, recipes_experiments
from zoo import layout

_ROOT = pathlib.Path(__file__).parents[3]
_EXPERIMENTS = recipes_experiments.EXPERIMENTS
# Reads command lines of one program, as the program itself does, and says what it does not take.
_PARSER = """
import importlib, json, sys
from absl import flags
program = importlib.import_module(sys.argv[1])
own = {*program._SHARED_FLAGS, "data_dir", "device", *(f.name for f in flags.FLAGS.get_flags_for_module(program))}
if sys.argv[1] == "scripts.train_model":
    from scripts.model_training import command_lines
for arguments in json.load(sys.stdin):
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    rest = flags.FLAGS(["program", *arguments])
    present = {name for name in flags.FLAGS if flags.FLAGS[name].present}
    assert rest == ["program"], rest
    assert present <= own, (arguments, present - own)
    assert len(present) == len(arguments), (arguments, present)
print("all are taken")
"""


def setting(**members):
    return recipes_commands.Setting(**({"outdir": "out"} | members))


def commands(name, **members):
    return _EXPERIMENTS[name].commands(setting(**members))


def flags_of(name, program, **members):
    """The flags of the first command of a program."""
    return next(dict(command.flags) for command in commands(name, **members) if command.program == program)


_SETTINGS = [{}, {"small": True}, {"data_dir": "D", "device": "gpu", "body": "B"}, {"small": True, "device": "gpu"}]
_ALL = [command for name in _EXPERIMENTS for members in _SETTINGS for command in commands(name, **members)]


@pytest.mark.parametrize("program", sorted({command.program for command in _ALL}))
def test_programs_take_every_command(program):
    lines = [command.arguments() for command in _ALL if command.program == program]
    result = subprocess.run(
        [sys.executable, "-c", _PARSER, f"scripts.{program}"],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        cwd=_ROOT,
        check=False,
    )
    assert result.stdout == "all are taken\n", result.stderr


@pytest.mark.parametrize(
    ("name", "program", "expected"),
    [
        ("mnist-mlp", "ground_truth_effects", {"dataset": "mnist", "classes": "4,9", "learning_rate": 0.001}),
        ("mnist-mlp", "ground_truth_effects", {"arch_options": '{"hidden_sizes": [1024]}', "num_steps": 2000}),
        ("mnist-mlp", "ground_truth_effects", {"num_train": 1000, "num_val": 1000, "which": "all"}),
        ("mnist-cnn", "ground_truth_effects", {"learning_rate": 0.01}),
        ("mnist-cnn-pretrained", "train_model", {"dataset": "emnist_letters", "standardise": "false"}),
        ("mnist-cnn-pretrained", "ground_truth_effects", {"learning_rate": 0.002, "init_body": True}),
        ("cats-dogs-resnet18", "ground_truth_effects", {"learning_rate": 0.001, "num_steps": 1000, "init_body": True}),
        ("cats-dogs-resnet50", "ground_truth_effects", {"dataset": "cats_vs_dogs_224", "arch": "keras:ResNet50"}),
        ("cats-dogs-resnet50", "ground_truth_effects", {"arch_options": '{"weights": "imagenet"}', "num_steps": 1000}),
        ("cassava-resnet18", "ground_truth_effects", {"dataset": "cassava_64", "learning_rate": 0.001}),
        ("mislabeled-mnist", "compute_unique_information", {"label_noise": 0.1}),
        ("mislabeled-cats-dogs", "compute_unique_information", {"label_noise": 0.1, "init_body": True}),
        ("rare-subclass", "compare_groups", {"by": "subclass"}),
        ("rare-source", "compare_groups", {"by": "source"}),
        ("rare-source", "mix_sources", {"share": 0.1}),
        ("summarize-cassava", "summarize_dataset", {"learning_rate": 0.0003, "dataset": "cassava_64"}),
        ("summarize-mnist", "summarize_dataset", {"ways": "top,bottom,random,iterative_top,iterative_bottom"}),
    ],
)
def test_hyper_parameters_are_those_of_the_source(name, program, expected):
    found = flags_of(name, program)
    assert {flag: found.get(flag) for flag in expected} == expected


def test_both_values_of_l2_are_retrained_and_compared():
    found = commands("mnist-mlp")
    trained = [command.flags for command in found if command.program == "ground_truth_effects"]
    assert [flags.get("l2", 0.0) for flags in trained] == [0.0, 1.0]
    first, second = ({**flags, "outdir": "", "l2": ""} for flags in trained)
    assert first == second
    compared = [command.flags for command in found if command.program == "aggregate_ground_truth"]
    pairs = [(flags["ground_truth"], flags["scores"].split("/")[2]) for flags in compared]
    assert pairs == [
        ("out/mnist-mlp/truth", "information"),
        ("out/mnist-mlp/truth-l2", "information-l2"),
        ("out/mnist-mlp/truth", "information-l2"),
    ]


def test_a_body_of_ones_own_takes_the_place_of_training_one():
    for name in ("cats-dogs-resnet18", "mislabeled-cats-dogs", "rare-subclass", "summarize-cassava"):
        assert commands(name)[0].program == "train_model"
        own = commands(name, body="B")
        assert all(command.program != "train_model" for command in own)
        assert own[0].flags["init_checkpoint"] == "B"
    assert commands("mnist-cnn-pretrained", body="B")[0].program == "train_model"
    # One body serves all experiments.
    prefixes = {
        flags_of(name, "ground_truth_effects")["init_checkpoint"] for name in ("cats-dogs-resnet18", "rare-subclass")
    }
    assert len(prefixes) == 1


def test_every_file_that_a_command_reads_was_written_by_one_before():
    for name in _EXPERIMENTS:
        for members in _SETTINGS:
            written = set()
            for command in commands(name, **members):
                for flag in ("scores", "labels", "ground_truth", "experiment"):
                    if flag in command.flags:
                        assert str(command.flags[flag]).removesuffix("/unique_information.npz") in written
                written.add(command.flags.get("outdir"))
            assert len(written - {None}) == sum("outdir" in command.flags for command in commands(name, **members))


def start(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "scripts.reproduce_unique_information", *arguments],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        check=False,
    )


def test_the_body_lies_where_the_experiment_looks_for_it(tmp_path):
    here = setting(outdir=str(tmp_path), small=True)
    body = recipes_bodies.letters(here)
    command = body.command(here, f"{tmp_path}/networks")
    trained = subprocess.run(
        [sys.executable, "-m", f"scripts.{command.program}", *command.arguments(), "--noprogress"],
        capture_output=True,
        text=True,
        cwd=_ROOT,
        check=False,
    )
    assert trained.returncode == 0, trained.stderr
    prefix = body.checkpoint(f"{tmp_path}/networks")
    assert pathlib.Path(f"{prefix}{layout.CHECKPOINT_INDEX_SUFFIX}").is_file(), trained.stdout


def test_commands_are_printed_for_a_shell():
    result = start("--print_commands", "--experiment=mislabeled-mnist,mnist-cnn", "--small", "--data_dir=/d d")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    # In the order of the list, whatever the order of the flag.
    assert lines[0] == "# mnist-cnn: the same with a CNN from scratch"
    assert sum(line.startswith("python -m scripts.") for line in lines) == 9
    assert "'--data_dir=/d d'" in lines[-2]
    everything = start("--print_commands")
    assert everything.stdout.startswith("# mnist-mlp: ")
    assert all(f"# {name}: " in everything.stdout for name in _EXPERIMENTS)


def test_commands_run_and_run_again_without_anything_to_do(tmp_path):
    arguments = ("--experiment=mislabeled-mnist", "--small", f"--outdir={tmp_path}")
    first = start(*arguments)
    assert first.returncode == 0, first.stderr
    assert "mislabeled-mnist, 1 of 2: python -m scripts.compute_unique_information --dataset=digits" in first.stdout
    assert "AUROC" in first.stdout
    assert first.stdout.endswith(f"mislabeled-mnist: done, in {tmp_path}/mislabeled-mnist\n")
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("unique_information.npz")}
    again = start(*arguments)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("unique_information.npz")} == times


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outdir=o"], "--experiment is required where commands are run: some of mnist-mlp, "),
        (["--outdir=o", "--experiment=mnist"], "--experiment=mnist: expected some of mnist-mlp, "),
        (["--experiment=synthetic"], "--outdir"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments, message):
    result = start(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_the_first_command_that_fails_ends_the_run_with_its_status(tmp_path):
    (tmp_path / "summarize-mnist").write_text("in the way")
    result = start("--experiment=summarize-mnist,synthetic", "--small", f"--outdir={tmp_path}")
    assert result.returncode == 1
    assert "summarize-mnist: summarize_dataset ended with status 1" in result.stderr
    assert "synthetic" not in result.stdout
