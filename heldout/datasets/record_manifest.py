"""The two files beside the shards of image records: `records.json`, and `labels.npz`.

`records.json` is written by a build, last. `labels.npz` holds what a scan of the shards has found, by original index;
beside shards without a manifest it is a cache, which is made again when a shard has changed.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from heldout.datasets import dataset, record_format
from zoo import errors, files, npz

SCHEMA_VERSION = 1
MANIFEST, LABELS = "records.json", "labels.npz"
_SCALARS = ("schema_version", "format", "version")
_BY_SPLIT = ("train_label", "test_label", "train_missing", "test_missing")
_BY_SHARD = ("shard_name", "shard_size", "shard_num_records", "shard_mtime_ns")
_TEXTS = ("format", "version", "shard_name")


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a scan has found; the members of labels.npz.

    Attributes:
        format: name of the record format.
        version: of the content, see `record_scan.version`.
        label: by split, int64 [n] by original index.
        missing: by split, indices without a record, int64, ascending.
        shard_name, shard_size, shard_num_records: one entry for each shard, training first.
        shard_mtime_ns: times of modification; 0 where they do not count.
    """

    format: str
    version: str
    label: dict[str, np.ndarray]
    missing: dict[str, np.ndarray]
    shard_name: tuple[str, ...]
    shard_size: np.ndarray
    shard_num_records: np.ndarray
    shard_mtime_ns: np.ndarray

    def is_of(self, shards: Sequence[record_format.Shard]) -> bool:
        """Whether these shards are those of the scan, by name, size and, where it is kept, time of modification."""
        if self.shard_name != tuple(shard.path.name for shard in shards):
            return False
        times = np.array([shard.path.stat().st_mtime_ns for shard in shards])
        same_times = (self.shard_mtime_ns == 0) | (self.shard_mtime_ns == times)
        return bool(np.array_equal(self.shard_size, [shard.size for shard in shards]) and same_times.all())


def write_labels(path: files.PathLike, labels: Labels) -> None:
    """Writes labels.npz, whole or not at all."""
    arrays = {
        "schema_version": np.array(SCHEMA_VERSION, np.int64),
        "format": np.array(labels.format),
        "version": np.array(labels.version),
    }
    for split in record_format.SPLITS:
        arrays[f"{split}_label"] = labels.label[split]
        arrays[f"{split}_missing"] = labels.missing[split]
    arrays["shard_name"] = np.array(labels.shard_name)
    for name in _BY_SHARD[1:]:
        arrays[name] = np.asarray(getattr(labels, name), np.int64)
    npz.write(path, arrays)


def read_labels(path: files.PathLike) -> Labels:
    """Reads labels.npz.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is not such a file.
    """
    arrays = npz.read(path, (*_SCALARS, *_BY_SPLIT, *_BY_SHARD))
    found = arrays["schema_version"].tolist()
    if found != SCHEMA_VERSION:
        raise errors.DamagedFileError(
            f"{path}: schema version {found}, expected {SCHEMA_VERSION}; move the file elsewhere, it is made again"
        )
    _check_arrays(path, arrays)
    return Labels(
        format=str(arrays["format"]),
        version=str(arrays["version"]),
        label={split: arrays[f"{split}_label"].astype(np.int64) for split in record_format.SPLITS},
        missing={split: arrays[f"{split}_missing"].astype(np.int64) for split in record_format.SPLITS},
        shard_name=tuple(arrays["shard_name"].tolist()),
        shard_size=arrays["shard_size"],
        shard_num_records=arrays["shard_num_records"],
        shard_mtime_ns=arrays["shard_mtime_ns"],
    )


def _check_arrays(path: files.PathLike, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        kinds, num_axes = "U" if name in _TEXTS else "iu", 0 if name in _SCALARS else 1
        of_shards = name not in _BY_SHARD or array.shape == arrays["shard_name"].shape
        if array.dtype.kind not in kinds or array.ndim != num_axes or not of_shards:
            raise errors.DamagedFileError(
                f"{path}: {name} has shape {array.shape} and dtype {array.dtype}, which no scan of records writes; "
                "move the file elsewhere, it is made again"
            )


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What records.json says of a folder of records.

    Attributes:
        labels: what the scan of the finished shards has found.
        image_shape: of the images that reading gives.
        class_names: by label.
        shuffle_seed: by which records were dealt to shards; None for contiguous ranges in original order.
        conversions: indices whose image is not stored byte by byte: reason -> split -> ascending indices.
        source_sha256: digest of the files that were there and of the options of the build.
        left_out: by split, paths of damaged images that have no index, sorted.
    """

    labels: Labels
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    shuffle_seed: int | None
    conversions: dict[str, dict[str, list[int]]]
    source_sha256: str
    left_out: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: {split: [] for split in record_format.SPLITS}
    )

    def to_json(self) -> dict[str, Any]:
        """The members of records.json."""
        labels = self.labels
        names = (labels.shard_name, labels.shard_size.tolist(), labels.shard_num_records.tolist())
        return {
            "schema_version": SCHEMA_VERSION,
            "format": labels.format,
            "version": labels.version,
            "num_train": len(labels.label[record_format.TRAIN]),
            "num_test": len(labels.label[record_format.TEST]),
            "num_classes": len(self.class_names),
            "image_shape": list(self.image_shape),
            "train_label_sha256": dataset.label_sha256(labels.label[record_format.TRAIN]),
            "test_label_sha256": dataset.label_sha256(labels.label[record_format.TEST]),
            "class_names": list(self.class_names),
            "record_order": "original" if self.shuffle_seed is None else "shuffled",
            "shuffle_seed": self.shuffle_seed,
            "missing": {split: labels.missing[split].tolist() for split in record_format.SPLITS},
            "left_out": self.left_out,
            "conversions": self.conversions,
            "source_sha256": self.source_sha256,
            "shards": [
                {"name": name, "size": size, "num_records": count} for name, size, count in zip(*names, strict=True)
            ],
        }


def read_manifest(folder: files.PathLike) -> dict[str, Any] | None:
    """The members of records.json that reading needs, checked; None where the folder has no manifest.

    Raises:
        DamagedFileError: the manifest is of another schema version, or a member is missing or of another type.
    """
    path = pathlib.Path(folder) / MANIFEST
    if not path.exists():
        return None
    value = files.read_json(path)
    if value.get("schema_version") != SCHEMA_VERSION:
        raise errors.DamagedFileError(
            f"{path}: schema version {value.get('schema_version')!r}, expected {SCHEMA_VERSION}; build the records "
            "again with this version of the program"
        )
    types = {
        "format": str,
        "version": str,
        "class_names": list,
        "image_shape": list,
        "source_sha256": str,
        "train_label_sha256": str,
        "test_label_sha256": str,
    }
    wrong = [name for name, kind in types.items() if not isinstance(value.get(name), kind)]
    sound = not wrong and len(value["image_shape"]) == 3 and all(isinstance(n, int) for n in value["image_shape"])
    if not sound or value["format"] not in record_format.FORMATS:
        raise errors.DamagedFileError(
            f"{path}: {record_format.named(wrong or ['format and image_shape'])}: missing or not as expected; restore "
            "the file, or build the records again"
        )
    return value
