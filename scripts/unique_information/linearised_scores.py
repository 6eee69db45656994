"""Scores of training examples in a linearised network, from its kernel or features; NumPy alone, no TensorFlow.

    problem = linearised_problem.read(folder / "kernel")             # made once, by `linearisation_dispatch`
    training = scoring_config.Training(learning_rate=1e-3, num_steps=2000)
    found = linearised_scores.compute(problem, training, scoring_config.ScoringConfig(("weights", "predictions")))
    found.columns["weights"]                                         # float64 [n], nats; higher is more informative
    kept = problem.take(np.argsort(found.columns["weights"])[50:])   # without some examples, of the same kernel
    again = linearised_scores.compute(kept, training, ...)

Changes are without minus with the example, or group. After Harutyunyan et al. (2021, arXiv:2101.06640); what each
measure is says `scoring_config.MEASURES`.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any

import numpy as np

from estimators.linearized import solutions
from estimators.unique_information import accumulation, predictions, results, sgd_noise, weights
from scripts.attribution import named_errors
from scripts.unique_information import linearised_problem, linearised_training, scoring_config
from zoo import errors

# (what is done, steps done, all)
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""
    del stage, done, total


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Scores of G groups of training examples; of each example alone unless groups were given.

    Attributes:
        columns: float64 [G] by name.
        described: what each column is, with its unit.
        self_effect: [G, k] by time suffix, mean over the group of the change of its own predictions, where asked for.
        facts: by time, as JSON: method, measured errors, how far steps are from diverging.
        removed: the solutions, by time; for effects on single outputs.
    """

    columns: dict[str, np.ndarray]
    described: dict[str, str]
    self_effect: dict[str, np.ndarray]
    facts: dict[str, Any]
    removed: dict[float, solutions.LeaveOut]


@dataclasses.dataclass(frozen=True, eq=False)
class _Asked:
    """One measure at one time."""

    linearised: linearised_training.Linearised
    removed: solutions.LeaveOut
    scoring: scoring_config.ScoringConfig
    # What measures find out beside their columns.
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def problem(self) -> linearised_problem.Problem:
        return self.linearised.problem

    @functools.cached_property
    def own(self) -> list[np.ndarray]:
        """Of each group, changes of its own predictions [g, k]."""
        return predictions.self_effects(self.removed)

    def residuals(self, name: str) -> np.ndarray:
        """f_t - y of "train" or "val" examples."""
        rows, start = (getattr(self.problem, f"{name}_{what}") for what in ("rows", "output"))
        change = linearised_problem.products(rows, self.removed.full).reshape(start.shape)
        return np.asarray(start + change - getattr(self.problem, f"{name}_target"))


# Of one measure: name -> (values, what they are).
_Columns = dict[str, tuple[np.ndarray, str]]


def compute(
    problem: linearised_problem.Problem,
    training: scoring_config.Training,
    scoring: scoring_config.ScoringConfig,
    *,
    groups: Sequence[np.ndarray] | None = None,
    progress: Progress = silent,
) -> Scores:
    """Scores of training examples, or of groups of them.

    Args:
        problem: kernel or features of the network.
        training: what is linearised.
        scoring: what is asked.
        groups: places among the training examples of the problem; None for each example alone.
        progress: called with (stage, done, all).

    Returns:
        The scores.

    Raises:
        InvalidValueError: the steps diverge, a time cannot be, or a measure is not of groups.
    """
    if groups is not None and "accumulation" in scoring.measures:
        raise errors.InvalidValueError("--measure=accumulation: is of single examples; leave it out beside --groups")
    times = scoring.at(training.num_steps)
    linearised = linearised_training.Linearised(problem, training, continuous=scoring.dynamics == "continuous")
    found = Scores({}, {}, {}, {}, {})
    with named_errors.translated():
        _check_steps(linearised, scoring.convention, alone=groups is None)
        for number, time in enumerate(times):
            progress("left out", number, len(times))
            asked = _Asked(linearised, linearised.without(time, scoring, groups), scoring)
            _measure(asked, time, scoring_config.time_suffix(time, times), found)
        progress("left out", len(times), len(times))
    return found


def _check_steps(linearised: linearised_training.Linearised, convention: str, *, alone: bool) -> None:
    """Refuses steps that diverge, in the words of flags; those without groups are looked at where they are computed.

    Raises:
        InvalidValueError: they do, with all examples or without each alone.
    """
    descent, num_train = linearised.descent, linearised.problem.num_train
    rates = [descent.rates(num_train), *([descent.without(num_train, 1, convention)] if alone else [])]
    largest = linearised.spectrum.largest
    reach = max(one.eta * (largest + one.lam) for one in rates)
    if not descent.continuous and not reach < 2:
        rate = descent.learning_rate
        raise errors.InvalidValueError(
            f"--learning_rate={rate:g}: steps of the linearised network diverge. Its largest eigenvalue is "
            f"{largest:.6g}, so that learning_rate / n times (eigenvalue + n l2) is {reach:.4g} and must be below 2; "
            f"take a rate below {2 * rate / reach:.4g}, or gradient flow with --dynamics=continuous"
        )


def _measure(asked: _Asked, time: float, suffix: str, found: Scores) -> None:
    """Adds the columns of one time."""
    for name in asked.scoring.measures:
        for column, (values, text) in _MEASURED[name](asked).items():
            found.columns[column + suffix], found.described[column + suffix] = values, text
    if "self_effect" in asked.scoring.measures:
        found.self_effect[suffix] = np.stack([one.mean(axis=0) for one in asked.own])
    removed = asked.removed
    found.removed[time] = removed
    found.facts[scoring_config.number_text(time)] = {
        "form": removed.form,
        "num_rows": len(asked.problem.train_rows),
        "num_features": removed.full.size if removed.form == "primal" else None,
        "method": removed.method,
        "num_checked": len(removed.check.groups),
        "solution_error": _number(removed.check.solution_error),
        "change_error": _number(removed.check.change_error),
        "step_times_largest_eigenvalue": asked.linearised.reach,
        "rank": asked.linearised.spectrum.rank,
        "mean_squared_train_residual": float(np.mean(asked.residuals("train") ** 2)),
        "mean_squared_val_residual": float(np.mean(asked.residuals("val") ** 2)),
        **asked.facts,
    }


def _of(name: str, found: results.UniqueInformation) -> _Columns:
    return {
        name: (found.nats, f"nats: {found.formula}"),
        f"{name}_squared": (found.squared_norms, f"squared {found.squared_norm}"),
    }


def _weights(asked: _Asked) -> _Columns:
    return _of("weights", weights.isotropic(asked.removed, sigma=asked.scoring.sigma_weights))


def _weights_langevin(asked: _Asked) -> _Columns:
    scoring = asked.scoring
    found = weights.langevin(asked.removed, sigma=scoring.sigma_gradients, batch_size=scoring.noise_batch_size)
    return _of("weights_langevin", found)


def _weights_sgd(asked: _Asked) -> _Columns:
    floors = asked.scoring.noise_floors
    found = sgd_noise.reduced(
        asked.removed,
        asked.residuals("train"),
        batch_size=asked.scoring.noise_batch_size,
        floors=floors,
        spectrum=asked.linearised.spectrum if asked.removed.form == "dual" else None,
    )
    columns = {}
    for number, floor in enumerate(floors):
        name = f"weights_sgd_floor_{scoring_config.number_text(floor)}" if number else "weights_sgd"
        text = f"nats: 1/2 dw^T (Sigma + {floor:g} I)^-1 dw, Sigma of stochastic gradient descent"
        columns[name] = (found.nats[number], text)
    asked.facts["sgd_noise_variances"] = [float(found.variances[0]), float(found.variances[-1])]
    # The largest share of |dw|^2 that lies outside the basis of the noise, and is left out.
    asked.facts["sgd_noise_outside"] = float(found.outside.max())
    return columns


def _predictions(asked: _Asked) -> _Columns:
    return _of(
        "predictions",
        predictions.functional(asked.removed, asked.problem.val_rows, sigma=asked.scoring.sigma_predictions),
    )


def _train_predictions(asked: _Asked) -> _Columns:
    found = predictions.train_prediction_stability(asked.removed, sigma=asked.scoring.sigma_predictions)
    return _of("train_prediction_stability", found)


def _train_losses(asked: _Asked) -> _Columns:
    found = predictions.train_loss_stability(asked.removed, asked.residuals("train"))
    what = "change of 1/2 |f - y|^2 of training examples"
    return {
        "train_loss_stability": (found.mean_absolute, f"mean absolute {what}"),
        "train_loss_change": (found.mean, f"mean {what}, without minus with"),
        "train_loss_change_own": (found.own, f"mean {what} that are left out themselves"),
        "train_loss_change_others": (found.others, f"mean {what} that are not left out"),
    }


def _val_losses(asked: _Asked) -> _Columns:
    found = predictions.loss_changes(asked.removed, asked.problem.val_rows, asked.residuals("val"))
    what = "change of 1/2 |f - y|^2 of validation examples"
    return {
        "val_loss_stability": (found.mean_absolute, f"mean absolute {what}"),
        "val_loss_change": (found.mean, f"mean {what}, without minus with"),
    }


def _self_effect(asked: _Asked) -> _Columns:
    squared = np.array([np.mean(np.sum(one**2, axis=1)) for one in asked.own])
    return {"self_effect_squared": (squared, "squared change of the prediction for the example itself")}


def _accumulation(asked: _Asked) -> _Columns:
    problem, parts = asked.problem, asked.linearised.coefficients(asked.removed.time)
    if problem.form == "dual":
        found = accumulation.of_linearised(problem.train_rows, parts, problem.num_outputs)
    else:
        found = linearised_problem.squared_norms(problem.train_rows, parts.reshape(problem.train_output.shape))
    return {"accumulation_squared": (found, "squared part of the movement of the weights along its own gradients")}


def _influence(asked: _Asked) -> _Columns:
    damping = asked.scoring.influence_damping
    found = asked.linearised.by_influence(asked.removed, asked.residuals("train"), damping)
    columns = _of("influence_weights", weights.isotropic(found, sigma=asked.scoring.sigma_weights))
    sigma = asked.scoring.sigma_predictions
    return columns | _of("influence_predictions", predictions.functional(found, asked.problem.val_rows, sigma=sigma))


_MEASURED: Mapping[str, Callable[[_Asked], _Columns]] = {
    "weights": _weights,
    "weights_sgd": _weights_sgd,
    "weights_langevin": _weights_langevin,
    "predictions": _predictions,
    "train_prediction_stability": _train_predictions,
    "train_loss_stability": _train_losses,
    "val_loss_stability": _val_losses,
    "self_effect": _self_effect,
    "effects": lambda asked: {},
    "accumulation": _accumulation,
    "influence_functions": _influence,
}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
