"""What an animation of unique information in the plane shows, and its folder; needs no TensorFlow."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from heldout.running import settings as settings_text
from heldout.training import leave_out_config
from zoo import errors, files

SCHEMA_VERSION = 1
MEASURES = ("predictions", "weights")
CONFIG_NAME, ARRAYS_NAME, ANIMATION_NAME, FRAMES_NAME = "animation.json", "animation.npz", "animation.gif", "frames"
# Where files lie decides nothing.
_PLACES = ("experiment.dataset", "experiment.init_checkpoint")


@dataclasses.dataclass(frozen=True)
class AnimationConfig:
    """What is shown.

    Attributes:
        experiment: data, network and training; two classes of points in the plane.
        measure: one of `MEASURES`: what the points are sized and coloured by.
        num_frames: frames, at steps in equal ratios from 1 to the last; where that gives a step twice, fewer.
        grid_size: points along each side of the grid on which the network is predicted.

    Raises:
        InvalidValueError: a value lies outside what is allowed.
    """

    experiment: leave_out_config.LeaveOutConfig
    measure: str = MEASURES[0]
    num_frames: int = 40
    grid_size: int = 61

    def __post_init__(self) -> None:
        """Refuses what cannot be before anything is computed."""
        if self.measure not in MEASURES:
            raise errors.InvalidValueError(f"--measure={self.measure}: expected one of {', '.join(MEASURES)}")
        for name, least in (("num_frames", 1), ("grid_size", 2)):
            if getattr(self, name) < least:
                raise errors.InvalidValueError(f"--{name}={getattr(self, name)}: expected at least {least}")

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps of the frames, ascending."""
        found = np.geomspace(1, self.experiment.num_steps, self.num_frames).round().astype(int)
        return tuple(sorted({*found.tolist(), self.experiment.num_steps}))

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        own = {"measure": self.measure, "num_frames": self.num_frames, "grid_size": self.grid_size}
        return {"schema_version": SCHEMA_VERSION, "experiment": self.experiment.to_json(), **own}


def check_outdir(folder: files.PathLike, config: AnimationConfig) -> bool:
    """Whether a folder has the animation already.

    Args:
        folder: where it goes.
        config: with the fingerprint of the data.

    Raises:
        MismatchError: it has another one; names the differences.
        DamagedFileError: the file is unsound.
    """
    path = pathlib.Path(folder) / CONFIG_NAME
    if not path.exists():
        return False
    stored, asked = files.read_json(path), config.to_json()
    # One digest stands for all that the others say.
    for value in (stored.get("experiment", {}), asked["experiment"]):
        if isinstance(value, dict):
            value.pop("sha256", None)
    differences = settings_text.differences({name: stored.get(name) for name in asked}, asked, ignored=_PLACES)
    if differences:
        raise errors.MismatchError(
            f"{path}: another animation is there. They differ in\n{differences}\n"
            "Ask for what is stored, or choose another --outdir."
        )
    return (pathlib.Path(folder) / ANIMATION_NAME).is_file()


def write(folder: files.PathLike, config: AnimationConfig, facts: dict[str, Any]) -> None:
    """Writes animation.json, which ends an animation.

    Args:
        folder: of the animation.
        config: of it.
        facts: members beside the config.
    """
    files.write_json(pathlib.Path(folder) / CONFIG_NAME, config.to_json() | facts)
