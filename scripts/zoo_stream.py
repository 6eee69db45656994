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

Damaged members are named; the runs that are sound are kept all the same, and the status is 3. An archive
without a single record has no run table to give: status 1.
"""

from collections.abc import Sequence

from scripts import archive_flags, archive_pass, choices, cli
from zoo.archive import indexing, scan

_SHARED_FLAGS = ("experiment", "dest", *archive_flags.READING)


def run(argv: Sequence[str]) -> int:
    """Flags -> one pass -> run table and index. Status 3 if the archive is damaged."""
    del argv
    zoo = choices.required_path("dest", archive_flags.DEST.value)
    archive = archive_flags.archive()
    places = indexing.places_in_zoo(zoo, archive.folder)
    expected = scan.Expected(archive.md5, archive.folder, archive.size)
    facts = archive_pass.run(archive, places, expected)
    if facts is None:
        return 0
    status = archive_pass.say(facts, places.index, places.run_table)
    if not facts.num_runs:
        print("no run: the archive holds no sound <subset_ratio>/<run_id>/aux_arrays.npz, so there is no run table")
        return status or 1
    print(f"{facts.num_runs} {'run' if facts.num_runs == 1 else 'runs'}: {places.run_table}")
    return status


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
