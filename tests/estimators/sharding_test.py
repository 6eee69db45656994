"""Results do not depend on how many devices compute them, nor on whether XLA compiles them."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from estimators import errors, sharding
from estimators.derivatives import plans
from tests.estimators import compute_paths, models

_TOLERANCE = {"float32": 1e-5}
# TensorFlow differentiates the branch on a tensor in this model's own tf.function by operations that XLA lacks.
_NOT_BY_XLA = {"branching"}


def outcomes(mode, group):
    """In a process of its own: the devices of one cannot be divided once TensorFlow has begun."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.estimators.compute_paths", mode, group],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(mode, group):
    found = outcomes(mode, group)
    assert found.keys() == compute_paths.GROUPS[group].keys()
    for name, outcome in found.items():
        if mode == "xla" and name in _NOT_BY_XLA:
            assert "tf2xla conversion failed" in outcome
            continue
        assert isinstance(outcome, list), f"{name}: {outcome}"
        difference, ran, num_compiled = outcome
        assert difference < _TOLERANCE.get(group, 1e-10), name
        assert (num_compiled > 0) == ("xla" in mode), name
        if "replicas" in mode and "xla" not in mode:
            assert ran["CPU:1"] >= 5, (name, ran)


@pytest.mark.parametrize("mode", ["replicas", pytest.param("replicas_one_program", marks=pytest.mark.slow)])
def test_two_replicas_give_what_one_device_gives(mode):
    check(mode, "few")


@pytest.mark.slow
@pytest.mark.parametrize("group", [group for group in compute_paths.GROUPS if group != "few"])
@pytest.mark.parametrize("mode", ["replicas", "xla"])
def test_every_path_gives_the_same_on_two_replicas_and_by_xla(mode, group):
    check(mode, group)


@pytest.mark.slow
def test_xla_compiles_for_each_of_two_replicas():
    check("replicas_xla", "few")


def test_one_device_is_left_alone():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        mirrored = tf.Variable(1.0)
    assert sharding.strategy_of([mirrored, tf.Variable(1.0)]) is None
    function = sharding.rows(None, lambda inputs, labels: inputs)
    assert isinstance(function, type(tf.function(lambda: None)))
    np.testing.assert_array_equal(function(np.ones(3), np.ones(3)), np.ones(3))
    assert sharding.sums(None, lambda inputs, labels: labels.shape[0])(np.ones(3), np.ones(3)).numpy() == 3


def test_xla_compiles_where_it_is_asked_to():
    """XLA takes no function that calls back to Python."""

    def back(inputs, labels):
        return tf.numpy_function(lambda x: x, [inputs], tf.float64)

    for make in (sharding.rows, sharding.sums):
        np.testing.assert_array_equal(make(None, back)(np.ones(3), np.ones(3)), np.ones(3))
        with pytest.raises(tf.errors.InvalidArgumentError, match="unsupported operations"):
            make(None, back, jit_compile=True)(np.ones(3), np.ones(3))


class _Strategy:
    """Of three replicas, one of them on this machine."""

    num_replicas_in_sync = 3
    distribute_strategy = property(lambda self: self)

    def run(self, function):
        return function()

    def experimental_local_results(self, value):
        return (value,)


def test_variables_of_two_strategies_are_refused():
    first, second = _Strategy(), _Strategy()
    assert sharding.strategy_of([first, first]) is first
    with pytest.raises(errors.InvalidTargetError, match="under 2 strategies; make the whole model under the scope"):
        sharding.strategy_of([first, second])


def test_replicas_on_other_machines_are_refused():
    for make in (sharding.rows, sharding.sums):
        function = make(_Strategy(), lambda inputs, labels: inputs)
        with pytest.raises(errors.InvalidTargetError, match="3 replicas on several machines; make the model under"):
            function(np.ones(6), np.ones(6))


def test_an_open_scope_is_refused():
    case = models.ALL["mlp"]()
    scope = tf.distribute.MirroredStrategy(["CPU:0"]).scope()
    with scope, pytest.raises(errors.InvalidTargetError, match=r"called within strategy.scope\(\); make the model"):
        plans.make(case.target, (case.inputs, case.labels))
