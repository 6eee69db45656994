"""Writes the planned tar file as one gzip member, on several cores, so that a kill loses seconds.

Each segment of the plan is deflated alone, without a window, and ends with a full flush: an empty stored block that
fills up the last byte. The pieces one after the other are one valid deflate stream, which every gzip reads, and which
can be entered at the first byte of each. zlib releases the interpreter, so threads suffice.

Beside the unfinished archive lies its journal. It says up to where the archive is on the disk, the state of the
digests there, and a digest of names, sizes and times of the files that went into it.
"""

import collections
from collections.abc import Callable, Generator, Iterator, Sequence
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import struct
import time
from typing import Any, BinaryIO
import zlib

from zoo import files
from zoo.archive import digests, pack_tar

JOURNAL_SCHEMA_VERSION = 1
# What a kill loses at most, in bytes of the archive and in seconds.
JOURNAL_BYTES = 32 << 20
_JOURNAL_INTERVAL_S = 5.0
# Deflate, no name and no time; written by no system in particular.
_GZIP_HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"
# A last block without content: the flushes before it end no stream.
_LAST_BLOCK = b"\x03\x00"

Progress = Callable[[int, int], None]
Note = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Written:
    """A finished archive: its size in bytes, MD5 (hexadecimal) and CRC32C."""

    size: int
    md5: str
    crc32c: int


class _State:
    """How far an archive is written."""

    def __init__(self, num_segments: int, position: int, crc32: int, archive: digests.StreamDigests) -> None:
        self.num_segments = num_segments
        self.position = position
        self.crc32 = crc32
        self.archive = archive

    def add(self, raw: bytes, deflated: bytes) -> None:
        """Counts one more segment."""
        self.num_segments += 1
        self.position += len(raw)
        self.crc32 = zlib.crc32(raw, self.crc32)
        self.archive.update(deflated)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` continues from."""
        numbers = {"num_segments": self.num_segments, "position": self.position, "crc32": self.crc32}
        return {**numbers, "digests": self.archive.state()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "_State":
        """Raises KeyError, TypeError or DamagedFileError over what `to_json` did not write."""
        archive = digests.StreamDigests.from_state(value["digests"])
        return cls(int(value["num_segments"]), int(value["position"]), int(value["crc32"]), archive)


def sources_digest(segments: Sequence[pack_tar.Segment], level: int) -> Iterator[str]:
    """Hexadecimal digests of all that the archive's bytes depend on: before the first segment, after each.

    Contents are not read; names, sizes and times of modification stand for them. The level and the version of zlib
    enter, because both decide how the same bytes are deflated.
    """
    settings = [JOURNAL_SCHEMA_VERSION, level, pack_tar.SEGMENT_BYTES, zlib.ZLIB_RUNTIME_VERSION]
    digest = hashlib.sha256(json.dumps(settings).encode())
    yield digest.hexdigest()
    for segment in segments:
        sources = [(source.name, source.size, source.mtime_ns) for source in segment.sources]
        digest.update(json.dumps([segment.start, segment.stop, sources]).encode())
        yield digest.hexdigest()


def write(
    segments: Sequence[pack_tar.Segment],
    unfinished: pathlib.Path,
    journal: pathlib.Path,
    *,
    level: int,
    num_workers: int,
    progress: Progress | None = None,
    note: Note | None = None,
) -> Written:
    """Writes the archive, or the rest of it where an earlier process has begun.

    Args:
        segments: the tar file.
        unfinished: file to write to; it and the journal stay until the caller has put them away.
        journal: file beside it.
        level: of zlib, 1 (fast) to 9 (small).
        num_workers: threads that deflate, 1 or more.
        progress: called after each segment with the bytes of the tar file done and to do.
        note: called with a sentence for the user where what is there cannot be continued.

    Returns:
        Size and digests of the whole archive. MD5 is computed in a second pass where its state could not be kept.

    Raises:
        MismatchError: a file of the zoo changed.
        OSError: the disk is full or fails.
    """
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    num_bytes = sum(segment.stop - segment.start for segment in segments)
    prefix_digests = list(sources_digest(segments, level))
    state = _resume(unfinished, journal, prefix_digests, note) or _begin(unfinished)
    try:
        rest = _deflated(segments[state.num_segments :], level, num_workers)
        with open(unfinished, "r+b") as stream, contextlib.closing(rest):
            stream.truncate(state.archive.num_bytes)
            stream.seek(state.archive.num_bytes)
            if progress is not None:
                progress(state.position, num_bytes)
            saved_at, saved_bytes = time.monotonic(), state.archive.num_bytes
            for raw, deflated in rest:
                stream.write(deflated)
                state.add(raw, deflated)
                if progress is not None:
                    progress(state.position, num_bytes)
                unsaved = state.archive.num_bytes - saved_bytes
                if unsaved >= JOURNAL_BYTES or time.monotonic() - saved_at >= _JOURNAL_INTERVAL_S:
                    _save(stream, journal, state, prefix_digests)
                    saved_at, saved_bytes = time.monotonic(), state.archive.num_bytes
            _save(stream, journal, state, prefix_digests)
            ending = _LAST_BLOCK + struct.pack("<II", state.crc32, state.position & 0xFFFFFFFF)
            stream.write(ending)
            state.archive.update(ending)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(unfinished)
        raise
    return Written(state.archive.num_bytes, state.archive.md5_hex() or _md5_of_file(unfinished), state.archive.crc32c)


def _begin(unfinished: pathlib.Path) -> _State:
    unfinished.write_bytes(_GZIP_HEADER)
    state = _State(0, 0, 0, digests.StreamDigests())
    state.archive.update(_GZIP_HEADER)
    return state


def _resume(
    unfinished: pathlib.Path, journal: pathlib.Path, prefix_digests: Sequence[str], note: Note | None
) -> _State | None:
    """The state on the disk, None where there is none or where it belongs to other files."""
    if not (unfinished.exists() and journal.exists()):
        return None
    try:
        value = files.read_json(journal)
        state = _State.from_json(value["state"])
        if unfinished.stat().st_size < state.archive.num_bytes:
            reason = f"it has only {unfinished.stat().st_size} of {state.archive.num_bytes} bytes"
        elif state.num_segments < len(prefix_digests) and value["sources"] == prefix_digests[state.num_segments]:
            return state
        else:
            reason = "files of the zoo, the level or the version of zlib have changed since"
    except (KeyError, TypeError, ValueError) as error:
        reason = f"its journal cannot be used ({error!r})"
    if note is not None:
        note(f"{unfinished}: begun anew: {reason}")
    return None


def _save(stream: BinaryIO, journal: pathlib.Path, state: _State, prefix_digests: Sequence[str]) -> None:
    """Writes the journal once the bytes that it speaks of are on the disk."""
    stream.flush()
    os.fsync(stream.fileno())
    value = {"state": state.to_json(), "sources": prefix_digests[state.num_segments]}
    files.write_json(journal, {"schema_version": JOURNAL_SCHEMA_VERSION, **value})


def _deflated(
    segments: Sequence[pack_tar.Segment], level: int, num_workers: int
) -> Generator[tuple[bytes, bytes], None, None]:
    """(bytes of the tar file, the same deflated) of each segment in order; memory: a few segments for each worker."""
    pending: collections.deque[concurrent.futures.Future[tuple[bytes, bytes]]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(num_workers) as pool:
        try:
            for segment in segments:
                pending.append(pool.submit(_deflate, segment, level))
                if len(pending) > 2 * num_workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _deflate(segment: pack_tar.Segment, level: int) -> tuple[bytes, bytes]:
    raw = pack_tar.read_segment(segment)
    compressor = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return raw, compressor.compress(raw) + compressor.flush(zlib.Z_FULL_FLUSH)


def _md5_of_file(path: pathlib.Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
