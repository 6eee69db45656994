"""What compute_jacobian_stats is told is checked early; shards are disjoint and together everything."""

import numpy as np
import pytest

from estimators.jacobian import averages, measuring, normalisations, pointwise
from scripts.jacobian_stats import stats_config
from zoo import errors


def test_names_are_those_of_the_library():
    assert set(stats_config.METRICS) == set(measuring.METRICS)
    assert stats_config.NORMALISATIONS == normalisations.NAMES
    assert stats_config.AVERAGES == averages.NAMES
    assert stats_config.METHODS == pointwise.METHODS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("norm",)}, "--metric=norm: expected some of jacobian, "),
        ({"metrics": ()}, "--metric="),
        ({"metrics": ("jacobian", "jacobian")}, "given twice"),
        ({"normalisations": ("sigmoid",)}, "--normalization=sigmoid"),
        ({"strategies": ("walk",)}, "--strategy=walk"),
        ({"averages": ("median",)}, "--average=median"),
        ({"dataset_split": "all"}, "--dataset_split=all"),
        ({"units": "inches"}, "--units=inches"),
        ({"method": "magic"}, "--method=magic"),
        ({"num_directions": 0}, "--num_directions=0: must be at least 1"),
        ({"num_samples": 0}, "--num_samples=0"),
        ({"skip": -1}, "--skip=-1: must be at least 0"),
        ({"num_examples": 0}, "--num_examples=0"),
        ({"batch_size": 0}, "--batch_size=0"),
        ({"mc_sample_seed": -1}, "--mc_sample_seed=-1"),
        ({"radius": 0.0}, "--radius=0.0"),
        ({"memory_limit_mb": float("inf")}, "--memory_limit_mb=inf"),
        ({"tolerance": 1.0}, "--tolerance=1.0"),
        ({"shard": (0, 3)}, "--shard=0/3"),
        ({"shard": (4, 3)}, "--shard=4/3"),
        ({"shift_pixels": (2, 1)}, "--shift_pixels=2,1"),
        ({"svd_sizes": (0, 1)}, "--svd_sizes=0,1"),
        ({"checkpoints": ("newest",)}, "--checkpoint=newest"),
        ({"checkpoints": ()}, "--checkpoint="),
        ({"checkpoints": ("step:-1",)}, "--checkpoint=step:-1"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        stats_config.StatsConfig(**options)


@pytest.mark.parametrize("skip", [0, 5])
@pytest.mark.parametrize("num_examples", [None, 11, 500])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_shards_have_nothing_in_common_and_are_together_all(skip, num_examples, n):
    parts = [
        stats_config.StatsConfig(skip=skip, num_examples=num_examples, shard=(i, n)).positions(40)
        for i in range(1, n + 1)
    ]
    whole = np.arange(skip, 40 if num_examples != 11 else skip + 11)
    assert sorted(np.concatenate(parts).tolist()) == whole.tolist()


def test_nothing_left_is_refused():
    with pytest.raises(errors.InvalidValueError, match="--skip=40: leaves none of the 40 examples of the split train"):
        stats_config.StatsConfig(skip=40).positions(40)
    with pytest.raises(errors.InvalidValueError, match="--shard=3/3: there are only 2 examples"):
        stats_config.StatsConfig(shard=(3, 3), num_examples=2).positions(40)


def test_values_do_not_depend_on_which_examples_and_checkpoints():
    first = stats_config.StatsConfig()
    other = stats_config.StatsConfig(batch_size=3, shard=(1, 2), checkpoints=("all",), skip=2, dataset_split="test")
    assert first.identity() == other.identity()
    assert first.identity() != stats_config.StatsConfig(mc_sample_seed=1).identity()
    assert stats_config.StatsConfig.from_json(other.to_json()) == other


@pytest.mark.parametrize("text", ["3", "1/2/3", "a/b", "-1/2", ""])
def test_a_shard_has_two_numbers(text):
    with pytest.raises(errors.InvalidValueError, match="expected i/n"):
        stats_config.parse_shard(text)
    assert stats_config.parse_shard(" 2/8 ") == (2, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "which model"),
        ({"run": "r", "model": "m:n"}, "not both"),
        ({"model": "m:n", "architecture": "mlp"}, "--arch says nothing"),
        ({"run": "r", "name": "a/b"}, "--name=a/b"),
        ({"run": "r", "name": ".."}, "--name=.."),
    ],
)
def test_a_source_that_cannot_be_is_refused(options, message):
    with pytest.raises(errors.InvalidValueError, match=message):
        stats_config.SourceConfig(**options)


def test_a_source_is_read_as_it_was_stored():
    source = stats_config.SourceConfig(run="r", save_dir="s")
    assert stats_config.SourceConfig.from_json(source.to_json()) == source
