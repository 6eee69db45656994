"""A linearised network in training: its solution at any time, and those without groups of examples; no TensorFlow."""

from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import Any

import numpy as np

from estimators.linearized import agreement, descents, dynamics, leave_out, solutions, spectra, spectral
from scripts.attribution import named_errors
from scripts.unique_information import linearised_problem, scoring_config


class Linearised:
    """A linearised network whose kernel, or Gram matrix of features, is decomposed once."""

    def __init__(
        self, problem: linearised_problem.Problem, training: scoring_config.Training, *, continuous: bool = False
    ) -> None:
        """Decomposes nothing yet.

        Args:
            problem: kernel or features, outputs and targets.
            training: what is linearised.
            continuous: gradient flow in place of steps.
        """
        self.problem, self.training = problem, training
        self.descent = descents.GradientDescent(training.learning_rate, training.l2, continuous)

    @functools.cached_property
    def spectrum(self) -> spectra.Spectrum:
        """Of K, or of Phi^T Phi."""
        if self.problem.form == "dual":
            return spectra.decompose(self.problem.train_rows, accuracy=self.problem.accuracy)
        return spectra.decompose(linearised_problem.gram(self.problem.train_rows))

    @property
    def reach(self) -> float:
        """Eta (largest eigenvalue + lam): steps diverge from 2 on."""
        rates = self.descent.rates(self.problem.num_train)
        return rates.eta * (self.spectrum.largest + rates.lam)

    def solution(self, time: float) -> np.ndarray:
        """Coefficients of the kernel's rows, or weights of features, after a time."""
        rates = self.descent.rates(self.problem.num_train)
        self.descent.check_time(time)
        self.descent.check_stable(self.spectrum.largest, rates)
        start, vectors = self.problem.residuals.ravel(), self.spectrum.eigenvectors
        if self.problem.form == "primal":
            start = linearised_problem.transposed_products(self.problem.train_rows, start)
        source = vectors.T @ start
        transfer = dynamics.transfer_of(self.spectrum, rates, time, continuous=self.descent.continuous)
        return vectors @ (-transfer * source)

    def coefficients(self, time: float) -> np.ndarray:
        """a_t [n k] with w - w0 = J^T a_t, in either form; of a limit without l2 the part that moves weights.

        In features, with Phi^T Phi = V Lambda V^T and p the transfer of `dynamics`, -a is
        p(lam) r0 + Phi V (p(Lambda + lam) - p(lam)) / Lambda V^T Phi^T r0.
        """
        if self.problem.form == "dual":
            return self.solution(time)
        rates, start = self.descent.rates(self.problem.num_train), self.problem.residuals.ravel()
        spectrum, continuous = self.spectrum, self.descent.continuous
        transfer = dynamics.transfer_of(spectrum, rates, time, continuous=continuous)
        is_limit = math.isinf(time) and rates.lam == 0
        outside = 0.0 if is_limit else float(spectral.transfer(np.array(rates.lam), rates, time, continuous=continuous))
        known = spectrum.eigenvalues > spectrum.tolerance
        inside = np.divide(transfer - outside, spectrum.eigenvalues, out=np.zeros_like(transfer), where=known)
        pulled = spectrum.eigenvectors.T @ linearised_problem.transposed_products(self.problem.train_rows, start)
        along = linearised_problem.products(self.problem.train_rows, spectrum.eigenvectors @ (inside * pulled))
        return -(outside * start + along)

    def predictions(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Of training [n, k] and validation examples [m, k], after a time."""
        found, problem = self.solution(time), self.problem
        pairs = ((problem.train_output, problem.train_rows), (problem.val_output, problem.val_rows))
        train, val = (output + linearised_problem.products(rows, found).reshape(output.shape) for output, rows in pairs)
        return train, val

    def without(
        self, time: float, scoring: scoring_config.ScoringConfig, groups: Sequence[np.ndarray] | None
    ) -> solutions.LeaveOut:
        """Solutions without each group."""
        options: dict[str, Any] = {
            "groups": groups,
            "convention": scoring.convention,
            "num_checked": scoring.num_checked,
        }
        arguments = (self.problem.train_rows, self.problem.residuals, self.descent, time)
        if self.problem.form == "dual":
            return leave_out.solve(*arguments, **options, spectrum=self.spectrum)
        return leave_out.solve_primal(*arguments, **options)

    def by_influence(self, removed: solutions.LeaveOut, residuals: np.ndarray, damping: float) -> solutions.LeaveOut:
        """What influence functions say of the same groups: w + (J^T J + lam + n damping)^-1 J_g^T res_g.

        Args:
            removed: for groups and settings.
            residuals: f_t - y [n, k] with all examples.
            damping: of the Gauss-Newton matrix of the mean loss; without it and l2 the pseudo-inverse is taken.
        """
        num, spectrum = self.problem.num_train, self.spectrum
        rows, flat = (
            spectrum.eigenvectors if self.problem.form == "dual" else self.problem.train_rows,
            residuals.ravel(),
        )
        of_groups = [solutions.rows_of_examples(group, self.problem.num_outputs) for group in removed.groups]
        pulled = np.stack([flat[places] @ np.asarray(rows[places], np.float64) for places in of_groups])
        if self.problem.form == "primal":
            pulled = pulled @ spectrum.eigenvectors
        lam = self.descent.rates(num).lam + num * damping
        shifted = spectrum.eigenvalues + lam
        inverse = np.divide(
            1.0, shifted, out=np.zeros_like(shifted), where=shifted > (0.0 if lam > 0 else spectrum.tolerance)
        )
        changes = (pulled * inverse) @ spectrum.eigenvectors.T
        unchecked = solutions.Check(np.zeros(0, np.int64), math.nan, math.nan)
        return dataclasses.replace(
            removed, without=removed.full + changes, method="influence functions", check=unchecked
        )


def followed(
    linearised: Linearised, times: Sequence[int], true_train: np.ndarray, true_val: np.ndarray
) -> dict[str, Any]:
    """How far predictions of the linearised network are those of the network that was trained.

    Args:
        linearised: the network.
        times: T ascending steps.
        true_train: [T, n, k], predictions of the trained network for training examples.
        true_val: [T, m, k], for validation examples.

    Returns:
        As JSON: the steps, |predicted - true| / |true - initial| and the correlation of changes at each.
    """
    with named_errors.translated():
        pairs = [linearised.predictions(time) for time in times]
        found: dict[str, Any] = {"steps": [int(time) for time in times]}
        for place, (name, true) in enumerate((("train", true_train), ("val", true_val))):
            predicted = np.stack([pair[place] for pair in pairs])
            compared = agreement.compare(
                np.asarray(times), predicted, true, getattr(linearised.problem, f"{name}_output")
            )
            found[f"{name}_relative_error"] = [_number(value) for value in compared.relative_errors]
            found[f"{name}_correlation"] = [_number(value) for value in compared.correlations]
    return found


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
