"""Checkpoints that fit their architecture or do not, and runs that predict what they recorded or do not."""

import dataclasses
import json
import shutil

import pytest

from heldout.evaluation import restore_check, restore_worker
from heldout.experiments import recipes
from heldout.models import registry
from heldout.training import run_training
from tests import cases
from zoo import aux_arrays, checkpoints, errors, files, layout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three trained runs, and the --dataset they were trained on."""
    folder = tmp_path_factory.mktemp("made")
    data = cases.tiny_digits()
    recipe = cases.tiny_recipe(data)
    runs = [layout.Run(folder / "zoo", "e", 0.7, run_id) for run_id in range(3)]
    recipes.adopt(runs[0].zoo, recipe)
    run_training.RunTrainer(recipe, data).train_group(runs)
    return runs, cases.tiny_digits_npz(folder / "tiny.npz")


@pytest.fixture
def trained(made, tmp_path):
    runs, dataset = made
    shutil.copytree(runs[0].zoo, tmp_path / "zoo")
    return layout.runs(tmp_path / "zoo", "e"), dataset


def model(**options):
    return registry.build("mlp", 10, (8, 8, 1), options)


def test_blueprints_of_recipes(trained, tmp_path):
    plan = restore_check.blueprint(tmp_path / "zoo", "e")
    assert plan == restore_check.Blueprint("mlp", {"hidden_sizes": [8]}, "float32", 10, (8, 8, 1))
    other = restore_check.blueprint(tmp_path / "zoo", "e", architecture="lenet", dataset="digits")
    assert other == restore_check.Blueprint("lenet", {}, "float32", 10, (8, 8, 1))


def test_blueprints_without_recipe(tmp_path):
    for name, architecture, num_classes, size in (
        ("cifar10-inception", "small_inception", 10, 32),
        ("cifar100-inception", "small_inception", 100, 32),
        ("imagenet-resnet50", "resnet50", 1000, 224),
    ):
        plan = restore_check.blueprint(tmp_path, name)
        assert plan == restore_check.Blueprint(architecture, {}, "float32", num_classes, (size, size, 3))
    assert restore_check.blueprint(tmp_path, "mine") is None
    assert restore_check.blueprint(tmp_path, "mine", architecture="mlp") is None
    assert restore_check.blueprint(tmp_path, "mine", dataset="digits") is None
    given = restore_check.blueprint(tmp_path, "mine", architecture="mlp", dataset="digits", data_dir="d")
    assert given == restore_check.Blueprint("mlp", {}, "float32", None, None, "digits", "d")


@pytest.mark.parametrize("shape", [None, [8, 8], [8, 8, 0], [8, 8, "1"], 8])
def test_recipes_without_sizes(trained, tmp_path, shape):
    path = layout.recipe_path(tmp_path / "zoo", "e")
    recipe = json.loads(path.read_text())
    recipe["dataset"]["image_shape"] = shape
    files.write_json(path, recipe)
    with pytest.raises(errors.DamagedFileError, match=r"recipe\.json: member 'dataset' has num_classes 10 and image"):
        restore_check.blueprint(tmp_path / "zoo", "e")


def test_checkpoints_that_fit_and_others(trained):
    runs, _ = trained
    checkpoints.write(model(hidden_sizes=[9]), runs[1].checkpoint_prefix(2), 2, 2)
    data = runs[2].checkpoint_prefix(2).with_name("ckpt-2" + layout.CHECKPOINT_DATA_SUFFIX)
    data.write_bytes(data.read_bytes()[:-1])
    checkpoints.write(model(hidden_sizes=[8]), runs[2].checkpoint_prefix(7), 7, 7)
    checkpoints.write(model(hidden_sizes=[9]), runs[2].checkpoint_prefix(8), 8, 8)
    calls = []
    plan = restore_check.blueprint(runs[0].zoo, "e")
    num_tried, findings = restore_check.restore(
        runs, plan, skip={str(runs[2].checkpoint_prefix(8))}, progress=lambda *call: calls.append(call)
    )
    assert num_tried == 4
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [(finding.run, finding.path, finding.state) for finding in findings] == [
        (run, str(run.checkpoint_prefix(2)), "damaged") for run in runs[1:]
    ]
    assert "of another shape: model/" in findings[0].reason
    assert "damaged checkpoint" in findings[1].reason


def test_sizes_from_the_data_set(trained):
    # The worker's function in this process: each start of a worker takes seconds.
    runs, dataset = trained
    plan = restore_check.blueprint(runs[0].zoo, "mine", architecture="mlp", dataset=dataset)
    restore, facts = restore_worker.start({"device": "cpu", "blueprint": dataclasses.asdict(plan)})
    assert facts == {}
    checkpoints.write(model(), runs[0].checkpoint_prefix(3), 3, 3)
    for epoch, match in ((3, None), (2, "of another shape"), (1, "no such file")):
        answers = []
        restore({"prefix": str(runs[0].checkpoint_prefix(epoch))}, answers.append)
        (answer,) = answers
        assert answer["prefix"] == str(runs[0].checkpoint_prefix(epoch))
        assert (answer["fault"] is None) if match is None else (match in answer["fault"])


def test_an_architecture_that_cannot_be_built():
    plan = restore_check.Blueprint("no_such", {}, "float32", 10, (8, 8, 1))
    with pytest.raises(errors.InvalidValueError, match="architecture 'no_such' is unknown"):
        restore_worker.start({"device": "cpu", "blueprint": dataclasses.asdict(plan)})


def test_nothing_to_restore_or_predict(tmp_path):
    runs = [layout.Run(tmp_path, "e", 0.5, 0)]
    plan = restore_check.Blueprint("no_such", {}, "float32", 10, (8, 8, 1))
    assert restore_check.restore(runs, plan) == (0, [])
    assert restore_check.predict([]) == (0, [])
    assert restore_check.sample(runs, 5, 0) == []


def test_samples(trained):
    runs, _ = trained
    assert restore_check.sample(runs, 5, 0) == runs
    drawn = {tuple(restore_check.sample(runs, 2, seed)) for seed in range(30)}
    assert drawn == {(runs[0], runs[1]), (runs[0], runs[2]), (runs[1], runs[2])}
    assert restore_check.sample(runs, 2, 3) == restore_check.sample(runs, 2, 3)
    runs[1].aux_arrays_path.unlink()
    for path in runs[2].checkpoints_directory.iterdir():
        path.unlink()
    assert restore_check.sample(runs, 5, 0) == [runs[0]]


def test_predictions_are_held_against_the_records(trained):
    runs, dataset = trained
    aux = aux_arrays.read(runs[1].aux_arrays_path)
    aux.correctness_test[[4, 7]] ^= True
    aux_arrays.write(runs[1].aux_arrays_path, aux)
    calls = []
    num_predictions, findings = restore_check.predict(
        runs[:2], dataset=dataset, progress=lambda *call: calls.append(call)
    )
    assert num_predictions == 2 * (60 + 20)
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    (finding,) = findings
    assert (finding.run, finding.path, finding.state) == (runs[1], str(runs[1].aux_arrays_path), "differs")
    first = min(aux.index_test[[4, 7]])
    assert f"2 of 20 predictions on the test split are not as recorded, the first at index {first};" in finding.reason


def test_what_would_be_predicted(trained, tmp_path):
    runs, dataset = trained
    told = restore_check.plan_prediction(runs[:2])
    assert told == restore_check.Prediction(tuple(runs[:2]), "mlp", None, 2 * (60 + 20))
    given = restore_check.plan_prediction(runs, architecture="lenet", dataset=dataset)
    assert (given.architecture, given.dataset, given.num_predictions) == ("lenet", dataset, 3 * (60 + 20))
    assert restore_check.plan_prediction([]).num_predictions == 0
    layout.recipe_path(runs[0].zoo, "e").unlink()
    assert restore_check.plan_prediction(runs) == restore_check.Prediction(tuple(runs), None, None, 3 * (60 + 20))
    runs[0].aux_arrays_path.write_bytes(b"no record")
    assert restore_check.plan_prediction(runs).num_predictions is None
    published = layout.Run(tmp_path / "zoo", "cifar10-inception", 0.5, 0)
    planned = restore_check.plan_prediction([published])
    assert (planned.architecture, planned.dataset) == ("small_inception", "cifar10")


def test_who_told(trained):
    zoo = trained[0][0].zoo
    assert restore_check.told_by(zoo, "e", "arch", "mlp") == "--arch"
    assert restore_check.told_by(zoo, "e", "arch", None) == "recipe.json"
    assert restore_check.told_by(zoo, "other", "arch", None) == "the experiment's name"
