"""What decides scores of linearised networks: how the network is linearised, and what is asked of it.

Imports neither TensorFlow nor the estimators. A `LinearisationConfig` decides kernels and features, which take long; a
`ScoringConfig` what is computed of them, which takes seconds.
"""

from collections.abc import Mapping
import dataclasses
import json
import math
from typing import Any

from zoo import errors

# What each measure asks, as --help says it; and the columns that it gives, without what a time adds to their names.
MEASURES = {
    "weights": "nats about the weights, |dw|^2 / (2 sigma^2); weights_squared is |dw|^2",
    "weights_sgd": "nats about the weights, by the noise of stochastic gradient descent, for each of --noise_floors",
    "weights_langevin": "nats about the weights, by Langevin dynamics; beside it its square |df|^2 + lam |dw|^2",
    "predictions": "nats about validation predictions, |df|^2 / (2 sigma^2), mean over validation examples; "
    "predictions_squared is the mean of |df|^2",
    "train_prediction_stability": "the same of all training predictions",
    "train_loss_stability": "mean over training examples of |d loss|; train_loss_change is the signed mean, which "
    "train_loss_change_own and train_loss_change_others split into the example itself and the others",
    "val_loss_stability": "mean over validation examples of |d loss|; val_loss_change is the signed mean: positive "
    "where validation is worse without the example",
    "self_effect": "self_effect_squared, the squared change of the prediction for the example itself; member "
    "self_effect has its sign, for each output",
    "effects": "signed change of every validation output, in effects.npz",
    "accumulation": "accumulation_squared, |d|^2 of the part of the movement of the weights that gradients of the "
    "example made",
    "influence_functions": "influence_weights and influence_predictions, nats as weights and predictions, by influence "
    "functions in place of leaving out: one Newton step from the weights at --t with the Gauss-Newton matrix",
}
# Of each measure, the columns that say it first: drawn, and listed.
MAIN_COLUMNS = {
    **{name: (name,) for name in MEASURES},
    "self_effect": ("self_effect_squared",),
    "effects": (),
    "accumulation": ("accumulation_squared",),
    "influence_functions": ("influence_weights", "influence_predictions"),
}
DYNAMICS = ("discrete", "continuous")
CONVENTIONS = ("mean", "fixed", "published")
PROJECTIONS = ("none", "random_subset", "sparse_signs", "hadamard")
FORMS = ("auto", "dual", "primal")
STARTS = ("checkpoint", "first")
KERNEL_DTYPES = ("auto", "float32", "float64")
INFINITY = math.inf


@dataclasses.dataclass(frozen=True)
class Training:
    """Full-batch gradient descent that is linearised: (1/n) sum 1/2 |f - y|^2 + 1/2 l2 |w - w0|^2.

    Attributes:
        learning_rate: of the mean loss, above 0.
        num_steps: t, where no other time is asked for.
        l2: 0 or more.
    """

    learning_rate: float
    num_steps: int
    l2: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        for name, least_is_allowed in (("learning_rate", False), ("l2", True), ("num_steps", False)):
            value = getattr(self, name)
            if not (math.isfinite(value) and (value > 0 or (least_is_allowed and value == 0))):
                raise errors.InvalidValueError(
                    f"--{name}={value}: expected a number {'from 0 up' if least_is_allowed else 'above 0'}"
                )


@dataclasses.dataclass(frozen=True)
class LinearisationConfig:
    """Where and how a network is linearised.

    Attributes:
        checkpoint: "first", "last", a step of which there is a checkpoint, or the prefix of one: w0.
        start: where linearised training begins: at the "checkpoint", or at "first", the initialisation, with the
            outputs that the network linearised at the checkpoint has there; distances are then from there too.
        head: regular expression of the parameters that are trained, such as "layers/4/"; empty for all.
        projection: "none", or how gradients are projected, see `estimators.ntk.projected`.
        num_features: of a projection; for "random_subset" coordinates of each tensor.
        projection_seed: of it.
        form: "dual" by the kernel [n k, n k], "primal" by features, "auto" for the smaller.
        kernel_dtype: in which gradients are computed and multiplied; "auto" for that of the network.
    """

    checkpoint: str = "first"
    start: str = "checkpoint"
    head: str = ""
    projection: str = "none"
    num_features: int = 2000
    projection_seed: int = 0
    form: str = "auto"
    kernel_dtype: str = "auto"

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        known = (
            *(("start", STARTS), ("projection", PROJECTIONS)),
            *(("form", FORMS), ("kernel_dtype", KERNEL_DTYPES)),
        )
        for name, values in known:
            if getattr(self, name) not in values:
                raise errors.InvalidValueError(f"--{name}={getattr(self, name)}: expected one of {', '.join(values)}")
        if self.start == "first" and self.checkpoint == "first":
            raise errors.InvalidValueError(
                "--start=first: training begins elsewhere than at --checkpoint, which is the first too; name another "
                "checkpoint, such as last, or leave it out"
            )
        if self.num_features < 1:
            raise errors.InvalidValueError(f"--num_features={self.num_features}: expected at least 1")
        if not 0 <= self.projection_seed < 1 << 32:
            raise errors.InvalidValueError(f"--projection_seed={self.projection_seed}: expected 0 to {(1 << 32) - 1}")

    def to_json(self) -> dict[str, Any]:
        """A JSON object; settings of a projection, and another start, only where there is one."""
        stored = dataclasses.asdict(self)
        if self.start == "checkpoint":
            del stored["start"]
        if self.projection == "none":
            del stored["num_features"], stored["projection_seed"]
        return stored


@dataclasses.dataclass(frozen=True)
class ScoringConfig:
    """What is asked of a linearised network.

    Attributes:
        measures: some of `MEASURES`.
        times: steps of gradient descent, or infinity; None for the steps of the experiment.
        dynamics: "discrete" steps, or "continuous", gradient flow.
        convention: what the loss is without an example, see `estimators.linearized.descents`.
        sigma_weights: standard deviation of the noise of each weight.
        sigma_predictions: of each predicted output.
        sigma_gradients: of the gradient of one example, for "weights_langevin".
        noise_batch_size: b, of the noise of stochastic gradient descent and of Langevin dynamics.
        noise_floors: variances that each weight has beside it, for "weights_sgd".
        influence_damping: added to the Gauss-Newton matrix of the mean loss, for "influence_functions".
        num_checked: examples that are left out once more by a decomposition of their own, to measure the error.
    """

    measures: tuple[str, ...] = ("weights", "predictions")
    times: tuple[float | None, ...] = (None,)
    dynamics: str = "discrete"
    convention: str = "mean"
    sigma_weights: float = 1.0
    sigma_predictions: float = 1.0
    sigma_gradients: float = 1.0
    noise_batch_size: int = 1
    noise_floors: tuple[float, ...] = (1e-10,)
    influence_damping: float = 0.01
    num_checked: int = 2

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        for name in self.measures:
            if name not in MEASURES:
                raise errors.InvalidValueError(f"--measure={name}: expected some of {', '.join(MEASURES)}")
        for name, values in (("dynamics", DYNAMICS), ("convention", CONVENTIONS)):
            if getattr(self, name) not in values:
                raise errors.InvalidValueError(f"--{name}={getattr(self, name)}: expected one of {', '.join(values)}")
        if not self.measures or len(set(self.measures)) < len(self.measures):
            raise errors.InvalidValueError(f"--measure={','.join(self.measures)}: expected at least one, each once")
        if not self.times or len(set(self.times)) < len(self.times):
            raise errors.InvalidValueError(f"--t={_texts(self.times)}: expected at least one time, each once")
        for name in ("sigma_weights", "sigma_predictions", "sigma_gradients", "noise_batch_size"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise errors.InvalidValueError(f"--{name}={getattr(self, name)}: expected a number above 0")
        for time in self.times:
            if time is None or time == INFINITY:
                continue
            # NaN is not from 0 up.
            if not time >= 0 or (self.dynamics == "discrete" and time != int(time)):
                raise errors.InvalidValueError(
                    f"--t={_texts(self.times)}: expected numbers of steps from 0 up, whole ones unless "
                    "--dynamics=continuous, or inf"
                )
        if len(set(self.noise_floors)) < len(self.noise_floors):
            raise errors.InvalidValueError(f"--noise_floors={_texts(self.noise_floors)}: expected each floor once")
        lows = (*self.noise_floors, self.influence_damping, self.num_checked)
        if not self.noise_floors or not all(math.isfinite(one) and one >= 0 for one in lows):
            raise errors.InvalidValueError(
                f"--noise_floors={_texts(self.noise_floors)} --influence_damping={self.influence_damping} "
                f"--num_checked={self.num_checked}: expected numbers from 0 up, at least one floor"
            )

    def to_json(self) -> dict[str, Any]:
        """A JSON object; infinity is the text "inf". `from_json` is its inverse."""
        stored = dict(json.loads(json.dumps(dataclasses.asdict(self) | {"times": []})))
        return stored | {"times": ["inf" if time == INFINITY else time for time in self.times]}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ScoringConfig":
        """What `to_json` made."""
        times = tuple(INFINITY if time == "inf" else time for time in stored["times"])
        lists = {"measures": tuple(stored["measures"]), "noise_floors": tuple(stored["noise_floors"])}
        return cls(**{**stored, **lists, "times": times})

    def at(self, num_steps: int) -> tuple[float, ...]:
        """The times as numbers.

        Raises:
            InvalidValueError: one is asked for twice, as a number and as that of the experiment.
        """
        found = tuple(float(num_steps) if time is None else time for time in self.times)
        if len(set(found)) < len(found):
            raise errors.InvalidValueError(f"--t={_texts(found)}: expected each time once")
        return found


def time_suffix(time: float, times: tuple[float, ...]) -> str:
    """What stands behind the names of columns: nothing where there is one time, else "_t100" or "_tinf"."""
    return "" if len(times) == 1 else f"_t{number_text(time)}"


def number_text(value: float) -> str:
    """The shortest text that gives the number back; "100" and "inf" for whole ones and infinity."""
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(float(value))


def main_columns(config: ScoringConfig, num_steps: int) -> list[str]:
    """The columns that say most, in the order of measures and times."""
    times = config.at(num_steps)
    return [
        column + time_suffix(time, times)
        for measure in config.measures
        for column in MAIN_COLUMNS[measure]
        for time in times
    ]


def _texts(values: tuple[float | None, ...]) -> str:
    return ",".join("experiment" if value is None else number_text(value) for value in values)
