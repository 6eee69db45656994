"""Kernels and features of real networks, part by part, from a folder; networks of experiments and of one's own."""

import dataclasses
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from estimators import ntk
from heldout.datasets import registry
from heldout.training import leave_out_config, leave_out_data, leave_out_files, leave_out_training
from scripts.attribution import source_config
from scripts.unique_information import (
    array_store,
    linearisation,
    linearised_networks,
    linearised_problem,
    network_source,
    scoring_config,
    tangent_matrices,
)
from zoo import errors

_EXPERIMENT = leave_out_config.LeaveOutConfig(
    "digits", (3, 8), 30, 12, architecture_options={"hidden_sizes": [6]}, learning_rate=0.05, num_steps=20
)
_THREE = dataclasses.replace(_EXPERIMENT, classes=(1, 3, 8))


def load(experiment=_EXPERIMENT, folder=None, **settings):
    source = network_source.NetworkSource(experiment=experiment, folder=folder)
    return linearised_networks.load(source, scoring_config.LinearisationConfig(**settings))


def made(network, folder, memory_limit_mb=1000.0, **settings):
    config = scoring_config.LinearisationConfig(**settings)
    return linearisation.problem(network, config, folder, memory_limit_mb, lambda *told: None)


def explicit(network, data):
    """J [n k, P] by a gradient tape, one output of one example at a time."""
    rows = []
    for position in range(len(data)):
        for output in range(network.num_outputs):
            with tf.GradientTape() as tape:
                value = network.target.predict(tf.constant(data.inputs[position : position + 1]))[0, output]
            found = tape.gradient(value, network.target.variables, unconnected_gradients="zero")
            rows.append(np.concatenate([np.ravel(part) for part in found]))
    return np.stack(rows)


@pytest.mark.parametrize("experiment", [_EXPERIMENT, _THREE], ids=["one output", "three"])
def test_kernels_in_parts_are_products_of_gradients(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(tangent_matrices, "_BATCH", 7)
    network = load(experiment, kernel_dtype="float64")
    found = made(network, tmp_path, form="dual", kernel_dtype="float64")
    train, val = explicit(network, network.train), explicit(network, network.val)
    np.testing.assert_allclose(found.train_rows, train @ train.T, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.val_rows, val @ train.T, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(found.train_rows, found.train_rows.T)
    np.testing.assert_array_equal(found.train_index, network.train.ids)
    assert found.accuracy == np.finfo(np.float64).eps
    labels = network.train_label
    expected = labels[:, None] if network.num_outputs == 1 else np.eye(3)[labels]
    np.testing.assert_array_equal(found.train_target, expected)


def test_a_killed_computation_goes_on_to_the_same_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(tangent_matrices, "_BATCH", 7)
    network = load()
    whole = made(network, tmp_path / "whole")
    config = scoring_config.LinearisationConfig()

    def stop(stage, done, total):
        if stage == "kernel, train" and done == 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        linearisation.problem(network, config, tmp_path / "killed", 1000.0, stop)
    told = []
    found = linearisation.problem(network, config, tmp_path / "killed", 1000.0, lambda *one: told.append(one))
    assert told[0] == ("kernel, train", 18, 30)
    np.testing.assert_array_equal(found.train_rows, whole.train_rows)
    told.clear()
    linearisation.problem(network, config, tmp_path / "killed", 1000.0, lambda *one: told.append(one))
    assert not told


def test_a_killed_computation_goes_on_with_batches_of_another_size(tmp_path, monkeypatch):
    monkeypatch.setattr(tangent_matrices, "_BATCH", 7)
    network = load(_THREE)
    whole = made(network, tmp_path / "whole")
    for stage, at in (("kernel, train", 12), ("kernel, val", 6)):
        folder = tmp_path / stage

        def stop(where, done, total, stage=stage, at=at):
            if where == stage and done == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            linearisation.problem(network, scoring_config.LinearisationConfig(), folder, 1000.0, stop)
        # As after another memory limit.
        monkeypatch.setattr(tangent_matrices, "_BATCH", 5)
        found = made(network, folder)
        monkeypatch.setattr(tangent_matrices, "_BATCH", 7)
        for name in ("train_rows", "val_rows"):
            np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-5, atol=1e-6)


def test_features_give_the_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(tangent_matrices, "_BATCH", 7)
    network = load(_THREE)
    exact = made(network, tmp_path / "exact", form="primal")
    assert exact.train_rows.shape == (90, network.target.num_parameters)
    dual = made(network, tmp_path / "dual", form="dual")
    scale = np.abs(dual.train_rows).max()
    np.testing.assert_allclose(exact.train_rows @ exact.train_rows.T, dual.train_rows, atol=1e-5 * scale)
    settings = {"projection": "random_subset", "num_features": 20}
    few = made(network, tmp_path / "few", **settings)
    assert few.form == "primal"
    values = ntk.projected_jacobians(network.target, network.val.inputs, ntk.Projection("random_subset", 20, 0)).values
    np.testing.assert_allclose(few.val_rows, values, rtol=1e-5, atol=1e-6)
    stored = array_store.read(tmp_path / "few")
    subset = few.train_rows.astype(np.float64) @ few.train_rows.T
    sample = np.unique(np.linspace(0, 29, 16).round().astype(int))
    rows = (sample[:, None] * 3 + np.arange(3)).ravel()
    apart = np.linalg.norm((subset - dual.train_rows)[np.ix_(rows, rows)])
    assert stored.facts["projection_error"] == pytest.approx(
        apart / np.linalg.norm(dual.train_rows[np.ix_(rows, rows)]), rel=1e-3
    )
    wide = made(network, tmp_path / "wide", form="dual", **settings)
    np.testing.assert_allclose(wide.train_rows, subset, rtol=1e-6, atol=1e-6)


def test_the_form_is_the_smaller_and_memory_is_looked_at_before(tmp_path):
    network = load()
    assert linearisation.chosen_form(network, scoring_config.LinearisationConfig()) == "dual"
    small = scoring_config.LinearisationConfig(projection="sparse_signs", num_features=8)
    assert linearisation.chosen_form(network, small) == "primal"
    match = r"--memory_limit_mb=0.01: 30 rows of the kernel .*take fewer examples, or features with --projection"
    with pytest.raises(errors.InvalidValueError, match=match):
        made(network, tmp_path, memory_limit_mb=0.01)
    with pytest.raises(errors.InvalidValueError, match=r"--memory_limit_mb=0.01: 40 features "):
        made(network, tmp_path, memory_limit_mb=0.01, form="primal", projection="sparse_signs", num_features=40)
    assert not tmp_path.joinpath("contents.json").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    data = leave_out_data.of_dataset(_EXPERIMENT, registry.load("digits"))
    config = dataclasses.replace(_EXPERIMENT, fingerprint=data.fingerprint())
    leave_out_config.adopt(folder, config)
    leave_out_training.LeaveOutTrainer(config, data, runs_per_group=1).train_full(folder)
    return str(folder), config


def test_training_of_the_network_linearised_at_the_end_begins_at_the_beginning(trained):
    folder, config = trained
    first = load(config, folder, kernel_dtype="float64")
    last = load(config, folder, checkpoint="last", kernel_dtype="float64")
    network = load(config, folder, checkpoint="last", start="first", kernel_dtype="float64")
    weights = [np.concatenate([np.ravel(v.numpy()) for v in one.target.variables]) for one in (first, last)]
    for data in (network.train, network.val):
        expected = last.outputs(data).ravel() + explicit(last, data) @ (weights[0] - weights[1])
        np.testing.assert_allclose(network.outputs(data).ravel(), expected, rtol=1e-10, atol=1e-12)
        assert np.abs(network.outputs(data) - first.outputs(data)).max() > 1e-4
    # The network itself stays where it is linearised.
    np.testing.assert_array_equal(explicit(network, network.val), explicit(last, network.val))
    assert network.identity != last.identity
    by_seed = load(config, checkpoint=f"{folder}/checkpoints/step-20", start="first", kernel_dtype="float64")
    np.testing.assert_array_equal(by_seed.outputs(network.val), network.outputs(network.val))
    with pytest.raises(
        errors.InvalidValueError, match=r"--start=first: training begins elsewhere than at --checkpoint"
    ):
        scoring_config.LinearisationConfig(start="first")
    with pytest.raises(errors.InvalidValueError, match=r"--start=middle: expected one of checkpoint, first"):
        scoring_config.LinearisationConfig(start="middle")


def test_checkpoints_of_an_experiment(trained):
    folder, config = trained
    full = leave_out_files.read_full_run(folder, config.sha256)
    last = load(config, folder, checkpoint="last")
    np.testing.assert_allclose(last.outputs(last.train), full["train_prediction"], atol=1e-6)
    named = load(config, folder, checkpoint=f"{folder}/checkpoints/step-20")
    assert named.identity == last.identity
    assert load(config, folder, checkpoint="20").identity == last.identity
    first = load(config, folder)
    assert first.identity == load(_EXPERIMENT).identity != last.identity
    with pytest.raises(
        errors.MissingFileError, match=r"--checkpoint=7: there is no .*checkpoints after \[0, 20\] steps"
    ):
        load(config, folder, checkpoint="7")
    with pytest.raises(
        errors.InvalidValueError, match=r"--checkpoint=last: is one of a folder of ground_truth_effects"
    ):
        load(checkpoint="last")


def test_weights_of_another_type_and_parameters_of_a_head():
    single, double = load(), load(kernel_dtype="float64")
    np.testing.assert_allclose(double.outputs(double.val), single.outputs(single.val), atol=1e-6)
    assert double.target.dtype == tf.float64
    heads = [name for name in (one.name for one in single.target.parameters) if "2/" in name or "3/" in name]
    head = load(head=heads[-1].rpartition("/")[0] + "/")
    assert 0 < head.target.num_parameters < single.target.num_parameters
    assert head.identity["all_weights"] == single.identity["all_weights"]


def model(labels, num_outputs=3):
    """A module of a user's own with a function that gives it with examples."""
    module = types.ModuleType("own_models_of_test")
    inputs = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)

    def make():
        keras.utils.set_random_seed(0)
        made = keras.Sequential([keras.Input((4,)), keras.layers.Dense(num_outputs)])
        return made, (inputs, labels), (inputs[:2], labels[:2])

    module.make = make
    sys.modules["own_models_of_test"] = module
    return network_source.NetworkSource(other=source_config.SourceConfig(model="own_models_of_test:make"))


def test_models_of_ones_own(tmp_path):
    plain = scoring_config.LinearisationConfig()
    network = linearised_networks.load(model(np.array([0, 2, 1, 1])), plain)
    np.testing.assert_array_equal(network.train.labels, np.eye(3)[[0, 2, 1, 1]])
    found = made(network, tmp_path)
    inputs = np.concatenate([network.train.inputs, np.ones((4, 1))], axis=1)
    np.testing.assert_allclose(found.train_rows, np.kron(inputs @ inputs.T, np.eye(3)), rtol=1e-5, atol=1e-6)
    numbers = linearised_networks.load(model(np.array([0.5, 2, 1, 1]), 1), plain)
    np.testing.assert_array_equal(numbers.train.labels, [[0.5], [2], [1], [1]])
    for labels, outputs, match in (
        (np.array([0, 3]), 3, r"labels from 0 to 3 beside 3 outputs; expected classes from 0 to 2"),
        (np.array([0.5, 3]), 3, r"labels of shape \[2\] and type float64 beside 3 outputs; expected numbers \[n, 3\]"),
    ):
        with pytest.raises(errors.InvalidValueError, match=match):
            linearised_networks.load(model(labels, outputs), plain)
    with pytest.raises(errors.InvalidValueError, match=r"--checkpoint=last: is one of an experiment"):
        linearised_networks.load(model(np.array([0, 1])), scoring_config.LinearisationConfig(checkpoint="last"))


def test_sources_are_the_same_from_their_json(trained):
    folder, config = trained
    for source in (
        network_source.NetworkSource(experiment=config, folder=folder, data_dir="d"),
        network_source.NetworkSource(other=source_config.SourceConfig(model="a:b")),
    ):
        assert network_source.NetworkSource.from_json(source.to_json()) == source
    flags = network_source.NetworkSource(experiment=_EXPERIMENT)
    assert flags.decisive() == network_source.NetworkSource(experiment=config, folder=folder).decisive()


def test_a_problem_is_read_where_it_was_stored(tmp_path):
    network = load()
    found = made(network, tmp_path)
    again = linearised_problem.read(tmp_path)
    for field in dataclasses.fields(found):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(found, field.name))
    assert array_store.is_complete(tmp_path, linearisation.made_of(network, scoring_config.LinearisationConfig()))
