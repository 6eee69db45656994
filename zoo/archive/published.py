"""The run table and the seek index that are published with an archive, instead of a pass over it.

The manifest (`zoo.registry`) names both with their SHA-256. Each is downloaded beside its place, held against its
digest, read, and compared with what is known of the archive; only then does it get its name, the index last. A recipe
has no digest of its own: it is fetched out of the archive by the index, as single runs are.
"""

from collections.abc import Callable
import pathlib

from zoo import errors, files, registry, run_table
from zoo.archive import download, extract, extract_plan, index, indexing, lock
from zoo.remote import addresses, source

Progress = Callable[[int, int], None]


def parts(entry: registry.Published) -> tuple[registry.PublishedFile, registry.PublishedFile]:
    """Run table and index of an archive.

    Raises:
        UsageError: one of them is not published.
    """
    names = {"run table": entry.run_table, "seek index": entry.index}
    missing = " and no ".join(name for name, file in names.items() if file is None)
    if entry.run_table is None or entry.index is None:
        raise errors.UsageError(
            f"--published: no {missing} of {entry.name} is known; leave the flag out, or give the manifest that "
            "zoo_pack wrote with --registry"
        )
    return entry.run_table, entry.index


def take(
    entry: registry.Published,
    places: indexing.Places,
    options: source.Options = source.Options(),  # noqa: B008
    progress: Progress | None = None,
) -> index.Facts:
    """Downloads run table and index of an archive to their places, and its recipe if it has one.

    Args:
        entry: what is known of the archive.
        places: where they go, in a zoo.
        options: how they are read.
        progress: called with the number of bytes done and the number of all.

    Returns:
        What the index says of the archive.

    Raises:
        UsageError: they are not published.
        IntegrityError: one has another digest or size than the manifest says, or belongs to another archive.
        MismatchError: another run table is there already.
        DamagedFileError: one is no run table or no index.
        BusyError, DiskSpaceError, NetworkError, MissingFileError, OSError: as `download.download`.
    """
    table_file, index_file = parts(entry)
    assert places.run_table is not None
    total = table_file.size + index_file.size
    with lock.held(places.lock):
        files.remove_stale_temporaries(places.index.parent)
        _refuse_to_replace(places.run_table, table_file)
        files.check_room(places.index.parent, total, "the run table and the index")
        done = 0
        arrived = []
        for file, place in ((table_file, places.run_table), (index_file, places.index)):
            arrived.append(_downloaded(file, place, options, _shifted(progress, done, total)))
            done += file.size
        facts = _checked(entry, *arrived)
        arrived[0].replace(places.run_table)
        _take_recipe(entry, arrived[1], places, options)
        arrived[1].replace(places.index)
        indexing.remove_leftovers(places)
    return facts


def lacks_recipe(places: indexing.Places) -> bool:
    """Whether the archive has a recipe that is not here, which a server that gives no parts of it keeps to itself."""
    folder = places.index.parent
    with index.Index(places.index) as stored:
        return bool(extract_plan.plan(stored, folder.parent, folder.name, []).groups)


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def _refuse_to_replace(place: pathlib.Path, file: registry.PublishedFile) -> None:
    if place.exists() and files.sha256_of_file(place) != file.sha256:
        raise errors.MismatchError(
            f"{place}: is there already, and not the one that is published. Move it away and give the same command "
            "again, or leave out --published, which keeps its labels if the archive says the same of its runs"
        )


def _downloaded(
    file: registry.PublishedFile, place: pathlib.Path, options: source.Options, progress: Progress | None
) -> pathlib.Path:
    """The file under a hidden name, once its digest is right."""
    target = place.with_name(f".{place.name}.published")
    with source.open_source(file.url, options) as opened:
        if opened.state.size != file.size:
            raise errors.IntegrityError(
                f"{addresses.display(file.url)}: has {opened.state.size} bytes, {file.size} according to the manifest; "
                "leave out --published to read the archive itself"
            )
        target.unlink(missing_ok=True)
        download.download(opened, target, progress=progress)
    # The one of the pass is held all the while.
    target.with_name(f".{target.name}.lock").unlink(missing_ok=True)
    found = files.sha256_of_file(target)
    if found != file.sha256:
        target.unlink()
        raise errors.IntegrityError(
            f"{addresses.display(file.url)}: its SHA-256 is {found}, {file.sha256} according to the manifest; what "
            "arrived has been deleted; leave out --published to read the archive itself"
        )
    return target


def _checked(entry: registry.Published, table_path: pathlib.Path, index_path: pathlib.Path) -> index.Facts:
    """What the index says, once it is that of the archive, and the run table that of its runs."""
    with index.Index(index_path) as stored:
        facts = stored.facts
    table = run_table.read(table_path)
    for what, found, known in (
        ("experiment of the run table", table.experiment, entry.name),
        ("MD5 of the archive", facts.md5, entry.md5),
        ("size of the archive", facts.size, entry.size),
        ("number of runs in the run table", table.num_runs, facts.num_runs),
    ):
        if known is not None and found != known:
            raise errors.IntegrityError(
                f"{entry.name}: the {what} is {found} in what is published, expected {known}: it does not belong "
                "together. Leave out --published to read the archive itself"
            )
    return facts


def _take_recipe(
    entry: registry.Published, index_path: pathlib.Path, places: indexing.Places, options: source.Options
) -> None:
    """Fetches the recipe, where the archive can be read in parts."""
    folder = places.index.parent
    with index.Index(index_path) as stored:
        todo = extract_plan.plan(stored, folder.parent, folder.name, [])
        if not todo.groups:
            return
        with source.open_source(entry.url, options) as archive:
            extract_plan.check_same(stored, archive.state)
            if archive.accepts_ranges:
                extract.fetch(archive, todo)
