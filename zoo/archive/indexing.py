"""Makes the index of an archive, and with it, if wanted, the run table: one pass, see `zoo.archive.scan`.

    <zoo>/<experiment>/archive.index.sqlite, run_table.npz, recipe.json    at `places_in_zoo`
    <archive>.index.sqlite                                                 at `places_beside`, or wherever it is wanted

While the pass goes on there is a journal beside the index, `.<index>.part`, which the same call continues.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import pathlib

from zoo import errors, files, layout
from zoo.archive import extract_plan, index, journal, lock, run_rows, scan, spot_check
from zoo.remote import addresses, source

# Share of the archive that index, journal and run table may take together; CIFAR's take a third of it, ImageNet's
# nearly all.
_DISK_SHARE = 0.005
_DISK_LEAST = 1 << 24


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the results of a pass go.

    Attributes:
        index: the index.
        run_table: the run table, None if none is wanted.
        recipe: the recipe, if the archive has one; None if it is not wanted.
    """

    index: pathlib.Path
    run_table: pathlib.Path | None = None
    recipe: pathlib.Path | None = None

    @property
    def journal(self) -> pathlib.Path:
        """What an unfinished pass has found."""
        return self.index.with_name(f".{self.index.name}.part")

    @property
    def lock(self) -> pathlib.Path:
        """Held during the pass."""
        return self.index.with_name(f".{self.index.name}.lock")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a pass has given.

    Attributes:
        facts: what there is to say of the archive as a whole.
        is_new: False where everything was there already.
    """

    facts: index.Facts
    is_new: bool


def places_in_zoo(zoo: files.PathLike, experiment: str) -> Places:
    """Where index, run table and recipe of an experiment lie in a zoo."""
    return Places(
        layout.archive_index_path(zoo, experiment),
        layout.run_table_path(zoo, experiment),
        layout.recipe_path(zoo, experiment),
    )


def places_beside(archive: files.PathLike) -> Places:
    """Where the index of an archive on this machine lies."""
    archive = pathlib.Path(archive)
    return Places(archive.with_name(archive.name + layout.ARCHIVE_INDEX_SUFFIX))


def disk_needed(size: int) -> int:
    """Upper estimate of the bytes that a pass over an archive of `size` bytes writes."""
    return int(size * _DISK_SHARE) + _DISK_LEAST


def existing(places: Places, expected: scan.Expected = scan.Expected()) -> index.Facts | None:  # noqa: B008
    """What an earlier pass found, if all that is wanted is there; None otherwise.

    Raises:
        IntegrityError: it was a pass over another archive than the one expected.
    """
    if not places.index.exists():
        return None
    with index.Index(places.index) as stored:
        facts = stored.facts
    # One that is damaged says itself what is wrong.
    if facts.state == "sound":
        check_expected(facts, places.index, expected.md5)
    has_table = places.run_table is None or run_rows.num_rows(places.run_table) >= facts.num_runs
    return facts if has_table else None


def check_expected(facts: index.Facts, path: pathlib.Path, md5: str | None) -> None:
    """Refuses the index of another archive than the one that is known.

    Args:
        facts: of the index.
        path: of the index.
        md5: hexadecimal digest of the archive that is meant; None where it is not known.

    Raises:
        IntegrityError: the digests differ, and not because the archive that was indexed is a damaged copy: nothing
            else is wrong with it.
    """
    is_whole = all(fault.startswith(("MD5 ", "CRC32C ")) for fault in facts.faults)
    if facts.md5 is not None and md5 is not None and is_whole and facts.md5 != md5:
        raise errors.IntegrityError(
            f"{path}: index of an archive with MD5 {facts.md5}, the one that is known has {md5}; delete the index to "
            "make it anew, or name the archive with --archive alone"
        )


def remove_leftovers(places: Places) -> None:
    """Deletes what a kill left beside an index that is there."""
    places.journal.unlink(missing_ok=True)
    files.remove_stale_temporaries(places.index.parent)


def make(
    url: str,
    places: Places,
    expected: scan.Expected = scan.Expected(),  # noqa: B008
    options: source.Options = source.Options(),  # noqa: B008
    progress: scan.Progress | None = None,
    save_bytes: int = scan.SAVE_BYTES,
) -> Result:
    """Makes the pass, or what is missing of it; does nothing if everything is there.

    Args:
        url: of the archive.
        places: where the results go.
        expected: what is known of the archive.
        options: how it is read.
        progress: called with the number of compressed bytes done and the number of all.
        save_bytes: compressed bytes between two transactions.

    Returns:
        What was found. An archive that is damaged is no error here: its facts say so, and what is sound in it is in
        the results.

    Raises:
        BusyError: another process makes the same pass.
        DiskSpaceError: there is too little room.
        MismatchError: index or run table are those of another archive, or the archive changed.
        As `source.open_source` and `scan.Scan.run`.
    """
    # Opened first, so that nothing is created for an archive that is not there.
    with source.open_source(url, options) as archive, lock.held(places.lock):
        facts = existing(places, expected)
        if facts is not None:
            check_same(facts, archive, places)
            remove_leftovers(places)
            return Result(facts, is_new=False)
        files.remove_stale_temporaries(places.index.parent)
        needed = disk_needed(archive.state.size)
        files.check_room(places.index.parent, needed, "the index of an archive, with its journal and run table,")
        with _forgotten_if_unreadable(places), journal.Journal(places.journal) as log:
            result = _finish(scan.Scan(archive, log, expected, progress, save_bytes), log, places)
        places.journal.unlink(missing_ok=True)
    return result


@contextlib.contextmanager
def _forgotten_if_unreadable(places: Places) -> Iterator[None]:
    """There is nothing to continue in an archive of which nothing can be read."""
    try:
        yield
    except scan.UnreadableArchiveError:
        places.journal.unlink(missing_ok=True)
        raise


def _finish(passing: scan.Scan, log: journal.Journal, places: Places) -> Result:
    facts = passing.run()
    if places.run_table is not None and facts.num_runs:
        run_rows.write_table(log, places.run_table, facts.experiment)
    # A recipe has no checksum of its own.
    recipe = passing.recipe if facts.state == "sound" else None
    if places.recipe is not None and recipe is not None and not places.recipe.exists():
        files.write_text(places.recipe, recipe)
    # Last, because with it the pass counts as done.
    log.write_index(places.index, facts)
    return Result(facts, is_new=True)


def check_same(facts: index.Facts, archive: source.Source, places: Places) -> int:
    """Refuses an index that is there and belongs to another archive, as far as that can be told without reading it all.

    Looked at are the size, the digests that a server states, and a few members of an archive on this machine.

    Returns:
        How many members were read.

    Raises:
        MismatchError: it does.
        DamagedFileError: the index contradicts itself.
    """
    found = extract_plan.differences(facts, archive.state)
    if found:
        raise errors.MismatchError(
            f"{places.index}: index of an archive of {facts.size} bytes, but of {addresses.display(archive.state.url)} "
            f"is true: {'; '.join(found)}. Get the archive again if it is not whole; or, if it is what it should be, "
            "delete the index to make it anew"
        )
    if addresses.local_path(archive.state.url) is None:
        return 0
    with index.Index(places.index) as stored:
        return spot_check.check(stored, archive)
