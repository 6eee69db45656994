"""Checkpoints without TensorFlow: what variables the two files hold, and whether every byte of them is right.

A checkpoint ("tensor bundle") is an index, a sorted table (zoo/sorted_table.py) from the name of each entry to its
dtype, shape, place and checksum, and a data file with the plain bytes of the entries one behind the other. The values
of the table are protocol buffers; the few fields that there are, are read here:

    header, key ""   1 number of data files, 2 byte order (0 little), 3 version {1 producer, 2 least consumer}
    entry            1 dtype, 2 shape {2 dimension {1 size}, 3 unknown rank}, 3 data file, 4 offset, 5 size,
                     6 masked CRC32C, 7 slices

The checksum of numbers is that of their bytes. Texts are stored as their lengths in bytes (7 bits a byte), a masked
CRC32C of the lengths, and then the texts; the checksum of the whole takes the lengths as 32 bits each, little endian,
then the checksum of the lengths as it is stored, then the texts. Each variant is stored as its length (7 bits a byte),
its bytes and a masked checksum of all before it; checksums take these lengths as 64 bits each, and also the checksums
as they are stored.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import io
import math
import os
import pathlib
from typing import BinaryIO

import google_crc32c

from zoo import errors, files, layout, protocol_buffers, sorted_table

MODEL_ROOT = "model"
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
MAX_INDEX_BYTES = sorted_table.MAX_BYTES
# By TensorFlow's number: name, and bytes of one number; texts and variants have no fixed size.
_DTYPES: Mapping[int, tuple[str, int | None]] = {
    1: ("float32", 4),
    2: ("float64", 8),
    3: ("int32", 4),
    4: ("uint8", 1),
    5: ("int16", 2),
    6: ("int8", 1),
    7: ("string", None),
    8: ("complex64", 8),
    9: ("int64", 8),
    10: ("bool", 1),
    11: ("qint8", 1),
    12: ("quint8", 1),
    13: ("qint32", 4),
    14: ("bfloat16", 2),
    15: ("qint16", 2),
    16: ("quint16", 2),
    17: ("uint16", 2),
    18: ("complex128", 16),
    19: ("float16", 2),
    21: ("variant", None),
    22: ("uint32", 4),
    23: ("uint64", 8),
    24: ("float8_e5m2", 1),
    25: ("float8_e4m3fn", 1),
    29: ("int4", 1),
    30: ("uint4", 1),
}
_VERSION = 1
_MAX_RANK = 254
_MAX_SHARDS = 1 << 16
_MAX_TEXTS = 1 << 20
_MAX_TEXT_BYTES = (1 << 32) - 1
_LONGEST_VARINT = 10
_CHECKSUM_BYTES = 4
_CHUNK_BYTES = 1 << 20
_REPAIR = sorted_table.REPAIR

Spec = tuple[tuple[int, ...], str]


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where one variable lies.

    Attributes:
        dtype: TensorFlow's name of it, as in "float32".
        shape: its dimensions.
        shard: number of its data file, from 0.
        offset: of its first byte in the data file.
        size: bytes that it takes there.
        crc32c: checksum, not masked.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int

    @property
    def num_elements(self) -> int:
        """Product of the dimensions."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What an index says.

    Attributes:
        entries: by key, ascending.
        num_shards: data files that belong to it.
    """

    entries: Mapping[str, Entry]
    num_shards: int


def read_index(content: bytes, where: str) -> Bundle:
    """Reads the index of a checkpoint and verifies its checksums.

    Args:
        content: the bytes of the .index file.
        where: what messages begin with, usually the path.

    Raises:
        DamagedFileError: it is no sound index; it holds what restoring does not support (slices of variables, another
            byte order, compression); or entries overlap or have sizes that contradict their shapes.
    """
    pairs = sorted_table.read(content, where)
    try:
        if not pairs or pairs[0][0]:
            raise ValueError("it lacks the header")
        num_shards = _num_shards(pairs[0][1])
        entries = {_key(key): _entry(key, value, num_shards) for key, value in pairs[1:]}
        _check_apart(entries)
    except ValueError as error:
        raise errors.DamagedFileError(f"{where}: damaged checkpoint index: {error}; {_REPAIR}") from error
    return Bundle(entries, num_shards)


def model_part(specs: Mapping[str, Spec]) -> dict[str, Spec]:
    """Of the variables by their full names those below model/, by key without the last two words, sorted."""
    return dict(
        sorted(
            (name.removesuffix(VALUE_SUFFIX), spec)
            for name, spec in specs.items()
            if name.startswith(f"{MODEL_ROOT}/") and name.endswith(VALUE_SUFFIX)
        )
    )


def model_listing(bundle: Bundle) -> dict[str, Spec]:
    """Shape and dtype of every variable below model/, by key without the last two words, sorted.

    Returns:
        For instance {"model/conv1/conv/w": ((3, 3, 3, 96), "float32")}.
    """
    return model_part({name: (entry.shape, entry.dtype) for name, entry in bundle.entries.items()})


def verify(bundle: Bundle, data: bytes | memoryview | files.PathLike, where: str) -> None:
    """Holds every entry's bytes against its checksum, in constant memory where the data is a file.

    Bytes that belong to no entry, which no reader ever looks at, are passed over.

    Args:
        bundle: the index.
        data: the content of the data file, or its path.
        where: what messages begin with, usually the path.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: the data is truncated or fails a checksum, the message names the entry; or the checkpoint
            has several data files, which those of zoos have not.
    """
    if bundle.num_shards != 1:
        raise errors.DamagedFileError(
            f"{where}: the index tells of {bundle.num_shards} data files, checkpoints of zoos have one; {_REPAIR}"
        )
    with _opened(data) as stream:
        num_bytes = stream.seek(0, os.SEEK_END)
        for key, entry in sorted(bundle.entries.items(), key=lambda item: item[1].offset):
            end = entry.offset + entry.size
            if end > num_bytes:
                raise errors.DamagedFileError(
                    f"{where}: truncated: {num_bytes} bytes, {key} lies at bytes {entry.offset} to {end}; {_REPAIR}"
                )
            stream.seek(entry.offset)
            try:
                found = _CHECKSUMS.get(entry.dtype, _checksum_of_numbers)(stream, entry)
            except ValueError as error:
                raise errors.DamagedFileError(f"{where}: {key}: {error}; {_REPAIR}") from error
            if found != entry.crc32c:
                raise errors.DamagedFileError(
                    f"{where}: {key} has CRC32C {found:08x}, the index says {entry.crc32c:08x}; {_REPAIR}"
                )


def read_index_file(path: files.PathLike) -> Bundle:
    """`read_index` of a file.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: as in `read_index`.
    """
    with _opened(path) as stream:
        return read_index(stream.read(MAX_INDEX_BYTES + 1), str(path))


def verify_files(prefix: files.PathLike) -> Bundle:
    """Reads the index of a checkpoint and verifies all checksums of both files.

    Args:
        prefix: what the file names begin with, as `layout.Run.checkpoint_prefix` gives it.

    Raises:
        MissingFileError: one of the two files is not there.
        DamagedFileError: something does not hold; see `read_index` and `verify`.
    """
    index_path, data_path = (
        f"{os.fspath(prefix)}{suffix}" for suffix in (layout.CHECKPOINT_INDEX_SUFFIX, layout.CHECKPOINT_DATA_SUFFIX)
    )
    bundle = read_index_file(index_path)
    verify(bundle, data_path, data_path)
    return bundle


class _View(io.RawIOBase):
    """A stream over bytes that are there already, which copies what is read and no more."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data).cast("B")
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (len(self._data) if whence == os.SEEK_END else 0)
        return self._position

    def read(self, size: int = -1) -> bytes:
        start, self._position = self._position, min(self._position + size, len(self._data))
        return bytes(self._data[start : self._position])


@contextlib.contextmanager
def _opened(data: bytes | memoryview | files.PathLike) -> Iterator[BinaryIO | _View]:
    if isinstance(data, bytes | memoryview):
        yield _View(data)
        return
    path = pathlib.Path(data)
    if not path.is_file():
        raise errors.MissingFileError(f"{path}: no such file; fetch the checkpoint again, or train the run")
    with open(path, "rb") as stream:
        yield stream


def _extend_by_stream(crc32c: int, stream: BinaryIO | _View, size: int) -> int:
    while size:
        chunk = stream.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise ValueError("the file became shorter while it was read")
        crc32c = google_crc32c.extend(crc32c, chunk)
        size -= len(chunk)
    return crc32c


def _checksum_of_numbers(stream: BinaryIO | _View, entry: Entry) -> int:
    return _extend_by_stream(0, stream, entry.size)


def _checksum_of_texts(stream: BinaryIO | _View, entry: Entry) -> int:
    start = stream.read(min(entry.size, _LONGEST_VARINT * entry.num_elements + _CHECKSUM_BYTES))
    position, crc32c, num_bytes = 0, 0, 0
    for _ in range(entry.num_elements):
        length, position = protocol_buffers.varint(start, position)
        if length > _MAX_TEXT_BYTES:
            raise ValueError(f"a text of {length} bytes, expected {_MAX_TEXT_BYTES} at most")
        crc32c = google_crc32c.extend(crc32c, length.to_bytes(4, "little"))
        num_bytes += length
    stored = start[position : position + _CHECKSUM_BYTES]
    if len(stored) < _CHECKSUM_BYTES or sorted_table.unmasked(int.from_bytes(stored, "little")) != crc32c:
        raise ValueError("the lengths of the texts fail their checksum")
    if position + _CHECKSUM_BYTES + num_bytes != entry.size:
        raise ValueError(f"texts of {num_bytes} bytes together do not fill {entry.size} bytes")
    stream.seek(entry.offset + position)
    return _extend_by_stream(crc32c, stream, entry.size - position)


def _checksum_of_variants(stream: BinaryIO | _View, entry: Entry) -> int:
    position, crc32c = 0, 0
    for _ in range(entry.num_elements):
        stream.seek(entry.offset + position)
        start = stream.read(min(_LONGEST_VARINT, entry.size - position))
        length, num_length_bytes = protocol_buffers.varint(start, 0)
        position += num_length_bytes + length + _CHECKSUM_BYTES
        if position > entry.size:
            raise ValueError(f"a variant of {length} bytes does not fit into {entry.size} bytes")
        crc32c = google_crc32c.extend(crc32c, length.to_bytes(8, "little"))
        stream.seek(entry.offset + position - _CHECKSUM_BYTES - length)
        crc32c = _extend_by_stream(crc32c, stream, length)
        stored = stream.read(_CHECKSUM_BYTES)
        if sorted_table.unmasked(int.from_bytes(stored, "little")) != crc32c:
            raise ValueError("a variant fails its checksum")
        crc32c = google_crc32c.extend(crc32c, stored)
    if position != entry.size:
        raise ValueError(f"variants of {position} bytes together do not fill {entry.size} bytes")
    return crc32c


_CHECKSUMS = {"string": _checksum_of_texts, "variant": _checksum_of_variants}


def _num_shards(header: bytes) -> int:
    fields = protocol_buffers.last_fields(header)
    num_shards, byte_order = protocol_buffers.number(fields, 1), protocol_buffers.number(fields, 2)
    least_consumer = protocol_buffers.number(protocol_buffers.last_fields(protocol_buffers.message(fields, 3)), 2)
    if not 1 <= num_shards <= _MAX_SHARDS:
        raise ValueError(f"{num_shards} data files, expected 1 to {_MAX_SHARDS}")
    if byte_order:
        raise ValueError("its numbers are big-endian, which is not supported")
    if least_consumer > _VERSION:
        raise ValueError(f"version {least_consumer} of the format, this program reads {_VERSION}")
    return num_shards


def _key(key: bytes) -> str:
    if key.startswith(b"\0"):
        raise ValueError(f"key {key[:80]!r} is a slice of a variable; sliced variables are not supported")
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"key {key[:80]!r} is no UTF-8") from error


def _entry(key: bytes, value: bytes, num_shards: int) -> Entry:
    try:
        return _checked_entry(value, num_shards)
    except ValueError as error:
        raise ValueError(f"{key[:200].decode('utf-8', 'replace')}: {error}") from error


def _checked_entry(value: bytes, num_shards: int) -> Entry:
    fields = protocol_buffers.last_fields(value)
    if 7 in fields:
        raise ValueError("a sliced variable, which is not supported")
    number = protocol_buffers.number(fields, 1)
    if number not in _DTYPES:
        raise ValueError(f"dtype number {number} is not supported")
    dtype, item_bytes = _DTYPES[number]
    shape = _shape(protocol_buffers.message(fields, 2))
    shard, offset, size = (protocol_buffers.number(fields, field) for field in (3, 4, 5))
    if shard >= num_shards:
        raise ValueError(f"data file {shard} of {num_shards}")
    masked = fields.get(6, bytes(4))
    if not isinstance(masked, bytes) or len(masked) != 4:
        raise ValueError("its checksum is not stored in 32 bits")
    entry = Entry(dtype, shape, shard, offset, size, sorted_table.unmasked(int.from_bytes(masked, "little")))
    if item_bytes is None and entry.num_elements > _MAX_TEXTS:
        raise ValueError(f"{entry.num_elements} elements of dtype {dtype}, expected {_MAX_TEXTS} at most")
    if item_bytes is not None and size != entry.num_elements * item_bytes:
        raise ValueError(f"{size} bytes, but shape {shape} of {dtype} takes {entry.num_elements * item_bytes}")
    return entry


def _shape(message: bytes) -> tuple[int, ...]:
    shape = []
    for number, value in protocol_buffers.fields(message):
        if number == 2:
            if not isinstance(value, bytes):
                raise ValueError("a dimension is stored in another way than TensorFlow's")
            shape.append(protocol_buffers.number(protocol_buffers.last_fields(value), 1))
        elif number == 3 and value:
            raise ValueError("its shape is not known")
    if len(shape) > _MAX_RANK:
        raise ValueError(f"{len(shape)} dimensions, expected {_MAX_RANK} at most")
    return tuple(shape)


def _check_apart(entries: Mapping[str, Entry]) -> None:
    """Refuses entries that share bytes, with which a small file could claim endless work."""
    ends: dict[int, int] = {}
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].shard, item[1].offset, item[1].size)):
        if entry.size:
            if entry.offset < ends.get(entry.shard, 0):
                raise ValueError(f"{key}: begins at byte {entry.offset}, within the entry before")
            ends[entry.shard] = entry.offset + entry.size
