"""How the training of one run ended; passed between worker processes as JSON."""

import dataclasses
from typing import Any, Self

from zoo import layout


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The end of one run.

    Attributes:
        run: its name and place.
        failure: None for a run whose files are written; else why there are none.
        loss: mean training loss of the last epoch, in nats.
        accuracy_in: share of right predictions on the subset trained on.
        accuracy_heldout: the same on the rest of the training set.
        accuracy_test: the same on the test set.
        epoch: of a failure, the epoch (from 1) after which it showed; else None.
    """

    run: layout.Run
    failure: str | None
    loss: float
    accuracy_in: float = float("nan")
    accuracy_heldout: float = float("nan")
    accuracy_test: float = float("nan")
    epoch: int | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object, with the run as [subset_ratio, run_id]."""
        members = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return members | {"run": [self.run.subset_ratio, self.run.run_id]}

    @classmethod
    def from_json(cls, value: dict[str, Any], zoo: Any, experiment: str) -> Self:
        """The inverse of `to_json`, given what all runs of the experiment share."""
        subset_ratio, run_id = value["run"]
        return cls(**(value | {"run": layout.Run(zoo, experiment, subset_ratio, run_id)}))
