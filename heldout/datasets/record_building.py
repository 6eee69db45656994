"""Builds shards of image records from folders of images, on several processes; a killed build goes on where it was.

The plan of a build follows from its files and options alone: which example lies in which shard. Each shard is written
by one worker (record_worker.py), whole or not at all, and then a note of what was done to its images, in a folder
`unfinished` beside the shards. A shard that has its note is done. When all are there they are scanned, `labels.npz` and
`records.json` are written, and the notes removed. So any number of kills ends with the same bytes as none.
"""

from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np

from heldout import subsets
from heldout.datasets import (
    image_files,
    image_folders,
    record_format,
    record_labels,
    record_manifest,
)
from heldout.running import workers
from zoo import errors, files

UNFINISHED = "unfinished"
_WORKER = "heldout.datasets.record_worker"
# Features, lengths and checksums around an image, at most.
_RECORD_BYTES = 512
_SEED_NAME = "heldout-records-1"

_REPAIR = (
    "Replace them and run the same command again, which then writes what is missing; or leave them out with "
    "--skip_damaged"
)

# done, total, in images.
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """What a build is asked for.

    Attributes:
        train_folder, test_folder: one subfolder of images per class.
        output: where the shards go.
        format: imagenet or tiny.
        index_file: npz that gives every file name its original index; None for the rank by class and name.
        synsets: text file with the classes in the order of labels; None for sorted names.
        num_train_shards, num_test_shards: None for the usual number, or one for each image where there are fewer.
        shuffle_seed: deals records to shards at random; None for contiguous ranges in original order.
        skip_damaged: leaves out what cannot be decoded, instead of refusing it.
        num_workers: processes.
    """

    train_folder: str
    test_folder: str
    output: str
    format: str = "imagenet"
    index_file: str | None = None
    synsets: str | None = None
    num_train_shards: int | None = None
    num_test_shards: int | None = None
    shuffle_seed: int | None = None
    skip_damaged: bool = False
    num_workers: int = 1


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """One shard to write.

    Attributes:
        split: train or test.
        name: of its file.
        sources: its images, in the order in which they are written.
    """

    split: str
    name: str
    sources: tuple[image_folders.Source, ...]

    @property
    def source_sha256(self) -> str:
        """Digest of the files that go in, by name, size and time."""
        return hashlib.sha256(repr([dataclasses.astuple(source) for source in self.sources]).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a build will do.

    Attributes:
        config: what was asked for.
        format: of the records.
        class_names: by label.
        listings: images by split.
        shards: training first.
        image_shape: of the images that reading gives.
    """

    config: BuildConfig
    format: record_format.Format
    class_names: tuple[str, ...]
    listings: dict[str, image_folders.Listing]
    shards: tuple[ShardPlan, ...]
    image_shape: tuple[int, int, int]

    @property
    def output(self) -> pathlib.Path:
        """The folder of the shards."""
        return pathlib.Path(self.config.output)

    @property
    def num_images(self) -> int:
        """Of both splits."""
        return sum(len(shard.sources) for shard in self.shards)

    def digest(self, with_sizes: bool = True) -> str:
        """Changes with names, labels or indices of the files, with what decides about shards, and with sizes of files.

        A build that goes on looks at sizes shard by shard, so that files may be replaced meanwhile.
        """
        parts: list[Any] = [self.format.name, self.class_names, self.image_shape]
        for shard in self.shards:
            parts.append(shard.name)
            parts += [(s.path, s.label, s.index, s.size if with_sizes else None) for s in shard.sources]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def num_bytes(self, shards: Sequence[ShardPlan]) -> int:
        """Room that some of the shards take: the images as they are, and not less than plain pixels for tiny ones."""
        least = int(np.prod(self.image_shape)) if self.format.name == "tiny" else 0
        return sum(max(source.size, least) + _RECORD_BYTES for shard in shards for source in shard.sources)


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """What a build did.

    Attributes:
        manifest: members of records.json.
        num_written: shards written by this call.
        up_to_date: whether all was there before.
    """

    manifest: dict[str, Any]
    num_written: int
    up_to_date: bool


def make_plan(config: BuildConfig) -> Plan:
    """Lists the images and deals them to shards; writes nothing.

    Raises:
        MissingFileError: a folder or file is not there, or holds no images.
        MismatchError: the images are not those of the index file, or the classes not those of the list.
        DamagedFileError: the index file, or the first image of tiny records, cannot be read.
        InvalidValueError: the format is unknown, or a split has fewer images than shards, or a number is below 1.
    """
    known = record_format.format_of(config.format)
    names = image_folders.class_names(config.train_folder, config.synsets)
    listings, shards = {}, []
    folders = (config.train_folder, config.test_folder)
    asked = (config.num_train_shards, config.num_test_shards)
    for number, split in enumerate(record_format.SPLITS):
        found = image_folders.listing(folders[number], names)
        if config.index_file is not None:
            found = image_folders.indexed(found, split, config.index_file)
        listings[split] = found
        count = _num_shards(split, len(found.sources), asked[number], known.num_shards[number])
        shards += _deal(known, split, found.sources, count, config.shuffle_seed)
    shape = known.image_shape
    if known.name == "tiny":
        first = listings[record_format.TRAIN]
        shape = image_files.image_shape(os.path.join(first.folder, first.sources[0].path))
    return Plan(config, known, names, listings, tuple(shards), shape)


def _num_shards(split: str, num_images: int, asked: int | None, usual: int) -> int:
    if asked is None:
        return min(usual, num_images)
    if not 1 <= asked <= num_images:
        raise errors.InvalidValueError(
            f"--num_{split}_shards={asked}: expected 1 to {num_images}, the number of {split} images"
        )
    return asked


def _deal(
    known: record_format.Format,
    split: str,
    sources: Sequence[image_folders.Source],
    count: int,
    shuffle_seed: int | None,
) -> list[ShardPlan]:
    order = np.arange(len(sources))
    if shuffle_seed is not None:
        key = hashlib.sha256(f"{_SEED_NAME}/{shuffle_seed}/{split}".encode()).digest()[:16]
        order = subsets.permutation(int.from_bytes(key, "little"), len(sources))
    return [
        ShardPlan(split, record_format.shard_name(known, split, number, count), tuple(sources[i] for i in part))
        for number, part in enumerate(np.array_split(order, count))
    ]


def pending_shards(plan: Plan) -> list[ShardPlan]:
    """The shards that are not done; all of them in a new folder, none where the build is complete.

    Raises:
        InvalidValueError: the folder holds records of another origin or of other options.
        DamagedFileError: records.json cannot be read.
    """
    manifest = record_manifest.read_manifest(plan.output)
    if manifest is not None:
        if manifest["source_sha256"] != plan.digest():
            raise errors.InvalidValueError(
                f"{plan.output}: holds records of other images or other options; choose another --output, or delete "
                "the folder first"
            )
        return []
    unfinished = plan.output / UNFINISHED
    foreign = plan.output.is_dir() and not unfinished.is_dir() and any(plan.output.glob("*-of-*"))
    if foreign:
        raise errors.InvalidValueError(
            f"{plan.output}: holds shards that no build of this program has begun; choose another --output"
        )
    stored = unfinished / "plan.json"
    if stored.exists() and files.read_json(stored).get("sha256") != plan.digest(with_sizes=False):
        raise errors.InvalidValueError(
            f"{plan.output}: holds an unfinished build of other images or other options. To go on with it, give those; "
            "to begin anew, delete the folder or choose another --output"
        )
    return [shard for shard in plan.shards if _note(plan, shard) is None]


def build(plan: Plan, progress: Progress | None = None) -> BuildSummary:
    """Writes what is missing.

    Args:
        plan: what to build.
        progress: hears of images done and images in all.

    Raises:
        InvalidValueError: see `pending_shards`; or fewer than one worker.
        DiskSpaceError: the shards to write do not fit.
        DamagedFileError: images cannot be decoded, and are not to be skipped. Shards without them are kept.
        WorkerError: a worker process was ended.
    """
    if plan.config.num_workers < 1:
        raise errors.InvalidValueError(f"--num_workers={plan.config.num_workers}: must be at least 1")
    pending = pending_shards(plan)
    manifest = record_manifest.read_manifest(plan.output)
    if manifest is not None:
        record_labels.of_manifest(plan.output, record_format.shards(plan.output), manifest)
        shutil.rmtree(plan.output / UNFINISHED, ignore_errors=True)
        return BuildSummary(manifest, 0, up_to_date=True)
    files.check_room(plan.output, plan.num_bytes(pending), "the records to write")
    files.remove_stale_temporaries(plan.output)
    files.remove_stale_temporaries(plan.output / UNFINISHED)
    (plan.output / UNFINISHED).mkdir(parents=True, exist_ok=True)
    files.write_json(plan.output / UNFINISHED / "plan.json", {"sha256": plan.digest(with_sizes=False)})
    try:
        damaged = _write(plan, pending, progress)
    finally:
        # Where one worker fails, the others are ended in the middle of their shards.
        files.remove_stale_temporaries(plan.output)
    if damaged:
        raise errors.DamagedFileError(
            "\n".join([f"{files.count_text(len(damaged), 'damaged image')}:", *sorted(damaged), _REPAIR])
        )
    return BuildSummary(_finish(plan), len(pending), up_to_date=False)


def _write(plan: Plan, pending: Sequence[ShardPlan], progress: Progress | None) -> list[str]:
    """Writes shards on worker processes; returns what is said of damaged images."""
    setup = {
        "output": str(plan.output.resolve()),
        "format": plan.format.name,
        "image_shape": list(plan.image_shape) if plan.format.name == "tiny" else None,
        "skip_damaged": plan.config.skip_damaged,
    }
    tasks = (_task(plan, shard) for shard in pending)
    num_workers = min(plan.config.num_workers, len(pending))
    done = plan.num_images - sum(len(shard.sources) for shard in pending)
    damaged: list[str] = []
    if not pending:
        return damaged
    for message in workers.run_tasks(_WORKER, setup, tasks, num_workers=num_workers, threads_per_worker=1):
        done += message.get("num_images", 0)
        damaged += message.get("damaged", [])
        if progress is not None:
            progress(done, plan.num_images)
    return damaged


def _task(plan: Plan, shard: ShardPlan) -> dict[str, Any]:
    return {
        "name": shard.name,
        "folder": str(plan.listings[shard.split].folder.resolve()),
        "sources": [[source.path, source.label, source.index] for source in shard.sources],
        "source_sha256": shard.source_sha256,
    }


def _note(plan: Plan, shard: ShardPlan) -> dict[str, Any] | None:
    """What a worker noted of a finished shard; None where it is to be written."""
    path, note_path = plan.output / shard.name, plan.output / UNFINISHED / f"{shard.name}.json"
    if not note_path.exists() or not path.exists():
        return None
    note = files.read_json(note_path)
    is_same = note.get("source_sha256") == shard.source_sha256 and note.get("size") == path.stat().st_size
    is_whole = plan.config.skip_damaged or not note.get("missing")
    return note if is_same and is_whole else None


def _finish(plan: Plan) -> dict[str, Any]:
    """Scans all shards, holds them against the plan, and writes the two files beside them."""
    notes = {shard.name: _note(plan, shard) or {} for shard in plan.shards}
    missing, conversions = _gaps(plan, notes), _conversions(plan, notes)
    label, expected = {}, {}
    for split in record_format.SPLITS:
        sources = plan.listings[split].sources
        label[split] = np.array([source.label for source in sources], np.int64)
        expected[split] = (len(sources), missing[split])
    labels = record_labels.scanned(record_format.shards(plan.output), plan.format, expected=expected)
    for split in record_format.SPLITS:
        there = np.setdiff1d(np.arange(len(label[split])), missing[split])
        if not np.array_equal(labels.label[split][there], label[split][there]):
            raise errors.DamagedFileError(
                f"{plan.output}: {split} shards hold other labels than were written; delete the folder and build again"
            )
    # A worker whose parent was killed may have outlived the cleaning at the beginning by a moment.
    files.remove_stale_temporaries(plan.output)
    labels = dataclasses.replace(labels, label=label)
    manifest = record_manifest.Manifest(
        labels, plan.image_shape, plan.class_names, plan.config.shuffle_seed, conversions, plan.digest()
    ).to_json()
    record_manifest.write_labels(plan.output / record_manifest.LABELS, labels)
    files.write_json(plan.output / record_manifest.MANIFEST, manifest)
    shutil.rmtree(plan.output / UNFINISHED)
    return manifest


def _gaps(plan: Plan, notes: dict[str, dict[str, Any]]) -> dict[str, np.ndarray]:
    """Indices that were left out, by split, ascending."""
    gaps: dict[str, list[int]] = {split: [] for split in record_format.SPLITS}
    for shard in plan.shards:
        gaps[shard.split] += notes[shard.name].get("missing", [])
    return {split: np.array(sorted(indices), np.int64) for split, indices in gaps.items()}


def _conversions(plan: Plan, notes: dict[str, dict[str, Any]]) -> dict[str, dict[str, list[int]]]:
    """Indices of converted images by reason and split, ascending."""
    found: dict[str, dict[str, list[int]]] = {}
    for shard in plan.shards:
        for reason, indices in notes[shard.name].get("conversions", {}).items():
            found.setdefault(reason, {split: [] for split in record_format.SPLITS})[shard.split] += indices
    return {reason: {split: sorted(found[reason][split]) for split in found[reason]} for reason in sorted(found)}
