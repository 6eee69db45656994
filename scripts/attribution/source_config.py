"""Where a model comes from, as flags say it; needs no TensorFlow."""

from collections.abc import Mapping
import dataclasses
import json
from typing import Any

from zoo import errors


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """A run of a zoo, or a user's own model.

    Attributes:
        run: folder of the run, <zoo>/<experiment>/<subset_ratio>/<run_id>; None for a user's own model.
        epoch: of the checkpoint; None for the last.
        architecture: of the run, where no recipe tells.
        model: "package.module:callable" or the path of a .keras file; None for a run.
        dataset: its name; None for that of the recipe.
        data_dir: where it lies.
        loss: name of the training loss, one of `estimators.losses.LOSSES`.
        measured: name of the measured output, "loss" or one of `estimators.losses.MEASURES`.
        parameters: regular expression of the parameters to differentiate; empty for all.
        weight_decay: of weights and filters; None for that of the recipe, else none.
        jit_compile: have XLA compile whatever is differentiated.

    Raises:
        InvalidValueError: both kinds or neither, or a number that cannot be.
    """

    run: str | None = None
    epoch: int | None = None
    architecture: str | None = None
    model: str | None = None
    dataset: str | None = None
    data_dir: str | None = None
    loss: str = "cross_entropy"
    measured: str = "loss"
    parameters: str = ""
    weight_decay: float | None = None
    jit_compile: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if (self.run is None) == (self.model is None):
            raise errors.InvalidValueError(
                "which model: give --run (the folder of a run) or --model (package.module:callable, or a .keras file), "
                "not both"
            )
        for flag, value in (("epoch", self.epoch), ("arch", self.architecture)):
            if self.model is not None and value is not None:
                raise errors.InvalidValueError(f"--{flag} says nothing of --model; leave it out")
        if self.weight_decay is not None and not 0 <= self.weight_decay < float("inf"):
            raise errors.InvalidValueError(f"--weight_decay={self.weight_decay}: expected a number from 0 up")

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON gives it back; `from_json` is the inverse."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "SourceConfig":
        """What `to_json` made."""
        return cls(**stored)
