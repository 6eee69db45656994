"""Makes the seek index of an archive of a zoo, by which single runs can be fetched from it.

    python -m scripts.zoo_index --archive=runs/cifar100-inception.tar.gz

The archive lies here, or on a server (https://..., gs://...); it is read once, verified, and not changed. The index
takes less than a two thousandth of it and goes beside the archive, or to --output. The same command again continues
after a kill, and does nothing once the index is there. A healthy archive prints, and ends with status 0,

    cifar100-inception.tar.gz: 244 GB, MD5 f87218368528afa6e2407c8410f1ffa1
    verified: MD5 known for this archive, CRC32 of gzip
    index: runs/cifar100-inception.tar.gz.index.sqlite (23 MB)
    next: python -m scripts.zoo_fetch --archive=runs/cifar100-inception.tar.gz --runs=0.1/0 --dest=runs

Published beside the archive under that name, zoo_fetch finds it by itself. An index that is there already, such as one
that came with the archive, is held against a few of the archive's files and never replaced: where it is that of another
archive, the status is 1. Whether all of the archive is as it says, zoo_verify tells.
"""

from collections.abc import Sequence
import os
import pathlib

from absl import flags

from scripts import archive_flags, archive_pass, choices, cli, common_flags
from zoo import errors, layout
from zoo.archive import index, indexing, scan
from zoo.remote import addresses

_SHARED_FLAGS = ("experiment", *archive_flags.READING)

_OUTPUT = flags.DEFINE_string(
    "output", None, "Where the index goes. Without it beside an archive on this machine, else to the present folder."
)


def run(argv: Sequence[str]) -> int:
    """Flags -> one pass -> index. Status 3 if the archive is damaged."""
    del argv
    archive = archive_flags.archive()
    places = indexing.Places(_target(archive))
    expected = scan.Expected(archive.md5, archive.experiment, archive.size)
    result = archive_pass.run(archive, places, expected)
    if result is None:
        return 0
    status = archive_pass.say(result, places.index)
    if status == 0:
        _say_next(archive, places.index)
    return status


def _say_next(archive: archive_flags.Archive, index_path: pathlib.Path) -> None:
    """How to fetch the first run by the index."""
    with index.Index(index_path) as stored:
        runs = stored.runs()
    if runs:
        # Beside an archive on this machine it is found.
        local = addresses.local_path(archive.url)
        is_found = local is not None and index_path == indexing.places_beside(local).index
        named = [] if is_found else [f"--index={index_path}"]
        first = f"--runs={layout.ratio_name(runs[0][0])}/{runs[0][1]}"
        dest = common_flags.DEFAULT_ZOO or "runs"
        cli.say_next("zoo_fetch", *archive_flags.naming(), *named, first, f"--dest={dest}")


def _target(archive: archive_flags.Archive) -> pathlib.Path:
    output, local = choices.path(_OUTPUT.value), addresses.local_path(archive.url)
    if output is not None:
        if pathlib.Path(output).is_dir():
            raise errors.InvalidValueError(f"--output={output}: is a folder, expected the name of a file to be made")
        if local is not None and pathlib.Path(output).exists() and os.path.samefile(output, local):
            raise errors.InvalidValueError(f"--output={output}: is the archive itself; name a file to be made")
        return pathlib.Path(output)
    if local is not None:
        return indexing.places_beside(local).index
    return pathlib.Path(f"{archive.name}{layout.ARCHIVE_INDEX_SUFFIX}")


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
