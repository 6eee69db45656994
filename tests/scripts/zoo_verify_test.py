"""The program that verifies a zoo, as a user starts it: what it prints and the status it ends with."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from heldout.experiments import recipes
from heldout.training import run_training
from tests import cases
from tests.zoo.archive import archives
from zoo import aux_arrays, files, layout, run_table_update
from zoo.archive import indexing

_ROOT = pathlib.Path(__file__).parents[2]


def start(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "scripts.zoo_verify", *arguments], capture_output=True, text=True, cwd=_ROOT, check=False
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A zoo of four trained runs, and the --dataset they were trained on."""
    folder = tmp_path_factory.mktemp("trained")
    data = cases.tiny_digits()
    recipe = dataclasses.replace(cases.tiny_recipe(data), experiment="tiny")
    runs = [layout.Run(folder / "zoo", "tiny", 0.5, run_id) for run_id in range(4)]
    recipes.adopt(folder / "zoo", recipe)
    run_training.RunTrainer(recipe, data).train_group(runs)
    run_table_update.update(folder / "zoo", "tiny")
    return folder / "zoo", cases.tiny_digits_npz(folder / "tiny.npz")


@pytest.fixture
def zoo(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "zoo")
    return tmp_path / "zoo"


def data_file(zoo, run_id):
    return next(layout.Run(zoo, "tiny", 0.5, run_id).checkpoints_directory.glob("*.data*"))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_sound_zoo(zoo):
    result = start(f"--zoo={zoo}", "--norestore")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "tiny: 4 runs, 4 records and 4 checkpoints sound\n"


def test_every_kind_of_damage_at_once(zoo, trained):
    flip(data_file(zoo, 1))
    flip(layout.Run(zoo, "tiny", 0.5, 2).aux_arrays_path)
    path = layout.Run(zoo, "tiny", 0.5, 3).aux_arrays_path
    aux = aux_arrays.read(path)
    aux.correctness_test[5] ^= True
    aux_arrays.write(path, aux)
    (zoo / "tiny" / "stray").touch()
    result = start(f"--zoo={zoo}", "--predictions=4", "--format=json", f"--dataset={trained[1]}")
    assert result.returncode == 3, result.stderr
    (item,) = json.loads(result.stdout)
    found = {(finding["run_id"], finding["state"]) for finding in item["findings"]}
    assert found == {(1, "damaged"), (2, "damaged"), (3, "outdated"), (3, "differs"), (None, "unknown")}
    assert item["damaged"]
    assert (item["num_records"], item["num_checkpoints"]) == (3, 3)
    assert item["notes"] == [
        "restored: 3 checkpoints into mlp",
        "evaluated again: 160 predictions of 2 runs (0.5/0, 0.5/3)",
    ]


def test_findings_are_limited_and_damage_comes_first(zoo):
    for name in "abc":
        (zoo / "tiny" / name).touch()
    flip(data_file(zoo, 1))
    result = start(f"--zoo={zoo}", "--norestore", "--max_problems=2")
    assert result.returncode == 3
    lines = result.stdout.splitlines()
    assert lines[1].startswith(f"  damaged: {data_file(zoo, 1)}: ")
    assert lines[2].startswith("  unknown: ")
    assert lines[3] == "  and 2 more: --max_problems=4 names them all"


def test_what_is_unknown_or_partial_is_no_damage(zoo):
    layout.run_table_path(zoo, "tiny").unlink()
    layout.Run(zoo, "tiny", 0.5, 1).aux_arrays_path.unlink()
    (zoo / "tiny" / "stray").touch()
    result = start(f"--zoo={zoo}", "--norestore")
    assert result.returncode == 0
    assert "  partial: " in result.stdout
    assert "  unknown: " in result.stdout


def test_what_cannot_be_checked_is_said(zoo):
    result = start(f"--zoo={zoo}", "--norestore", "--predictions=1", "--dataset=npz:gone.npz")
    assert result.returncode == 1
    assert "4 checkpoints sound\n  not checked: " in result.stdout
    assert "gone.npz" in result.stdout
    assert "Traceback" not in result.stderr


def test_several_experiments_of_unknown_architecture(tmp_path):
    for name in ("a", "b"):
        archives.make_zoo(tmp_path, experiment=name, runs=((0.5, 0),))
    result = start(f"--zoo={tmp_path}")
    assert result.returncode == 1, result.stderr
    for name in ("a", "b"):
        assert f"{name}: 1 run, 1 record and 1 checkpoint sound\n  not restored: neither" in result.stdout
    assert start(f"--zoo={tmp_path}", "--experiment=b").stdout.startswith("b: 1 run, ")


def test_a_zoo_that_is_a_run_table_alone(zoo):
    shutil.rmtree(zoo / "tiny" / "0.5")
    result = start(f"--zoo={zoo}")
    assert result.returncode == 0, result.stderr
    assert result.stdout == (
        "tiny: 0 runs, 0 records and 0 checkpoints sound\n"
        "  packed in run_table.npz only: 4 runs, with neither record nor checkpoint to verify\n"
    )


def test_runs_that_are_gone_and_junk_are_named(zoo):
    run = layout.Run(zoo, "tiny", 0.5, 1)
    shutil.rmtree(run.directory)
    (layout.Run(zoo, "tiny", 0.5, 2).directory / "core").touch()
    result = start(f"--zoo={zoo}", "--norestore")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[1].startswith(f"  unknown: {zoo}/tiny/0.5/2/core: ")
    assert lines[2].startswith(f"  partial: {run.aux_arrays_path}: gone, only its row in run_table.npz is left")


def test_a_plan_of_all_that_would_be_done(zoo, trained):
    flip(data_file(zoo, 1))
    before = {path: path.stat().st_mtime_ns for path in zoo.rglob("*")}
    num_bytes = sum(path.stat().st_size for path in zoo.rglob("*") if path.is_file())
    flags = [f"--zoo={zoo}", "--dry_run", "--predictions=2", f"--dataset={trained[1]}"]
    result = start(*flags)
    assert result.returncode == 0, result.stderr
    sample = "2 runs (0.5/0, 0.5/2)"
    assert result.stdout == (
        f"tiny: 4 runs, 4 records, 4 checkpoints: 14 files, {files.size_text(num_bytes)} would be read\n"
        "  would be restored: 4 checkpoints into mlp (recipe.json)\n"
        f"  would be evaluated again, if sound: 160 predictions of {sample} on {trained[1]} (--dataset)\n"
    )
    (plan,) = json.loads(start(*flags, "--format=json").stdout)
    assert (plan["experiment"], plan["num_runs"], plan["num_bytes"]) == ("tiny", 4, num_bytes)
    assert {path: path.stat().st_mtime_ns for path in zoo.rglob("*")} == before


def test_a_plan_says_what_could_not_be_done(zoo, tmp_path):
    layout.recipe_path(zoo, "tiny").unlink()
    result = start(f"--zoo={zoo}", "--dry_run", "--predictions=1")
    assert result.returncode == 1
    assert "  would not be restored: neither a recipe.json nor" in result.stdout
    assert "  would not be evaluated again: give --dataset and --arch\n" in result.stdout
    layout.recipe_path(zoo, "tiny").write_text("{")
    result = start(f"--zoo={zoo}", "--dry_run")
    assert result.returncode == 1
    assert "  could not be checked: " in result.stdout
    archives.make_zoo(tmp_path / "bare", experiment="bare", runs=((0.5, 0),), num_parameters=0)
    result = start(f"--zoo={tmp_path}/bare", "--dry_run", "--predictions=1")
    assert result.returncode == 1
    assert "bare: 1 run, 1 record, 0 checkpoints: 1 file, " in result.stdout
    assert "  would not be evaluated again: no run has a record and a checkpoint\n" in result.stdout


def test_a_plan_names_the_index_of_the_archive(zoo):
    archive = archives.write_archive(zoo, "tiny", zoo.parent / "tiny.tar.gz")
    indexing.make(str(archive), indexing.Places(layout.archive_index_path(zoo, "tiny")))
    result = start(f"--zoo={zoo}", "--dry_run", "--norestore")
    assert "  would be compared with the index of the archive, read a second time: 13 files\n" in result.stdout


def test_mistakes(tmp_path):
    assert start().returncode == 2
    result = start(f"--zoo={tmp_path}/none")
    assert result.returncode == 1
    assert "no such folder" in result.stderr
    assert start(f"--zoo={tmp_path}", "--predictions=-1").returncode == 2


def test_a_folder_that_is_no_zoo(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(1))
    result = start(f"--zoo={tmp_path}")
    assert result.returncode == 1
    assert "no experiment; found: none" in result.stderr
