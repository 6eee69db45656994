"""What `compute_unique_information` is asked, as one frozen object; needs no TensorFlow."""

from collections.abc import Collection, Mapping
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from heldout.running import settings as settings_text
from scripts.unique_information import network_source, scoring_config
from zoo import errors, files

SCHEMA_VERSION = 1
CONFIG_NAME = "config.json"
KERNEL_NAME = "kernel"


@dataclasses.dataclass(frozen=True)
class InformationConfig:
    """Scores of unique information of one network.

    Attributes:
        outdir: folder of the results.
        source: which network, on which examples.
        training: what is linearised.
        linearisation: where and how.
        scoring: what is asked.
        groups: file of groups; None for none.
        groups_sha256: digest of it.
        num_shown: examples in each gallery and at each end of what is printed.
        keep_kernel: leave kernel or features in the folder.
        memory_limit_mb: of what is computed.
    """

    outdir: str
    source: network_source.NetworkSource
    training: scoring_config.Training
    linearisation: scoring_config.LinearisationConfig
    scoring: scoring_config.ScoringConfig
    groups: str | None = None
    groups_sha256: str | None = None
    num_shown: int = 24
    keep_kernel: bool = True
    memory_limit_mb: float = 4096.0

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if self.num_shown < 1:
            raise errors.InvalidValueError(f"--num_shown={self.num_shown}: expected at least 1")
        if self.memory_limit_mb <= 0:
            raise errors.InvalidValueError(f"--memory_limit_mb={self.memory_limit_mb:g}: expected a number above 0")
        if self.groups is not None and self.scoring.measures == ("accumulation",):
            raise errors.InvalidValueError(
                "--groups: accumulation is of single examples; ask for another --measure beside it"
            )
        self.scoring.at(self.training.num_steps)

    @property
    def directory(self) -> pathlib.Path:
        """Of the results."""
        return pathlib.Path(self.outdir)

    @property
    def kernel_directory(self) -> pathlib.Path:
        """Of kernel or features."""
        return self.directory / KERNEL_NAME

    def decisive(self) -> dict[str, Any]:
        """What decides the results, as JSON."""
        found = {
            **self.source.decisive(),
            "training": dataclasses.asdict(self.training),
            "linearisation": self.linearisation.to_json(),
            "scoring": self.scoring.to_json(),
            "groups_sha256": self.groups_sha256,
            "num_shown": self.num_shown,
        }
        return dict(json.loads(json.dumps(found)))

    def to_json(self) -> dict[str, Any]:
        """All of it; `from_json` is the inverse."""
        parts = {"outdir", "groups", "groups_sha256", "num_shown", "keep_kernel", "memory_limit_mb"}
        return {
            **{name: getattr(self, name) for name in sorted(parts)},
            "source": self.source.to_json(),
            "training": dataclasses.asdict(self.training),
            "linearisation": dataclasses.asdict(self.linearisation),
            "scoring": self.scoring.to_json(),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "InformationConfig":
        """What `to_json` made."""
        own = {
            "source": network_source.NetworkSource.from_json(stored["source"]),
            "training": scoring_config.Training(**stored["training"]),
            "linearisation": scoring_config.LinearisationConfig(**stored["linearisation"]),
            "scoring": scoring_config.ScoringConfig.from_json(stored["scoring"]),
        }
        return cls(**{**stored, **own})


def digest(decisive: Mapping[str, Any]) -> str:
    """Hexadecimal digest of what decides results."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def adopt(
    folder: files.PathLike,
    decisive: Mapping[str, Any],
    results: Collection[str],
    *,
    keeps_arrays: bool,
    overwrite: bool,
) -> None:
    """Stores what decides the results in a folder, or holds it against what is there.

    Settings that have left no results, because they were refused or killed, give way where no arrays are lost by it.
    Those that have left some keep them until `replace`: what is asked for now may still be refused.

    Args:
        folder: of the results.
        decisive: as JSON.
        results: names of files that settings leave.
        keeps_arrays: the arrays that the folder has, if any, are those that these settings need.
        overwrite: take the place of other settings.

    Raises:
        MismatchError: other settings are there; names the differences.
        DamagedFileError: the file is unsound.
    """
    path = pathlib.Path(folder) / CONFIG_NAME
    asked, stored = _asked_and_stored(path, decisive)
    if stored == asked:
        return
    has_results = any((path.parent / name).exists() for name in results)
    gives_way = keeps_arrays and not has_results
    if stored is not None and not overwrite and not gives_way:
        raise errors.MismatchError(
            f"{path}: results of other settings are here. They differ in\n"
            f"{settings_text.differences(stored, asked)}\nAsk for what is stored, choose another --outdir, or give "
            "--overwrite"
        )
    if stored is None or not has_results:
        files.write_json(path, asked)


def replace(folder: files.PathLike, decisive: Mapping[str, Any], results: Collection[str]) -> None:
    """Deletes the results of other settings, if there are any; to be called when there is something in their place.

    Args:
        folder: that `adopt` has let pass.
        decisive: as JSON.
        results: names of files that other settings have left, and that go with them.
    """
    path = pathlib.Path(folder) / CONFIG_NAME
    asked, stored = _asked_and_stored(path, decisive)
    if stored == asked:
        return
    for name in results:
        (path.parent / name).unlink(missing_ok=True)
    files.write_json(path, asked)


def _asked_and_stored(path: pathlib.Path, decisive: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    return {"schema_version": SCHEMA_VERSION, **decisive}, files.read_json(path) if path.is_file() else None
