"""What pairs of examples have in common: leaving both out beside leaving out each."""

from collections.abc import Iterable, Sequence
import dataclasses
import itertools

import numpy as np

from estimators import errors
from estimators.linearized import solutions

_ROW_BLOCK = 1024
_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class PairInteractions:
    """Of G pairs, from squared norms of changes of the weights.

    Attributes:
        pairs: [G, 2] int64, positions.
        joint: [G] float64, |dw_ij|^2.
        separate: [G] float64, |dw_i|^2 + |dw_j|^2.
        excess: [G] float64, joint - separate. Positive: each is little missed while the other is there, as with
            duplicates. Negative: their changes cancel.
        non_additivity: [G] float64, |dw_ij - dw_i - dw_j|^2, 0 where changes simply add up.
    """

    pairs: np.ndarray
    joint: np.ndarray
    separate: np.ndarray
    excess: np.ndarray
    non_additivity: np.ndarray


def all_pairs(positions: Iterable[int]) -> list[np.ndarray]:
    """Every pair of positions, as groups for `leave_out`."""
    return [np.array(pair) for pair in itertools.combinations(positions, 2)]


def of(singles: solutions.LeaveOut, pairs: solutions.LeaveOut) -> PairInteractions:
    """Compares deletions of pairs with those of their members.

    Args:
        singles: solutions without each of the members alone.
        pairs: solutions without each pair, of the same problem and settings.

    Returns:
        The interactions; N^2 operations for each pair in dual form.

    Raises:
        InvalidArgumentError: a group of `pairs` is no pair, or a member is none of the single groups.
        MismatchError: they are of different problems or settings.
    """
    same = ("form", "num_outputs", "descent", "time", "convention")
    different = [name for name in same if getattr(singles, name) != getattr(pairs, name)]
    if not different and not _same_rows(singles.train_rows, pairs.train_rows):
        different = ["their kernels or features"]
    if not different and not _same_solution(singles.full, pairs.full):
        different = ["their solutions with all examples"]
    if different:
        raise errors.MismatchError(
            f"single and pair deletions differ in {', '.join(different)}: compute both alike, of one kernel and the "
            "same residuals"
        )
    places = {int(group[0]): place for place, group in enumerate(singles.groups) if len(group) == 1}
    members = _members(pairs.groups, places)
    alone = singles.squared_weight_changes()[members].sum(axis=1)
    joint = pairs.squared_weight_changes()
    changes = singles.without - singles.full
    apart = dataclasses.replace(
        pairs, without=pairs.without - changes[members[:, 0]] - changes[members[:, 1]]
    ).squared_weight_changes()
    return PairInteractions(np.stack(pairs.groups), joint, alone, joint - alone, apart)


def _same_rows(first: np.ndarray, second: np.ndarray) -> bool:
    if first is second:
        return True
    # Matrices may be memory maps.
    blocks = (slice(start, start + _ROW_BLOCK) for start in range(0, len(first), _ROW_BLOCK))
    return first.shape == second.shape and all(np.array_equal(first[rows], second[rows]) for rows in blocks)


def _same_solution(first: np.ndarray, second: np.ndarray) -> bool:
    """Up to rounding: which groups go may decide how all of them are solved."""
    return bool(np.linalg.norm(first - second) <= _TOLERANCE * np.linalg.norm(first))


def _members(groups: Sequence[np.ndarray], places: dict[int, int]) -> np.ndarray:
    for group in groups:
        if len(group) != 2 or not all(int(member) in places for member in group):
            raise errors.InvalidArgumentError(
                f"group {group}: expected pairs of examples that were left out alone as well"
            )
    return np.array([[places[int(member)] for member in group] for group in groups])
