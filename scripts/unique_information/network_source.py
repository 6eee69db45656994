"""Which network is linearised, on which examples; needs no TensorFlow."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from heldout.training import leave_out_config
from scripts.attribution import source_config
from scripts.unique_information import scoring_config

# What is said elsewhere: by the training, and by digests of data and weights.
_NOT_DECISIVE = (
    *("schema_version", "sha256", "fingerprint", "record_steps", "init_checkpoint"),
    *("learning_rate", "num_steps", "l2"),
)


@dataclasses.dataclass(frozen=True)
class NetworkSource:
    """A network of an experiment of leaving out, or a run of a zoo, or a user's own model: one of them.

    Attributes:
        experiment: what decides data and network; None for another network.
        folder: of the experiment, with its checkpoints; None where there is none.
        other: the run or model; None for an experiment.
        data_dir: where data sets lie.
    """

    experiment: leave_out_config.LeaveOutConfig | None = None
    folder: str | None = None
    other: source_config.SourceConfig | None = None
    data_dir: str | None = None

    @property
    def name(self) -> str:
        """What it is, for people."""
        if self.other is not None:
            return str(self.other.run or self.other.model)
        assert self.experiment is not None
        return f"{self.experiment.architecture} on {self.experiment.dataset}"

    def training(self) -> scoring_config.Training:
        """How the network of the experiment is trained."""
        assert self.experiment is not None
        config = self.experiment
        return scoring_config.Training(config.learning_rate, config.num_steps, config.l2)

    def to_json(self) -> dict[str, Any]:
        """All of it; `from_json` is the inverse."""
        return {
            "experiment": None if self.experiment is None else self.experiment.to_json(),
            "folder": self.folder,
            "other": None if self.other is None else self.other.to_json(),
            "data_dir": self.data_dir,
        }

    def decisive(self) -> dict[str, Any]:
        """What decides network and examples, apart from what lies in files."""
        if self.experiment is not None:
            stored = self.experiment.to_json()
            return {"experiment": {name: value for name, value in stored.items() if name not in _NOT_DECISIVE}}
        assert self.other is not None
        places = ("data_dir", "loss", "measured", "jit_compile", "weight_decay")
        return {"network": {name: value for name, value in self.other.to_json().items() if name not in places}}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "NetworkSource":
        """What `to_json` made."""
        experiment, other = stored["experiment"], stored["other"]
        return cls(
            experiment=None if experiment is None else leave_out_config.LeaveOutConfig.from_json(experiment),
            folder=stored["folder"],
            other=None if other is None else source_config.SourceConfig.from_json(other),
            data_dir=stored["data_dir"],
        )
