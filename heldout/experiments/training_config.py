"""How a model is trained: the part of a recipe that does not name data or architecture."""

import dataclasses
from typing import Any, Self

from zoo import errors

SCHEDULES = ("constant", "cosine", "step")
AUGMENTATIONS = ("crop", "flip")
DTYPES = ("float32", "float64")
MIXED_PRECISION = ("none", "bfloat16")
OPTIMIZERS = ("sgd", "adam")
# What earlier programs do not know is written only where it is used.
_LATER = (
    "mixed_precision",
    "optimizer",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "l1",
    "warmup_initial",
    "stop_accuracy",
    "stop_loss",
)

_MOST_EPOCHS = 10**9
_MOST_PADDING = 10**4


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Stochastic gradient descent with momentum, or Adam, on the mean cross-entropy of a batch.

    Per step, with g the gradient and lr the scheduled rate:  v <- momentum v + g + weight_decay w;  w <- w - lr v. Both
    rules are in heldout/training/updates.py.

    Attributes:
        num_epochs: passes over the subset, each in another order; the incomplete last batch of a pass is left out.
        batch_size: examples per step; the whole subset where that is smaller.
        learning_rate: base rate of the schedule.
        momentum: factor of the velocity v, in [0, 1).
        nesterov: whether to step along g + momentum v instead of v.
        weight_decay: L2 coefficient, added to the gradient of every variable of rank 2 or more
            (weights and filters; not biases, scales and offsets).
        schedule: "constant", "cosine" or "step"; see heldout/training/schedules.py.
        warmup_epochs: length of the linear warm-up; may be fractional.
        step_epochs: epochs at which the "step" schedule multiplies the rate by `step_factor`.
        step_factor: see `step_epochs`.
        augmentation: any of "crop" (random shift after zero padding) and "flip" (horizontal, probability 1/2).
        crop_padding: pixels of padding on each side for "crop".
        dtype: "float32" or "float64", of inputs and variables.
        mixed_precision: "bfloat16" for products and activations of that type in training, with variables, statistics
            and updates in float32; "none" for one type throughout. Evaluation always takes `dtype`.
        optimizer: "sgd" or "adam".
        adam_beta1, adam_beta2, adam_epsilon: of Adam, see heldout/training/updates.py.
        l1: coefficient of the sum of absolute values of every variable of rank 2 or more.
        warmup_initial: rate at which the warm-up begins.
        stop_accuracy: end a training once the accuracy on its subset, in inference mode, is at least this; 0 for never.
        stop_loss: end it once the mean loss of an epoch is at most this; 0 for never.
    """

    num_epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    step_epochs: tuple[int, ...] = ()
    step_factor: float = 0.1
    augmentation: tuple[str, ...] = ()
    crop_padding: int = 4
    dtype: str = "float32"
    mixed_precision: str = "none"
    optimizer: str = "sgd"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-7
    l1: float = 0.0
    warmup_initial: float = 0.0
    stop_accuracy: float = 0.0
    stop_loss: float = 0.0

    def __post_init__(self) -> None:
        """Refuses values of another type or outside their range."""
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), type(field.default))
        requirements = [
            ("num_epochs", 1 <= self.num_epochs <= _MOST_EPOCHS, f"between 1 and {_MOST_EPOCHS}"),
            ("batch_size", 1 <= self.batch_size <= _MOST_EPOCHS, f"between 1 and {_MOST_EPOCHS}"),
            ("learning_rate", 0 < self.learning_rate < float("inf"), "a positive number"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < float("inf"), "zero or a positive number"),
            ("schedule", self.schedule in SCHEDULES, "one of " + ", ".join(SCHEDULES)),
            ("warmup_epochs", 0 <= self.warmup_epochs <= self.num_epochs, "between 0 and num_epochs"),
            (
                "step_epochs",
                self._steps_fit(),
                "ascending epochs between 1 and num_epochs - 1 with --schedule=step, empty with the others",
            ),
            ("step_factor", 0 < self.step_factor <= 1, "in (0, 1]"),
            ("augmentation", self._augmentation_known(), "any of crop,flip, each at most once and in this order"),
            ("crop_padding", 1 <= self.crop_padding <= _MOST_PADDING, f"between 1 and {_MOST_PADDING}"),
            ("dtype", self.dtype in DTYPES, "one of " + ", ".join(DTYPES)),
            ("mixed_precision", self._mixed_precision_fits(), "none, or bfloat16 with --dtype=float32"),
            ("optimizer", self.optimizer in OPTIMIZERS, "one of " + ", ".join(OPTIMIZERS)),
            ("nesterov", not (self.nesterov and self.optimizer == "adam"), "false with --optimizer=adam"),
            ("adam_beta1", 0 <= self.adam_beta1 < 1, "in [0, 1)"),
            ("adam_beta2", 0 <= self.adam_beta2 < 1, "in [0, 1)"),
            ("adam_epsilon", 0 < self.adam_epsilon < float("inf"), "a positive number"),
            ("l1", 0 <= self.l1 < float("inf"), "zero or a positive number"),
            ("warmup_initial", 0 <= self.warmup_initial < float("inf"), "zero or a positive number"),
            ("stop_accuracy", 0 <= self.stop_accuracy <= 1, "a share, or 0 for never"),
            ("stop_loss", 0 <= self.stop_loss < float("inf"), "a positive number, or 0 for never"),
        ]
        for name, fulfilled, expected in requirements:
            if not fulfilled:
                raise errors.InvalidValueError(f"--{name}={getattr(self, name)}: expected {expected}")

    def _steps_fit(self) -> bool:
        if self.schedule != "step":
            return not self.step_epochs
        ascending = list(self.step_epochs) == sorted(set(self.step_epochs))
        return (
            bool(self.step_epochs) and ascending and self.step_epochs[0] > 0 and self.step_epochs[-1] < self.num_epochs
        )

    def _augmentation_known(self) -> bool:
        # One order only, so that the same training has one recipe.
        return self.augmentation == tuple(name for name in AUGMENTATIONS if name in self.augmentation)

    def _mixed_precision_fits(self) -> bool:
        return self.mixed_precision in MIXED_PRECISION and (self.mixed_precision == "none" or self.dtype == "float32")

    def to_json(self) -> dict[str, Any]:
        """A JSON object with one member per attribute; later ones are named only where they differ from the default."""
        members = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {key: value for key, value in members.items() if key not in _LATER or value != defaults[key]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            InvalidValueError: unknown members, or values of another type or outside their range.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(value) - set(fields))
        if unknown:
            raise errors.InvalidValueError(f"unknown training options {unknown}; known: {sorted(fields)}")
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        return cls(**arguments)


def _check_type(name: str, value: object, kind: type) -> None:
    """A whole number may stand for a float, nothing else for another type; True is no number."""
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise errors.InvalidValueError(f"--{name}={value!r}: expected a value of type {kind.__name__}")
    if name == "step_epochs" and not all(type(epoch) is int for epoch in value):  # type: ignore[attr-defined]
        raise errors.InvalidValueError(f"--{name}={value!r}: expected whole numbers")
