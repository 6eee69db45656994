"""The bytes of a tar file made of files of a zoo, in segments that can be read in any order.

Everything that differs between machines is left out (owner, group, permissions, times), so that equal files give equal
bytes. Headers are of the ustar format, with a pax header in front only where a name or a size does not fit into it.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import os
import pathlib
import tarfile

from zoo import errors

# Deflated on its own, so that a reader can begin at each. Larger ones would gain less than a hundredth in size.
SEGMENT_BYTES = 4 << 20
_BLOCK_BYTES = 512
# What GNU tar fills its archives up to, behind two empty blocks.
_RECORD_BYTES = 20 * _BLOCK_BYTES


@dataclasses.dataclass(frozen=True)
class Source:
    """One file to pack.

    Attributes:
        path: where it lies.
        name: its name in the archive.
        size: its bytes, and
        mtime_ns: its time of modification in nanoseconds, when the plan was made.
    """

    path: pathlib.Path
    name: str
    size: int
    mtime_ns: int


@dataclasses.dataclass(frozen=True)
class Segment:
    """Bytes `start` up to `stop` of the tar file that `sources` alone would give; zeros where there are none."""

    sources: tuple[Source, ...]
    start: int
    stop: int


def source(zoo: pathlib.Path, path: pathlib.Path) -> Source:
    """A file of a zoo as it is now; its name begins with the experiment.

    Raises:
        FileNotFoundError: it is not there.
    """
    status = path.stat()
    return Source(path, path.relative_to(zoo).as_posix(), status.st_size, status.st_mtime_ns)


def segments(groups: Iterable[tuple[Source, ...]]) -> Iterator[Segment]:
    """Every group begins a segment, so that it can be read without the one before."""
    position = 0
    for sources in groups:
        size = sum(len(_header(source)) + source.size + len(_padding(source)) for source in sources)
        for start in range(0, size, SEGMENT_BYTES):
            yield Segment(sources, start, min(start + SEGMENT_BYTES, size))
        position += size
    end = 2 * _BLOCK_BYTES
    yield Segment((), 0, end + -(position + end) % _RECORD_BYTES)


def read_segment(segment: Segment) -> bytes:
    """The bytes of the tar file that a segment stands for, read from its sources.

    Raises:
        MismatchError: a source is not, or no longer, what it was when the plan was made.
        OSError: a source cannot be read.
    """
    if not segment.sources:
        return bytes(segment.stop - segment.start)
    pieces, position = [], 0
    for source in segment.sources:
        for piece in (_header(source), source, _padding(source)):
            size = piece.size if isinstance(piece, Source) else len(piece)
            first, last = max(segment.start - position, 0), min(segment.stop - position, size)
            if first < last:
                pieces.append(_content(piece, first, last) if isinstance(piece, Source) else piece[first:last])
            position += size
    return b"".join(pieces)


def _header(source: Source) -> bytes:
    info = tarfile.TarInfo(source.name)
    info.size = source.size
    try:
        return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError:  # a name or a number too long
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _padding(source: Source) -> bytes:
    return bytes(-source.size % _BLOCK_BYTES)


def _content(source: Source, start: int, stop: int) -> bytes:
    try:
        with open(source.path, "rb") as stream:
            stream.seek(start)
            content = stream.read(stop - start)
            # Behind the reading, so that it tells of all that happened before and meanwhile.
            status = os.fstat(stream.fileno())
    except FileNotFoundError as error:
        raise _changed(source, "vanished") from error
    except OSError as error:
        # A read that fails names no file.
        error.filename = error.filename or str(source.path)
        raise
    if (status.st_size, status.st_mtime_ns) != (source.size, source.mtime_ns) or len(content) < stop - start:
        raise _changed(source, f"{status.st_size} bytes and written to, {source.size} bytes when the zoo was looked at")
    return content


def _changed(source: Source, what: str) -> errors.MismatchError:
    return errors.MismatchError(
        f"{source.path}: changed while it was packed ({what}); let what changes the zoo finish, then run the command "
        "again"
    )
