"""Zoos in a bucket: an emulator on loopback, the real package that talks to it, real workers, kills."""

import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from heldout.experiments import recipes, training_config
from heldout.training import store_training, zoo_training
from tests import cases
from tests.heldout.training import zoo_training_test
from tests.zoo.remote import emulator
from zoo import errors, files, layout, run_table, stores

_ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return cases.tiny_digits_npz(tmp_path_factory.mktemp("data") / "tiny.npz")


@pytest.fixture(scope="module")
def bucket():
    with emulator.serving({}) as (_, address):
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory, dataset):
    """The same zoo in a folder."""
    zoo = tmp_path_factory.mktemp("folder")
    zoo_training.train_runs(config(zoo, dataset))
    return zoo


def config(zoo, dataset, **options):
    return zoo_training_test.config(zoo, dataset, **({"runs_per_group": 1, "run_ids": (0, 1, 2)} | options))


def train(address, dataset, **options):
    return store_training.train_runs(config(address, dataset, **options), zoo_training.Progress())


def content(address, tmp_path):
    """Path and bytes of every object of the experiment."""
    store, found = stores.Store(address), {}
    for name in store.sizes("e"):
        store.fetch(name, tmp_path / "object")
        found[name] = (tmp_path / "object").read_bytes()
    return found


def assert_as_in(folder, address, tmp_path):
    theirs = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    ours = content(address, tmp_path)
    assert ours.keys() == theirs.keys()
    for name, path in theirs.items():
        if name.endswith(layout.RUN_TABLE_NAME):  # notes when records were written
            (tmp_path / "table").write_bytes(ours[name])
            assert run_table.read(tmp_path / "table").digest() == run_table.read(path).digest()
        else:
            assert ours[name] == path.read_bytes(), name


def test_a_zoo_in_a_bucket_is_that_of_a_folder_and_grows(bucket, dataset, folder, tmp_path):
    address = f"{bucket}/first/zoo"
    summary = train(address, dataset, run_ids=(0, 2))
    assert sorted(result.run.run_id for result in summary.trained) == [0, 2]
    summary = train(address, dataset)
    assert [result.run.run_id for result in summary.trained] == [1]
    assert summary.num_skipped == 2
    assert summary.table.run_id.tolist() == [0, 1, 2]
    assert_as_in(folder, address, tmp_path)
    summary = train(address, dataset)
    assert (len(summary.trained), summary.num_skipped) == (0, 3)
    with pytest.raises(errors.MismatchError, match=r"training\.num_epochs: stored 2, asked for 3"):
        train(address, dataset, training=training_config.TrainingConfig(num_epochs=3, batch_size=10))
    assert_as_in(folder, address, tmp_path)


@pytest.mark.slow
def test_a_killed_training_continues_to_the_same_zoo(bucket, dataset, folder, tmp_path):
    address = f"{bucket}/killed/zoo"
    program = (
        "from heldout.training import store_training, zoo_training\n"
        "from tests.heldout.training import store_training_test as t\n"
        f"t.train({address!r}, {dataset!r}, workers=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=_ROOT)
    store, deadline = stores.Store(address), time.monotonic() + 120
    while not any(name.endswith(layout.CHECKPOINT_INDEX_SUFFIX) for name in store.sizes("e")):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.wait()
    summary = train(address, dataset)
    assert len(summary.trained) + summary.num_skipped == 3
    assert_as_in(folder, address, tmp_path)


def test_failures_are_noted_in_the_store_with_its_address(bucket, dataset, tmp_path):
    address = f"{bucket}/wild"
    wild = training_config.TrainingConfig(num_epochs=2, batch_size=10, learning_rate=1e30)
    summary = train(address, dataset, training=wild, run_ids=(0,))
    assert [result.run.run_id for result in summary.failed] == [0]
    assert "--zoo=gs://zoos/wild " in summary.failures[0].retry
    objects = content(address, tmp_path)
    assert set(objects) == {"e/recipe.json", "e/failures.jsonl"}
    assert re.search(rb"--zoo=gs://zoos/wild ", objects["e/failures.jsonl"])


def test_failures_of_two_programs_are_all_kept(bucket, tmp_path):
    store, lines = stores.Store(f"{bucket}/both"), [b'{"run": %d}' % i for i in range(4)]
    for name in "ab":
        (tmp_path / name / "e").mkdir(parents=True)
    (tmp_path / "a" / "e" / "failures.jsonl").write_bytes(lines[0] + b"\n")
    store_training.Mirror(store, str(tmp_path / "a"), "e").push()
    mirrors = {}
    for name, line in zip("ab", lines[1:3], strict=True):
        (tmp_path / name / "e" / "failures.jsonl").unlink(missing_ok=True)
        mirrors[name] = store_training.Mirror(store, str(tmp_path / name), "e")
        mirrors[name].pull()
        with open(tmp_path / name / "e" / "failures.jsonl", "ab") as stream:
            stream.write(line + b"\n")
    for name in "aba":
        mirrors[name].push()
    with open(tmp_path / "a" / "e" / "failures.jsonl", "ab") as stream:
        stream.write(lines[3] + b"\n")
    mirrors["a"].push()
    assert content(store.address, tmp_path)["e/failures.jsonl"].splitlines() == lines


def other_recipe(recipe_path):
    stored = files.read_json(recipe_path)
    return json.dumps(stored | {"training": stored["training"] | {"num_epochs": 1}})


def test_another_programs_recipe_is_neither_replaced_nor_trained_beside(bucket, dataset, tmp_path, monkeypatch):
    """Put by another program at the worst of moments: before ours is put, and while our workers start."""
    address = f"{bucket}/race"
    store, adopt, theirs = stores.Store(address), recipes.adopt, tmp_path / "theirs.json"

    def overtaken(zoo, recipe):
        adopt(zoo, recipe)
        theirs.write_text(other_recipe(layout.recipe_path(zoo, "e")))
        store.put(theirs, "e/recipe.json")

    monkeypatch.setattr(recipes, "adopt", overtaken)
    with pytest.raises(errors.MismatchError, match=r"race/e/recipe\.json: is no longer the recipe of this training"):
        train(address, dataset)
    monkeypatch.undo()
    assert content(address, tmp_path) == {"e/recipe.json": theirs.read_bytes()}

    class Overtaken(zoo_training.Progress):
        def starting(self, *_):
            theirs.write_text(other_recipe(theirs).replace('"num_epochs": 1', '"num_epochs": 7'))
            store.put(theirs, "e/recipe.json")

    with pytest.raises(errors.HeldoutError, match=r"race/e/recipe\.json: is no longer the recipe of this training"):
        store_training.train_runs(config(address, dataset), Overtaken())
    assert content(address, tmp_path) == {"e/recipe.json": theirs.read_bytes()}


def test_nothing_is_deleted_from_a_store(dataset):
    with pytest.raises(errors.InvalidValueError, match=r"--redo_damaged: nothing is deleted from gs://b/zoo"):
        train("gs://b/zoo", dataset, redo_damaged=True)


def test_a_record_is_fetched_once_and_unchanged_files_are_not_put_again(bucket, tmp_path):
    store = stores.Store(f"{bucket}/mirror")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "recipe.json").write_text("{}")
    mirror = store_training.Mirror(store, str(tmp_path), "e")
    mirror.push()
    store._system.rm_file("zoos/mirror/e/recipe.json")
    mirror.push()
    assert store.sizes("e") == {}
    run = layout.Run(tmp_path, "e", 0.5, 3)
    np.savez(tmp_path / "record.npz", a=np.zeros(3))
    store.put(tmp_path / "record.npz", "e/0.5/3/aux_arrays.npz")
    mirror.pull()
    assert run.aux_arrays_path.read_bytes() == (tmp_path / "record.npz").read_bytes()
