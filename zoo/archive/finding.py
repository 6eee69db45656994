"""Where the index of an archive is: in the zoo, beside the archive, or published with it."""

import pathlib

from zoo import errors, files, layout
from zoo.archive import download, index, indexing
from zoo.remote import addresses, source


def index_path(
    url: str,
    zoo: files.PathLike,
    experiment: str,
    index_url: str | None = None,
    options: source.Options = source.Options(),  # noqa: B008
    *,
    offline: bool = False,
) -> pathlib.Path:
    """A local index of an archive; one that is published is downloaded into the experiment's folder.

    Looked at in this order: the index that is named; the one in the experiment's folder; the one beside an archive on
    this machine; `<archive>.index.sqlite` beside an archive on a server.

    Args:
        url: of the archive.
        zoo: folder of the zoo.
        experiment: name of the experiment.
        index_url: path or address of an index, None to look for one.
        options: how remote objects are read.
        offline: nothing is asked of a server.

    Raises:
        MissingFileError: there is none.
        NetworkError: the server fails.
    """
    target = layout.archive_index_path(zoo, experiment)
    if index_url is not None:
        local = addresses.local_path(index_url)
        if local is not None:
            return _checked(pathlib.Path(local))
        return _downloaded(index_url, target, options, offline=offline)
    if target.exists():
        return _checked(target)
    archive = addresses.local_path(url)
    if archive is not None:
        beside = indexing.places_beside(archive).index
        if beside.exists():
            return _checked(beside)
        raise _missing(url, beside)
    return _downloaded(f"{url}{layout.ARCHIVE_INDEX_SUFFIX}", target, options, offline=offline)


def _downloaded(index_url: str, target: pathlib.Path, options: source.Options, *, offline: bool) -> pathlib.Path:
    if offline:
        raise errors.MissingFileError(f"{target}: not there, and nothing is downloaded with --offline")
    try:
        with source.open_source(index_url, options) as remote:
            download.download(remote, target, expected_md5=None)
    except errors.MissingFileError as error:
        raise _missing(index_url, target) from error
    return _checked(target)


def _checked(path: pathlib.Path) -> pathlib.Path:
    """Refuses what is no index before anything is planned with it."""
    with index.Index(path):
        return path


def _missing(url: str, path: pathlib.Path) -> errors.MissingFileError:
    return errors.MissingFileError(
        f"{path}: no index of {url} is there, nor is one published beside the archive; zoo_stream and zoo_index make "
        "it in one pass over the archive"
    )
