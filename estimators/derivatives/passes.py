"""One forward pass with all that is needed to differentiate it by example.

Everything here runs while a tf.function is traced; `per_example` makes such functions.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
import dataclasses
from typing import Any

import tensorflow as tf

from estimators import parameters
from estimators.derivatives import capture, contributions, rules


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """A traced function of examples, and where the parameters entered it.

    Attributes:
        outputs: what the function returned for the batch.
        num_examples: B, the static size of the batch.
        params: the parameters.
        captured: all that tracing found.
    """

    outputs: Any
    num_examples: int
    params: tuple[parameters.Parameter, ...]
    captured: capture.Capture

    @property
    def uses(self) -> tuple[capture.Use, ...]:
        """See `capture.Capture`."""
        return self.captured.uses

    @property
    def has_half_precision(self) -> bool:
        """Whether parameters meet examples in numbers of 16 bits."""
        dtypes = {use.shared.dtype for use in self.uses} | {use.output.dtype for use in self.uses}
        return any(dtype.is_floating and dtype.size < 4 for dtype in dtypes)

    def by_parameter(
        self, values: tf.Tensor, positions: Collection[int]
    ) -> tuple[dict[int, list[contributions.Contribution]], dict[int, str]]:
        """Where the gradients of single examples come from, without forming those that need not be.

        Args:
            values: [B], one number for each example that follows from `outputs`; each is differentiated.
            positions: of the parameters to differentiate by.

        Returns:
            For each position the contributions, whose gradients add up (none: the gradient is 0); and for those that
            are used in a way that has no rule, which are left out, the reason.
        """
        wanted = [use for use in self.uses if any(owner in positions for owner in use.owners)]
        cotangents = tf.gradients(values, [use.output for use in wanted]) if wanted else []
        found: dict[int, list[contributions.Contribution]] = {position: [] for position in positions}
        reasons: dict[int, str] = {}
        for use, cotangent in zip(wanted, cotangents, strict=True):
            for owner in found.keys() & use.owners.keys():
                try:
                    # An operation without a rule may pass gradients through other outputs than its first.
                    rules.check_known(use)
                    if cotangent is not None:
                        contribution = rules.contribution(use, cotangent, self.num_examples)
                        found[owner].append(self._pulled_back(contribution, use, owner))
                except rules.NoRuleError as error:
                    reasons[owner] = str(error)
        return {position: parts for position, parts in found.items() if position not in reasons}, reasons

    def _pulled_back(
        self, contribution: contributions.Contribution, use: capture.Use, owner: int
    ) -> contributions.Contribution:
        """From the shared tensor to a parameter that it follows from."""
        parameter, kind = self.params[owner], use.owners[owner]
        if kind is capture.Kind.PLAIN:
            return contribution
        if kind is capture.Kind.MIXED:
            raise rules.NoRuleError(f"{use.operation.type} takes a tensor that mixes elements of {parameter.name}")
        (slopes,) = tf.gradients(use.shared, [parameter.variable])
        formed = contribution.gradients()
        return contributions.Formed(formed * tf.cast(tf.reshape(slopes, use.shape), formed.dtype))


def run(
    function: Callable[[Any], Any],
    inputs: Any,
    params: Sequence[parameters.Parameter],
    *,
    inline: bool = True,
    repeats: Mapping[int, str] | None = None,
) -> Pass:
    """Traces a function of examples in the graph that is being built.

    Args:
        function: inputs -> outputs, such as a target's `predict`.
        inputs: nest of tensors [B, ...] with a static B.
        params: the parameters to look for.
        inline: see `capture.trace`.
        repeats: see `capture.trace`.

    Returns:
        The pass.
    """
    traced = capture.trace(function, inputs, params, inline=inline, repeats=repeats)
    num_examples = tf.nest.flatten(inputs)[0].shape[0]
    return Pass(traced.outputs, num_examples, tuple(params), traced)


def gradients(
    found: Sequence[contributions.Contribution], parameter: parameters.Parameter, num_examples: int
) -> tf.Tensor:
    """[B, *shape] in the parameter's dtype: the contributions to one parameter's gradients, formed and added."""
    shape, dtype = [num_examples, *parameter.shape], parameter.variable.dtype
    if not found:
        return tf.zeros(shape, dtype)
    return tf.add_n([tf.cast(tf.reshape(part.gradients(), shape), dtype) for part in found])
