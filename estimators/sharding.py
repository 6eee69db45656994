"""Batches over the replicas of a `tf.distribute` strategy: the one place where work is split between devices.

    strategy = tf.distribute.MirroredStrategy()                   # or TPUStrategy; logical CPUs will do
    with strategy.scope():
        model = build()
    fitted = influence_functions.InfluenceFunctions(targets.of(model), "ekfac").fit(train)

Nothing else is said: a target whose variables were made under a strategy is computed on all of its replicas, any other
where its variables lie. Each replica gets an equal share of every batch, so that `batch_size` counts the examples of
all replicas together; results lie on one device again. No collective operation is run: shares are put together where
the caller is. What is computed is the same for any number of replicas, up to the rounding of sums.

Only the batches are split. Vectors over the parameters, what solvers do with them, eigenvalues in float64 and random
labels stay on one device or on the host.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors

Compiled = Callable[..., Any]


def strategy_of(variables: Sequence[tf.Variable]) -> tf.distribute.Strategy | None:
    """The strategy under whose scope variables were made.

    Args:
        variables: of one model; some may be plain.

    Returns:
        The strategy; None where work need not be split because there is no strategy, or one with a single device.

    Raises:
        InvalidTargetError: they are of several strategies.
    """
    found = {id(s): s for s in (getattr(v, "distribute_strategy", None) for v in variables) if s is not None}
    if len(found) > 1:
        raise errors.InvalidTargetError(
            f"the variables were made under {len(found)} strategies; make the whole model under the scope of one"
        )
    (strategy,) = found.values() or [None]
    # A TPU runs nothing but what its strategy compiles for it, also where it has a single core.
    return strategy if strategy is not None and (strategy.num_replicas_in_sync > 1 or _is_tpu(strategy)) else None


def check_outside_scope() -> None:
    """Refuses to differentiate within a strategy's scope, where variables have no replica that they are read from.

    Raises:
        InvalidTargetError: a scope is open.
    """
    if tf.distribute.in_cross_replica_context():
        raise errors.InvalidTargetError(
            "estimators are called within strategy.scope(); make the model there, leave the scope, and call them then"
        )


def rows(strategy: tf.distribute.Strategy | None, function: Compiled, *, jit_compile: bool = False) -> Compiled:
    """Compiles a function of single examples, whose batches are split between replicas.

    Args:
        strategy: from `strategy_of`; None for one device, which costs nothing.
        function: (inputs, labels, *shared) -> a nest of tensors [B, ...], row b from example b alone. Inputs and labels
            are nests of tensors [B, ...] with static shapes, shared ones go to every replica as they are.
        jit_compile: compile what a replica does by XLA.

    Returns:
        A tf.function of the same arguments and results, traced once for each size of batch. A batch that is no multiple
        of the number of replicas is filled up with its last example, whose further rows are cut off.
    """
    compiled = _compiled(strategy, function, jit_compile)
    if strategy is None:
        return compiled

    def split(inputs: Any, labels: Any, *shared: Any) -> Any:
        if _in_replica():
            return compiled(inputs, labels, *shared)
        num = _num_examples(labels)
        size = -(-num // strategy.num_replicas_in_sync)
        found = _run(strategy, compiled, (inputs, labels), shared, np.arange(num), size)
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0)[:num], *found)

    return tf.function(split, autograph=False, jit_compile=False)


def sums(strategy: tf.distribute.Strategy | None, function: Compiled, *, jit_compile: bool = False) -> Compiled:
    """Compiles a function that sums over the examples of a batch, which is split between replicas.

    Args:
        strategy: see `rows`.
        function: (inputs, labels, *shared) -> a nest of tensors that are sums of one term for each example.
        jit_compile: see `rows`.

    Returns:
        A tf.function of the same arguments and results, traced once for each size of batch. What a batch has beyond a
        multiple of the number of replicas is a second round, of one example for each of some replicas: no example
        counts twice, and all replicas see the same shapes.
    """
    compiled = _compiled(strategy, function, jit_compile)
    if strategy is None:
        return compiled

    def split(inputs: Any, labels: Any, *shared: Any) -> Any:
        if _in_replica():
            return compiled(inputs, labels, *shared)
        num, num_replicas = _num_examples(labels), strategy.num_replicas_in_sync
        even = num - num % num_replicas
        found = []
        if even:
            found += _run(strategy, compiled, (inputs, labels), shared, np.arange(even), even // num_replicas)
        if even < num:
            found += _run(strategy, compiled, (inputs, labels), shared, np.arange(even, num), 1)[: num - even]
        return tf.nest.map_structure(lambda *parts: tf.add_n(parts), *found)

    return tf.function(split, autograph=False, jit_compile=False)


def _in_replica() -> bool:
    """Whether the caller has split the work himself, and this is called by what he gave to `strategy.run`."""
    return tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context()


def _is_tpu(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.TPUStrategy)


def _compiled(strategy: tf.distribute.Strategy | None, function: Compiled, jit_compile: bool) -> Compiled:
    if strategy is not None and _is_tpu(strategy):
        return function  # its strategy compiles whatever it runs
    # None leaves the choice to TensorFlow, which compiles for TPUs.
    return tf.function(function, autograph=False, jit_compile=jit_compile or None)


def _num_examples(labels: Any) -> int:
    return tf.nest.flatten(labels)[0].shape[0]


def _run(
    strategy: tf.distribute.Strategy,
    function: Compiled,
    batch: Any,
    shared: Sequence[Any],
    positions: np.ndarray,
    size: int,
) -> list[Any]:
    """What a function gives on each replica for `size` of the examples at positions, the last filling the last up."""
    num_replicas = strategy.num_replicas_in_sync
    filled = positions[np.minimum(np.arange(size * num_replicas), len(positions) - 1)]

    def cut(tensor: tf.Tensor) -> tf.Tensor:
        tensor = tf.convert_to_tensor(tensor)
        in_order = np.array_equal(filled, np.arange(tensor.shape[0]))
        return tf.reshape(tensor if in_order else tf.gather(tensor, filled), [num_replicas, size, *tensor.shape[1:]])

    stacked = tf.nest.map_structure(cut, batch)
    shares = [tf.nest.map_structure(lambda tensor, k=k: tensor[k], stacked) for k in range(num_replicas)]

    def on_replica() -> Any:
        number = _replica_number()
        # Where all replicas run one program, as on TPUs, which of them it is turns out when it runs.
        own = shares[number] if isinstance(number, int) else tf.nest.map_structure(lambda t: t[number], stacked)
        return function(*own, *shared)

    found = strategy.run(on_replica)
    flat = [strategy.experimental_local_results(leaf) for leaf in tf.nest.flatten(found)]
    if any(len(leaves) != num_replicas for leaves in flat):
        raise errors.InvalidTargetError(
            f"the strategy of the model has {num_replicas} replicas on several machines; make the model under a "
            "strategy of the devices of one machine"
        )
    return [tf.nest.pack_sequence_as(found, list(leaves)) for leaves in zip(*flat, strict=True)]


def _replica_number() -> int | tf.Tensor:
    context = tf.distribute.get_replica_context()
    number = context.replica_id_in_sync_group
    known = tf.get_static_value(number) if tf.is_tensor(number) else number
    return number if known is None else int(known)
