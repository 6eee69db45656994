"""Downloads the whole archive of a zoo, verified.

    python -m scripts.zoo_download --experiment=cifar100-inception --dest=runs

Several ranges at a time, digested on the way, written to runs/cifar100-inception.tar.gz. After a kill, or a server that
fails, the same command continues where it was. The file appears only when size, MD5 and CRC32C are those that are known
for it or stated by the server; without any of them it says what the digests are. A healthy download prints

    runs/cifar100-inception.tar.gz: 244 GB, MD5 verified
    next: python -m scripts.zoo_index --archive=runs/cifar100-inception.tar.gz --experiment=cifar100-inception

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
        return _say_there(archive, target)
    with source.open_source(archive.url, archive_flags.options()) as opened:
        if archive_flags.DRY_RUN.value:
            _say_plan(archive, target, opened)
            return 0
        with transfer_bar.shown(archive.name) as progress:
            result = download.download(opened, target, expected_md5=archive.md5, progress=progress)
    print(f"{result.path}: {files.size_text(result.size)}, {result.checked}")
    _say_next(archive, target)
    return 0


def _say_there(archive: archive_flags.Archive, target: pathlib.Path) -> int:
    """What can be said of a file without asking the server.

    Raises:
        MismatchError: it has another size than the archive that is known.
    """
    size = target.stat().st_size
    if archive.size not in (None, size):
        raise errors.MismatchError(
            f"{target}: has {size} bytes, the archive that is known has {archive.size}; delete it, and leave out "
            "--offline to download it"
        )
    print(f"{target}: {files.size_text(size)}, there already; its digest was not computed again")
    return 0


def _say_plan(archive: archive_flags.Archive, target: pathlib.Path, opened: source.Source) -> None:
    size = opened.state.size
    if target.exists() and target.stat().st_size == size:
        print(f"{target}: {files.size_text(size)}, there already, nothing would be written")
        return
    saved = download.saved_bytes(target)
    of = f", {files.size_text(size - saved)} of them are missing in the download that was begun" if saved else ""
    print(f"{archive.where}: {files.size_text(size)} ({size} bytes) would be written to {target}{of}")
    if target.exists():
        print(f"warning: {target}: is there with another size; delete it or choose another --dest")
    for line in [
        *archive_flags.ranges_report(opened),
        *files.room_report(target.parent, download.missing_room(target, size)),
    ]:
        print(line)


def _say_next(archive: archive_flags.Archive, target: pathlib.Path) -> None:
    """How to index the file; its MD5 is known by the name of the experiment."""
    named = [text for text in archive_flags.naming() if not text.startswith(("--archive=", "--gcs_token="))]
    if archive.published is not None:
        named = [f"--experiment={archive.folder}", *(text for text in named if not text.startswith("--experiment="))]
    cli.say_next("zoo_index", f"--archive={target}", *named)


def main() -> None:
    """Console command."""
    cli.launch(__name__, run, _SHARED_FLAGS)


if __name__ == "__main__":
    main()
