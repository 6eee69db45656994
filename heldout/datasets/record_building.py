"""Builds shards of image records from folders of images, on several processes; a killed build goes on where it was.

Which example lies in which shard is the plan (record_plan.py). Each shard is written by one worker (record_worker.py),
whole or not at all, and then a note of what was done to its images, in a folder `unfinished` beside the shards. A shard
that has its note is done. Where damaged images are left out and the order is ours, `plan.json` there names those that
were found; the others are numbered anew, and the shards that this changes are written again. When all are there they
are scanned, `labels.npz` and `records.json` are written, and the notes removed. So any number of kills ends with the
same bytes as none.
"""

from collections.abc import Callable, Sequence
import dataclasses
import shutil
from typing import Any

import numpy as np

from heldout.datasets import record_format, record_labels, record_manifest, record_plan
from heldout.running import workers
from zoo import errors, files

UNFINISHED = "unfinished"
_PLAN = "plan.json"
_WORKER = "heldout.datasets.record_worker"

_REPAIR = (
    "Replace them and run the same command again, which then writes what is missing; or leave them out with "
    "--skip_damaged"
)

# done, total, in images.
Progress = Callable[[int, int], None]


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


@dataclasses.dataclass(frozen=True)
class Damaged:
    """An image that cannot be decoded.

    Attributes:
        split: train or test.
        path: below the folder of its split.
        reason: what is wrong with it, with the whole path.
    """

    split: str
    path: str
    reason: str


def pending_shards(plan: record_plan.Plan) -> list[record_plan.ShardPlan]:
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
    stored = unfinished / _PLAN
    if stored.exists() and files.read_json(stored).get("sha256") != plan.digest(with_sizes=False):
        raise errors.InvalidValueError(
            f"{plan.output}: holds an unfinished build of other images or other options. To go on with it, give those; "
            "to begin anew, delete the folder or choose another --output"
        )
    return _not_done(_without_damaged(plan))


def find_damaged(plan: record_plan.Plan, progress: Progress | None = None) -> list[Damaged]:
    """Decodes the images of the shards that are not done, and writes nothing.

    Args:
        plan: what would be built.
        progress: hears of images done and images in all.

    Raises:
        InvalidValueError: see `pending_shards`; or fewer than one worker.
        WorkerError: a worker process was ended.
    """
    _check_workers(plan)
    pending = pending_shards(plan)
    return _work(plan, pending, progress, output=None)


def build(plan: record_plan.Plan, progress: Progress | None = None) -> BuildSummary:
    """Writes what is missing.

    Args:
        plan: what to build.
        progress: hears of images done and images in all.

    Raises:
        InvalidValueError: see `pending_shards`; or fewer than one worker.
        DiskSpaceError: the shards to write do not fit.
        DamagedFileError: images cannot be decoded, and are not to be skipped; shards without them are kept. Or no image
            of a split can be.
        WorkerError: a worker process was ended.
    """
    _check_workers(plan)
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
    _write_plan(plan, _known_damaged(plan))
    written: set[str] = set()
    while True:
        current = _without_damaged(plan)
        pending = _not_done(current)
        damaged = _write(current, pending, progress)
        written |= {shard.name for shard in pending}
        if not damaged:
            return BuildSummary(_finish(plan, current), len(written), up_to_date=False)
        if not plan.config.closes_gaps:
            reasons = sorted(one.reason for one in damaged)
            raise errors.DamagedFileError(
                "\n".join([f"{files.count_text(len(damaged), 'damaged image')}:", *reasons, _REPAIR])
            )
        known = _known_damaged(plan)
        for one in damaged:
            known[one.split].add(one.path)
        _write_plan(plan, known)


def _check_workers(plan: record_plan.Plan) -> None:
    if plan.config.num_workers < 1:
        raise errors.InvalidValueError(f"--num_workers={plan.config.num_workers}: must be at least 1")


def _write_plan(plan: record_plan.Plan, damaged: dict[str, set[str]]) -> None:
    """Keeps what the build is of, and which images it has found damaged, as they are now."""
    state = {
        split: [
            [source.path, source.size, source.mtime_ns] for source in listing.sources if source.path in damaged[split]
        ]
        for split, listing in plan.listings.items()
    }
    value = {"sha256": plan.digest(with_sizes=False), "damaged": state}
    files.write_json(plan.output / UNFINISHED / _PLAN, value)


def _known_damaged(plan: record_plan.Plan) -> dict[str, set[str]]:
    """Paths of images by split that this build has found damaged, and that nobody has replaced since."""
    path = plan.output / UNFINISHED / _PLAN
    stored = files.read_json(path).get("damaged", {}) if plan.config.closes_gaps and path.exists() else {}
    found: dict[str, set[str]] = {}
    for split, listing in plan.listings.items():
        there = {(source.path, source.size, source.mtime_ns) for source in listing.sources}
        found[split] = {entry[0] for entry in stored.get(split, []) if tuple(entry) in there}
    return found


def _without_damaged(plan: record_plan.Plan) -> record_plan.Plan:
    damaged = _known_damaged(plan)
    return plan.without(damaged) if any(damaged.values()) else plan


def _not_done(plan: record_plan.Plan) -> list[record_plan.ShardPlan]:
    return [shard for shard in plan.shards if _note(plan, shard) is None]


def _write(
    plan: record_plan.Plan, pending: Sequence[record_plan.ShardPlan], progress: Progress | None
) -> list[Damaged]:
    """Writes shards on worker processes; returns the damaged images that kept some from being written."""
    try:
        return _work(plan, pending, progress, output=str(plan.output.resolve()))
    finally:
        # Where one worker fails, the others are ended in the middle of their shards.
        files.remove_stale_temporaries(plan.output)


def _work(
    plan: record_plan.Plan,
    pending: Sequence[record_plan.ShardPlan],
    progress: Progress | None,
    output: str | None,
) -> list[Damaged]:
    """Has workers judge the images of some shards, and write them where there is an output."""
    setup = {
        "output": output,
        "format": plan.format.name,
        "image_shape": list(plan.image_shape) if plan.format.name == "tiny" else None,
        "skip_damaged": plan.config.keeps_gaps,
    }
    tasks = (_task(plan, shard) for shard in pending)
    num_workers = min(plan.config.num_workers, len(pending))
    done = plan.num_images - sum(len(shard.sources) for shard in pending)
    damaged: list[Damaged] = []
    if not pending:
        return damaged
    for message in workers.run_tasks(_WORKER, setup, tasks, num_workers=num_workers, threads_per_worker=1):
        done += message.get("num_images", 0)
        damaged += [Damaged(**one) for one in message.get("damaged", [])]
        if progress is not None:
            progress(done, plan.num_images)
    return damaged


def _task(plan: record_plan.Plan, shard: record_plan.ShardPlan) -> dict[str, Any]:
    return {
        "name": shard.name,
        "split": shard.split,
        "folder": str(plan.listings[shard.split].folder.resolve()),
        "sources": [[source.path, source.label, source.index] for source in shard.sources],
        "source_sha256": shard.source_sha256,
    }


def _note(plan: record_plan.Plan, shard: record_plan.ShardPlan) -> dict[str, Any] | None:
    """What a worker noted of a finished shard; None where it is to be written."""
    path, note_path = plan.output / shard.name, plan.output / UNFINISHED / f"{shard.name}.json"
    if not note_path.exists() or not path.exists():
        return None
    note = files.read_json(note_path)
    is_same = note.get("source_sha256") == shard.source_sha256 and note.get("size") == path.stat().st_size
    is_whole = plan.config.keeps_gaps or not note.get("missing")
    return note if is_same and is_whole else None


def _finish(plan: record_plan.Plan, current: record_plan.Plan) -> dict[str, Any]:
    """Scans all shards, holds them against the plan, and writes the two files beside them.

    Args:
        plan: of all images.
        current: of those that are not left out.
    """
    notes = {shard.name: _note(current, shard) or {} for shard in current.shards}
    missing, conversions = _gaps(current, notes), _conversions(current, notes)
    label, expected = {}, {}
    for split in record_format.SPLITS:
        sources = current.listings[split].sources
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
    left_out = {split: sorted(paths) for split, paths in _known_damaged(plan).items()}
    manifest = record_manifest.Manifest(
        labels, plan.image_shape, plan.class_names, plan.config.shuffle_seed, conversions, plan.digest(), left_out
    ).to_json()
    record_manifest.write_labels(plan.output / record_manifest.LABELS, labels)
    files.write_json(plan.output / record_manifest.MANIFEST, manifest)
    shutil.rmtree(plan.output / UNFINISHED)
    return manifest


def _gaps(plan: record_plan.Plan, notes: dict[str, dict[str, Any]]) -> dict[str, np.ndarray]:
    """Indices that were left out, by split, ascending."""
    gaps: dict[str, list[int]] = {split: [] for split in record_format.SPLITS}
    for shard in plan.shards:
        gaps[shard.split] += notes[shard.name].get("missing", [])
    return {split: np.array(sorted(indices), np.int64) for split, indices in gaps.items()}


def _conversions(plan: record_plan.Plan, notes: dict[str, dict[str, Any]]) -> dict[str, dict[str, list[int]]]:
    """Indices of converted images by reason and split, ascending."""
    found: dict[str, dict[str, list[int]]] = {}
    for shard in plan.shards:
        for reason, indices in notes[shard.name].get("conversions", {}).items():
            found.setdefault(reason, {split: [] for split in record_format.SPLITS})[shard.split] += indices
    return {reason: {split: sorted(found[reason][split]) for split in found[reason]} for reason in sorted(found)}
