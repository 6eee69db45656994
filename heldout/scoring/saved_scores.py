"""The score files of one experiment: what they hold, and how they are written and read back.

    scores-<ratio>.npz             memorization, accuracies and their support at one subset ratio
    influence-<ratio>.npz          what is kept of subset influence, see `heldout.scoring.influence_summary`
    subset_influence-<ratio>.npy   the influence matrix [N, M], where it was kept, see `heldout.scoring.influence_pass`
    consistency.npz                consistency profile and score over the ratios
    config.json                    which computation the files belong to, and whether it was finished

Every npz file carries the provenance of its computation as one JSON text, so that files of two computations cannot be
taken for one. `heldout.scoring.score_files` decides what is computed.
"""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from heldout.scoring import bootstrap, influence_matrix, influence_summary, scores
from zoo import errors, files, layout, npz

SCHEMA_VERSION = 2
CONFIG_NAME = "config.json"
CONSISTENCY_NAME = "consistency.npz"
PROVENANCE = "provenance"
_MEANS = ("mean_accuracy_in", "mean_accuracy_heldout", "mean_test_accuracy")
_PER_TRAIN = ("memorization", "standard_error", "num_in", "num_heldout", "accuracy_in", "accuracy_heldout")
_MEMORIZED = tuple(field.name for field in dataclasses.fields(bootstrap.CountInterval))
_CONSISTENCY = tuple(field.name for field in dataclasses.fields(scores.Consistency))
_LABELS = ("train_label", "test_label", "clean_train_label")
_RECORD_KINDS = {"schema_version": int, "complete": bool, "config": dict, PROVENANCE: dict, "files": list}
_PROVENANCE_KINDS = {
    "experiment": str,
    "table_digest": str,
    "num_train": int,
    "num_test": int,
    "subset_ratios": list,
    "has_matrix": bool,
}
_REPAIR = "; delete it and compute the scores again"


@dataclasses.dataclass(frozen=True)
class RatioScores:
    """Scores of N training and M test examples from the runs of one subset ratio.

    Attributes:
        subset_ratio: share of the training set that each run trained on.
        num_runs: runs behind the scores.
        memorization: Scores of shape [N]; carries `num_in` and `num_heldout`.
        accuracy_in: float64 [N], share of the runs that trained on the example and are right on it; NaN without one.
        accuracy_heldout: float64 [N], the same for the runs that held it out.
        test_accuracy: float64 [M], share of the runs that are right on each test example.
        mean_accuracy_in: share of all pairs (run, example it trained on) that are right; NaN without such pairs.
        mean_accuracy_heldout: share of all pairs (run, example it held out) that are right; NaN without such pairs.
        mean_test_accuracy: share of all pairs (run, test example) that are right; NaN without test examples.
        memorized: number of examples with memorization >= its threshold (0.25), with an interval.
        influence: what is kept of subset influence in any case: distribution, strongest of each example, pairs.
        subset_influence: float32 [N, M], memory-mapped, train row and test column; positive helps; NaN rows where
            `memorization` is NaN. None where the matrix was not kept.
    """

    subset_ratio: float
    num_runs: int
    memorization: scores.Scores
    accuracy_in: np.ndarray
    accuracy_heldout: np.ndarray
    test_accuracy: np.ndarray
    mean_accuracy_in: float
    mean_accuracy_heldout: float
    mean_test_accuracy: float
    memorized: bootstrap.CountInterval
    influence: influence_summary.InfluenceSummary
    subset_influence: np.ndarray | None

    @property
    def num_train(self) -> int:
        """N."""
        return len(self.accuracy_in)

    @property
    def num_test(self) -> int:
        """M."""
        return len(self.test_accuracy)

    @property
    def sides(self) -> influence_matrix.Sides:
        """Runs per training example and side, right runs per test example."""
        num_right = np.rint(self.test_accuracy * self.num_runs).astype(np.float32)
        return influence_matrix.Sides(self.memorization.num_in, self.memorization.num_heldout, num_right)

    def influence_standard_error(
        self, train_index: np.ndarray, test_index: np.ndarray, values: np.ndarray
    ) -> np.ndarray:
        """Standard errors of chosen values of subset influence, which follow from the values.

        Args:
            train_index: integers, the rows of the values.
            test_index: integers, the columns; both broadcast against the values.
            values: float32, subset influence of these pairs.

        Returns:
            float32 of the common shape, sqrt(p1 (1 - p1) / num_in + p0 (1 - p0) / num_heldout); NaN where the value
            is, 0 where both rates are 0 or 1.
        """
        sides, rows, columns = self.sides, np.asarray(train_index), np.asarray(test_index)
        return influence_matrix.standard_errors(
            values, sides.num_in[rows], sides.num_heldout[rows], sides.num_right[columns]
        )


@dataclasses.dataclass(frozen=True)
class SavedScores:
    """All scores of one experiment.

    Attributes:
        directory: the folder they were read from.
        experiment: its name.
        schema_version: of the files.
        provenance: `table_digest` (hex), `num_runs` (all ratios together), `dataset` (its name and version,
            or None), `subset_ratios` (list), `num_train`, `num_test`, `has_labels`, `has_matrix`, `num_draws`,
            `experiment`, `heldout_version`.
        ratios: subset_ratio -> RatioScores, ascending.
        consistency: Consistency over the same ratios.
        train_label: int64 [N], or None where the run table holds no labels.
        test_label: int64 [M], or None.
        clean_train_label: int64 [N], the labels before some were changed on purpose; None where none were.
    """

    directory: pathlib.Path
    experiment: str
    schema_version: int
    provenance: Mapping[str, Any]
    ratios: Mapping[float, RatioScores]
    consistency: scores.Consistency
    train_label: np.ndarray | None
    test_label: np.ndarray | None
    clean_train_label: np.ndarray | None = None

    @property
    def is_changed(self) -> np.ndarray | None:
        """Training examples with a label that was changed on purpose, bool [N]; None where none were."""
        if self.clean_train_label is None or self.train_label is None:
            return None
        return self.train_label != self.clean_train_label


def scores_name(subset_ratio: float) -> str:
    """File name of the scores of one ratio."""
    return f"scores-{layout.ratio_name(subset_ratio)}.npz"


def influence_name(subset_ratio: float) -> str:
    """File name of what is kept of the influence matrix of one ratio."""
    return f"influence-{layout.ratio_name(subset_ratio)}.npz"


def matrix_name(subset_ratio: float) -> str:
    """File name of the influence matrix of one ratio, without the suffix .npy."""
    return f"subset_influence-{layout.ratio_name(subset_ratio)}"


def common_members(
    provenance: Mapping[str, Any],
    train_label: np.ndarray | None,
    test_label: np.ndarray | None,
    clean_train_label: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Members that every npz file of a computation holds: schema version, provenance, and labels where known."""
    members = {"schema_version": np.asarray(SCHEMA_VERSION), PROVENANCE: np.asarray(provenance_text(provenance))}
    if train_label is not None and test_label is not None:
        members |= {"train_label": train_label, "test_label": test_label}
    if clean_train_label is not None:
        members["clean_train_label"] = clean_train_label
    return members


def provenance_text(provenance: Mapping[str, Any]) -> str:
    """The provenance as it is stored in npz files."""
    return json.dumps(provenance, sort_keys=True)


def is_current(path: files.PathLike, provenance: Mapping[str, Any]) -> bool:
    """Whether a file is there, sound as far as its directory goes, and of this computation."""
    try:
        return str(npz.read(path, [PROVENANCE])[PROVENANCE]) == provenance_text(provenance)
    except (errors.MissingFileError, errors.DamagedFileError):
        return False


def write_ratio(path: files.PathLike, fields: Mapping[str, Any], common: Mapping[str, np.ndarray]) -> None:
    """Writes the scores of one ratio.

    Args:
        path: the file to create or replace.
        fields: every field of a RatioScores but the influence.
        common: from `common_members`.
    """
    members: dict[str, Any] = {**common, **fields}
    memorization, memorized = members.pop("memorization"), members.pop("memorized")
    members |= {"memorization": memorization.values, "standard_error": memorization.standard_error}
    members |= {"num_in": memorization.num_in, "num_heldout": memorization.num_heldout}
    members |= {f"memorized_{name}": getattr(memorized, name) for name in _MEMORIZED}
    npz.write(path, {name: np.asarray(value) for name, value in members.items()})


def write_consistency(path: files.PathLike, consistency: scores.Consistency, common: Mapping[str, np.ndarray]) -> None:
    """Writes a Consistency."""
    npz.write(path, {**common, **{name: getattr(consistency, name) for name in _CONSISTENCY}})


def load(directory: files.PathLike) -> SavedScores:
    """Reads the score files of one experiment; influence matrices are memory-mapped.

    Args:
        directory: the folder that `score_files.compute_scores` wrote.

    Raises:
        MissingFileError: the folder or one of its files is not there.
        DamagedFileError: a file is unsound, has another schema version, belongs to another computation, or the
            computation was not finished.
    """
    directory = pathlib.Path(directory)
    record = read_record(directory)
    if record is None:
        raise errors.MissingFileError(f"{directory / CONFIG_NAME}: no such file; compute the scores first")
    if not record["complete"]:
        raise errors.DamagedFileError(f"{directory}: the scores were not finished; run the same command again")
    provenance = record[PROVENANCE]
    ratios = provenance["subset_ratios"]
    consistency, labels = _read_consistency(directory / CONSISTENCY_NAME, provenance)
    return SavedScores(
        directory=directory,
        experiment=provenance["experiment"],
        schema_version=SCHEMA_VERSION,
        provenance=provenance,
        ratios={ratio: load_ratio(directory, ratio, provenance) for ratio in ratios},
        consistency=consistency,
        train_label=labels.get("train_label"),
        test_label=labels.get("test_label"),
        clean_train_label=labels.get("clean_train_label"),
    )


def read_record(directory: pathlib.Path) -> dict[str, Any] | None:
    """config.json of a score folder: schema_version, complete, config, provenance, files; None where there is none.

    Raises:
        DamagedFileError: it is not what `score_files` writes, or is of another schema version.
    """
    path = directory / CONFIG_NAME
    if not path.exists():
        return None
    record = files.read_json(path)
    _check_kinds(path, record, _RECORD_KINDS)
    if record["schema_version"] != SCHEMA_VERSION:
        raise errors.DamagedFileError(
            f"{path}: schema version {record['schema_version']}, expected {SCHEMA_VERSION}; "
            "use the program version that wrote it, give another output folder, or delete this one"
        )
    _check_kinds(path, record[PROVENANCE], _PROVENANCE_KINDS)
    if not all(isinstance(ratio, float) and 0 < ratio < 1 for ratio in record[PROVENANCE]["subset_ratios"]):
        raise errors.DamagedFileError(f"{path}: subset_ratios are not numbers between 0 and 1{_REPAIR}")
    return record


def check_members(path: files.PathLike, found: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses an npz file of scores whose arrays are not what this version writes.

    Args:
        path: of the file.
        found: its members, `schema_version` among them.
        shapes: the shape of each that holds numbers.

    Raises:
        DamagedFileError: an array has another shape or no numbers, or the schema version is another.
    """
    for name, shape in {**shapes, "schema_version": ()}.items():
        if found[name].shape != shape or found[name].dtype.kind not in "if":
            raise errors.DamagedFileError(
                f"{path}: {name} has dtype {found[name].dtype} and shape {found[name].shape}, expected numbers of "
                f"shape {shape}; delete it and compute the scores again"
            )
    if found["schema_version"] != SCHEMA_VERSION:
        raise errors.DamagedFileError(
            f"{path}: schema version {found['schema_version']}, expected {SCHEMA_VERSION}; use the program version "
            "that wrote it, or delete it and compute the scores again"
        )


def _check_kinds(path: pathlib.Path, found: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    for name, kind in kinds.items():
        if type(found.get(name)) is not kind:
            raise errors.DamagedFileError(f"{path}: {name} is {found.get(name)!r}, expected {kind.__name__}{_REPAIR}")


def _read(
    path: pathlib.Path, provenance: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], **options: Any
) -> dict[str, np.ndarray]:
    """The named members, of these shapes, from a file of this computation."""
    members = npz.read(path, [PROVENANCE, *shapes], _LABELS, **options)
    if str(members[PROVENANCE]) != provenance_text(provenance):
        raise errors.DamagedFileError(f"{path}: belongs to another computation than {CONFIG_NAME} beside it{_REPAIR}")
    for name, shape in shapes.items():
        if members[name].shape != shape or members[name].dtype.kind not in "if":
            raise errors.DamagedFileError(
                f"{path}: {name} has dtype {members[name].dtype} and shape {members[name].shape}, "
                f"expected numbers of shape {shape}{_REPAIR}"
            )
    return members


def load_ratio(directory: pathlib.Path, subset_ratio: float, provenance: Mapping[str, Any]) -> RatioScores:
    """Reads the scores of one ratio.

    Args:
        directory: the folder of the score files.
        subset_ratio: which ratio.
        provenance: of the computation that the files must belong to.

    Raises:
        MissingFileError: a file is not there.
        DamagedFileError: a file is unsound or belongs to another computation.
    """
    num_train, num_test = provenance["num_train"], provenance["num_test"]
    scalars = ("num_runs", *_MEANS, *(f"memorized_{name}" for name in _MEMORIZED))
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_PER_TRAIN, (num_train,))
    shapes |= {"test_accuracy": (num_test,), **dict.fromkeys(scalars, ())}
    members = _read(directory / scores_name(subset_ratio), provenance, shapes)
    path = directory / influence_name(subset_ratio)
    _read(path, provenance, {})
    return RatioScores(
        subset_ratio=subset_ratio,
        num_runs=int(members["num_runs"]),
        memorization=scores.Scores(
            members["memorization"], members["num_in"], members["num_heldout"], members["standard_error"]
        ),
        memorized=bootstrap.CountInterval(**{name: members[f"memorized_{name}"].item() for name in _MEMORIZED}),
        accuracy_in=members["accuracy_in"],
        accuracy_heldout=members["accuracy_heldout"],
        test_accuracy=members["test_accuracy"],
        mean_accuracy_in=float(members["mean_accuracy_in"]),
        mean_accuracy_heldout=float(members["mean_accuracy_heldout"]),
        mean_test_accuracy=float(members["mean_test_accuracy"]),
        influence=influence_summary.read(path, num_train, num_test),
        subset_influence=_read_matrix(directory, subset_ratio, provenance),
    )


def _read_matrix(directory: pathlib.Path, subset_ratio: float, provenance: Mapping[str, Any]) -> np.ndarray | None:
    """The influence matrix, memory-mapped; None where none was kept."""
    if not provenance["has_matrix"]:
        return None
    path = directory / f"{matrix_name(subset_ratio)}.npy"
    shape = (provenance["num_train"], provenance["num_test"])
    try:
        matrix = np.load(path, mmap_mode="r") if all(shape) else np.load(path)
    except FileNotFoundError as error:
        raise errors.MissingFileError(f"{path}: no such file; compute the scores again with --overwrite") from error
    except (ValueError, OSError, EOFError) as error:
        raise errors.DamagedFileError(f"{path}: not a sound npy file ({error}){_REPAIR}") from error
    if matrix.shape != shape or matrix.dtype != np.float32:
        raise errors.DamagedFileError(
            f"{path}: dtype {matrix.dtype} and shape {matrix.shape}, expected float32 of shape {shape}{_REPAIR}"
        )
    return matrix


def _read_consistency(
    path: pathlib.Path, provenance: Mapping[str, Any]
) -> tuple[scores.Consistency, dict[str, np.ndarray]]:
    sizes, num_rows = (provenance["num_train"], provenance["num_test"]), len(provenance["subset_ratios"])
    one_dimensional = dict.fromkeys(("score", "score_standard_error", "num_ratios"), sizes[:1])
    one_dimensional["subset_ratios"] = (num_rows,)
    shapes = {name: one_dimensional.get(name, (num_rows, sizes[0])) for name in _CONSISTENCY}
    members = _read(path, provenance, shapes)
    labels = {name: members[name] for name in _LABELS if name in members}
    expected_sizes = dict(zip(_LABELS, (*sizes, sizes[0]), strict=True))
    for name, label in labels.items():
        expected = (expected_sizes[name],)
        if label.shape != expected or label.dtype.kind != "i":
            raise errors.DamagedFileError(f"{path}: {name} has shape {label.shape}, expected {expected}{_REPAIR}")
    return scores.Consistency(**{name: members[name] for name in _CONSISTENCY}), labels
