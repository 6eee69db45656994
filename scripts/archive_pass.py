"""What the programs have in common that pass through a whole archive: the plan, the pass, and what is said of it."""

import pathlib

from scripts import archive_flags, cli, transfer_bar
from zoo import files
from zoo.archive import index, indexing, scan
from zoo.remote import source

_MOST_MEMBERS = 20


def run(archive: archive_flags.Archive, places: indexing.Places, expected: scan.Expected) -> indexing.Result | None:
    """What there is to say of an archive, after a pass over it if none was made before.

    Returns:
        What was found; None if --dry_run was given, and the plan printed.
    """
    facts = indexing.existing(places, expected)
    num_read = 0
    if facts is not None and archive.is_local:
        with source.open_source(archive.url, archive_flags.options()) as opened:
            num_read = indexing.check_same(facts, opened, places)
    if archive_flags.DRY_RUN.value:
        _say_plan(archive, places, done=facts is not None)
        return None
    if facts is not None:
        indexing.remove_leftovers(places)
        print(f"complete already, nothing to do: {places.index}")
        if archive.is_local:
            print(
                f"read again: {files.count_text(num_read, 'file')} of the archive, as the index says; "
                "zoo_verify --archive reads all of it"
            )
        return indexing.Result(facts, is_new=False)
    archive_flags.refuse_offline(archive)
    with transfer_bar.shown(archive.name) as progress:
        return indexing.make(archive.url, places, expected, archive_flags.options(), progress)


def _say_plan(archive: archive_flags.Archive, places: indexing.Places, *, done: bool) -> None:
    if done:
        print(f"{places.index}: complete already, nothing would be read")
        return
    archive_flags.refuse_offline(archive)
    with source.open_source(archive.url, archive_flags.options()) as opened:
        size, ranges = opened.state.size, archive_flags.ranges_report(opened)
    print(f"{archive.where}: {files.size_text(size)} ({size} bytes) would be read once")
    if places.journal.exists():
        print(f"an earlier pass is continued: {places.journal}")
    kept = [str(path) for path in (places.run_table, places.index) if path is not None]
    kept += [] if places.recipe is None else [f"{places.recipe} if the archive has one"]
    print(f"kept: {', '.join(kept)}")
    for line in [*ranges, *files.room_report(places.index.parent, indexing.disk_needed(size))]:
        print(line)


def say(result: indexing.Result, index_path: pathlib.Path, run_table: pathlib.Path | None = None) -> int:
    """Prints what there is to say of an archive.

    Args:
        result: what the pass over it found, or an earlier one.
        index_path: the index that it made.
        run_table: the run table that it made besides, if any.

    Returns:
        The exit status, 3 if the archive is damaged.
    """
    facts = result.facts
    md5 = f"MD5 {facts.md5}" if facts.md5 is not None else f"CRC32C {facts.crc32c:08x}"
    print(f"{facts.name}: {files.size_text(facts.size)}, {md5}")
    print(facts.checked if result.is_new else f"{facts.checked} (when the index was made)")
    print(f"index: {index_path} ({files.size_text(index_path.stat().st_size)})")
    if facts.state == "sound":
        return 0
    for fault in facts.faults:
        print(f"damaged: {fault}")
    with index.Index(index_path) as stored:
        faulty = list(stored.faulty_members())
    for member in faulty[:_MOST_MEMBERS]:
        print(f"  {member.state}: {member.name}: {member.why}")
    if len(faulty) > _MOST_MEMBERS:
        print(f"  and {len(faulty) - _MOST_MEMBERS} more: zoo_verify --archive names them all")
    made = [str(path) for path in (index_path, run_table) if path is not None and path.exists()]
    print(f"What is sound can be used. To read the archive again, delete {' and '.join(made)}")
    return cli.DAMAGED_STATUS
