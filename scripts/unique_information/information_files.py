"""Files of `compute_unique_information`: scores as npz, table and JSON; effects and groups where asked for."""

from collections.abc import Iterator, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from estimators.linearized import solutions
from estimators.unique_information import interactions
from heldout.scoring import score_tables
from scripts.unique_information import (
    file_digests,
    information_config,
    linearised_problem,
    linearised_scores,
    scoring_config,
)
from zoo import errors, files, npz

SCHEMA_VERSION = 1
SCORES_NAME, TABLE_NAME, RESULTS_NAME = (
    "unique_information.npz",
    "unique_information.parquet",
    "unique_information.json",
)
GROUPS_NAME, EFFECTS_NAME = "group_information.npz", "effects.npz"
# The last file of a computation is the first that goes.
NAMES = (RESULTS_NAME, SCORES_NAME, TABLE_NAME, GROUPS_NAME, EFFECTS_NAME)
SIGN = (
    "changes are without minus with the example; nats and squares are 0 or more, and the larger, the more the network "
    "would change without it"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """What is known of the training examples besides scores.

    Attributes:
        train_index: int64 [n].
        train_label: [n], trained with.
        clean_train_label: [n], before some were changed; None where that is not known.
    """

    train_index: np.ndarray
    train_label: np.ndarray
    clean_train_label: np.ndarray | None = None

    def columns(self) -> dict[str, np.ndarray]:
        """Those that are there, by name; labels that are one number each."""
        found = {"train_index": self.train_index, "train_label": self.train_label}
        if self.clean_train_label is not None:
            found["clean_train_label"] = self.clean_train_label
        return {name: array for name, array in found.items() if array.ndim == 1 and array.dtype.kind in "biuf"}


def write_scores(
    folder: pathlib.Path, sha256: str, labels: Labels, found: linearised_scores.Scores
) -> list[pathlib.Path]:
    """Writes the scores of single examples as npz and as a table.

    Args:
        folder: of the results.
        sha256: digest of what decided them.
        labels: of the examples.
        found: the scores.
    """
    own = {f"self_effect{suffix}": values for suffix, values in found.self_effect.items()}
    columns = labels.columns() | found.columns
    paths = [folder / SCORES_NAME, folder / TABLE_NAME]
    npz.write(paths[0], _head(sha256) | columns | own)
    score_tables.write(paths[1], dict(columns), "parquet")
    return paths


def write_groups(
    folder: pathlib.Path,
    sha256: str,
    groups: Sequence[Sequence[int]],
    found: linearised_scores.Scores,
    singles: linearised_scores.Scores,
) -> pathlib.Path:
    """Writes the scores of groups; where all are pairs, beside them what the two have in common.

    Args:
        folder: of the results.
        sha256: digest of what decided them.
        groups: positions in the training split of each.
        found: scores of the groups.
        singles: scores of single examples.
    """
    own = {f"self_effect{suffix}": values for suffix, values in found.self_effect.items()}
    members: dict[str, np.ndarray] = {
        "group_train_index": np.array([one for group in groups for one in group], np.int64),
        "group_offset": np.concatenate([[0], np.cumsum([len(group) for group in groups])]).astype(np.int64),
    }
    if all(len(group) == 2 for group in groups):
        for time, pairs in found.removed.items():
            suffix = _suffix(found, time)
            common = interactions.of(singles.removed[time], pairs)
            for name in ("separate", "excess", "non_additivity"):
                members[f"pair_{name}{suffix}"] = getattr(common, name)
    path = folder / GROUPS_NAME
    npz.write(path, _head(sha256) | members | found.columns | own)
    return path


def _suffix(found: linearised_scores.Scores, time: float) -> str:
    return scoring_config.time_suffix(time, tuple(found.removed))


def write_effects(
    folder: pathlib.Path,
    sha256: str,
    labels: Labels,
    problem: linearised_problem.Problem,
    val_label: np.ndarray,
    found: linearised_scores.Scores,
) -> pathlib.Path:
    """Writes the signed effect on every validation output, float32 [n, m, k], block by block.

    Args:
        folder: of the results.
        sha256: digest of what decided them.
        labels: of the training examples.
        problem: with the validation examples.
        val_label: of these.
        found: the scores.
    """
    path = folder / EFFECTS_NAME
    with npz.StreamWriter(path) as writer:
        val = {"val_index": problem.val_index} | ({"val_label": val_label} if val_label.ndim == 1 else {})
        for name, array in (_head(sha256) | labels.columns() | val).items():
            writer.array(name, array)
        for time, removed in found.removed.items():
            shape = (len(removed.groups), *problem.val_output.shape)
            name = f"prediction_change{_suffix(found, time)}"
            writer.blocks(name, np.float32, shape, _blocks(removed, problem.val_rows))
    return path


def _blocks(removed: solutions.LeaveOut, cross: np.ndarray) -> Iterator[np.ndarray]:
    for _, changes in removed.prediction_changes(cross):
        yield changes.astype(np.float32)


def write_results(folder: pathlib.Path, results: dict[str, Any]) -> pathlib.Path:
    """Writes unique_information.json, the last file of a computation."""
    path = folder / RESULTS_NAME
    files.write_json(path, {"schema_version": SCHEMA_VERSION, "sign": SIGN, **results})
    return path


def read_results(folder: pathlib.Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """What `write_results` wrote, if it is of what is wanted and its files are there; else None.

    Args:
        folder: of the results.
        identity: what decides them.

    Raises:
        DamagedFileError: it cannot be read, or a file is not what was written.
    """
    path = folder / RESULTS_NAME
    if not path.is_file():
        return None
    found = files.read_json(path)
    if found.get("schema_version") != SCHEMA_VERSION:
        raise errors.DamagedFileError(
            f"{path}: schema version {found.get('schema_version')!r}, expected {SCHEMA_VERSION}; delete it and run the "
            "command again"
        )
    if found.get("identity_sha256") != information_config.digest(identity):
        return None
    return found if file_digests.are_there(path, found) else None


def _head(sha256: str) -> dict[str, np.ndarray]:
    return {"schema_version": np.asarray(SCHEMA_VERSION), "config_sha256": np.asarray(sha256)}
