"""Which examples are left out, and what is found without them."""

from collections.abc import Iterator, Sequence
import dataclasses
import math

import numpy as np

from estimators import errors
from estimators.linearized import descents, spectra

_CHUNK_BYTES = 64e6
_ROW_BLOCK = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Check:
    """A few groups solved again, each by a decomposition of its own.

    Attributes:
        groups: [C] int64, which of the groups.
        solution_error: the largest |w - w_explicit| / |w_explicit - w0|; NaN if nothing was checked or nothing moves.
        change_error: the largest |w - w_explicit| / |w_explicit - w_full|, relative to what deletion changes.
    """

    groups: np.ndarray
    solution_error: float
    change_error: float


@dataclasses.dataclass(frozen=True, eq=False)
class LeaveOut:
    """Linearised networks trained without each of G groups of examples, beside the one trained on all.

    In dual form solutions are coefficients a [N] of the rows of J: w - w0 = J^T a, f = f0 + K a. In primal form they
    are weights of D features, f = f0 + Phi w. Changes are without minus with the group.

    Attributes:
        form: "dual" or "primal".
        groups: positions of the examples of each group.
        full: [D] float64, the solution with all examples.
        without: [G, D] float64; coefficients of the group's own rows are 0.
        train_rows: K [N, N] or Phi [N, D], as given.
        spectrum: of K or of Phi^T Phi; its rank is that of the problem which was solved.
        num_outputs: k.
        descent: settings of the training.
        time: t.
        convention: what the loss of the others is, see `descents.GradientDescent.without`.
        method: how: "contour", "contour, both ends", "recursion", "closed form".
        check: measured errors.
    """

    form: str
    groups: tuple[np.ndarray, ...]
    full: np.ndarray
    without: np.ndarray
    train_rows: np.ndarray
    spectrum: spectra.Spectrum
    num_outputs: int
    descent: descents.GradientDescent
    time: float
    convention: str
    method: str
    check: Check

    @property
    def num_train(self) -> int:
        """Number of training examples, n."""
        return len(self.train_rows) // self.num_outputs

    def squared_weight_changes(self) -> np.ndarray:
        """|w_{-i} - w|^2, [G] float64: da^T K da, which needs no weights; in primal form |dw|^2."""
        return np.concatenate([self.squared_lengths(changes) for _, changes in self.blocks(self.full.size)])

    def squared_lengths(self, solutions: np.ndarray) -> np.ndarray:
        """|w|^2 of solutions [g, D], or of differences of them; [g] float64, >= 0.

        In dual form by the eigenvalues above the tolerance. Below it a kernel has but round-off, of either sign, where
        coefficients are largest: they grow with time or with 1 / lam, and move no weight.
        """
        if self.form == "primal":
            return np.sum(solutions**2, axis=1)
        known = self.spectrum.is_known
        return (solutions @ self.spectrum.eigenvectors[:, known]) ** 2 @ self.spectrum.eigenvalues[known]

    @property
    def round_off_reach(self) -> float:
        """How far training went in directions of eigenvalues that are but round-off: tolerance min(eta t, 1 / lam).

        Far below 1, no result depends on the round-off of the kernel. From about 1 on, directions were trained of which
        the kernel says nothing: predictions and weights of so long a training need a kernel of more digits, or more l2.
        0 at infinite time without l2, where these directions are left out.
        """
        rates = self.descent.rates(self.num_train)
        if math.isinf(self.time) and rates.lam == 0:
            return 0.0
        limits = [rates.eta * self.time] + ([1 / rates.lam] if rates.lam > 0 else [])
        return self.spectrum.tolerance * min(limits)

    def prediction_changes(self, cross: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Changes of predictions, f_{-i} - f, some groups at a time.

        Args:
            cross: K* [m k, N] in dual form, test features Phi* [m k, D] in primal form.

        Yields:
            (groups, [g, m, k] float64).

        Raises:
            MismatchError: `cross` has other columns, no rows, or rows that are no whole examples.
            InvalidArgumentError: an entry is not finite.
        """
        cross = np.asarray(cross)
        self._check_cross(cross)
        for part, changes in self.blocks(len(cross)):
            yield part, (changes @ cross.T).reshape(len(changes), -1, self.num_outputs)

    def squared_prediction_changes(self, cross: np.ndarray) -> np.ndarray:
        """Sum over examples and outputs of squared changes of predictions, [G] float64.

        Args:
            cross: see `prediction_changes`.

        Returns:
            The sums. In primal form with more rows than features by way of their Gram matrix, m k D^2 operations and
            D^2 for each group; else m k D for each group.

        Raises:
            MismatchError, InvalidArgumentError: see `prediction_changes`.
        """
        cross = np.asarray(cross)
        if self.form == "dual" or len(cross) <= self.full.size:
            return np.concatenate([np.sum(changes**2, axis=(1, 2)) for _, changes in self.prediction_changes(cross)])
        self._check_cross(cross)
        gram = np.zeros((self.full.size, self.full.size))
        for start in range(0, len(cross), _ROW_BLOCK):
            block = np.asarray(cross[start : start + _ROW_BLOCK], np.float64)
            gram += block.T @ block
        found = [np.sum(changes * (changes @ gram), axis=1) for _, changes in self.blocks(self.full.size)]
        return np.maximum(np.concatenate(found), 0.0)

    def own_prediction_changes(self) -> list[np.ndarray]:
        """Changes of the predictions of each group's own examples, [g_i, k] for group i."""
        found = []
        for place, group in enumerate(self.groups):
            rows = np.asarray(self.train_rows[rows_of_examples(group, self.num_outputs)], np.float64)
            found.append((rows @ (self.without[place] - self.full)).reshape(len(group), self.num_outputs))
        return found

    def _check_cross(self, cross: np.ndarray) -> None:
        fits = cross.ndim == 2 and cross.shape[1] == self.full.size and cross.shape[0] % self.num_outputs == 0
        if not fits or not len(cross):
            raise errors.MismatchError(
                f"cross kernel or features of shape {cross.shape}: expected [m {self.num_outputs}, {self.full.size}] "
                "with m of 1 or more"
            )
        for start in range(0, len(cross), _ROW_BLOCK):
            is_finite = np.isfinite(cross[start : start + _ROW_BLOCK]).all(axis=1)
            if not is_finite.all():
                raise errors.InvalidArgumentError(
                    f"cross kernel or features: row {start + int(np.argmin(is_finite))} of {len(cross)} has entries "
                    "that are not finite; check weights and inputs"
                )

    def blocks(self, width: int) -> Iterator[tuple[slice, np.ndarray]]:
        """(groups, without - full [g, D]), so many at a time that [g, width] stays small."""
        size = max(1, int(_CHUNK_BYTES / (8 * max(width, self.full.size))))
        for start in range(0, len(self.groups), size):
            part = slice(start, min(start + size, len(self.groups)))
            yield part, self.without[part] - self.full


def checked_groups(groups: Sequence[np.ndarray] | None, num_train: int) -> tuple[np.ndarray, ...]:
    """Groups as arrays of positions; each example alone for None.

    Raises:
        InvalidArgumentError: there is none, or one is empty, has a position twice, outside, or holds all examples.
    """
    if groups is None:
        groups = [np.array([place]) for place in range(num_train)]
    found = tuple(np.asarray(group) for group in groups)
    if not found:
        raise errors.InvalidArgumentError("no groups: at least one is needed")
    for place, group in enumerate(found):
        whole = group.ndim == 1 and group.size and np.issubdtype(group.dtype, np.integer)
        if not whole or group.min() < 0 or group.max() >= num_train or len(np.unique(group)) < len(group):
            raise errors.InvalidArgumentError(
                f"group {place} is {group}: expected different positions from 0 to {num_train - 1}, at least one"
            )
        if len(group) == num_train:
            raise errors.InvalidArgumentError(f"group {place} holds all {num_train} examples: one must stay")
    return tuple(group.astype(np.int64) for group in found)


def rows_of_examples(positions: np.ndarray, num_outputs: int) -> np.ndarray:
    """Rows of a kernel that belong to examples, [g k]."""
    return (np.asarray(positions)[..., None] * num_outputs + np.arange(num_outputs)).reshape(-1)
