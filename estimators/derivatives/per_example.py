"""Gradients of every example of a batch, their norms and inner products, from one backward pass.

    gradients = per_example.make_gradients(plan)
    gradients(inputs, labels)                      # [B, P]

Rules per layer after Goodfellow (2015, arXiv:1510.01799) and Rochette et al. (2019, arXiv:1912.06015); inner products
without gradients ("ghost" products) after Lee & Kifer (2021) and Li et al. (2022, arXiv:2110.05679).

What is compiled here runs on all replicas of the strategy that the target was made under, see `sharding`.
"""

from collections.abc import Callable, Collection
from typing import Any

import tensorflow as tf

from estimators import errors, parameters, sharding
from estimators.derivatives import contributions, passes, plans

# What of a target is differentiated: its training loss, or what is measured.
OF = ("loss", "measured")
Compiled = Callable[..., Any]


def make_gradients(plan: plans.Plan, of: str = "loss", *, jit_compile: bool | None = None) -> Compiled:
    """A function (inputs, labels) -> [B, P], the gradient of each example's loss or measured output.

    Args:
        plan: the plan of a target with P parameters.
        of: "loss" or "measured".
        jit_compile: compile by XLA; None for what the target says.

    Returns:
        A tf.function, traced once for each size of batch. One forward and one backward pass a batch, and B P numbers.

    Raises:
        InvalidArgumentError: `of` is neither.
    """
    check_of(of)

    def compute(inputs: Any, labels: tf.Tensor) -> tf.Tensor:
        return parameters.flatten(gradients(plan, inputs, labels, of), num_batch_axes=1)

    return compiled_rows(plan, compute, jit_compile)


def make_squared_norms(plan: plans.Plan, of: str = "loss", *, jit_compile: bool | None = None) -> Compiled:
    """A function (inputs, labels) -> [B], |gradient|^2 of each example's loss or measured output.

    No gradient is formed where its factors give the norm with fewer operations. Args, Raises: see `make_gradients`.
    """
    check_of(of)

    def compute(inputs: Any, labels: tf.Tensor) -> tf.Tensor:
        found, looped = parts(plan, inputs, labels, of)
        norms = [_squared_norm(found[k], plan.target.parameters[k], labels.shape[0]) for k in found]
        norms += [tf.reduce_sum(tf.square(g), axis=range(1, len(g.shape))) for g in looped.values()]
        return tf.add_n([tf.cast(norm, plan.target.dtype) for norm in norms])

    return compiled_rows(plan, compute, jit_compile)


def make_dot_products(
    plan: plans.Plan, of: str = "loss", of_second: str = "loss", *, jit_compile: bool | None = None
) -> Compiled:
    """A function (inputs [B], labels, second inputs [C], second labels) -> [B, C], inner products of gradients.

    For each parameter gradients are formed, or not, whichever takes fewer operations. Of several replicas each takes a
    share of the first examples and all of the second.

    Args:
        plan: the plan of a target.
        of: what of the first examples is differentiated, "loss" or "measured".
        of_second: the same of the second.
        jit_compile: compile by XLA; None for what the target says.

    Raises:
        InvalidArgumentError: `of` or `of_second` is neither.
    """
    check_of(of)
    check_of(of_second)

    def compute(inputs: Any, labels: tf.Tensor, second_inputs: Any, second_labels: tf.Tensor) -> tf.Tensor:
        first, first_looped = parts(plan, inputs, labels, of)
        second, second_looped = parts(plan, second_inputs, second_labels, of_second)
        sizes = (labels.shape[0], second_labels.shape[0])
        products = [_dot(first[k], second[k], plan.target.parameters[k], sizes) for k in first]
        products += [_dense_dot(first_looped[k], second_looped[k]) for k in first_looped]
        return tf.add_n([tf.cast(product, plan.target.dtype) for product in products])

    return compiled_rows(plan, compute, jit_compile)


def compiled_rows(plan: plans.Plan, function: Compiled, jit_compile: bool | None = None) -> Compiled:
    """`sharding.rows` of a function of the examples of a plan's target.

    Args:
        plan: the plan of a target.
        function: (inputs, labels, *shared) -> a nest of tensors [B, ...], row b from example b alone.
        jit_compile: compile by XLA; None for what the target says.
    """
    chosen = plan.target.jit_compile if jit_compile is None else jit_compile
    return sharding.rows(plan.target.strategy, function, jit_compile=chosen)


def compiled_sums(plan: plans.Plan, function: Compiled, jit_compile: bool | None = None) -> Compiled:
    """`sharding.sums` likewise, of a function that sums over examples."""
    chosen = plan.target.jit_compile if jit_compile is None else jit_compile
    return sharding.sums(plan.target.strategy, function, jit_compile=chosen)


def gradients(plan: plans.Plan, inputs: Any, labels: tf.Tensor, of: str = "loss") -> list[tf.Tensor]:
    """[B, *shape] for each parameter, within a function that is being traced. See `make_gradients`."""
    found, looped = parts(plan, inputs, labels, of)
    formed = {
        k: passes.gradients(some, plan.target.parameters[k], labels.shape[0]) for k, some in found.items()
    } | looped
    return [formed[k] for k in range(len(plan.target.parameters))]


def parts(
    plan: plans.Plan, inputs: Any, labels: tf.Tensor, of: str
) -> tuple[dict[int, list[contributions.Contribution]], dict[int, tf.Tensor]]:
    """Contributions of the parameters that have rules, and formed gradients [B, *shape] of the others."""
    target = plan.target
    forward = plan.forward(inputs)
    values = (target.loss.values if of == "loss" else target.measured)(forward.outputs, labels)
    return plan.contributions(forward, values), looped(plan, inputs, labels, of, plan.looped)


def looped(
    plan: plans.Plan, inputs: Any, labels: tf.Tensor, of: str, positions: Collection[int]
) -> dict[int, tf.Tensor]:
    """[B, *shape] for some parameters, example by example."""
    if not positions:
        return {}
    target, order = plan.target, sorted(positions)
    variables = [target.parameters[k].variable for k in order]
    function = target.losses if of == "loss" else target.measurements

    def single(example: Any) -> list[tf.Tensor]:
        inputs, labels = tf.nest.map_structure(lambda t: t[None], example)
        with tf.GradientTape() as tape:
            value = function(inputs, labels)
        found = tape.gradient(value, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(g) for g in found]

    signature = [tf.TensorSpec(v.shape, v.dtype) for v in variables]
    return dict(zip(order, tf.map_fn(single, (inputs, labels), fn_output_signature=signature), strict=True))


def _factored(found: list[contributions.Contribution]) -> contributions.Factored | None:
    """The only contribution, if it has factors."""
    (only,) = found if len(found) == 1 else (None,)
    return only if isinstance(only, contributions.Factored) else None


def _squared_norm(
    found: list[contributions.Contribution], parameter: parameters.Parameter, num_examples: int
) -> tf.Tensor:
    factored = _factored(found)
    if factored:
        _, num_inputs, num_outputs = factored.layout.sizes
        # T^2 (I + O) for the products of all places against T I O for the gradient.
        if factored.num_places * (num_inputs + num_outputs) < num_inputs * num_outputs:
            return contributions.ghost_squared_norms(factored)
    formed = passes.gradients(found, parameter, num_examples)
    return tf.reduce_sum(tf.square(formed), axis=range(1, len(formed.shape)))


def _dot(
    first: list[contributions.Contribution],
    second: list[contributions.Contribution],
    parameter: parameters.Parameter,
    sizes: tuple[int, int],
) -> tf.Tensor:
    factored = [_factored(some) for some in (first, second)]
    if factored[0] and factored[1] and uses_ghosts(first, second, sizes):
        return contributions.ghost_dot_products(factored[0], factored[1])
    formed = [passes.gradients(some, parameter, size) for some, size in zip((first, second), sizes, strict=True)]
    return _dense_dot(*formed)


def uses_ghosts(
    first: list[contributions.Contribution], second: list[contributions.Contribution], sizes: tuple[int, int]
) -> bool:
    """Whether `make_dot_products` forms no gradients of a parameter for two batches of these sizes."""
    factored = [_factored(some) for some in (first, second)]
    return bool(factored[0] and factored[1] and contributions.ghost_is_cheaper(factored[0], factored[1], *sizes))


def _dense_dot(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    rows = [tf.reshape(g, [g.shape[0], -1]) for g in (first, second)]
    return tf.matmul(rows[0], rows[1], transpose_b=True)


def check_of(of: str) -> None:
    """Refuses what is neither loss nor measured output.

    Raises:
        InvalidArgumentError: `of` is neither.
    """
    if of not in OF:
        raise errors.InvalidArgumentError(f"of={of!r}: expected one of {', '.join(OF)}")
