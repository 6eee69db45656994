"""Downloads the whole archive of a zoo, verified.

    python -m scripts.zoo_download --experiment=cifar100-inception --dest=runs

Several ranges at a time, digested on the way, written to runs/cifar100-inception.tar.gz. After a kill, or a server that
fails, the same command continues where it was. The file appears only when size, MD5 and CRC32C are those that are known
for it or stated by the server; without any of them it says what the digests are. A healthy download prints

    runs/cifar100-inception.tar.gz: 244 GB, MD5 verified

and ends with status 0. zoo_index then indexes the file, zoo_fetch --archive=FILE --runs=all unpacks it safely. Who only
wants the statistics, or some runs, needs no download: see zoo_stream and zoo_fetch.
"""

from collections.abc import Sequence
import pathlib

from scripts import archive_flags, choices, cli, transfer_bar
from zoo import errors, files
from zoo.archive import download
from zoo.remote import source

_SHARED_FLAGS = ("experiment", "dest", *archive_flags.READING)


def run(argv: Sequence[str]) -> int:
    """Flags -> download -> file."""
    del argv
    folder = pathlib.Path(choices.required_path("dest", archive_flags.DEST.value))
    archive = archive_flags.archive()
    target = folder / archive.name
    if archive_flags.OFFLINE.value:
        if not target.exists():
            raise errors.MissingFileError(f"{target}: not there, and nothing is downloaded with --offline")
        print(f"{target}: {files.size_text(target.stat().st_size)}, there already; its digest was not computed again")
        return 0
    with source.open_source(archive.url, archive_flags.options()) as opened:
        if archive_flags.DRY_RUN.value:
            size = opened.state.size
            print(f"{archive.where}: {files.size_text(size)} ({size} bytes) would be written to {target}")
            print(f"disk: {files.size_text(files.free_bytes(folder))} are free")
            return 0
        with transfer_bar.shown(archive.name) as progress:
            result = download.download(opened, target, expected_md5=archive.md5, progress=progress)
    print(f"{result.path}: {files.size_text(result.size)}, {result.checked}")
    return 0


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
