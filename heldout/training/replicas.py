"""One model per replica of a `tf.distribute` strategy, each trained by itself: several GPUs, or the cores of a TPU.

Strategies are made for one model whose copies stay equal. Here they shall differ: variables are created with
synchronization ON_READ, which gives every replica a component of its own that only it reads and writes, and nothing is
ever averaged. No collective is run, so a replica never waits for another.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
from typing import Any

import tensorflow as tf

from heldout import devices
from heldout.training import learners, train_runs_config
from zoo import checkpoints, errors


def make_strategy(name: str, device: str) -> tf.distribute.Strategy:
    """The strategy of that name on all devices of a kind.

    Args:
        name: "none" for the strategy that is in effect, which is one device unless the caller says otherwise;
            "mirrored" and "multi_worker" for all GPUs (or logical CPUs) of this machine; "tpu" for all cores of a TPU,
            which `devices.configure` has connected to. Machines need no strategy among them, as runs are independent:
            with "multi_worker" each takes its share of the runs (heldout/running/shares.py).
        device: "cpu", "gpu" or "tpu".

    Raises:
        InvalidValueError: the name is unknown, or does not go with the device.
    """
    if name == "none":
        return tf.distribute.get_strategy()
    if name not in train_runs_config.STRATEGIES:
        known = ", ".join(train_runs_config.STRATEGIES)
        raise errors.InvalidValueError(f"--strategy={name}: expected one of {known}")
    if (name == "tpu") != (device == "tpu"):
        raise errors.InvalidValueError(
            f"--strategy={name} with --device={device}: tpu goes with tpu, mirrored and multi_worker with cpu and gpu"
        )
    return devices.over_all(device)


@contextlib.contextmanager
def separate_variables(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Variables created here are each replica's own; plain ones where there is a single replica."""
    if strategy.num_replicas_in_sync == 1:
        yield
        return

    def create(next_creator: Callable[..., tf.Variable], **arguments: Any) -> tf.Variable:
        arguments |= {
            # TensorFlow trains none that are read apart; whoever differentiates watches them.
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        return next_creator(**arguments)

    with strategy.scope(), tf.variable_creator_scope(create):
        yield


def local_replicas(strategy: tf.distribute.Strategy) -> list[int]:
    """The numbers of the replicas that this process runs, in order."""
    numbers = strategy.experimental_distribute_values_from_function(lambda context: context.replica_id_in_sync_group)
    return [int(number) for number in strategy.experimental_local_results(numbers)]


def distributed(strategy: tf.distribute.Strategy, value_of: Callable[[int], Any]) -> Any:
    """A value for each local replica, on its device; the plain tensor where there is a single one.

    Args:
        strategy: whose replicas.
        value_of: given the position of a replica among the local ones, its value.
    """
    if strategy.num_replicas_in_sync == 1:
        return tf.constant(value_of(0))
    first = min(local_replicas(strategy))
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(value_of(context.replica_id_in_sync_group - first))
    )


class ReplicaLearner:
    """One model on each local replica; a `learners.Learner` whose `logits` is called in a replica's context.

    Args:
        build: makes the module; called once, under the strategy.
        strategy: of several replicas.
        trained: keys of the variables to train, in order.
    """

    def __init__(
        self, build: Callable[[], tf.Module], strategy: tf.distribute.Strategy, trained: Sequence[str]
    ) -> None:
        with separate_variables(strategy):
            self._module = build()
        self._variables = checkpoints.model_variables(self._module)
        self.num_runs = len(local_replicas(strategy))
        self.trainable_variables: list[tf.Variable] = [self._variables[key] for key in trained]
        self.trainable_ranks: list[int] = [variable.shape.rank for variable in self.trainable_variables]

    def logits(self, images: tf.Tensor, is_training: bool) -> tf.Tensor:
        """Logits [1, B, K] of this replica's images [1, B, H, W, C]."""
        return self._module(images[0], is_training)[None]

    def assign(self, values: Sequence[learners.ModelValues]) -> None:
        """Sets all variables of the model on each replica."""
        for key, variable in self._variables.items():
            for component, of_run in zip(variable.values, values, strict=True):
                component.assign(of_run[key])

    def copy_to(self, run: int, module: tf.Module) -> None:
        """Copies the variables of the model on local replica `run` into a module of the same architecture."""
        learners.assign(module, {key: variable.values[run].numpy() for key, variable in self._variables.items()})


def trained_keys(module: tf.Module) -> list[str]:
    """Checkpoint keys of the variables of a module that are trained, in its own order."""
    keys = {variable.ref(): key for key, variable in checkpoints.model_variables(module).items()}
    return [keys[variable.ref()] for variable in module.trainable_variables]
