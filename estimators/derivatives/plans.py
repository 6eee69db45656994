"""How a target is differentiated by example: checked once on real examples, then used by every estimator.

    plan = plans.make(target, train)
    print(plan.describe())

A plan holds what was proved on a few examples: that the model is deterministic, that every example's prediction is its
own, that losses are finite, and that each parameter's rule gives what differentiating single examples gives. Parameters
without a rule that does are differentiated example by example, which is slower and said.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples, sharding, targets
from estimators.derivatives import capture, passes
from estimators.derivatives import contributions as contributions_lib

_NUM_PROBED = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A target with what is known of its derivatives.

    Attributes:
        target: the target.
        looped: position of each parameter that is differentiated example by example, and why.
        inline: tf.functions in the model are traced as plain Python.
        repeats: operations that repeat a parameter for every example, see `capture.repeats_of`.
    """

    target: targets.Target
    looped: Mapping[int, str]
    inline: bool
    repeats: Mapping[int, str] = dataclasses.field(default_factory=dict)

    @property
    def ruled(self) -> tuple[int, ...]:
        """Positions of the parameters whose gradients of single examples come from one backward pass."""
        return tuple(k for k in range(len(self.target.parameters)) if k not in self.looped)

    def forward(self, inputs: Any) -> passes.Pass:
        """The predictions of a batch with what differentiates them, within a function that is being traced."""
        target = self.target
        return passes.run(target.predict, inputs, target.parameters, inline=self.inline, repeats=self.repeats)

    def contributions(self, forward: passes.Pass, values: tf.Tensor) -> dict[int, list[contributions_lib.Contribution]]:
        """What makes up the gradients of values [B] by the parameters that have rules.

        Raises:
            InvalidTargetError: a rule that held when the plan was made does not for this batch.
        """
        found, reasons = forward.by_parameter(values, self.ruled)
        for position, reason in reasons.items():
            raise errors.InvalidTargetError(
                f"{self.target.parameters[position].name} in a batch of {forward.num_examples}: {reason}, unlike when "
                "the plan was made; use another batch size"
            )
        return found

    def describe(self) -> str:
        """One line for each parameter: name, shape and how it is differentiated."""
        return "\n".join(
            f"{parameter.name} {list(parameter.shape)}: "
            + (f"example by example, because {self.looped[k]}" if k in self.looped else "all examples at once")
            for k, parameter in enumerate(self.target.parameters)
        )


def make(target: targets.Target, train: Any) -> Plan:
    """Checks a target on its first examples and chooses how each parameter is differentiated.

    Args:
        target: the target.
        train: `examples.Examples` or (inputs, labels); at least two different ones should be there.

    Returns:
        The plan.

    Raises:
        InvalidTargetError: predictions differ from one evaluation to the next, depend on the other examples of the
            batch, or losses and measured outputs are not one number for each example; or the scope of a strategy is
            open.
        InvalidArgumentError: a label cannot be.
        NotFiniteError: a loss or gradient is NaN or infinite.
    """
    sharding.check_outside_scope()
    data = examples.of(train)
    probe = data.take(np.arange(_NUM_PROBED) % len(data))
    inputs = tf.nest.map_structure(tf.convert_to_tensor, probe.inputs)
    labels = tf.convert_to_tensor(probe.labels)
    _check_labels(target, data, inputs)
    _check_values(target, inputs, labels)
    probed = _by_rules(target, inputs, labels)
    tolerance = 3e-2 if probed.is_half else _TOLERANCE[target.dtype.size]
    _check_predictions(target, inputs, tolerance)
    try:
        truth = _one_by_one(target, inputs, labels)
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, LookupError) as error:
        raise errors.InvalidTargetError(
            f"TensorFlow cannot differentiate this model on this device: {str(error).splitlines()[0]}; use another "
            "device or dtype (grouped convolutions, for one, have no float64 gradient on the CPU)"
        ) from error
    looped = dict(probed.reasons)
    scale = max(float(np.abs(rows.numpy()).max(initial=0.0)) for rows in truth)
    for position, parameter in enumerate(target.parameters):
        expected = truth[position].numpy()
        if not np.isfinite(expected).all():
            raise errors.NotFiniteError(
                f"the gradient of the loss with respect to {parameter.name} is not finite; check weights and inputs"
            )
        # A gradient that vanishes but for rounding, as of a bias before a softmax over places, agrees with any such.
        if position not in looped and not _agree(probed.values[position], expected, tolerance, floor=1e-5 * scale):
            looped[position] = "its rule does not give what differentiating single examples gives"
    return Plan(target, dict(sorted(looped.items())), probed.inline, probed.repeats)


def _check_labels(target: targets.Target, data: examples.Examples, inputs: Any) -> None:
    predictions = target.predict(inputs)
    if not hasattr(predictions, "shape"):
        raise errors.InvalidTargetError(
            f"predictions are a {type(predictions).__name__}; give predict=, a function of inputs that returns the one "
            "tensor that the loss takes"
        )
    if predictions.shape.rank is None or predictions.shape.rank < 1 or predictions.shape[0] != _NUM_PROBED:
        raise errors.InvalidTargetError(
            f"predictions of {_NUM_PROBED} examples have shape {predictions.shape}, expected [{_NUM_PROBED}, ...]; "
            "give predict=, a function of inputs that returns one row for each"
        )
    target.loss.check(np.asarray(data.labels), int(np.prod(predictions.shape[1:])))
    if target.loss.takes_logits:
        _check_logits(predictions.numpy())


def _check_logits(predictions: np.ndarray) -> None:
    """Refuses probabilities in the place of logits: another softmax would be taken of them."""
    flat = predictions.reshape(len(predictions), -1).astype(np.float64)
    if flat.shape[1] > 1 and (flat >= 0).all() and np.abs(flat.sum(axis=1) - 1).max() < 1e-4:
        raise errors.InvalidTargetError(
            "predictions are probabilities, which sum to 1, and the loss takes logits; give predict=, a function that "
            "returns their logarithms, such as lambda x: tf.math.log(model(x)), or take the softmax off the model"
        )


def _check_predictions(target: targets.Target, inputs: Any, tolerance: float) -> None:
    together = target.predict(inputs).numpy()
    if not _agree(target.predict(inputs).numpy(), together, tolerance):
        raise errors.InvalidTargetError(
            "two evaluations of the same examples differ: the model draws random numbers or updates itself, as with "
            "dropout while training; give predict= a function that calls it in inference mode"
        )
    for row in range(_NUM_PROBED):
        alone = target.predict(tf.nest.map_structure(lambda t, k=row: t[k : k + 1], inputs)).numpy()
        if not _agree(alone[0], together[row], tolerance):
            raise errors.InvalidTargetError(
                "the prediction of an example depends on the others in its batch, as with batch normalisation while "
                "training; give predict= a function that calls the model in inference mode"
            )


def _check_values(target: targets.Target, inputs: Any, labels: tf.Tensor) -> None:
    for name, function in (("loss", target.losses), (target.measured_name, target.measurements)):
        values = function(inputs, labels)
        if tuple(values.shape) != (_NUM_PROBED,):
            raise errors.InvalidTargetError(
                f"{name} of {_NUM_PROBED} examples has shape {values.shape}, expected [{_NUM_PROBED}]: one number each"
            )
        if not np.isfinite(values.numpy()).all():
            raise errors.NotFiniteError(
                f"{name} is {values.numpy()} on the first examples; check the weights and the scale of the inputs"
            )


# By bytes of a number: sums of many terms differ in their order.
_TOLERANCE = {2: 3e-2, 4: 1e-3, 8: 1e-8}


def _agree(values: np.ndarray, truth: np.ndarray, tolerance: float, floor: float = 0.0) -> bool:
    """Equal up to rounding, by the largest element or a larger floor."""
    values, truth = (np.asarray(array, np.float64) for array in (values, truth))
    largest = max(float(np.abs(truth).max(initial=0.0)), floor)
    return bool(np.abs(values - truth).max(initial=0.0) <= tolerance * largest + np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True, eq=False)
class _Probed:
    """What rules give: gradients [B, *shape] by position, or reasons, and how the model was traced."""

    inline: bool
    repeats: Mapping[int, str]
    values: Mapping[int, np.ndarray]
    reasons: Mapping[int, str]
    is_half: bool


def _by_rules(target: targets.Target, inputs: Any, labels: tf.Tensor) -> _Probed:
    try:
        return _probe(target, inputs, labels, inline=True)
    # What a function that branches on tensors raises when it is traced as plain Python.
    except (tf.errors.OperatorNotAllowedInGraphError, TypeError, NotImplementedError):
        return _probe(target, inputs, labels, inline=False)


def _probe(target: targets.Target, inputs: Any, labels: tf.Tensor, *, inline: bool) -> _Probed:
    repeats = _repeats(target, inputs, inline)
    reasons: dict[int, str] = {}
    is_half = []

    @tf.function(autograph=False)
    def compute(inputs: Any, labels: tf.Tensor) -> dict[int, tf.Tensor]:
        forward = passes.run(target.predict, inputs, target.parameters, inline=inline, repeats=repeats)
        losses = target.loss.values(forward.outputs, labels)
        found, missing = forward.by_parameter(losses, range(len(target.parameters)))
        reasons.update(missing)
        is_half.append(forward.has_half_precision)
        return {k: passes.gradients(parts, target.parameters[k], _NUM_PROBED) for k, parts in found.items()}

    values = {k: rows.numpy() for k, rows in compute(inputs, labels).items()}
    return _Probed(inline, repeats, values, reasons, any(is_half))


def _repeats(target: targets.Target, inputs: Any, inline: bool) -> dict[int, str]:
    """See `capture.repeats_of`."""

    def traced(num: int) -> capture.Capture:
        found: list[capture.Capture] = []

        def look(inputs: Any) -> None:
            found.append(passes.run(target.predict, inputs, target.parameters, inline=inline).captured)

        some = tf.nest.map_structure(lambda t: tf.gather(t, np.arange(num) % _NUM_PROBED), inputs)
        tf.function(look, autograph=False).get_concrete_function(some)
        return found[0]

    three = traced(3)
    return capture.repeats_of(three, traced(5)) if three.mixed else {}


def _one_by_one(target: targets.Target, inputs: Any, labels: tf.Tensor) -> list[tf.Tensor]:
    """[B, *shape] for each parameter, from one backward pass for each example."""

    @tf.function(autograph=False)
    def gradients(inputs: Any, labels: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = target.losses(inputs, labels)
        return tape.gradient(loss, target.variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    rows = []
    for k in range(_NUM_PROBED):
        one = tf.nest.map_structure(lambda tensor, k=k: tensor[k : k + 1], (inputs, labels))
        rows.append([tf.convert_to_tensor(gradient) for gradient in gradients(*one)])
    return [tf.stack(parts) for parts in zip(*rows, strict=True)]
