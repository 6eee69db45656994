"""Fetches single runs out of an archive by its index: a request for little more than their own bytes.

The members wanted are read in ranges of the compressed file, neighbours in one. Each is held against the CRC32 in the
index while it is inflated, appears whole or not at all, and aux_arrays.npz, whose presence makes a run complete, comes
last. What was extracted is then held against its own checksums too: an index may come from elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import pathlib
import threading
import zlib

from zoo import checkpoint_bundle, errors, files, layout, run_scan
from zoo.archive import contents, extract_plan, seek_points
from zoo.remote import ordered, source

Progress = Callable[[int, int], None]
# More than zlib takes in before it finds out that they are damaged.
_SINGLE_BYTES = 64


@dataclasses.dataclass(frozen=True)
class Result:
    """What was fetched.

    Attributes:
        arrived: files that were written and are there.
        num_compressed: bytes read.
        problems: runs that could not be had.
        withheld: of these runs the files that arrived and do not count without the others.
    """

    arrived: tuple[extract_plan.Wanted, ...]
    num_compressed: int
    problems: tuple[extract_plan.Problem, ...]
    withheld: tuple[extract_plan.Wanted, ...] = ()

    @property
    def num_files(self) -> int:
        """Files that were written and are there."""
        return len(self.arrived)

    @property
    def num_bytes(self) -> int:
        """Their bytes."""
        return sum(item.member.size for item in self.arrived)


def fetch(
    archive: source.Source,
    todo: extract_plan.Plan,
    *,
    num_parallel: int = 4,
    chunk_bytes: int = 8 << 20,
    progress: Progress | None = None,
) -> Result:
    """Carries out a plan. A kill leaves whole files only; the next plan goes on.

    Args:
        archive: the object, which `check_same` has accepted.
        todo: the plan.
        num_parallel: ranges read at the same time.
        chunk_bytes: size of the largest of them.
        progress: called with the number of compressed bytes read and the number of all.

    Returns:
        What was fetched. Damage in the archive is a problem of the runs concerned; the others are fetched.

    Raises:
        NetworkError: the server fails; the same plan made anew continues.
        OSError: the disk is full or may not be written to.
    """
    problems = list(todo.problems)
    unfinished = _Unfinished(todo)
    ranges = _Ranges(archive, todo.ranges, num_parallel, chunk_bytes)
    with contextlib.closing(ranges), contextlib.closing(unfinished):
        for group in todo.groups:
            pieces = ranges.next_range()
            for item, error in _extract_group(archive, group, pieces, unfinished, chunk_bytes):
                if error is not None:
                    problems.append(extract_plan.Problem(item.member.run, error))
                # A group may be the whole archive: what is complete counts at once.
                problems += unfinished.finish_runs()
                if progress is not None:
                    progress(ranges.num_read, todo.num_compressed)
            ranges.skip_rest(pieces)
        return Result(tuple(unfinished.arrived), ranges.num_read, tuple(problems), tuple(unfinished.withheld))


class _Ranges:
    """Reads ranges in order, several at a time, and hands each over in pieces.

    Attributes:
        num_read: bytes that were handed over.
    """

    def __init__(
        self, archive: source.Source, ranges: Sequence[tuple[int, int]], num_parallel: int, chunk_bytes: int
    ) -> None:
        self._chunks = [_cut(start, stop, chunk_bytes) for start, stop in ranges]
        flat = [chunk for chunks in self._chunks for chunk in chunks]
        self._stream = ordered.chunks(
            lambda number: archive.read(flat[number][0], flat[number][1] - flat[number][0]),
            len(flat),
            num_parallel,
            threading.Event(),
        )
        self._next = 0
        self.num_read = 0

    def close(self) -> None:
        self._stream.close()

    def next_range(self) -> Iterator[bytes]:
        """The pieces of the next range."""
        self._next += 1
        return self._pieces(len(self._chunks[self._next - 1]))

    def _pieces(self, count: int) -> Iterator[bytes]:
        for _ in range(count):
            piece = next(self._stream)
            self.num_read += len(piece)
            yield piece

    def skip_rest(self, pieces: Iterator[bytes]) -> None:
        """Passes over what is left of a range."""
        for _ in pieces:
            pass


def _cut(start: int, stop: int, chunk_bytes: int) -> list[tuple[int, int]]:
    """A range in pieces."""
    return [(first, min(first + chunk_bytes, stop)) for first in range(start, stop, chunk_bytes)]


def _is_record(item: extract_plan.Wanted) -> bool:
    return item.member.parsed is not None and item.member.parsed.part == "aux_arrays"


class _Unfinished:
    """Holds back each run's aux_arrays.npz until its other files are there, and then looks into all of them.

    Attributes:
        arrived: files that are there.
        withheld: files that were right in themselves and are not there, because others of their run are not.
    """

    def __init__(self, todo: extract_plan.Plan) -> None:
        self._open: dict[extract_plan.Run | None, int] = {}
        self._held: dict[extract_plan.Run | None, list[tuple[pathlib.Path, pathlib.Path]]] = {}
        self._written: dict[extract_plan.Run | None, list[extract_plan.Wanted]] = {}
        self._failed: set[extract_plan.Run | None] = set()
        self._complete: list[extract_plan.Run | None] = []
        self._records: dict[extract_plan.Run | None, pathlib.Path] = {}
        self.arrived: list[extract_plan.Wanted] = []
        self.withheld: list[extract_plan.Wanted] = []
        for group in todo.groups:
            for item in group:
                self._open[item.member.run] = self._open.get(item.member.run, 0) + 1
                if _is_record(item):
                    self._records[item.member.run] = item.target

    def close(self) -> None:
        """Deletes what is held back still."""
        for held in self._held.values():
            for temporary, _ in held:
                temporary.unlink(missing_ok=True)

    def hold(self, item: extract_plan.Wanted, temporary: pathlib.Path) -> None:
        self._held.setdefault(item.member.run, []).append((temporary, item.target))

    def remove_old_record(self, run: extract_plan.Run | None) -> None:
        """Another file of the run is about to be replaced: until all are, a record must not call it complete."""
        if run in self._records:
            self._records[run].unlink(missing_ok=True)

    def done(self, item: extract_plan.Wanted, *, failed: bool) -> None:
        run = item.member.run
        self._open[run] -= 1
        if failed:
            self._failed.add(run)
        else:
            self._written.setdefault(run, []).append(item)
        if not self._open[run]:
            self._complete.append(run)

    def finish_runs(self) -> list[extract_plan.Problem]:
        """Lets the runs appear that have all their files; those whose content is damaged disappear again."""
        problems = []
        for run in self._complete:
            held = self._held.get(run, [])
            written = self._written.pop(run, [])
            reason = None if run in self._failed else _damage(written, held)
            for temporary, target in held:
                if run in self._failed or reason is not None:
                    temporary.unlink(missing_ok=True)
                else:
                    temporary.replace(target)
            if reason is not None:
                for item in written:
                    item.target.unlink(missing_ok=True)
                problems.append(extract_plan.Problem(run, reason))
            targets = {target for _, target in held}
            for item in written:
                is_away = reason is not None or (run in self._failed and item.target in targets)
                (self.withheld if is_away else self.arrived).append(item)
            # Only now: where something failed above, `close` deletes what is held.
            self._held.pop(run, None)
        self._complete = []
        return problems


def _damage(written: Sequence[extract_plan.Wanted], held: Sequence[tuple[pathlib.Path, pathlib.Path]]) -> str | None:
    """What is wrong with the files of a run by their own checksums; None if nothing is."""
    try:
        folders: list[pathlib.Path] = []
        for temporary, target in held:
            run = layout.run_from_directory(target.parent)
            run_scan.row_from_record(run, temporary.read_bytes(), max_bytes=contents.LARGEST["aux_arrays"])
            if run.directory not in folders:
                folders.append(run.directory)
        targets = [str(item.target) for item in written]
        # The pair may be there from an earlier fetch that was broken off before this look.
        targets += [str(path) for folder in folders for path in (folder / layout.CHECKPOINTS_NAME).glob("ckpt-*")]
        suffixes = layout.CHECKPOINT_INDEX_SUFFIX, layout.CHECKPOINT_DATA_SUFFIX
        for prefix in sorted({t.removesuffix(end) for t in targets for end in suffixes if t.endswith(end)}):
            if all(pathlib.Path(prefix + end).exists() for end in suffixes):
                checkpoint_bundle.verify_files(prefix)
    except errors.DamagedFileError as error:
        return str(error)
    return None


def _extract_group(
    archive: source.Source,
    group: Sequence[extract_plan.Wanted],
    pieces: Iterator[bytes],
    unfinished: _Unfinished,
    chunk_bytes: int,
) -> Iterator[tuple[extract_plan.Wanted, str | None]]:
    """Inflates the members of one range; yields each with None or what is wrong with it."""
    flow: _Flow | None = _Flow(group, pieces)
    for item in group:
        reason = None
        try:
            if flow is not None:
                try:
                    flow.skip_to(item.member.position)
                    _write(item, flow.take(item.member.size), unfinished)
                except errors.DamagedFileError:
                    flow = None
            if flow is None:
                # Damage before a member need not concern it: each has a point of its own.
                alone = _Flow([item], _own_pieces(archive, item, chunk_bytes))
                alone.skip_to(item.member.position)
                _write(item, alone.take(item.member.size), unfinished)
        except errors.DamagedFileError as error:
            reason = f"{item.member.name}: {error}"
        unfinished.done(item, failed=reason is not None)
        yield item, reason


def _own_pieces(archive: source.Source, item: extract_plan.Wanted, chunk_bytes: int) -> Iterator[bytes]:
    """The compressed bytes of one member, the last of them one by one.

    Where the archive is damaged right behind the member, they reach into the damage, and of a piece that is damaged
    zlib gives out nothing.
    """
    end = item.member.end_offset
    for start, stop in _cut(item.start, end, chunk_bytes):
        data = archive.read(start, stop - start)
        single = max(0, end - _SINGLE_BYTES - start)
        yield data[:single]
        yield from (data[at : at + 1] for at in range(single, len(data)))


def _write(item: extract_plan.Wanted, pieces: Iterator[bytes | memoryview], unfinished: _Unfinished) -> None:
    """Writes one member, whole or not at all.

    Raises:
        IntegrityError: its bytes do not have the CRC32 in the index.
    """
    is_record = _is_record(item)
    files.remove_stale_temporaries(item.target.parent)
    target = files.temporary_beside(item.target) if is_record else item.target
    with files.write_whole(target) as temporary:
        crc32 = size = 0
        with open(temporary, "wb") as stream:
            for piece in pieces:
                crc32 = zlib.crc32(piece, crc32)
                size += len(piece)
                stream.write(piece)
        if (crc32, size) != (item.member.crc32, item.member.size):
            raise errors.IntegrityError(
                f"{size} bytes with CRC32 {crc32:08x}, the index says {item.member.size} with "
                f"{item.member.crc32:08x}; the archive or the index is damaged: verify both with zoo_verify"
            )
        if not is_record:
            unfinished.remove_old_record(item.member.run)
    if is_record:
        unfinished.hold(item, target)


class _Flow:
    """Uncompressed bytes as they come, of which parts are wanted in order.

    Args:
        group: the members wanted; inflation begins at the point of the first.
        pieces: compressed bytes from there on.
    """

    def __init__(self, group: Sequence[extract_plan.Wanted], pieces: Iterator[bytes]) -> None:
        point, last = group[0].point, group[-1].member
        size = last.position + last.size - point.position
        self._pieces = seek_points.inflate_range(point, pieces, point.position, size)
        self._rest = memoryview(b"")
        self._position = point.position

    def skip_to(self, position: int) -> None:
        for _ in self.take(position - self._position):
            pass

    def take(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes."""
        while size > 0:
            if not self._rest:
                piece = next(self._pieces, None)
                if piece is None:
                    raise errors.DamagedFileError("the compressed data ends early")
                self._rest = memoryview(piece)
                continue
            part, self._rest = self._rest[:size], self._rest[size:]
            size -= len(part)
            self._position += len(part)
            yield part
