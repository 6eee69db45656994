"""All leave-one-out and leave-group-out solutions of a linearised network at once, at any time.

The problem is that of Harutyunyan et al. (ICLR 2021, arXiv:2101.06640). A matrix power for every example takes
n N^3 log t operations; here one decomposition of the full problem, N^3, serves all groups. How:

    closed form   infinite time: block formulas of the inverse; without l2 the solution of least norm, whatever the rank
                  (so little l2 that round-off counts beside it is taken on the range of the kernel alone)
    contour       p_t as a sum of Q resolvents, in which deletion is a small correction: gradient flow, and 100 steps up
    recursion     fewer steps, or by name: all step by step in the basis of the eigenvectors, exact

A few groups are solved again by a decomposition of their own, and what they differ by stands in the result.
"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

from estimators import errors
from estimators.linearized import deletions, descents, dynamics, solutions, spectra, spectral

METHODS = ("auto", "contour", "recursion", "closed form")
# Fewer steps than this differ from exponentials by more than the contour allows.
MIN_CONTOUR_STEPS = 100
# More of them only add round-off, and leave the region where (1 + zeta / t)^t is small.
_MAX_NODES = 24
_ROW_BLOCK = 4096
# Up to so many times the round-off of eigenvalues, lam has fewer than three digits beside it.
_SMALL = 1e3


def solve(
    kernel: np.ndarray,
    residuals: np.ndarray,
    descent: descents.GradientDescent,
    time: float,
    *,
    groups: Sequence[np.ndarray] | None = None,
    convention: str = "mean",
    method: str = "auto",
    num_nodes: int = 16,
    num_checked: int = 2,
    spectrum: spectra.Spectrum | None = None,
) -> solutions.LeaveOut:
    """Coefficients a_{-i} of training without each group, from a kernel (dual form).

    Args:
        kernel: K [N, N], N = n k.
        residuals: r0 = f0 - y [n, k], or [n] for one output.
        descent: learning rate, l2, steps or flow.
        time: t, or infinity.
        groups: positions of the examples of each group; None for each example alone. Groups may overlap.
        convention: "mean", "fixed" or "published", see `descents.GradientDescent.without`.
        method: of `METHODS`; "auto" as the module says.
        num_nodes: Q of the contour: relative error of p_t 1.1e-6, 1.6e-10, below 1e-11 for 8, 12, 16.
        num_checked: how many groups, evenly among all, are solved again; each costs a decomposition.
        spectrum: of the kernel, if it is known.

    Returns:
        The solutions, [G, N]. Cost: one decomposition (9 N^3), Q N q (q + 1) / 2 for each group of q = g k rows, and
        2 N^2 for each group to turn it back; 8 G N bytes and two matrices of the size of the kernel.

    Raises:
        InvalidArgumentError: the kernel is none, a setting is unknown or the steps diverge, with or without a group.
        MismatchError: residuals or a spectrum of another length.
    """
    kernel = np.asarray(kernel)
    rows = dynamics.rows_of(residuals, len(kernel))
    known = spectra.decompose(kernel) if spectrum is None else spectrum
    if len(known.eigenvalues) != len(kernel):
        raise errors.MismatchError(
            f"a spectrum of {len(known.eigenvalues)} eigenvalues beside a kernel of {len(kernel)} rows: give its own"
        )
    turned = known.eigenvectors.T @ rows.ravel()
    problem = deletions.Diagonal(known.eigenvectors, None, known.eigenvalues, known.tolerance, turned, rows.ravel())
    task = _Task(problem, known, rows.shape[1], descent, time, convention, method, num_nodes)
    found = task.run(kernel, solutions.checked_groups(groups, len(rows)), known.eigenvectors)
    for place, group in enumerate(found.groups):
        found.without[place, solutions.rows_of_examples(group, found.num_outputs)] = 0.0
    return _with_check(found, rows.ravel(), num_checked, known.accuracy)


def solve_primal(
    features: np.ndarray,
    residuals: np.ndarray,
    descent: descents.GradientDescent,
    time: float,
    *,
    groups: Sequence[np.ndarray] | None = None,
    convention: str = "mean",
    method: str = "auto",
    num_nodes: int = 16,
    num_checked: int = 2,
) -> solutions.LeaveOut:
    """Weights w_{-i} - w0 of training without each group, from D features a row (primal form).

    Args:
        features: Phi [N, D] with K = Phi Phi^T: the Jacobian itself, or a sketch of it. A memory map is read block by
            block, twice.
        residuals: r0 [n, k].
        descent: learning rate, l2, steps or flow.
        time: t, or infinity.
        groups: see `solve`, as all that follow.
        convention: what the loss of the others is.
        method: how.
        num_nodes: of the contour.
        num_checked: how many groups are solved again.

    Returns:
        The solutions, [G, D]. Cost N D^2 + 9 D^3, and for each group q D^2 + Q D q (q + 1) / 2: linear in n. Memory
        8 G D bytes, three matrices [D, D] and 64 MB.

    Raises:
        See `solve`.
    """
    features = np.asarray(features)
    rows = dynamics.rows_of(residuals, len(features))
    gram, source = _gram(features, rows.ravel())
    known = spectra.decompose(gram)
    # Features have no part along the others; divided by a small lam, their round-off would be one.
    turned = np.where(known.is_known, known.eigenvectors.T @ source, 0.0)
    problem = deletions.Diagonal(features, known.eigenvectors, known.eigenvalues, known.tolerance, turned, rows.ravel())
    task = _Task(problem, known, rows.shape[1], descent, time, convention, method, num_nodes)
    found = task.run(features, solutions.checked_groups(groups, len(rows)), known.eigenvectors)
    return _with_check(found, rows.ravel(), num_checked, known.accuracy, (gram, source))


def _gram(features: np.ndarray, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phi^T Phi [D, D] and Phi^T r0 [D], block by block."""
    if np.ndim(features) != 2:
        raise errors.MismatchError(f"features of shape {np.shape(features)}: expected [N, D] with N = n k")
    width = features.shape[1]
    gram, source = np.zeros((width, width)), np.zeros(width)
    for start in range(0, len(features), _ROW_BLOCK):
        block = np.asarray(features[start : start + _ROW_BLOCK], np.float64)
        gram += block.T @ block
        source += block.T @ residuals[start : start + _ROW_BLOCK]
    return gram, source


class _Task:
    """One problem with its settings."""

    def __init__(
        self,
        problem: deletions.Diagonal,
        spectrum: spectra.Spectrum,
        num_outputs: int,
        descent: descents.GradientDescent,
        time: float,
        convention: str,
        method: str,
        num_nodes: int,
    ) -> None:
        descent.check_time(time)
        if method not in METHODS:
            raise errors.InvalidArgumentError(f"method {method!r}: expected one of {', '.join(METHODS)}")
        if not 1 <= num_nodes <= _MAX_NODES:
            raise errors.InvalidArgumentError(f"num_nodes {num_nodes}: expected 1 to {_MAX_NODES}")
        self._problem, self._spectrum, self._num_outputs = problem, spectrum, num_outputs
        self._descent, self._time, self._convention = descent, time, convention
        self._method, self._num_nodes = method, num_nodes

    def run(self, train_rows: np.ndarray, groups: tuple[np.ndarray, ...], vectors: np.ndarray) -> solutions.LeaveOut:
        """The solutions, turned back from the basis of the eigenvectors."""
        num_train = len(train_rows) // self._num_outputs
        full_rates = self._descent.rates(num_train)
        self._descent.check_stable(self._spectrum.largest, full_rates)
        transfer = _transfer(self._spectrum, full_rates, self._time, continuous=self._descent.continuous)
        without = np.empty((len(groups), len(vectors)))
        methods = set()
        for size in sorted({len(group) for group in groups}):
            places = np.array([place for place, group in enumerate(groups) if len(group) == size])
            rows = np.stack([solutions.rows_of_examples(groups[place], self._num_outputs) for place in places])
            rates = self._descent.without(num_train, size, self._convention)
            methods.add(self._fill(without, places, rows, rates, vectors))
        return solutions.LeaveOut(
            form="dual" if self._problem.is_dual else "primal",
            groups=groups,
            full=vectors @ (-transfer * self._problem.source),
            without=without,
            train_rows=train_rows,
            spectrum=self._spectrum,
            num_outputs=self._num_outputs,
            descent=self._descent,
            time=self._time,
            convention=self._convention,
            method="; ".join(sorted(methods)),
            check=solutions.Check(np.zeros(0, np.int64), math.nan, math.nan),
        )

    def _fill(
        self, without: np.ndarray, places: np.ndarray, rows: np.ndarray, rates: descents.Rates, vectors: np.ndarray
    ) -> str:
        """Solves groups of one size into their rows of `without`; returns how."""
        method, contour = self._chosen(rates, self._largest(rows, rates))
        at_a_time = self._problem.groups_at_a_time(rows.shape[1])
        for start in range(0, len(rows), at_a_time):
            part = rows[start : start + at_a_time]
            if contour is not None:
                found = deletions.by_contour(self._problem, part, rates.lam, contour)
            elif method == "recursion":
                found = deletions.by_recursion(self._problem, part, rates, int(self._time))
            elif not _is_small(rates.lam, self._spectrum) or (
                self._problem.is_dual and self._spectrum.rank == len(vectors)
            ):
                found = deletions.at_optimum(self._problem, part, rates.lam)
            else:
                found = deletions.at_interpolation(self._problem, part, rates.lam)
            without[places[start : start + at_a_time]] = found @ vectors.T
        return method

    def _largest(self, rows: np.ndarray, rates: descents.Rates) -> float:
        """A bound on the eigenvalues of what is left without any of some groups [G, q]; refuses steps that diverge.

        That of the whole kernel, which is the larger, where steps converge even so; else what was found.
        """
        descent, largest = self._descent, self._spectrum.largest
        if not descent.continuous and rates.eta * (largest + rates.lam) >= 2:
            largest = max(deletions.largest_eigenvalue(self._problem, group) for group in rows)
        descent.check_stable(largest, rates)
        return largest

    def _chosen(self, rates: descents.Rates, largest: float) -> tuple[str, spectral.Contour | None]:
        """The method for rates and eigenvalues up to the largest, and its contour."""
        time, continuous = self._time, self._descent.continuous
        if math.isinf(time):
            allowed: tuple[str, ...] = ("closed form",)
        elif time == 0 or (not continuous and time < MIN_CONTOUR_STEPS):
            allowed = ("recursion",)
        elif continuous:
            allowed = ("contour",)
        else:
            allowed = ("contour", "recursion")
        method = allowed[0] if self._method == "auto" else self._method
        if method not in allowed:
            raise errors.InvalidArgumentError(
                f"method {method!r} at time {time} ({'flow' if continuous else 'steps'}): expected "
                f"{' or '.join(allowed)}, or auto (a contour needs {MIN_CONTOUR_STEPS} steps, or gradient flow)"
            )
        if method != "contour":
            return method, None
        both = not continuous and spectral.missed(largest + rates.lam, rates, time) > 1e-16
        found = spectral.contour(rates, time, continuous=continuous, num_nodes=self._num_nodes, both_ends=both)
        return "contour, both ends" if both else "contour", found


def _is_small(lam: float, spectrum: spectra.Spectrum) -> bool:
    """Whether round-off counts beside lam, so that what K has no part in must be left out, not divided by lam."""
    return lam <= _SMALL * spectrum.tolerance


def _transfer(spectrum: spectra.Spectrum, rates: descents.Rates, time: float, *, continuous: bool) -> np.ndarray:
    """As `dynamics.transfer_of`; at infinite time with small lam, too, without what moves no weight."""
    transfer = dynamics.transfer_of(spectrum, rates, time, continuous=continuous)
    return (
        np.where(spectrum.is_known, transfer, 0.0) if math.isinf(time) and _is_small(rates.lam, spectrum) else transfer
    )


def _with_check(
    found: solutions.LeaveOut,
    residuals: np.ndarray,
    num_checked: int,
    accuracy: float,
    normal: tuple[np.ndarray, np.ndarray] | None = None,
) -> solutions.LeaveOut:
    """The same with measured errors; `normal` is Phi^T Phi and Phi^T r0 in primal form."""
    if num_checked < 0:
        raise errors.InvalidArgumentError(f"num_checked {num_checked}: must be 0 or more")
    count = min(num_checked, len(found.groups))
    places = np.unique(np.linspace(0, len(found.groups) - 1, count).astype(np.int64))
    ratios = []
    for place in places:
        explicit = explicit_deletion(found, residuals, found.groups[place], accuracy, normal)
        apart = _length(found, found.without[place] - explicit)
        lengths = (_length(found, explicit), _length(found, explicit - found.full))
        ratios.append([apart / length if length > 0 else math.nan for length in lengths])
    table = np.array(ratios).reshape(-1, 2)
    worst = [float(np.nanmax(c)) if np.isfinite(c).any() else math.nan for c in table.T]
    return dataclasses.replace(found, check=solutions.Check(places, worst[0], worst[1]))


def explicit_deletion(
    found: solutions.LeaveOut,
    residuals: np.ndarray,
    group: np.ndarray,
    accuracy: float,
    normal: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """One group's solution by a decomposition of what is left, [D]: slow, and the truth for the others.

    Args:
        found: the problem: its rows and settings are used.
        residuals: r0, [N].
        group: positions.
        accuracy: relative accuracy of the entries of the kernel, or of Phi^T Phi.
        normal: Phi^T Phi and Phi^T r0, in primal form.
    """
    rates = found.descent.without(found.num_train, len(group), found.convention)
    rows = solutions.rows_of_examples(group, found.num_outputs)
    if normal is None:
        left = np.setdiff1d(np.arange(len(residuals)), rows)
        spectrum = spectra.decompose(found.train_rows[np.ix_(left, left)], accuracy=accuracy)
        source = residuals[left]
    else:
        block = np.asarray(found.train_rows[rows], np.float64)
        left = np.arange(len(normal[1]))
        gram = normal[0] - block.T @ block
        # What is left has the round-off of what was there.
        growth = np.trace(normal[0]) / max(np.trace(gram), np.finfo(np.float64).tiny)
        spectrum = spectra.decompose(gram, accuracy=min(accuracy * max(growth, 1.0), 1.0))
        source = normal[1] - block.T @ residuals[rows]
    transfer = _transfer(spectrum, rates, found.time, continuous=found.descent.continuous)
    solution = np.zeros(found.full.size)
    solution[left] = -spectrum.eigenvectors @ (transfer * (spectrum.eigenvectors.T @ source))
    return solution


def _length(found: solutions.LeaveOut, change: np.ndarray) -> float:
    """|w| of a solution or a difference of two."""
    return math.sqrt(float(found.squared_lengths(change[None])[0]))
