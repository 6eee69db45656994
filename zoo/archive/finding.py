"""Where the index of an archive is: in the zoo, beside the archive, or published with it."""

import pathlib

from zoo import errors, files, layout, registry
from zoo.archive import download, index, indexing
from zoo.remote import addresses, source

# An index of the largest published archive takes a twentieth of this.
_MAX_BYTES = 1 << 30


def index_path(
    url: str,
    zoo: files.PathLike,
    experiment: str,
    index_url: str | None = None,
    options: source.Options = source.Options(),  # noqa: B008
    *,
    offline: bool = False,
    download_to: files.PathLike | None = None,
    published: registry.PublishedFile | None = None,
) -> pathlib.Path:
    """A local index of an archive; one that is published is downloaded into the experiment's folder.

    Looked at in this order: the index that is named; the one that a pass has left in the experiment's folder; one that
    was downloaded there; the one beside an archive on this machine; the one that the archive's manifest names, else
    `<archive>.index.sqlite`, beside an archive on a server.

    Args:
        url: of the archive.
        zoo: folder of the zoo.
        experiment: name of the experiment.
        index_url: path or address of an index, None to look for one.
        options: how remote objects are read.
        offline: nothing is asked of a server.
        download_to: folder for an index that is downloaded; None for the experiment's.
        published: the index that the manifest of the archive names, with its digest; None where there is no manifest.

    Raises:
        MissingFileError: there is none.
        IntegrityError: the one that is published has another digest than the manifest says.
        NetworkError: the server fails.
    """
    if index_url is not None:
        local = addresses.local_path(index_url)
        if local is not None:
            return _checked(pathlib.Path(local))
    else:
        local = addresses.local_path(url)
        there = [layout.archive_index_path(zoo, experiment), layout.published_index_path(zoo, experiment)]
        there += [] if local is None else [indexing.places_beside(local).index]
        for path in there:
            if path.exists():
                return _checked(path)
        if local is not None:
            raise _missing(url, there[-1])
    target = layout.published_index_path(zoo, experiment)
    if download_to is not None:
        target = pathlib.Path(download_to) / target.name
    if offline:
        raise errors.MissingFileError(f"{target}: not there, and nothing is downloaded with --offline")
    if index_url is None and published is not None:
        return _downloaded(published.url, target, options, published.sha256)
    return _downloaded(index_url or addresses.with_suffix(url, layout.ARCHIVE_INDEX_SUFFIX), target, options)


def _downloaded(
    index_url: str, target: pathlib.Path, options: source.Options, sha256: str | None = None
) -> pathlib.Path:
    """Downloads an index; what is none, or has another digest than it must have, does not get its name."""
    temporary = target.with_name(f".{target.name}.new")
    try:
        with source.open_source(index_url, options) as remote:
            if remote.state.size > _MAX_BYTES:
                raise _missing(index_url, target)
            temporary.unlink(missing_ok=True)
            download.download(remote, temporary, expected_md5=None)
        _check_digest(index_url, temporary, sha256)
        _checked(temporary)
    except errors.MissingFileError as error:
        raise _missing(index_url, target) from error
    except errors.IntegrityError:
        temporary.unlink(missing_ok=True)
        raise
    except errors.DamagedFileError as error:
        temporary.unlink(missing_ok=True)
        raise errors.MissingFileError(
            f"{addresses.display(index_url)}: what the server has there is no index: {error}"
        ) from error
    temporary.replace(target)
    return target


def _check_digest(index_url: str, path: pathlib.Path, sha256: str | None) -> None:
    found = None if sha256 is None else files.sha256_of_file(path)
    if found != sha256:
        raise errors.IntegrityError(
            f"{addresses.display(index_url)}: its SHA-256 is {found}, {sha256} according to the manifest of the "
            "archive; it was not kept. Ask who published them, or give another index with --index"
        )


def _checked(path: pathlib.Path) -> pathlib.Path:
    """Refuses what is no index before anything is planned with it."""
    with index.Index(path):
        return path


def _missing(url: str, path: pathlib.Path) -> errors.MissingFileError:
    return errors.MissingFileError(
        f"{path}: no index of {addresses.display(url)} is there, nor is one published beside the archive; zoo_stream "
        "and zoo_index make it in one pass over the archive"
    )
