"""How the predictions of a rebuilt run compare with its record; passed between processes as JSON."""

import dataclasses
from typing import Any, Self

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """A prediction that differs from the record.

    Attributes:
        index: original position in the split.
        part: "in subset", "held out" or "test".
        label: the right class.
        prediction: the class found now.
        recorded_correct: what the run recorded.
        margin: largest logit minus the second, found now; near 0 the difference may be rounding.
    """

    index: int
    part: str
    label: int
    prediction: int
    recorded_correct: bool
    margin: float


@dataclasses.dataclass(frozen=True)
class RunEvaluation:
    """Predictions of one run on one split beside its record.

    Attributes:
        num_predictions: M, examples of the split.
        disagreements: those that differ from the record, by index.
        accuracy: share of right predictions for each part of the split.
        epoch: epoch of the checkpoint, where it says.
    """

    num_predictions: int
    disagreements: list[Disagreement]
    accuracy: dict[str, float]
    epoch: int | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**(value | {"disagreements": [Disagreement(**item) for item in value["disagreements"]]}))
