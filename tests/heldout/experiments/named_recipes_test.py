"""Recipes by name: sound, explained, and those that are known elsewhere the same as there."""

import re

import pytest

from heldout import models
from heldout.datasets import tfds
from heldout.experiments import named_recipes
from scripts import demo
from zoo import errors, layout, registry


@pytest.mark.parametrize("name", named_recipes.NAMED)
def test_a_recipe_is_one_that_can_be_trained(name):
    recipe = named_recipes.find(name)
    layout.check_experiment_name(recipe.name)
    assert recipe.dataset in {"digits", *tfds.PINNED} or recipe.dataset == "records:imagenet"
    image_shape = {"records:imagenet": (224, 224, 3), "digits": (8, 8, 1)}.get(recipe.dataset, (32, 32, 3))
    if recipe.architecture != "resnet50":
        models.build(recipe.architecture, 10, image_shape, recipe.architecture_options)
    assert recipe.num_runs > 0
    assert list(recipe.subset_ratios) == sorted(set(recipe.subset_ratios))
    assert all(0 < ratio < 1 for ratio in recipe.subset_ratios)
    # No handwriting is mirrored.
    assert "flip" not in recipe.training.augmentation or "cifar" in name or "imagenet" in name


@pytest.mark.parametrize("name", named_recipes.NAMED)
def test_a_recipe_is_explained_with_its_numbers_and_their_source(name):
    recipe = named_recipes.find(name)
    text = re.sub(r"\s+", " ", named_recipes.describe())
    (part,) = re.findall(rf"(?:^| ){name} ({re.escape(recipe.dataset)},.*?){re.escape(recipe.source[-20:])}", text)[:1]
    training = recipe.training
    for shown in (
        f"{recipe.num_runs} runs",
        f"num_epochs {training.num_epochs}",
        f"batch_size {training.batch_size}",
        f"learning_rate {training.learning_rate}",
        f"schedule {training.schedule}",
    ):
        assert shown in part
    assert re.search(r"our choice|\(\d{4}\)|et al", recipe.source)


def test_mnist_mlp_is_the_published_recipe():
    for name, ratios in (("mnist-mlp", (0.7,)), ("mnist-mlp-consistency", tuple(i / 10 for i in range(1, 10)))):
        recipe = named_recipes.find(name)
        training = recipe.training
        assert (recipe.dataset, recipe.architecture, recipe.subset_ratios) == ("mnist", "mlp", ratios)
        assert recipe.architecture_options == {"hidden_sizes": [512, 256]}
        assert (training.num_epochs, training.batch_size, training.learning_rate) == (10, 128, 0.1)
        assert (training.momentum, training.nesterov, training.weight_decay) == (0.9, False, 0)
        assert (training.schedule, training.augmentation) == ("constant", ())


def test_digits_mlp_is_the_demonstration():
    recipe, shown = named_recipes.find("digits-mlp"), demo.training("z", (0.7,), 400)
    assert (shown.experiment, shown.dataset) == (recipe.name, recipe.dataset)
    assert (shown.architecture, shown.architecture_options) == (recipe.architecture, recipe.architecture_options)
    assert shown.training == recipe.training
    assert (shown.subset_ratios, shown.run_ids) == (recipe.subset_ratios, tuple(range(recipe.num_runs)))


@pytest.mark.parametrize("name", registry.PUBLISHED)
def test_published_zoos_have_recipes_of_their_architecture(name):
    recipe = named_recipes.find(name)
    assert recipe.architecture == registry.PUBLISHED[name].architecture
    assert recipe.dataset.removeprefix("records:") == registry.PUBLISHED[name].dataset


def test_options_that_are_not_the_default_are_shown():
    text = named_recipes.optimisation(named_recipes.find("imagenet-resnet50").training)
    assert "step_epochs 30+60+80" in text
    assert "nesterov" not in text
    assert "augmentation" not in text
    assert "augmentation crop+flip" in named_recipes.optimisation(named_recipes.find("cifar10-inception").training)


def test_an_unknown_name_is_refused_with_all_names():
    with pytest.raises(
        errors.InvalidValueError, match=r"--recipe=mnist: no such recipe; expected one of mnist-mlp, .*help"
    ):
        named_recipes.find("mnist")
