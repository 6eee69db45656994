"""Names and defaults that users know, and values that cannot be."""

import re

import pytest

from estimators import losses, solvers
from scripts.attribution import influence_config, source_config
from zoo import errors


def test_known_names_have_their_documented_defaults():
    config = influence_config.InfluenceConfig()
    assert (config.recursion_depth, config.r, config.damp, config.scale, config.seed) == (5000, 1, 0.01, 25.0, 42)
    assert (config.outdir, config.save_pth, config.log_filename, config.gpu) == ("outdir", None, None, -1)
    assert (config.test_sample_num, config.test_sample_start_per_class) == (None, 0)


def test_names_without_tensorflow_are_those_of_the_estimators():
    assert tuple(solvers.SOLVERS) == influence_config.METHODS
    assert set(influence_config.MEASURED) == {"loss", *losses.MEASURES}


def test_json_gives_back_what_was_stored():
    config = influence_config.InfluenceConfig(test_ids=(3, 4), options={"rank": 2}, scale=None)
    assert influence_config.InfluenceConfig.from_json(config.to_json()) == config
    source = source_config.SourceConfig(run="z/e/0.5/3", weight_decay=0.1)
    assert source_config.SourceConfig.from_json(source.to_json()) == source


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method 'magic': expected one of explicit"),
        ({"measured": "x"}, "measured 'x': expected one of loss"),
        ({"mode": "x"}, "mode 'x': expected one of per_test_example, all_gradients"),
        ({"json": "x"}, "json 'x': expected one of auto, yes, no"),
        ({"compat": "x"}, "compat 'x': expected one of none, published"),
        ({"compat": "published"}, "compat published: means LiSSA's recursion, not ekfac"),
        ({"mode": "all_gradients"}, "the gradients are kept in the folder save_pth; name it"),
        ({"test_ids": (1,), "test_sample_num": 1}, "test_ids beside test_sample_num"),
        ({"test_ids": (1,), "test_sample_start_per_class": 1}, "test_ids beside test_sample_num"),
        ({"test_sample_num": 0}, "test_sample_num 0: must be at least 1"),
        ({"test_sample_start_per_class": -1}, "test_sample_start_per_class -1: must be at least 0"),
        ({"recursion_depth": 0}, "recursion_depth 0: must be at least 1"),
        ({"r": 0}, "r 0: must be at least 1"),
        ({"seed": -1}, "seed -1: must be at least 0"),
        ({"damp": float("nan")}, "damp nan: must be a number from 0 up"),
        ({"scale": 0.0}, "scale 0.0: must be a number above 0, or auto"),
        ({"tolerance": 1.0}, "tolerance 1.0: must be from 0 to below 1"),
        ({"compat": "published", "method": "lissa", "scale": None}, "name the scale"),
        ({"gpu": -2}, "gpu -2: must be at least -1"),
        ({"batch_size": 0}, "batch_size 0: must be at least 1"),
        ({"top_k": 0}, "top_k 0: must be at least 1"),
        ({"num_shown": -1}, "num_shown -1: must be at least 0"),
        ({"num_neighbours": 0}, "num_neighbours 0: must be at least 1"),
        ({"memory_limit_mb": 0}, "memory_limit_mb 0: must be above 0"),
        ({"max_save_gb": float("nan")}, "max_save_gb nan: must be above 0"),
    ],
)
def test_values_that_cannot_be_are_refused(options, message):
    with pytest.raises(errors.InvalidValueError, match=re.escape(message)):
        influence_config.InfluenceConfig(**options)


@pytest.mark.parametrize("options", [{}, {"run": "a", "model": "b"}])
def test_one_model_is_named(options):
    with pytest.raises(errors.InvalidValueError, match="which model: give --run"):
        source_config.SourceConfig(**options)


@pytest.mark.parametrize("options", [{"epoch": 3}, {"architecture": "mlp"}])
def test_flags_of_runs_beside_a_model_are_refused(options):
    with pytest.raises(errors.InvalidValueError, match="says nothing of --model; leave it out"):
        source_config.SourceConfig(model="a:b", **options)


def test_a_negative_weight_decay_is_refused():
    with pytest.raises(errors.InvalidValueError, match="--weight_decay=-1: expected a number from 0 up"):
        source_config.SourceConfig(run="z/e/0.5/3", weight_decay=-1)
