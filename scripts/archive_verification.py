"""The half of zoo_verify that is about archives: where the work files lie, the plan, the pass, what is said of it."""

import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile

from scripts import archive_flags, cli, transfer_bar
from zoo import errors, files, layout
from zoo.archive import checking, finding, index, indexing, scan
from zoo.remote import addresses, source


@dataclasses.dataclass(frozen=True)
class Options:
    """How an archive is verified.

    Attributes:
        index: path or address of the seek index; None for the one beside the archive, if there is one.
        work_dir: folder for the work files; None for one that follows from where the archive lies.
        as_json: print JSON instead of text.
        max_problems: findings to name in the text.
    """

    index: str | None
    work_dir: str | None
    as_json: bool
    max_problems: int


def run(archive: archive_flags.Archive, options: Options) -> int:
    """Verifies an archive, or with --dry_run says what that takes.

    Returns:
        The exit status, 3 if anything is damaged.

    Raises:
        MissingFileError: --offline is given, and the archive or its named index lies on a server.
        InvalidValueError: there is no folder for the work files.
        DiskSpaceError: there is too little room for them.
        As `finding.index_path` and `checking.check`.
    """
    archive_flags.refuse_offline(archive)
    _refuse_index_offline(options.index)
    places = indexing.Places(_work_folder(archive, options.work_dir) / f".{archive.name}.verify")
    with source.open_source(archive.url, archive_flags.options()) as opened:
        size = opened.state.size
    if archive_flags.DRY_RUN.value:
        _say_plan(archive, options, places, size)
        return 0
    _check_writable(places.index.parent)
    needed = indexing.disk_needed(size)
    files.check_room(places.index.parent, needed, "the work files of the verification", " with --work_dir")
    return _verify(archive, options, places)


def _refuse_index_offline(named: str | None) -> None:
    if archive_flags.OFFLINE.value and named is not None and addresses.local_path(named) is None:
        raise errors.MissingFileError(
            f"--offline: --index={addresses.display(named)} lies on a server; leave one of the flags out, or give a "
            "copy on this machine"
        )


def _work_folder(archive: archive_flags.Archive, named: str | None) -> pathlib.Path:
    """The folder that is named, else the archive's if it lies here and that may be written to, else the present one."""
    if named is not None:
        return pathlib.Path(named)
    local = addresses.local_path(archive.url)
    beside = None if local is None else pathlib.Path(local).parent
    return beside if beside is not None and _is_writable(beside) else pathlib.Path()


def _check_writable(folder: pathlib.Path) -> None:
    if not _is_writable(folder):
        raise errors.InvalidValueError(
            f"{folder.absolute()}: not a folder that may be written to, and a verification needs one for its work "
            "files; choose another with --work_dir"
        )


def _is_writable(folder: pathlib.Path) -> bool:
    """Whether files may be made in a folder, which need not exist yet."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _say_plan(archive: archive_flags.Archive, options: Options, places: indexing.Places, size: int) -> None:
    against, folder = _index_to_come(archive, options.index), places.index.parent
    room = files.room_report(folder, indexing.disk_needed(size))
    if options.as_json:
        plan = {
            "archive": archive.where, "size": size, "md5": archive.md5, "index": against,
            "continues": places.journal.exists(), "work_dir": str(folder), "disk": room,
        }  # fmt: skip
        print(json.dumps(plan, indent=2))
        return
    print(f"{archive.where}: {files.size_text(size)} ({size} bytes) would be read once")
    if places.journal.exists():
        print(f"an earlier pass is continued: {places.journal}")
    known = "no MD5 is known, so those that the server states count" if archive.md5 is None else f"MD5 {archive.md5}"
    print(f"digest: {known}")
    print("no index to compare with" if against is None else f"compared with {against}")
    print(f"work files, deleted in the end: {places.journal}")
    print("\n".join(room))


def _index_to_come(archive: archive_flags.Archive, named: str | None) -> str | None:
    """The index that a verification would use; one on a server is looked for, but not read."""
    url = _index_url(archive, named)
    if addresses.local_path(url) is not None:
        return _index_of(archive, named, "")[1]
    try:
        with source.open_source(url, archive_flags.options()):
            return addresses.display(url)
    except errors.MissingFileError:
        if named is not None:
            raise
        return None


def _index_url(archive: archive_flags.Archive, named: str | None) -> str:
    """Where the index of an archive is, or would be."""
    published = archive.published_index
    if named is None and published is not None and not archive.is_local:
        return published.url
    return named or addresses.with_suffix(archive.url, layout.ARCHIVE_INDEX_SUFFIX)


def _index_of(archive: archive_flags.Archive, named: str | None, folder: str) -> tuple[pathlib.Path | None, str | None]:
    """The index that is named, or that lies or is published beside the archive, and where it comes from.

    Args:
        archive: the archive.
        named: path or address of the index, if it is named.
        folder: for an index that is downloaded.

    Returns:
        Its path and what messages call it; None and None where there is none.
    """
    try:
        # No zoo is meant: only what is named, or beside the archive, counts.
        path = finding.index_path(
            archive.url,
            folder,
            "none",
            named,
            archive_flags.options(),
            download_to=folder,
            published=archive.published_index,
        )
    except errors.MissingFileError:
        if named is not None:
            raise
        return None, None
    url = _index_url(archive, named)
    return path, addresses.display(url) if addresses.local_path(url) is None else str(path)


def _verify(archive: archive_flags.Archive, options: Options, places: indexing.Places) -> int:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        path, against = _index_of(archive, options.index, folder)
        stored = None if path is None else stack.enter_context(index.Index(path))
        expected = scan.Expected(archive.md5, archive.experiment, archive.size)
        progress = stack.enter_context(transfer_bar.shown(archive.name))
        check = checking.check(archive.url, places.index, stored, expected, archive_flags.options(), progress)
    if options.as_json:
        print(json.dumps(dataclasses.asdict(check), indent=2))
    else:
        print(_as_text(check, against, options.max_problems))
    return cli.DAMAGED_STATUS if check.findings else 0


def _as_text(check: checking.Check, against: str | None, max_problems: int) -> str:
    facts = check.facts
    digest = f"MD5 {facts.md5}" if facts.md5 is not None else f"CRC32C {facts.crc32c:08x}"
    compared = "no index to compare with" if against is None else f"compared with {against}"
    num_faulty = sum(found.name is not None for found in check.findings)
    num_without = check.num_members - check.num_proved - num_faulty
    without = f", {num_without} without any" if num_without > 0 else ""
    lines = [
        f"{facts.name}: {files.size_text(facts.size)}, {digest}",
        f"  {facts.checked}",
        f"  {files.count_text(check.num_members, 'file')}, {check.num_proved} proved right by their checksums"
        f"{without}, {compared}",
        "  not restored: fetch runs with zoo_fetch and verify them with --zoo",
    ]
    for found in check.findings[:max_problems]:
        lines.append(f"  {found.reason}" if found.name is None else f"  {found.name}: {found.reason}")
    if len(check.findings) > max_problems:
        num = len(check.findings)
        lines.append(f"  and {num - max_problems} more: --max_problems={num} names them all")
    return "\n".join(lines)
