"""Models of runs and of users become targets with the right examples, or are refused by name."""

import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from estimators import targets
from heldout import models
from heldout.datasets import registry
from heldout.experiments import recipes
from scripts.attribution import model_sources, source_config
from tests import cases
from tests.scripts.attribution import linear_model
from zoo import aux_arrays, checkpoints, errors, layout


@pytest.fixture
def run(tmp_path):
    """A run of a recipe with weight decay; (run, its module, name of the data set)."""
    name = cases.tiny_digits_npz(tmp_path / "tiny.npz")
    recipe = cases.tiny_recipe(registry.load(name), weight_decay=0.25)
    recipes.adopt(tmp_path / "zoo", recipe)
    made = layout.Run(tmp_path / "zoo", "e", 0.5, 3)
    tf.random.set_seed(1)
    module = models.build("mlp", 10, (8, 8, 1), {"hidden_sizes": [8]})
    checkpoints.write(module, made.checkpoint_prefix(2), epoch=2, global_step=6)
    mask = np.arange(60) % 3 > 0
    aux_arrays.write(made.aux_arrays_path, aux_arrays.from_masks(mask, mask, np.ones(20, bool)))
    return made, module, name


def source(run, **options):
    return source_config.SourceConfig(**{"run": str(run[0].directory), "dataset": run[2]} | options)


def test_a_run_is_rebuilt_with_the_examples_it_was_trained_on(run):
    loaded = model_sources.load(source(run))
    data = cases.tiny_digits()
    trained = np.flatnonzero(np.arange(60) % 3)
    assert loaded.train.ids.tolist() == trained.tolist()
    assert loaded.test.ids.tolist() == list(range(20))
    batch = loaded.train.take(np.array([0, 5]))
    np.testing.assert_array_equal(batch.inputs, data.train.images[trained[[0, 5]]])
    np.testing.assert_array_equal(batch.labels, data.train.label[trained[[0, 5]]])
    expected = run[1](tf.constant(data.normalise(data.test.images)), is_training=False)
    np.testing.assert_array_equal(loaded.target.predict(loaded.test.inputs), expected)
    assert loaded.description["model"] == "e/0.5/3"
    assert loaded.description["epoch"] == 2
    assert loaded.pictures is not None


def test_the_weight_decay_of_the_recipe_is_that_of_the_target(run):
    target = model_sources.load(source(run)).target
    assert {len(p.shape): decay for p, decay in zip(target.parameters, target.weight_decay, strict=True)} == {
        1: 0.0,
        2: 0.25,
    }
    assert set(model_sources.load(source(run, weight_decay=0.5)).target.weight_decay) == {0.0, 0.5}


def test_xla_is_asked_for_where_it_is_wanted(run):
    assert model_sources.load(source(run, jit_compile=True)).target.jit_compile
    assert not model_sources.load(source(run)).target.jit_compile


def test_parameters_are_chosen_by_name(run):
    every = model_sources.load(source(run)).target.parameters
    some = model_sources.load(source(run, parameters=every[-1].name)).target
    assert [parameter.name for parameter in some.parameters] == [every[-1].name]


def test_a_data_set_of_another_size_is_refused(run, tmp_path):
    other = cases.tiny_digits_npz(tmp_path / "other.npz", num_train=50)
    with pytest.raises(errors.MismatchError):
        model_sources.load(source(run, dataset=other))
    (run[0].zoo / "e" / "recipe.json").unlink()
    with pytest.raises(errors.MismatchError, match=r"records 60 training and 20 test examples, data set .* has 50"):
        model_sources.load(source(run, dataset=other, architecture="mlp"))


def test_a_run_without_checkpoint_is_refused(run):
    for path in run[0].checkpoints_directory.iterdir():
        path.unlink()
    with pytest.raises(errors.MissingFileError, match="no complete checkpoint"):
        model_sources.load(source(run))


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Writes a module of the user's; returns its functions as --model."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text):
        (tmp_path / "users_model.py").write_text(f"from tests.scripts.attribution import linear_model\n{text}")
        sys.modules.pop("users_model", None)
        return "users_model:make"

    return write


def test_a_model_of_ones_own_with_its_examples(own_module):
    name = own_module("def make(): return linear_model.model(), linear_model.data(9, 1), linear_model.data(5, 2)")
    loaded = model_sources.load(source_config.SourceConfig(model=name, weight_decay=0.5))
    assert (len(loaded.train), len(loaded.test), loaded.target.num_parameters) == (9, 5, 12)
    assert loaded.target.weight_decay == (0.5,)
    assert loaded.pictures is None


def test_a_target_of_ones_own_is_taken_as_it_is(own_module):
    name = own_module(
        "def make(): return linear_model.target('margin'), linear_model.data(9, 1), linear_model.data(5, 2)"
    )
    target = model_sources.load(source_config.SourceConfig(model=name)).target
    assert (target.measured_name, target.weight_decay) == ("margin", (linear_model.WEIGHT_DECAY,))


def test_flags_that_a_target_has_decided_are_refused(own_module):
    name = own_module("def make(): return linear_model.target(), linear_model.data(9, 1), linear_model.data(5, 2)")
    for options in ({"loss": "squared_error"}, {"parameters": "w"}, {"weight_decay": 0.1}, {"jit_compile": True}):
        with pytest.raises(errors.InvalidValueError, match="which returns a Target: the target says that"):
            model_sources.load(source_config.SourceConfig(model=name, **options))


def test_lists_are_arrays(own_module):
    name = own_module(
        "def make():\n"
        "    (x, y), test = linear_model.data(9, 1), linear_model.data(5, 2)\n"
        "    return linear_model.model(), (x.tolist(), y.tolist()), test"
    )
    assert model_sources.load(source_config.SourceConfig(model=name)).train.inputs.shape == (9, 4)


def test_examples_that_the_model_cannot_take_are_refused(own_module):
    for made, message in (
        ("linear_model.data(9, 1)[0], linear_model.data(5, 2)", "are each a pair"),
        ("(linear_model.data(9, 1)[0][:, :2], [0] * 9), linear_model.data(5, 2)", "cannot be called on its examples"),
    ):
        name = own_module(f"def make(): return linear_model.model(), {made}")
        with pytest.raises(errors.InvalidValueError, match=message):
            model_sources.load(source_config.SourceConfig(model=name))


def test_a_keras_file_with_a_data_set(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.save(tmp_path / "model.keras")
    name = cases.tiny_digits_npz(tmp_path / "tiny.npz")
    loaded = model_sources.load(source_config.SourceConfig(model=str(tmp_path / "model.keras"), dataset=name))
    data = cases.tiny_digits()
    expected = model(data.normalise(data.test.images))
    np.testing.assert_allclose(loaded.target.predict(loaded.test.inputs), expected, rtol=1e-6)
    assert len(loaded.train) == 60
    assert isinstance(loaded.target, targets.Target)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def make(): return linear_model.model()", "gives a model without examples; return"),
        ("make = 3", "is a int; expected a callable"),
        ("", "cannot be imported"),
    ],
)
def test_functions_of_ones_own_that_cannot_be_used(own_module, text, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        model_sources.load(source_config.SourceConfig(model=own_module(text)))


def test_examples_given_twice_are_refused(own_module, tmp_path):
    name = own_module("def make(): return linear_model.model(), linear_model.data(9, 1), linear_model.data(5, 2)")
    data = cases.tiny_digits_npz(tmp_path / "tiny.npz")
    with pytest.raises(errors.InvalidValueError, match="brings its own examples; leave --dataset out"):
        model_sources.load(source_config.SourceConfig(model=name, dataset=data))


def test_names_that_are_no_model(tmp_path):
    with pytest.raises(errors.InvalidValueError, match=r"expected package\.module:callable"):
        model_sources.load(source_config.SourceConfig(model="something"))
    with pytest.raises(errors.MissingFileError, match="there is no such file"):
        model_sources.load(source_config.SourceConfig(model=str(tmp_path / "none.keras"), dataset="digits"))
    pathlib.Path(tmp_path / "bad.keras").write_bytes(b"no zip file")
    with pytest.raises(errors.DamagedFileError, match="Keras cannot load it"):
        model_sources.load(source_config.SourceConfig(model=str(tmp_path / "bad.keras"), dataset="digits"))
