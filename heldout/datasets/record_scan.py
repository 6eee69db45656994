"""What shards of image records hold, found without reading the images: index, label and checksum of every record.

A record is walked field by field; of its image only the length is read. So a scan of 150 GB reads some hundred
megabytes, and knows nothing of damage within images: their checksums are verified when they are read. From the scan
follow, by original index, the labels, and a version of the data set that changes with the content of any record but
not with the way in which records lie in shards.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import dataclasses
import hashlib
import os

import numpy as np

from heldout.datasets import record_format
from zoo import errors, protocol_buffers

# done, total, in bytes of shards.
Progress = Callable[[int, int], None]

_WINDOW_BYTES = 1024
_VARINT_BYTES = 10
# What is read of a map entry to see its key.
_KEY_BYTES = 128
# An index, a label or a name is no larger; larger entries with one of their keys are damaged.
_LARGEST_ENTRY = 1 << 16
_KIND_BYTES = 2
_FIXED_BYTES = {1: 8, 5: 4}
# Threads wait for the disk or the network, not for the processor.
_NUM_THREADS = 16
_VERSION_DIGITS = 16
_REPAIR = "restore the shard from where it comes from, or build it again"


@dataclasses.dataclass(frozen=True)
class ShardScan:
    """The records of one shard, in its order.

    Attributes:
        index: original index, int64 [n], as stored.
        label: int64 [n], as stored less the format's label offset.
        checksum: CRC32C of each record as TFRecord masks it, uint32 [n]; not verified.
    """

    index: np.ndarray
    label: np.ndarray
    checksum: np.ndarray


@dataclasses.dataclass(frozen=True)
class SplitScan:
    """One split by original index.

    Attributes:
        label: int64 [n]; -1 where the record is missing.
        checksum: uint32 [n]; 0 where the record is missing.
        missing: indices without a record, int64, ascending.
        num_records: records of each shard.
    """

    label: np.ndarray
    checksum: np.ndarray
    missing: np.ndarray
    num_records: tuple[int, ...]


def detect_format(shard: record_format.Shard) -> record_format.Format:
    """The format of a shard, by the names of the features of its first record.

    Raises:
        DamagedFileError: the shard holds no whole record, or features of no known format.
    """
    with _Window(shard) as window:
        try:
            start, stop, _ = next(_records(window))
            keys = {_key(window, *entry) for entry in _entries(window, start, stop)}
        except StopIteration:
            raise errors.DamagedFileError(f"{shard.path}: holds no record; {_REPAIR}") from None
        except ValueError as error:
            raise _damaged(shard, str(error)) from error
    for known in record_format.FORMATS.values():
        if {known.image, known.label, known.index} <= keys:
            return known
    found = ", ".join(sorted(key for key in keys if key)) or "none"
    wanted = " or ".join(f"{known.image}, {known.label}, {known.index}" for known in record_format.FORMATS.values())
    raise errors.DamagedFileError(
        f"{shard.path}: its records have the features {found}, expected {wanted}. Every record must carry its "
        "position in the original order; build the records again with build_indexed_tfrecords"
    )


def scan_shard(shard: record_format.Shard, known: record_format.Format) -> ShardScan:
    """Index, label and checksum of every record of a shard.

    Raises:
        DamagedFileError: the shard is cut off, a length fails its checksum, or a record is no Example, or lacks index
            or label.
    """
    rows: list[tuple[int, int, int]] = []
    with _Window(shard) as window:
        try:
            for start, stop, checksum in _records(window):
                values = _integers(window, start, stop, (known.index, known.label))
                rows.append((values[known.index], values[known.label] - known.label_offset, checksum))
        except ValueError as error:
            raise _damaged(shard, f"record {len(rows)}: {error}") from error
    table = np.array(rows, np.int64).reshape(-1, 3)
    return ShardScan(table[:, 0].copy(), table[:, 1].copy(), table[:, 2].astype(np.uint32))


def scan_split(
    shards: Sequence[record_format.Shard],
    known: record_format.Format,
    progress: Progress | None = None,
    num_expected: int | None = None,
    may_lack: np.ndarray | None = None,
) -> SplitScan:
    """Scans the shards of one split, several at once, and puts what they hold into original order.

    Args:
        shards: of one split.
        known: their format.
        progress: hears of bytes done and bytes in all.
        num_expected: number of examples of the split; without it that of the records.
        may_lack: indices that may be without a record.

    Raises:
        DamagedFileError: a shard is damaged; an index is missing, there twice, or out of range; or a label is.
    """
    total, done, scans = sum(shard.size for shard in shards), 0, []
    with futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
        waiting = [pool.submit(scan_shard, shard, known) for shard in shards]
        try:
            for shard, result in zip(shards, waiting, strict=True):
                scans.append(result.result())
                done += shard.size
                if progress is not None:
                    progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)
    num_records = tuple(len(scan.index) for scan in scans)
    size = sum(num_records) if num_expected is None else num_expected
    missing = _check(shards, scans, known, size, may_lack if may_lack is not None else np.zeros(0, np.int64))
    label, checksum = np.full(size, -1, np.int64), np.zeros(size, np.uint32)
    for scan in scans:
        label[scan.index], checksum[scan.index] = scan.label, scan.checksum
    return SplitScan(label, checksum, missing, num_records)


def version(splits: Sequence[SplitScan]) -> str:
    """16 hexadecimal digits that change with the content of any record, its index, or the number of examples.

    They are the start of the SHA-256 over, for each split, the number of examples and the records' checksums in
    original order. How the records lie in shards does not count.
    """
    digest = hashlib.sha256()
    for split in splits:
        digest.update(len(split.checksum).to_bytes(8, "little"))
        digest.update(split.checksum.astype("<u4").tobytes())
    return digest.hexdigest()[:_VERSION_DIGITS]


def _check(
    shards: Sequence[record_format.Shard],
    scans: Sequence[ShardScan],
    known: record_format.Format,
    size: int,
    may_lack: np.ndarray,
) -> np.ndarray:
    """The missing indices; all that is wrong with indices and labels is named at once."""
    index = np.concatenate([scan.index for scan in scans])
    label = np.concatenate([scan.label for scan in scans])
    shard_of = np.repeat(np.arange(len(shards)), [len(scan.index) for scan in scans])
    folder, split = shards[0].path.parent, shards[0].split
    in_range = (index >= 0) & (index < size)
    counts = np.bincount(index[in_range], minlength=size)
    lacking = np.flatnonzero(counts == 0)
    absent = np.setdiff1d(lacking, may_lack)
    twice = np.flatnonzero(counts > 1)
    problems = []
    if len(twice):
        where = [f"{i} ({', '.join(_names(shards, shard_of[index == i]))})" for i in twice[:5]]
        problems.append(f"{len(twice)} indices are there more than once: {record_format.named(where)}")
    if not in_range.all():
        rows = np.flatnonzero(~in_range)
        where = [f"{index[row]} ({shards[shard_of[row]].path.name})" for row in rows]
        problems.append(f"{len(rows)} indices lie outside 0..{size - 1}: {record_format.named(where)}")
    if len(absent):
        problems.append(f"{len(absent)} indices of 0..{size - 1} are missing: {record_format.named(absent)}")
    if (label < 0).any():
        rows = np.flatnonzero(label < 0)
        where = [f"index {index[row]} has {label[row] + known.label_offset}" for row in rows]
        problems.append(f"labels begin at {known.label_offset}, but {record_format.named(where)}")
    if size == 0:
        problems.append("there is no record")
    if problems:
        raise errors.DamagedFileError(
            f"{folder}: the {split} records are not one of each index: {'; '.join(problems)}. Scores refer to examples "
            "by index; write the records again"
        )
    return lacking


def _names(shards: Sequence[record_format.Shard], numbers: np.ndarray) -> list[str]:
    return [shards[number].path.name for number in np.unique(numbers)]


def _damaged(shard: record_format.Shard, reason: str) -> errors.DamagedFileError:
    return errors.DamagedFileError(f"{shard.path}: {reason}; {_REPAIR}")


class _Window:
    """A file read in small pieces around the place that is asked for. Context manager."""

    def __init__(self, shard: record_format.Shard) -> None:
        self._shard = shard
        self._start, self._content = 0, b""
        self.size = shard.size

    def __enter__(self) -> "_Window":
        self._descriptor = os.open(self._shard.path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, position: int, size: int) -> bytes:
        """Bytes from a position on: fewer where the file ends."""
        begin = position - self._start
        if begin < 0 or begin + size > len(self._content):
            self._content = os.pread(self._descriptor, max(size, _WINDOW_BYTES), position)
            self._start, begin = position, 0
        return self._content[begin : begin + size]

    def varint(self, position: int) -> tuple[int, int]:
        """The number at a position, and the position behind it."""
        number, size = protocol_buffers.varint(self.read(position, _VARINT_BYTES), 0)
        return number, position + size


def _records(window: _Window) -> Iterator[tuple[int, int, int]]:
    """Start, end and stored checksum of each record."""
    position = 0
    while position < window.size:
        header = window.read(position, record_format.HEADER.size)
        if len(header) < record_format.HEADER.size:
            raise ValueError(f"the shard ends within the header at byte {position}")
        length, checksum = record_format.HEADER.unpack(header)
        if record_format.masked_crc32c(header[:8]) != checksum:
            raise ValueError(f"the length at byte {position} fails its checksum")
        start = position + record_format.HEADER.size
        stop = start + length
        if stop + record_format.FOOTER.size > window.size:
            raise ValueError(f"the shard ends within the record at byte {position}")
        (stored,) = record_format.FOOTER.unpack(window.read(stop, record_format.FOOTER.size))
        yield start, stop, stored
        position = stop + record_format.FOOTER.size


def _spans(window: _Window, start: int, stop: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Start and end of the contents of each field of this number within a message, which are bytes."""
    position = start
    while position < stop:
        tag, position = window.varint(position)
        kind = tag & 7
        if kind == 0:
            _, position = window.varint(position)
            continue
        if kind == _KIND_BYTES:
            size, position = window.varint(position)
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"holds a field of kind {kind}, which an Example has not")
        if position + size > stop:
            raise ValueError("holds a field that reaches beyond its end")
        if tag >> 3 == wanted and kind == _KIND_BYTES:
            yield position, position + size
        position += size


def _entries(window: _Window, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Start and end of each entry (name, feature) of an Example."""
    for features in _spans(window, start, stop, 1):
        yield from _spans(window, *features, 1)


def _key(window: _Window, start: int, stop: int) -> str | None:
    """The name in an entry, without reading the rest; None where it cannot be told."""
    content = window.read(start, min(stop - start, _KEY_BYTES))
    if not content or content[0] != 1 << 3 | _KIND_BYTES:
        return None
    size, position = protocol_buffers.varint(content, 1)
    return content[position : position + size].decode(errors="replace") if position + size <= len(content) else None


def _integers(window: _Window, start: int, stop: int, names: tuple[str, ...]) -> dict[str, int]:
    """The features of these names, each one integer."""
    found: dict[str, int] = {}
    for begin, end in _entries(window, start, stop):
        key = _key(window, begin, end)
        # An entry whose key is not in front is read if it is small, which an image is not.
        if key in names or (key is None and end - begin <= _LARGEST_ENTRY):
            if end - begin > _LARGEST_ENTRY:
                raise ValueError(f"{key} takes {end - begin} bytes, expected one integer")
            entry = protocol_buffers.last_fields(window.read(begin, end - begin))
            name = protocol_buffers.message(entry, 1).decode(errors="replace")
            if name in names:
                found[name] = _one_integer(name, protocol_buffers.message(entry, 2))
    lacking = [name for name in names if name not in found]
    if lacking:
        raise ValueError(f"has no feature {' and no '.join(lacking)}")
    return found


def _one_integer(name: str, feature: bytes) -> int:
    """The one value of an Int64List; packed or not."""
    values: list[int] = []
    for number, content in protocol_buffers.fields(protocol_buffers.message(protocol_buffers.last_fields(feature), 3)):
        if number == 1 and isinstance(content, int):
            values.append(content)
        elif number == 1 and isinstance(content, bytes):
            position = 0
            while position < len(content):
                value, position = protocol_buffers.varint(content, position)
                values.append(value)
    if len(values) != 1:
        raise ValueError(f"{name} holds {len(values)} integers, expected one")
    return values[0] - (1 << 64) if values[0] >> 63 else values[0]
