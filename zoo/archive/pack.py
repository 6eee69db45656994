"""Packs an experiment for others: the archive, its MD5, the run table, the seek index and a manifest (`pack_files`).

The manifest is written last. Equal files give equal bytes in all of them. Hidden files remain beside them: they let the
same command continue after a kill, and find out quickly that all is done.
"""

from collections.abc import Callable, Sequence
import dataclasses
import os
import pathlib

import numpy as np

from zoo import errors, files, run_scan, run_table
from zoo.archive import indexing, lock, pack_checks, pack_files, pack_plan, pack_stream, scan

DEFAULT_LEVEL = 6
# Stages of the work behind those of `pack_checks`; counted are bytes of the tar file, then bytes of the archive.
PACKING, INDEXING = "packing", "indexing"


@dataclasses.dataclass(frozen=True)
class Options:
    """How to pack.

    Attributes:
        level: of zlib, 1 (fast) to 9 (small).
        num_workers: threads that deflate; None for as many as this process may use.
        url: where the archive will be published, a folder if it ends with "/"; None for a manifest that lies beside
            the archive wherever that is.
        overwrite: replace an archive that was packed from other files.
        skip_damaged: leave damaged runs out instead of refusing.

    Raises:
        InvalidValueError: a value is out of range.
    """

    level: int = DEFAULT_LEVEL
    num_workers: int | None = None
    url: str | None = None
    overwrite: bool = False
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.level <= 9:
            raise errors.InvalidValueError(f"level is {self.level}, expected 1 (fast) to 9 (small)")
        if self.num_workers is not None and self.num_workers < 1:
            raise errors.InvalidValueError(f"num_workers is {self.num_workers}, expected 1 or more")


@dataclasses.dataclass(frozen=True)
class PackResult:
    """What was packed.

    Attributes:
        archive: the tar.gz.
        written: its size and digests.
        num_bytes: size of the tar file in it.
        num_runs: packed runs.
        num_with_checkpoint: those that have a checkpoint.
        problems: runs that are left out.
        up_to_date: whether all was there already.
    """

    archive: pathlib.Path
    written: pack_stream.Written
    num_bytes: int
    num_runs: int
    num_with_checkpoint: int
    problems: Sequence[run_scan.RunProblem]
    up_to_date: bool


def disk_bytes(plan: pack_plan.Plan) -> int:
    """The most that the packed experiment can take on the disk, in bytes: nothing may be compressible."""
    table = sum(getattr(plan.table, field).nbytes for field in run_table.BIT_FIELDS)
    # What deflate adds at most, and the notes about what is sound; the table is noted and published.
    overhead = plan.num_bytes // 1000 + 300 * len(plan.segments) + 2 * table
    return plan.num_bytes + overhead + indexing.disk_needed(plan.num_bytes)


def disk_missing(plan: pack_plan.Plan, output: files.PathLike) -> int:
    """The most bytes that packing into a folder still takes, beside what an earlier call has written."""
    unfinished = pack_files.Places(pathlib.Path(output), plan.experiment).unfinished
    there = unfinished.stat().st_size if unfinished.exists() else 0
    return disk_bytes(plan) - there


def check_disk(plan: pack_plan.Plan, output: files.PathLike) -> None:
    """Compares what packing into a folder still takes with what is free.

    Raises:
        DiskSpaceError: there is less room in the file system of the folder.
    """
    files.check_room(output, disk_missing(plan, output), f"the packed files of {plan.experiment}")


def pack(
    zoo: files.PathLike,
    experiment: str,
    output: files.PathLike,
    options: Options | None = None,
    *,
    progress: pack_checks.Progress | None = None,
    note: pack_stream.Note | None = None,
) -> PackResult:
    """Packs an experiment; the same call again continues, or does nothing.

    Args:
        zoo: the folder that holds the experiments.
        experiment: name of the experiment.
        output: folder for the five files, created where missing.
        options: how.
        progress: called with the stage, how much of it is done, and of how much.
        note: called with a sentence for the user where begun work cannot be continued.

    Raises:
        DamagedFileError: runs are damaged, and are not to be skipped.
        MissingFileError: there is no run to pack.
        MismatchError: a packed experiment made from other files is there, or a file changed while it was packed.
        DiskSpaceError: there is too little room.
        IntegrityError: the finished archive, read back, is not what was packed.
        BusyError: another process is packing the experiment into the same folder.
        OSError: the disk is full or fails.
    """
    options = options or Options()
    places = pack_files.Places(pathlib.Path(output), experiment)
    with lock.held(places.lock):
        memory = pack_checks.Memory(places.sound_records, places.sound_checkpoints)
        plan = pack_plan.make(zoo, experiment, skip_damaged=options.skip_damaged, memory=memory, progress=progress)
        *_, sources = pack_stream.sources_digest(plan.segments, options.level)
        written = _finished(places, sources)
        if written is None:
            _refuse_to_replace(places, options.overwrite)
            check_disk(plan, places.output)
            written = pack_stream.write(
                plan.segments,
                places.unfinished,
                places.journal,
                level=options.level,
                num_workers=options.num_workers or _num_cores(),
                progress=pack_checks.stage(progress, PACKING),
                note=note,
            )
            files.write_json(places.finished, {"sources": sources, "archive": dataclasses.asdict(written)})
        up_to_date = _publish(plan, places, written, options, progress)
        places.journal.unlink(missing_ok=True)
    return PackResult(
        archive=places.archive,
        written=written,
        num_bytes=plan.num_bytes,
        num_runs=plan.table.num_runs,
        num_with_checkpoint=plan.num_with_checkpoint,
        problems=plan.problems,
        up_to_date=up_to_date,
    )


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _finished(places: pack_files.Places, sources: str) -> pack_stream.Written | None:
    """What is known of the finished archive, if it was packed from these sources and is there, perhaps unnamed yet."""
    if not places.finished.exists():
        return None
    try:
        value = files.read_json(places.finished)
        written = pack_stream.Written(**value["archive"])
        same = value["sources"] == sources
    except (KeyError, TypeError, errors.DamagedFileError):
        return None
    there = any(_has_size(path, written.size) for path in (places.unfinished, places.archive))
    return written if same and there else None


def _has_size(path: pathlib.Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size


def _refuse_to_replace(places: pack_files.Places, overwrite: bool) -> None:
    there = [path for path in places.published if path.exists()]
    if there and not overwrite:
        raise errors.MismatchError(
            f"{there[-1]}: there already, and not packed from the files that the zoo holds now; --overwrite replaces "
            "it, another --output leaves it"
        )


def _publish(
    plan: pack_plan.Plan,
    places: pack_files.Places,
    written: pack_stream.Written,
    options: Options,
    progress: pack_checks.Progress | None,
) -> bool:
    """Gives the archive its name and writes what is missing beside it. Returns whether nothing was."""
    up_to_date = True
    if _has_size(places.unfinished, written.size):
        up_to_date = False
        # The siblings of an archive that is replaced must not outlive it.
        for path in places.published[:-1]:
            path.unlink(missing_ok=True)
        os.replace(places.unfinished, places.archive)
    # Begun from other files, and given up.
    places.unfinished.unlink(missing_ok=True)
    if not places.md5.exists():
        up_to_date = False
        files.write_text(places.md5, f"{written.md5}  {places.archive.name}\n")
    if not places.run_table.exists():
        up_to_date = False
        # Without the times of this machine's files: their sizes and digests tell as much.
        times = np.zeros(plan.table.num_runs, np.int64)
        run_table.write(places.run_table, dataclasses.replace(plan.table, source_mtime_ns=times))
    if _make_index(places, written, pack_checks.stage(progress, INDEXING)):
        up_to_date = False
    manifest = pack_files.manifest(plan, places, written, options.url)
    if not places.manifest.exists() or files.read_json(places.manifest) != manifest:
        up_to_date = False
        files.write_json(places.manifest, manifest)
    return up_to_date


def _make_index(
    places: pack_files.Places, written: pack_stream.Written, progress: Callable[[int, int], None] | None
) -> bool:
    """Reads the archive back and writes its seek index; returns False where it was there.

    Raises:
        IntegrityError: what is read back is not what was packed.
    """
    result = indexing.make(
        str(places.archive),
        indexing.Places(places.index),
        scan.Expected(md5=written.md5, experiment=places.experiment),
        progress=progress,
    )
    if result.facts.state != "sound" or result.facts.crc32c != written.crc32c:
        # So that it is not taken for a finished one.
        places.finished.unlink(missing_ok=True)
        raise errors.IntegrityError(
            f"{places.archive}: read back it is not what was written: {'; '.join(result.facts.faults)}; check the disk "
            "and the memory of this machine, then pack again with --overwrite"
        )
    return result.is_new
