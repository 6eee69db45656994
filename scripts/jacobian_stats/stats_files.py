"""The files of `compute_jacobian_stats`; needs no TensorFlow.

    <folder>/stats.json                  what all values depend on; results of other settings are refused
    <folder>/stats_<...>.parquet         one row an example: of one split, checkpoint and shard
    <folder>/<metric>_<...>.json         the same in the published schema, one file for each column
    <folder>/.parts-*/<first>.npz        blocks of a table, until all are there

<folder> is SAVE_DIR/NAME/MODEL/DATA/SETTING/seed-S/jacobian_stats unless it was named, or jacobian_stats-NAME beside
the checkpoints of a network where a name alone was given. Names of tables and JSON files say split, normalisation, how
many examples, learning rate, epochs of the training, checkpoint and shard. What a table is of stands in its Parquet
metadata, under `METADATA_KEY`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
import re
import shutil
from typing import Any

import numpy as np

from heldout.running import settings
from heldout.training import model_files
from scripts.jacobian_stats import stats_config
from zoo import errors, files, npz

SCHEMA_VERSION = 1
FOLDER_NAME = "jacobian_stats"
DEFAULT_NAME = "networks"
SETTINGS_NAME = "stats.json"
METADATA_KEY = b"heldout.jacobian_stats"
# Among the facts of a network of train_model: one of `model_files.OUTCOMES`, or this. No value depends on it.
OUTCOME = "outcome"
UNFINISHED = "unfinished"
NO_END = (UNFINISHED, model_files.DIVERGED)
# As `parts_folder`, `table_path` and `stats_published.path` make them.
_RESULT_NAME = re.compile(r"\.parts-.+|.+_n\d+_lr.+_epochs.+_epoch-\d+_\d+-of-\d+\.(parquet|json)")
LABELS = ("id", "label", "clean_label", "epoch")


@dataclasses.dataclass(frozen=True)
class Column:
    """One statistic.

    Attributes:
        metric, normalisation, place, average: as `estimators.jacobian.measuring.Column` has them.
        target_logit_only: whether of the label's entry alone.
        unit: of the values.
        parts: names of the columns of numbers, one or as many as there are points.
        details: names of columns about the values: standard errors, counts of paths, quadrature errors, lengths.
        num_unconverged: values whose iteration ended above its tolerance.
        is_estimated: whether values come from random signs.
    """

    metric: str
    normalisation: str
    place: str
    average: str
    target_logit_only: bool
    unit: str
    parts: tuple[str, ...]
    details: tuple[str, ...] = ()
    num_unconverged: int = 0
    is_estimated: bool = False

    @property
    def name(self) -> str:
        """metric__normalisation__place__average, without what there is none of."""
        return column_name(self.metric, self.normalisation, self.place, self.average, self.target_logit_only)

    def to_json(self) -> dict[str, Any]:
        """As JSON gives it back."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Column":
        """What `to_json` made."""
        members: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in stored.items()}
        return cls(**members)


def column_name(metric: str, normalisation: str, place: str, average: str, target_logit_only: bool) -> str:
    """Such as jacobian, or jacobian_operator_norm__softmax__shift__path; "none" and the example itself are left out."""
    normalised = "" if normalisation == "none" else normalisation
    # A cross-entropy is one number; of the others the label's may be meant alone.
    target = "target" if target_logit_only and normalisation not in ("", "crossentropy") else ""
    somewhere = "" if place == "example" else place
    return "__".join(part for part in (metric, normalised, target, somewhere, average) if part)


@dataclasses.dataclass(frozen=True)
class Table:
    """What a table is of.

    Attributes:
        split: name of the split.
        epoch, step: of the checkpoint.
        weights: digest of the checkpoint.
        shard: (i, n); (1, 1) also of a merged table.
        skip, num_examples: which examples of the split, see `stats_config.StatsConfig`.
        num_rows: examples of this table.
        num_split: examples of the whole split.
        identity: digest of the settings.
        columns: of statistics.
        source: what is known of the model.
        group, seed: parts of the path.
        home: folder of the run of train_model; None for others.
        config: what was asked for.
    """

    split: str
    epoch: int
    step: int | None
    weights: str
    shard: tuple[int, int]
    skip: int
    num_examples: int | None
    num_rows: int
    num_split: int
    identity: str
    columns: tuple[Column, ...]
    source: Mapping[str, Any]
    group: tuple[str, str, str]
    seed: str
    home: str | None
    config: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As JSON gives it back."""
        return {"schema_version": SCHEMA_VERSION, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], where: Any) -> "Table":
        """What `to_json` made.

        Raises:
            DamagedFileError: it is something else.
        """
        if stored.get("schema_version") != SCHEMA_VERSION:
            raise errors.DamagedFileError(
                f"{where}: schema version {stored.get('schema_version')!r}, this program reads {SCHEMA_VERSION}; "
                "compute it again"
            )
        members = {name: value for name, value in stored.items() if name != "schema_version"}
        try:
            members["columns"] = tuple(Column.from_json(one) for one in members["columns"])
            members |= {name: tuple(members[name]) for name in ("shard", "group")}
            return cls(**members)
        except (KeyError, TypeError, AttributeError) as error:
            raise errors.DamagedFileError(
                f"{where}: its metadata are not those of this program ({error}); compute it again"
            ) from error

    @property
    def what(self) -> str:
        """For names of files: split, examples, training and checkpoint."""
        return "_".join(
            [
                self.split,
                *([f"skip{self.skip}"] if self.skip else []),
                f"n{_num_chosen(self)}",
                f"lr{_number(self.source.get('learning_rate'))}",
                f"epochs{_number(self.source.get('epochs'))}",
                f"epoch-{self.epoch}",
            ]
        )

    @property
    def examples(self) -> str:
        """Positions in the split of the examples of all shards, its end left out: "0:301"."""
        return f"{self.skip}:{self.skip + _num_chosen(self)}"

    @property
    def shard_name(self) -> str:
        """1-of-4."""
        return f"{self.shard[0]}-of-{self.shard[1]}"


def table_path(folder: pathlib.Path, table: Table) -> pathlib.Path:
    """Where a table lies."""
    normalisations = "+".join(table.config["normalisations"]) + ("+target" if table.config["target_logit_only"] else "")
    return folder / f"stats_{normalisations}_{table.what}_{table.shard_name}.parquet"


def _num_chosen(table: Table) -> int:
    rest = table.num_split - table.skip
    return rest if table.num_examples is None else min(rest, table.num_examples)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:g}"


def folder_of(
    source: stats_config.SourceConfig, group: Sequence[str], seed: str, home: pathlib.Path | None
) -> pathlib.Path:
    """The folder of results.

    Raises:
        InvalidValueError: nothing says where results are to go.
    """
    if source.outdir is not None:
        return pathlib.Path(source.outdir)
    if source.save_dir is not None:
        return pathlib.Path(source.save_dir, source.name or DEFAULT_NAME, *group, f"seed-{seed}", FOLDER_NAME)
    if home is not None:
        return home / (FOLDER_NAME if source.name is None else f"{FOLDER_NAME}-{source.name}")
    raise errors.InvalidValueError(
        "where results go: give --save_dir (or set SAVE_DIR), or --outdir; only a run of train_model has a folder of "
        "its own for them"
    )


def digest(value: Any) -> str:
    """By which tables and blocks know what they are of."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def adopt(folder: pathlib.Path, identity: Mapping[str, Any], overwrite: bool) -> None:
    """Makes the folder, or goes on with what is there; removes what killed processes left.

    Raises:
        MismatchError: it holds results of other settings, and `overwrite` is not set; or the settings are no file of
            ours, which is not replaced even then.
    """
    path = folder / SETTINGS_NAME
    if path.exists():
        stored, asked = _stored_identity(path), json.loads(json.dumps(dict(identity)))
        if stored != asked and _results(folder) and not overwrite:
            # None and {} are not the same as nothing, though no line tells of it.
            others = settings.differences(stored, asked) or "  names without values"
            raise errors.MismatchError(
                f"{folder}: holds results of other settings, which differ in\n{others}\nchoose another --name or "
                "--outdir, or pass --overwrite"
            )
        if stored != asked:
            remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_stale_temporaries(folder)
    if not path.exists():
        files.write_json(path, {"schema_version": SCHEMA_VERSION, "identity": dict(identity)})


def _stored_identity(path: pathlib.Path) -> dict[str, Any]:
    stored = files.read_json(path)
    if stored.get("schema_version") != SCHEMA_VERSION or not isinstance(stored.get("identity"), dict):
        raise errors.MismatchError(
            f"{path}: expected settings of statistics, schema version {SCHEMA_VERSION}; it is something else, and is "
            "not replaced: choose another --name or --outdir, or move it away"
        )
    return dict(stored["identity"])


def _results(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if _RESULT_NAME.fullmatch(path.name)]


def remove(folder: pathlib.Path) -> None:
    """Deletes all results of a folder, the settings last; files that are named otherwise stay."""
    for path in _results(folder):
        if path.name.startswith(".parts-"):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    (folder / SETTINGS_NAME).unlink(missing_ok=True)


def write_table(path: pathlib.Path, table: Table, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a table with its metadata, whole or not at all."""
    import pyarrow  # heavy, and not needed by those who only ask for help
    import pyarrow.parquet

    found = pyarrow.table({name: pyarrow.array(array) for name, array in arrays.items()})
    found = found.replace_schema_metadata({METADATA_KEY: json.dumps(table.to_json()).encode()})
    with files.write_whole(path) as temporary:
        pyarrow.parquet.write_table(found, temporary)


def read_description(path: pathlib.Path) -> Table:
    """What a table is of; its rows are not read.

    Raises:
        DamagedFileError: it is none of ours, or damaged.
    """
    import pyarrow  # heavy, as above
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
        stored = json.loads(metadata[METADATA_KEY])
    except (KeyError, ValueError, OSError) as error:  # pyarrow's errors refine ValueError
        raise errors.DamagedFileError(
            f"{path}: no table of compute_jacobian_stats ({error!s:.100}); delete it, the same command computes it "
            "again"
        ) from error
    return Table.from_json(stored, path)


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The columns of a table.

    Raises:
        DamagedFileError: it cannot be read.
    """
    import pyarrow  # heavy, as above
    import pyarrow.parquet

    try:
        found = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise errors.DamagedFileError(
            f"{path}: cannot be read ({error!s:.100}); delete it, the same command computes it again"
        ) from error
    return {name: found[name].to_numpy() for name in found.column_names}


def parts_folder(folder: pathlib.Path, table: Table, ids: np.ndarray) -> pathlib.Path:
    """Where blocks of a table lie until it is there."""
    members = {name: value for name, value in table.to_json().items() if name not in ("config", "columns")}
    return folder / f".parts-{digest([members, ids.tolist()])}"


def write_part(path: pathlib.Path, arrays: Mapping[str, np.ndarray], columns: Sequence[Column]) -> None:
    """Stores a block, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    described = np.array(json.dumps([column.to_json() for column in columns]))
    # Members of an npz file have no slashes; names of columns are of letters, digits and underscores.
    npz.write(path, {**arrays, "described": described})


def read_part(path: pathlib.Path, num: int) -> tuple[dict[str, np.ndarray], tuple[Column, ...]] | None:
    """A stored block of `num` examples; None where there is none, or one that does not fit: it is computed again."""
    try:
        described = npz.read(path, ["described"])["described"]
        columns = tuple(Column.from_json(one) for one in json.loads(str(described)))
        names = [name for column in columns for name in (*column.parts, *column.details)]
        arrays = npz.read(path, names)
    except (errors.MissingFileError, errors.DamagedFileError, ValueError, TypeError):
        return None
    return (arrays, columns) if all(array.shape == (num,) for array in arrays.values()) else None


def is_table_name(name: str) -> bool:
    """Whether a file of this name is a table."""
    return re.fullmatch(r"stats_.+\.parquet", name) is not None
