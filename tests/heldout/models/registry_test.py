"""Architectures by name, a user's own, and what is said about names and options that do not work."""

import sys

import pytest
import sonnet as snt
import tensorflow as tf

from heldout import models
from heldout.models import registry
from zoo import errors

_OWN = """
import sonnet as snt
import tensorflow as tf

class Own(snt.Module):
    def __init__(self, num_classes, width=3):
        super().__init__()
        self.hidden, self.head = snt.Linear(width), snt.Linear(num_classes)

    def __call__(self, images, is_training):
        return self.head(self.hidden(snt.flatten(images)))

class NoFeatures(Own):
    def __call__(self, images, is_training):
        return images

class Halved(Own):
    def __call__(self, images, is_training):
        return tf.cast(super().__call__(images, is_training), tf.float16)

class Impossible(Own):
    def __call__(self, images, is_training):
        return tf.reshape(images, [1, 12345])

def lambda_free(num_classes):
    return 3

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_architectures.py").write_text(_OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_architectures"
    sys.modules.pop("own_architectures", None)


@pytest.mark.parametrize("name", ["mlp", "lenet"])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_build_creates_every_variable_in_the_dtype(name, dtype):
    model = models.build(name, 4, (8, 8, 1), dtype=dtype)
    num_variables = len(model.variables)
    logits = model(tf.zeros([3, 8, 8, 1], dtype), is_training=True)
    assert logits.shape == (3, 4)
    assert logits.dtype == dtype
    assert {variable.dtype for variable in model.variables} == {dtype}
    assert len(model.variables) == num_variables > 0


def test_the_known_names():
    small = ["conv5", "resnet18", "resnet34", "vgg11", "vgg13", "vgg16", "vgg19", "vit"]
    assert sorted(models.ARCHITECTURES) == sorted(["lenet", "mlp", "resnet50", "small_inception", *small])


def test_a_width_in_the_name_is_the_option():
    models_built = [
        registry.build("conv5_3", 4, (8, 8, 1), {"pooling": "average"}),
        registry.build("conv5", 4, (8, 8, 1), {"pooling": "average", "width": 3}),
    ]
    assert models_built[0].layers[0].w.shape == models_built[1].layers[0].w.shape == (3, 3, 1, 3)
    assert registry.build("vit_8", 4, (8, 8, 1)).patches.w.shape == (4, 4, 1, 8)


def test_a_width_is_said_once():
    with pytest.raises(errors.InvalidValueError, match=r"resnet18_3.*'width': 3.*said twice"):
        registry.build("resnet18_3", 4, (8, 8, 1), {"width": 3})


@pytest.mark.parametrize(
    ("name", "known"),
    [("lenet", True), ("resnet18_64", True), ("vit_8", True), ("lenet_5", False), ("a.b:resnet18_64", False)],
)
def test_which_names_are_known(name, known):
    assert models.is_known(name) == known


def test_batch_normalisation_in_float64_is_refused_with_the_reason():
    with pytest.raises(errors.InvalidValueError, match=r"small_inception.*float64 image of shape \(8, 8, 3\)"):
        registry.build("small_inception", 10, (8, 8, 3), dtype=tf.float64)


def test_a_module_of_ones_own(own):
    model = registry.build(f"{own}:Own", 4, (2, 2, 1), {"width": 5})
    assert model.hidden.w.shape == (4, 5)
    assert isinstance(model, snt.Module)


@pytest.mark.parametrize(
    "name",
    [
        *("vgg", "", ":mlp", "heldout.models.mlp:", "heldout.models.mlp"),
        *("lenet_5", "resnet50_64", "resnet18_0", "resnet18_064", "resnet18_", "resnet18_-4", "resnet18_2_2", "_64"),
    ],
)
def test_unknown_names(name):
    with pytest.raises(errors.InvalidValueError, match=r"unknown; use one of conv5, lenet, mlp, .* as in resnet18_64"):
        registry.build(name, 4, (8, 8, 1))


@pytest.mark.parametrize("name", ["no_such_package.at_all:build", "heldout.models.mlp:no_such", "heldout..mlp:mlp"])
def test_names_that_cannot_be_imported(name):
    with pytest.raises(errors.InvalidValueError, match="cannot be imported"):
        registry.build(name, 4, (8, 8, 1))


def test_names_that_are_not_callable(own):
    with pytest.raises(errors.InvalidValueError, match=r"number.: is a int; expected a callable"):
        registry.build(f"{own}:number", 4, (8, 8, 1))


def test_a_callable_that_returns_no_module(own):
    with pytest.raises(errors.InvalidValueError, match="returned int"):
        registry.build(f"{own}:lambda_free", 4, (8, 8, 1))


@pytest.mark.parametrize(
    ("name", "options", "known"),
    [
        ("mlp", {"hidden": [3]}, "it takes hidden_sizes"),
        ("small_inception", {"large": True}, "it takes large_inputs"),
        ("resnet50", {"v2": True}, "no options"),
        ("lenet", {"a": 1}, "no options"),
        ("resnet18_4", {"a": 1}, "it takes width, batch_norm, initialisation"),
        ("vit", {"a": 1}, "it takes width, depth, num_heads, patch_size, mlp_ratio, initialisation"),
    ],
)
def test_unknown_options(name, options, known):
    with pytest.raises(errors.InvalidValueError, match=known):
        registry.build(name, 4, (8, 8, 1), options)


def test_options_may_not_replace_the_number_of_classes():
    with pytest.raises(errors.InvalidValueError, match="num_classes"):
        registry.build("mlp", 4, (8, 8, 1), {"num_classes": 5})


def test_unknown_options_of_ones_own(own):
    with pytest.raises(errors.InvalidValueError, match="it takes width"):
        registry.build(f"{own}:Own", 4, (8, 8, 1), {"depth": 5})


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("NoFeatures", r"shape \(1, 2, 2, 1\) float32, expected logits of shape \(1, 4\) float32"),
        ("Halved", "float16"),
        ("Impossible", r"cannot run on one float32 image of shape \(2, 2, 1\)"),
    ],
)
def test_modules_that_give_no_logits(own, attribute, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        registry.build(f"{own}:{attribute}", 4, (2, 2, 1))


@pytest.mark.parametrize(("num_classes", "image_shape"), [(0, (8, 8, 1)), (4, (8, 8)), (4, (8, 0, 1))])
def test_bad_sizes(num_classes, image_shape):
    with pytest.raises(errors.InvalidValueError, match="at least 1"):
        registry.build("mlp", num_classes, image_shape)
