"""Recipes: stored once, compared for ever after."""

import dataclasses
import os
import subprocess
import time

import numpy as np
import pytest

from heldout.datasets import dataset as dataset_lib
from heldout.experiments import label_noise, recipes, training_config, training_files
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


def _training(zoo, process, machine=None):
    """The file of a training whose first runs are not there yet."""
    machine = machine or files.machine()
    path = zoo / "e" / f".training-{machine}-{process}.json"
    now = training_files.now()
    training_files.write(path, training_files.Training(machine, "host", process, now, (0.7,), ((0, 4),)))
    return path


@pytest.mark.parametrize("machine", [None, "0123abcd"], ids=["here", "elsewhere"])
def test_a_recipe_whose_first_runs_are_being_trained_is_not_replaced(tmp_path, recipe, machine):
    recipes.adopt(tmp_path, recipe)
    other = dataclasses.replace(recipe, training=training_config.TrainingConfig(num_epochs=4))
    path = _training(tmp_path, os.getppid(), machine)
    with pytest.raises(errors.MismatchError, match=rf"(?s)num_epochs: stored 3, asked for 4.*says .*{path.name}"):
        recipes.adopt(tmp_path, other)
    recipes.adopt(tmp_path, recipe)
    assert recipes.read(tmp_path, "e") == recipe


def test_the_recipe_of_a_training_that_is_gone_is_replaced(tmp_path, recipe):
    recipes.adopt(tmp_path, recipe)
    process = subprocess.Popen(["true"])
    process.wait()
    _training(tmp_path, process.pid)
    silent = _training(tmp_path, os.getppid(), "0123abcd")
    os.utime(silent, (time.time() - 2 * 24 * 3600,) * 2)
    other = dataclasses.replace(recipe, training=training_config.TrainingConfig(num_epochs=4))
    recipes.adopt(tmp_path, other)
    assert recipes.read(tmp_path, "e") == other


def test_a_recipe_that_is_not_kept_is_noticed(tmp_path, recipe):
    recipes.adopt(tmp_path, recipe)
    recipes.check_kept(tmp_path, recipe)
    other = dataclasses.replace(recipe, training=training_config.TrainingConfig(num_epochs=4))
    with pytest.raises(errors.MismatchError, match=r"e/recipe\.json: is no longer the recipe .* another --experiment"):
        recipes.check_kept(tmp_path, other)
    layout.recipe_path(tmp_path, "e").unlink()
    with pytest.raises(errors.MismatchError, match=r"^gs://b/e/recipe\.json: is no longer"):
        recipes.check_kept(tmp_path, recipe, "gs://b/e/recipe.json")


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


# What earlier versions wrote, byte for byte but for the sizes.
_EARLIER = """{
  "schema_version": 1,
  "experiment": "e",
  "dataset": {
    "name": "npz:tiny.npz",
    "version": "1",
    "num_train": 60,
    "num_test": 20,
    "num_classes": 10,
    "image_shape": [
      8,
      8,
      1
    ],
    "train_label_sha256": "TRAIN",
    "test_label_sha256": "TEST"
  },
  "architecture": "mlp",
  "architecture_options": {
    "hidden_sizes": [
      4
    ]
  },
  "training": {
    "num_epochs": 3,
    "batch_size": 128,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "nesterov": false,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup_epochs": 0.0,
    "step_epochs": [],
    "step_factor": 0.1,
    "augmentation": [],
    "crop_padding": 4,
    "dtype": "float32"
  },
  "dataset_flag": "digits",
  "seed_scheme": "heldout-1"
}
"""


def earlier(recipe):
    digests = recipe.dataset["train_label_sha256"], recipe.dataset["test_label_sha256"]
    return _EARLIER.replace("TRAIN", digests[0]).replace("TEST", digests[1])


def test_without_noise_and_sampling_a_recipe_is_what_it_always_was(tmp_path, recipe):
    recipes.adopt(tmp_path, recipe)
    path = layout.recipe_path(tmp_path, "e")
    assert path.read_text() == earlier(recipe)


def test_a_recipe_of_an_earlier_version_is_one_without_noise(tmp_path, recipe):
    files.write_text(layout.recipe_path(tmp_path, "e"), earlier(recipe))
    (tmp_path / "e" / "0.5" / "0").mkdir(parents=True)
    stored = recipes.read(tmp_path, "e")
    assert stored == recipe
    assert (stored.noise, stored.clean_label_sha256, stored.subset_sampling) == (None, None, "uniform")
    recipes.adopt(tmp_path, recipe)


@pytest.fixture
def noisy(recipe):
    noise = label_noise.LabelNoise("asymmetric", share=0.2, seed=3, class_map=((1, 2), (3, 4)))
    clean = cases.tiny_digits()
    return dataclasses.replace(
        recipe,
        dataset=label_noise.apply(noise, clean).fingerprint(),
        noise=noise,
        clean_label_sha256=dataset_lib.label_sha256(clean.train.label),
        subset_sampling="class_balanced",
    )


def test_noise_and_sampling_come_back_and_have_a_version_that_earlier_programs_refuse(tmp_path, noisy):
    recipes.adopt(tmp_path, noisy)
    assert recipes.read(tmp_path, "e") == noisy
    stored = files.read_json(layout.recipe_path(tmp_path, "e"))
    assert stored["schema_version"] == 2
    assert stored["label_noise"]["class_map"] == {"1": 2, "3": 4}


def test_a_ranking_comes_back_beside_noise_and_has_a_version_of_its_own(tmp_path, noisy):
    ranked = dataclasses.replace(noisy, subset_sampling="ranked", ranking_sha256="0123")
    recipes.adopt(tmp_path, ranked)
    assert recipes.read(tmp_path, "e") == ranked
    assert files.read_json(layout.recipe_path(tmp_path, "e"))["schema_version"] == 3
    with pytest.raises(errors.InvalidValueError, match="its subsets follow a ranking"):
        recipes.check_random_subsets(tmp_path, "e")


def test_subsets_without_a_ranking_are_random(tmp_path, noisy):
    recipes.check_random_subsets(tmp_path, "e")
    recipes.adopt(tmp_path, noisy)
    recipes.check_random_subsets(tmp_path, "e")


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"noise": None, "clean_label_sha256": None}, "label_noise.seed: stored 3, asked for None"),
        ({"subset_sampling": "uniform"}, "subset_sampling: stored 'class_balanced', asked for None"),
    ],
)
def test_other_noise_or_sampling_is_another_recipe(tmp_path, noisy, changes, difference):
    recipes.adopt(tmp_path, noisy)
    (tmp_path / "e" / "0.5" / "0").mkdir(parents=True)
    with pytest.raises(errors.MismatchError, match="begun with another recipe") as caught:
        recipes.adopt(tmp_path, dataclasses.replace(noisy, **changes))
    assert difference in str(caught.value)


@pytest.mark.parametrize(
    ("member", "value", "message"),
    [
        ("subset_sampling", "any", "member 'subset_sampling' is 'any', expected one of uniform, class_balanced"),
        (
            "subset_sampling",
            "ranked",
            "member 'ranking_sha256' is None with 'subset_sampling' 'ranked', expected a text",
        ),
        ("ranking_sha256", "0", "member 'ranking_sha256' is '0' with 'subset_sampling' 'class_balanced'"),
        ("label_noise", {}, "'label_noise' should have 'clean_train_label_sha256'"),
        ("label_noise", "pair", "'label_noise' should have 'clean_train_label_sha256'"),
        ("label_noise", {"clean_train_label_sha256": "0"}, "expected the members"),
    ],
)
def test_tampered_noise_is_refused_by_file_name(tmp_path, noisy, member, value, message):
    files.write_json(layout.recipe_path(tmp_path, "e"), noisy.to_json() | {member: value})
    with pytest.raises(errors.DamagedFileError, match=r"recipe\.json") as caught:
        recipes.read(tmp_path, "e")
    assert message in str(caught.value)


def test_the_data_set_behind_an_experiment_has_the_labels_of_its_training(tmp_path, noisy):
    name = cases.tiny_digits_npz(tmp_path / "tiny.npz")
    recipes.adopt(tmp_path, noisy)
    loaded = recipes.load_dataset(tmp_path, "e", name)
    expected = label_noise.apply(noisy.noise, cases.tiny_digits())
    np.testing.assert_array_equal(loaded.train.label, expected.train.label)
    recipes.check_dataset(tmp_path, "e", loaded)
    with pytest.raises(errors.MismatchError, match="train_label_sha256"):
        recipes.check_dataset(tmp_path, "e", cases.tiny_digits())
    clean = recipes.load_dataset(tmp_path, "without-a-recipe", name)
    np.testing.assert_array_equal(clean.train.label, cases.tiny_digits().train.label)


def test_only_the_labels_that_were_changed_can_be_changed_again(tmp_path, noisy):
    name = cases.tiny_digits_npz(tmp_path / "tiny.npz", num_train=50)
    recipes.adopt(tmp_path, noisy)
    with pytest.raises(errors.MismatchError, match="the labels that e changed had"):
        recipes.load_dataset(tmp_path, "e", name)
