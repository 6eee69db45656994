"""What TRAK asks of a model about an example: its projected gradient, and two derivatives of its loss.

phi = P grad f [d], q = -d loss / d f and w = d^2 loss / d f^2, with f the measured output; see `trak`.
"""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from estimators import errors, examples, targets
from estimators.derivatives import per_example, plans
from estimators.projections import projected_gradients, sketches

Compiled = Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Features phi [B, d] float64, slopes q [B] and curvatures w [B] of the examples from `start` on."""

    start: int
    features: np.ndarray
    slopes: np.ndarray
    curvatures: np.ndarray

    @property
    def rows(self) -> slice:
        """Where these examples stand among all."""
        return slice(self.start, self.start + len(self.slopes))


def make(plan: plans.Plan, projection: projected_gradients.Config) -> Compiled:
    """A function (inputs, labels, draw) -> (phi [B, d], q [B], w [B]).

    Raises:
        InvalidTargetError: the loss is no function of what is measured that we know.
    """
    derivatives = _loss_derivatives(plan.target)

    def compute(inputs: Any, labels: tf.Tensor, draw: sketches.Draw) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        features = projected_gradients.projected(plan, projection, inputs, labels, draw, "measured")
        return features, *derivatives(plan.target.measurements(inputs, labels), labels)

    return per_example.compiled_rows(plan, compute)


def batches(
    compiled: Compiled, draw: sketches.Draw, data: examples.Examples, batch_size: int, what: str
) -> Iterator[Batch]:
    """The features of examples, batch by batch.

    Args:
        compiled: from `make`.
        draw: the projection.
        data: the examples.
        batch_size: at a time.
        what: the model, for messages.

    Raises:
        NotFiniteError: a gradient or an output is NaN or infinite.
    """
    start = 0
    for batch in data.batches(min(batch_size, len(data))):
        found = compiled(batch.inputs, batch.labels, draw)
        features, slopes, curvatures = (tensor.numpy().astype(np.float64) for tensor in found)
        if not (np.isfinite(features).all() and np.isfinite(slopes).all()):
            raise errors.NotFiniteError(
                f"gradients or outputs of {what} are not finite among examples {start} to {start + len(slopes) - 1}; "
                "check its weights and the inputs"
            )
        yield Batch(start, features, slopes, curvatures)
        start += len(slopes)


def _loss_derivatives(target: targets.Target) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """(measured f, labels) -> (-d loss / d f, d^2 loss / d f^2)."""
    known = {("cross_entropy", "margin"): _of_margin, ("squared_error", "output"): _of_output}
    pair = (target.loss.name, target.measured_name)
    if pair not in known:
        raise errors.InvalidTargetError(
            f"loss {pair[0]} and measured output {pair[1]}: TRAK needs the loss as a function of what is measured; use "
            + " or ".join(f"{loss} with measured={measured!r}" for loss, measured in known)
        )
    return known[pair]


def _of_margin(margins: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    del labels
    return tf.sigmoid(-margins), tf.sigmoid(margins) * tf.sigmoid(-margins)


def _of_output(outputs: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.reshape(tf.cast(labels, outputs.dtype), [-1]) - outputs, tf.ones_like(outputs)
