"""Labels, version and gaps of a folder of image records: from its manifest, from a cache, or from a scan."""

from collections.abc import Sequence
import dataclasses
import errno
import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from heldout.datasets import dataset, record_format, record_manifest, record_scan
from zoo import errors, files

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def scanned(
    shards: Sequence[record_format.Shard],
    known: record_format.Format,
    progress: record_scan.Progress | None = None,
    expected: dict[str, tuple[int, np.ndarray]] | None = None,
) -> record_manifest.Labels:
    """Scans both splits.

    Args:
        shards: of both splits, training first.
        known: their format.
        progress: hears of bytes done and bytes in all.
        expected: by split, the number of examples and the indices that may be without a record; None where every
            index must have one.

    Returns:
        Labels, -1 for an example without a record, and times of modification of 0.

    Raises:
        DamagedFileError: as in `record_scan.scan_split`.
    """
    total, before, splits = sum(shard.size for shard in shards), 0, {}
    for split in record_format.SPLITS:
        of_split = [shard for shard in shards if shard.split == split]
        size, may_lack = (None, None) if expected is None else expected[split]
        hears = None if progress is None else _shifted(progress, before, total)
        splits[split] = record_scan.scan_split(of_split, known, hears, size, may_lack)
        before += sum(shard.size for shard in of_split)
    return record_manifest.Labels(
        format=known.name,
        version=record_scan.version(list(splits.values())),
        label={split: scan.label for split, scan in splits.items()},
        missing={split: scan.missing for split, scan in splits.items()},
        shard_name=tuple(shard.path.name for shard in shards),
        shard_size=np.array([shard.size for shard in shards], np.int64),
        shard_num_records=np.concatenate([scan.num_records for scan in splits.values()]).astype(np.int64),
        shard_mtime_ns=np.zeros(len(shards), np.int64),
    )


def _shifted(progress: record_scan.Progress, before: int, total: int) -> record_scan.Progress:
    return lambda done, _: progress(before + done, total)


def cached(
    folder: pathlib.Path,
    shards: Sequence[record_format.Shard],
    known: record_format.Format,
    cache: files.PathLike | None = None,
    progress: record_scan.Progress | None = None,
) -> record_manifest.Labels:
    """The labels of shards without a manifest: as they were found before, or by a scan that is then kept.

    Args:
        folder: of the shards.
        shards: of both splits, training first.
        known: their format.
        cache: folder to keep them in where `folder` may not be written to; None for not keeping them then.
        progress: hears of a scan.

    Raises:
        DamagedFileError: labels.npz is not what a scan writes, or a shard is damaged.
    """
    places = [folder / record_manifest.LABELS]
    if cache is not None:
        # One folder may serve many: the name says whose labels these are.
        digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        places.append(pathlib.Path(cache) / f"labels-{digest}.npz")
    for place in places:
        if place.exists():
            labels = record_manifest.read_labels(place)
            if labels.format == known.name and labels.is_of(shards):
                return labels
    times = np.array([shard.path.stat().st_mtime_ns for shard in shards], np.int64)
    labels = dataclasses.replace(scanned(shards, known, progress), shard_mtime_ns=times)
    for place in places:
        try:
            record_manifest.write_labels(place, labels)
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise
        else:
            break
    return labels


def of_manifest(
    folder: pathlib.Path, shards: Sequence[record_format.Shard], manifest: dict[str, Any]
) -> record_manifest.Labels:
    """The labels that a build has left beside its manifest.

    Raises:
        MissingFileError: labels.npz is not there.
        DamagedFileError: it, or a shard, is not of this manifest.
    """
    path = folder / record_manifest.LABELS
    labels = record_manifest.read_labels(path)
    for split in record_format.SPLITS:
        if dataset.label_sha256(labels.label[split]) != manifest[f"{split}_label_sha256"]:
            raise errors.DamagedFileError(
                f"{path}: its {split} labels are not those of {record_manifest.MANIFEST}; restore both from one place, "
                "or build the records again"
            )
    if labels.version != manifest["version"] or labels.format != manifest["format"]:
        raise errors.DamagedFileError(
            f"{path}: is of version {labels.version}, {record_manifest.MANIFEST} of {manifest['version']}; restore "
            "both from one place, or build the records again"
        )
    if not labels.is_of(shards):
        sizes = dict(zip(labels.shard_name, labels.shard_size.tolist(), strict=True))
        wrong = [shard.path.name for shard in shards if sizes.get(shard.path.name) != shard.size]
        raise errors.DamagedFileError(
            f"{folder}: the shards are not those of {record_manifest.MANIFEST}: {record_format.named(wrong)} "
            "have another size or are not among them; restore them, or build the records again"
        )
    return labels
