"""What decides the results of `summarize_dataset`; needs no TensorFlow."""

import dataclasses
import hashlib
import pathlib
from typing import Any

import numpy as np

from heldout.running import settings as settings_text
from heldout.training import leave_out_config
from scripts.unique_information import scoring_config
from zoo import errors, files

SCHEMA_VERSION = 1
CONFIG_NAME = "config.json"
# Where files lie does not decide anything; what is in them does. The digest is of all that is compared by itself.
_PLACES = ("scores.path", *(f"experiment.{name}" for name in ("dataset", "init_checkpoint", "sha256")))


@dataclasses.dataclass(frozen=True)
class ScoresFile:
    """Scores that examples are dropped by.

    Attributes:
        path: of the file.
        column: of it.
        sha256: digest of positions and values.
    """

    path: str
    column: str
    sha256: str


def digest(train_index: np.ndarray, score: np.ndarray) -> str:
    """Hexadecimal digest of scores of examples."""
    found = hashlib.sha256(train_index.astype("<i8").tobytes())
    found.update(score.astype("<f8").tobytes())
    return found.hexdigest()


@dataclasses.dataclass(frozen=True)
class SummaryConfig:
    """What does not change when ways, ratios or seeds are added.

    Attributes:
        experiment: data, network and training, with the fingerprint of the data; its seed is the first.
        scores: file that one-shot ways rank by; None for linearised scores.
        scoring: of linearised scores, of one measure.
        linearisation: of the network that they are of.
        rescore_share: of all examples, dropped between two scorings.

    Raises:
        InvalidValueError: a value lies outside its range.
    """

    experiment: leave_out_config.LeaveOutConfig
    scores: ScoresFile | None
    scoring: scoring_config.ScoringConfig
    linearisation: scoring_config.LinearisationConfig = dataclasses.field(
        default_factory=scoring_config.LinearisationConfig
    )
    rescore_share: float = 0.05

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if not 0 < self.rescore_share <= 0.5:
            raise errors.InvalidValueError(
                f"--rescore_share={self.rescore_share:g}: expected a share above 0, at most 0.5"
            )

    @property
    def measure(self) -> str:
        """The measure of linearised scores."""
        return self.scoring.measures[0]

    def of_seed(self, number: int) -> leave_out_config.LeaveOutConfig:
        """The experiment with the initialisation of a training, from 0."""
        return dataclasses.replace(self.experiment, seed=self.experiment.seed + number)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "schema_version": SCHEMA_VERSION,
            "experiment": self.experiment.to_json(),
            "scores": None if self.scores is None else dataclasses.asdict(self.scores),
            "scoring": self.scoring.to_json(),
            "linearisation": self.linearisation.to_json(),
            "rescore_share": self.rescore_share,
        }


def adopt(folder: files.PathLike, config: SummaryConfig) -> None:
    """Stores a config in a folder, or holds it against the one that is there.

    Raises:
        MismatchError: another is there; names the differences.
    """
    path = pathlib.Path(folder) / CONFIG_NAME
    if not path.exists():
        files.write_json(path, config.to_json())
        return
    differences = settings_text.differences(files.read_json(path), config.to_json(), ignored=_PLACES)
    if differences:
        raise errors.MismatchError(
            f"{path}: another summary was begun here. They differ in\n{differences}\nAsk for what is stored, or choose "
            "another --outdir."
        )
