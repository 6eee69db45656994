"""Recipes: stored once, compared for ever after."""

import dataclasses

import pytest

from heldout import recipes, training_config
from zoo import errors, files, layout


@pytest.fixture
def recipe():
    training = training_config.TrainingConfig(num_epochs=3)
    return recipes.Recipe("e", {"name": "digits", "num_train": 5}, "mlp", {"hidden_sizes": [4]}, training)


def test_first_use_stores_and_later_use_agrees(tmp_path, recipe):
    recipes.adopt(tmp_path, recipe)
    recipes.adopt(tmp_path, recipe)
    assert recipes.read(tmp_path, "e") == recipe


def test_another_recipe_is_refused_and_both_are_printed(tmp_path, recipe):
    recipes.adopt(tmp_path, recipe)
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
    ],
)
def test_tampered_recipe_is_refused_by_file_name(tmp_path, recipe, member, value, message):
    path = layout.recipe_path(tmp_path, "e")
    files.write_json(path, recipe.to_json() | {member: value})
    with pytest.raises(errors.DamagedFileError, match=r"recipe\.json") as caught:
        recipes.read(tmp_path, "e")
    assert message in str(caught.value)
