"""Reads an archive of a zoo once, over the network, and keeps its statistics instead of its bytes.

    python -m scripts.zoo_stream --experiment=cifar100-inception --dest=runs

One pass: MD5, CRC32C and inflation on the fly. Kept are what every run got right, packed in run_table.npz (some hundred
megabytes, from which compute_scores computes everything), the seek index archive.index.sqlite (some ten), by which
zoo_fetch gets single runs, and a recipe.json if there is one. Nothing else is written: a tarball of 367 GB passes
through less than 1 GB of memory. A kill, or a server that fails, loses the last seconds; the same command continues,
and the MD5 at the end is still that of the whole file. A healthy archive prints, and ends with status 0,

    cifar100-inception.tar.gz: 244 GB, MD5 f87218368528afa6e2407c8410f1ffa1
    verified: MD5 known for this archive, CRC32C stated by the server, CRC32 of gzip
    index: runs/cifar100-inception/archive.index.sqlite (23 MB)
    4000 runs: runs/cifar100-inception/run_table.npz
    next: python -m scripts.compute_scores --zoo=runs --experiment=cifar100-inception

Damaged members are named; the runs that are sound are kept all the same, and the status is 3. An archive
without a single record has no run table to give: status 1.

Where the manifest of an archive names its run table and index, as those that zoo_pack writes do, --published takes
these two, verified by the manifest's SHA-256, and the archive is not read: megabytes, and as trustworthy as who
published them.
"""

from collections.abc import Sequence

from absl import flags

from scripts import archive_flags, archive_pass, choices, cli, transfer_bar
from zoo import errors, files, registry
from zoo.archive import indexing, published, scan
from zoo.remote import addresses

_SHARED_FLAGS = ("experiment", "dest", *archive_flags.READING)

_PUBLISHED = flags.DEFINE_bool(
    "published",
    False,
    "Take the published run table and index, verified by the manifest's SHA-256, instead of reading the archive.",
)


def run(argv: Sequence[str]) -> int:
    """Flags -> one pass -> run table and index. Status 3 if the archive is damaged."""
    del argv
    zoo = choices.required_path("dest", archive_flags.DEST.value)
    archive = archive_flags.archive()
    places = indexing.places_in_zoo(zoo, archive.folder)
    expected = scan.Expected(archive.md5, archive.folder, archive.size)
    result = (_take_published if _PUBLISHED.value else _pass)(archive, places, expected)
    if result is None:
        return 0
    status, facts = archive_pass.say(result, places.index, places.run_table), result.facts
    if not facts.num_runs:
        print("no run: the archive holds no sound <subset_ratio>/<run_id>/aux_arrays.npz, so there is no run table")
        return status or 1
    print(f"{files.count_text(facts.num_runs, 'run')}: {places.run_table}")
    if status == 0:
        cli.say_next("compute_scores", f"--zoo={zoo}", f"--experiment={archive.folder}")
    return status


def _pass(archive: archive_flags.Archive, places: indexing.Places, expected: scan.Expected) -> indexing.Result | None:
    """What a pass over the archive finds; None after a plan."""
    result = archive_pass.run(archive, places, expected)
    known = archive.published
    if result is None and known is not None and known.run_table is not None and known.index is not None:
        size = files.size_text(known.run_table.size + known.index.size)
        print(f"published are a run table and an index of it, {size}: --published takes these instead")
    return result


def _take_published(
    archive: archive_flags.Archive, places: indexing.Places, expected: scan.Expected
) -> indexing.Result | None:
    """What the published index says, once it and the run table are here; None after a plan.

    Raises:
        UsageError: the archive is not one of a registry.
    """
    if archive_flags.ARCHIVE.value or archive.published is None:
        raise errors.UsageError(
            "--published takes what a manifest names: give --registry, and --experiment if it names several, instead "
            "of --archive, and a manifest that is here if --offline is given"
        )
    table_file, index_file = published.parts(archive.published)
    facts = indexing.existing(places, expected)
    if archive_flags.DRY_RUN.value:
        _say_plan(places, [] if facts is not None else [table_file, index_file])
        return None
    if facts is not None:
        print(f"complete already, nothing to do: {places.index}")
        return indexing.Result(facts, is_new=False)
    archive_flags.refuse_offline(archive)
    with transfer_bar.shown("published") as progress:
        facts = published.take(archive.published, places, archive_flags.options(), progress)
    if published.lacks_recipe(places):
        print(
            f"without {places.recipe}: the server gives no parts of the archive, which has one; programs that rebuild "
            "models need --arch and --dataset without it"
        )
    return indexing.Result(facts, is_new=False)


def _say_plan(places: indexing.Places, wanted: Sequence[registry.PublishedFile]) -> None:
    if not wanted:
        print(f"{places.index}: complete already, nothing would be read")
        return
    for file in wanted:
        print(f"{addresses.display(file.url)}: {files.size_text(file.size)} ({file.size} bytes) would be read")
    print(f"kept: {places.run_table}, {places.index}")

    for line in files.room_report(places.index.parent, sum(file.size for file in wanted)):
        print(line)


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
