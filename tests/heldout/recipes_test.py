"""Recipes: stored once, compared for ever after."""

import dataclasses

import pytest

from heldout import recipes, training_config
from heldout.datasets import dataset as dataset_lib
from tests import cases
from zoo import errors, files, layout


@pytest.fixture
def recipe():
    training = training_config.TrainingConfig(num_epochs=3)
    fingerprint = cases.tiny_digits().fingerprint()
    return recipes.Recipe("e", fingerprint, "mlp", {"hidden_sizes": [4]}, training, dataset_flag="digits")


def test_first_use_stores_and_later_use_agrees(tmp_path, recipe):
    recipes.adopt(tmp_path, recipe)
    recipes.adopt(tmp_path, recipe)
    assert recipes.read(tmp_path, "e") == recipe


def test_another_recipe_is_refused_and_both_are_printed(tmp_path, recipe):
    recipes.adopt(tmp_path, recipe)
    (tmp_path / "e" / "0.5" / "0").mkdir(parents=True)
    before = layout.recipe_path(tmp_path, "e").read_bytes()
    other = dataclasses.replace(recipe, training=training_config.TrainingConfig(num_epochs=4))
    with pytest.raises(errors.MismatchError) as caught:
        recipes.adopt(tmp_path, other)
    assert "training.num_epochs: stored 3, asked for 4" in str(caught.value)
    assert '"num_epochs": 3' in str(caught.value)
    assert '"num_epochs": 4' in str(caught.value)
    assert layout.recipe_path(tmp_path, "e").read_bytes() == before


def test_runs_without_a_recipe_are_not_joined(tmp_path, recipe):
    (tmp_path / "e" / "0.5" / "0").mkdir(parents=True)
    with pytest.raises(errors.MismatchError, match="without a recipe"):
        recipes.adopt(tmp_path, recipe)
    assert not layout.recipe_path(tmp_path, "e").exists()


def test_a_packed_table_without_a_recipe_is_not_joined(tmp_path, recipe):
    # Training one run beside it would drop every packed row.
    layout.run_table_path(tmp_path, "e").parent.mkdir()
    layout.run_table_path(tmp_path, "e").write_bytes(b"packed runs")
    with pytest.raises(errors.MismatchError, match="without a recipe"):
        recipes.adopt(tmp_path, recipe)


def test_no_recipe_is_none(tmp_path):
    assert recipes.read(tmp_path, "e") is None


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("schema_version", 99, "schema version 99"),
        ("experiment", 3, "'experiment' should be a str"),
        ("dataset", None, "'dataset' should be a dict"),
        ("training", {"momentum": 2}, "--momentum=2"),
        ("training", {"x": 2}, "unknown training options"),
        ("dataset", {}, "should have 'name'"),
        ("dataset", {"name": 3}, "should have 'name'"),
        ("dataset_flag", None, "'dataset_flag' should be a str"),
    ],
)
def test_tampered_recipe_is_refused_by_file_name(tmp_path, recipe, member, value, message):
    path = layout.recipe_path(tmp_path, "e")
    files.write_json(path, recipe.to_json() | {member: value})
    with pytest.raises(errors.DamagedFileError, match=r"recipe\.json") as caught:
        recipes.read(tmp_path, "e")
    assert message in str(caught.value)


def test_a_recipe_that_could_not_be_trained_may_be_corrected(tmp_path, recipe):
    recipes.adopt(tmp_path, recipe)
    corrected = dataclasses.replace(recipe, architecture_options={})
    recipes.adopt(tmp_path, corrected)
    assert recipes.read(tmp_path, "e") == corrected


def test_where_the_data_lies_is_not_part_of_the_recipe(tmp_path, recipe):
    recipes.adopt(tmp_path, recipe)
    (tmp_path / "e" / "0.5" / "0").mkdir(parents=True)
    recipes.adopt(tmp_path, dataclasses.replace(recipe, dataset_flag="npz:/elsewhere.npz"))
    assert recipes.read(tmp_path, "e").dataset_flag == "digits"


def test_default_dataset(tmp_path, recipe):
    assert recipes.default_dataset(tmp_path, "e") is None
    assert recipes.default_dataset(tmp_path, "cifar100-inception") == "cifar100"
    assert recipes.default_dataset(tmp_path, "imagenet-resnet50") is None
    recipes.adopt(tmp_path, recipe)
    assert recipes.default_dataset(tmp_path, "e") == "digits"
    path = tmp_path / "tiny.npz"
    recipes.adopt(tmp_path, dataclasses.replace(recipe, experiment="n", dataset_flag=f"npz:{path}"))
    assert recipes.default_dataset(tmp_path, "n") is None
    path.write_bytes(b"")
    assert recipes.default_dataset(tmp_path, "n") == f"npz:{path}"


def test_only_the_data_set_of_the_training_is_accepted(tmp_path, recipe):
    recipes.adopt(tmp_path, recipe)
    data = cases.tiny_digits()
    recipes.check_dataset(tmp_path, "e", data)
    shuffled = dataclasses.replace(data, train=dataset_lib.Split(data.train.images, data.train.label[::-1]))
    with pytest.raises(errors.MismatchError, match="another order"):
        recipes.check_dataset(tmp_path, "e", shuffled)
    with pytest.raises(errors.MismatchError, match="num_train"):
        recipes.check_dataset(tmp_path, "e", cases.tiny_digits(num_train=50))


def test_a_published_experiment_knows_its_data_set(tmp_path):
    data = dataclasses.replace(cases.tiny_digits(), name="cifar10")
    recipes.check_dataset(tmp_path, "cifar10-inception", data)
    with pytest.raises(errors.MismatchError, match="give --dataset=cifar100"):
        recipes.check_dataset(tmp_path, "cifar100-inception", data)
