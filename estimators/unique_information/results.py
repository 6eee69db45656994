"""Scores of examples or groups, with what they are."""

import dataclasses
import math
from typing import Any

import numpy as np

from estimators import errors
from estimators.linearized import solutions


@dataclasses.dataclass(frozen=True, eq=False)
class UniqueInformation:
    """Unique information of G groups.

    Attributes:
        nats: [G] float64, 0 or more, constants included; the larger, the more the network would change.
        squared_norms: [G] float64, what they are made of, without constants.
        groups: positions of the examples of each group.
        measure: name.
        formula: of nats.
        squared_norm: of what, in words.
        config: constants and settings of the training.
    """

    nats: np.ndarray
    squared_norms: np.ndarray
    groups: tuple[np.ndarray, ...]
    measure: str
    formula: str
    squared_norm: str
    config: dict[str, Any]


def config(removed: solutions.LeaveOut, **constants: Any) -> dict[str, Any]:
    """Constants with the settings of the training."""
    descent = dataclasses.asdict(removed.descent)
    return {**descent, "time": removed.time, "convention": removed.convention, "method": removed.method, **constants}


def check_positive(name: str, value: float) -> None:
    """Refuses what is no number above 0.

    Raises:
        InvalidArgumentError: it is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise errors.InvalidArgumentError(f"{name} {value}: must be a number above 0")
