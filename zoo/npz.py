"""Reading and writing npz archives without pickle, without surprises and without holding them in memory.

An npz file is a zip archive of npy members. `read` trusts nothing in it: the npy header of a member is held against
the size that the zip directory gives, and both against a limit, before anything is allocated, so a small file that
claims 10^12 elements is refused at once. Object and structured arrays are refused, because they would need pickle or
hide it. Members that were not asked for are not touched. `verify` reads all of a file and keeps none of it.

`write` is deterministic: equal arrays give equal bytes. `StreamWriter` writes a matrix larger than memory block by
block; its members are stored uncompressed and start at a multiple of 64 bytes, so that they can be memory-mapped.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
import contextlib
import dataclasses
import io
import math
import pathlib
import struct
import tokenize
from types import TracebackType
from typing import IO, Any
import zipfile
import zlib

import numpy as np

from zoo import errors, files

# The end of what is said of a file that cannot be read.
REPAIR = "Restore it from its source or create it again."
# Booleans, integers, floats, complex numbers, byte and text strings. Neither objects nor structures nor raw bytes.
_KINDS = "biufcSU"
_SUFFIX = ".npy"
_BLOCK_BYTES = 1 << 24
# Deflate cannot do better than 1032 to 1; a member that claims more lies about its size.
_LARGEST_DEFLATE_RATIO = 1032
# A header of plain dtype takes about a hundred bytes; NumPy's parser itself refuses ten thousand.
_MAX_HEADER_BYTES = 10_000
_ALIGNMENT = 64
_ALIGNMENT_EXTRA_ID = 0xD935
_ZIP64_EXTRA_BYTES = 20
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
# Everything that zipfile, zlib, struct, NumPy's header parser and the allocator raise over bytes that are not as
# promised.
_FORMAT_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclasses.dataclass(frozen=True)
class _Member:
    """A member whose header has been read and believed."""

    info: zipfile.ZipInfo
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran_order: bool
    header_bytes: int

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read(
    path: files.PathLike,
    required: Collection[str],
    optional: Collection[str] = (),
    *,
    memory_map: Collection[str] = (),
    max_bytes: int = 1 << 36,
    content: bytes | None = None,
) -> dict[str, np.ndarray]:
    """Reads named members of an npz file.

    Args:
        path: the file.
        required: members that must be there, without the suffix .npy.
        optional: members that are returned where they are there.
        memory_map: members, among the above, that come back as a read-only `np.memmap` if they are stored
            uncompressed and not empty; otherwise they are read like the others. The checksum of a mapped member is
            not verified, since that would read all of it.
        max_bytes: upper limit on the bytes that the members read (not mapped) may declare together.
        content: the bytes of the file where they have been read already; `path` then only names them in messages, and
            nothing is mapped.

    Returns:
        The arrays by name, in the order of `required` and then `optional`.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is not a zip archive, or is truncated; a required member is missing; a member is there
            twice, is encrypted or compressed otherwise than with deflate, holds objects or structures, fails its
            checksum, or has a header that disagrees with its size; or the members are larger than `max_bytes`.
    """
    mapped = set(memory_map) if content is None else set()
    with _opened(path, content) as (archive, stream):
        return _read_members(archive, stream, list(required), list(optional), mapped, max_bytes)


def verify(path: files.PathLike) -> None:
    """Reads every array of an npz file to its end and so verifies its checksum, in constant memory.

    For files whose matrices are memory-mapped elsewhere, and therefore never verified there. Takes as long as reading
    the file once. Members of the archive that are no npy files are not looked at; nothing of ours reads them.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is not a zip archive, or is truncated, or a member is such as `read` would refuse.
    """
    with _opened(path, None) as (archive, stream):
        file_bytes = stream.seek(0, io.SEEK_END)
        for name, info in _directory(archive).items():
            member = _read_header(archive, info, name, file_bytes)
            with archive.open(info) as data:
                num_bytes = 0
                while block := data.read(_BLOCK_BYTES):
                    num_bytes += len(block)
            if num_bytes != member.info.file_size:
                raise ValueError(f"member {name} ends after {num_bytes} of {member.info.file_size} bytes")


@contextlib.contextmanager
def _opened(path: files.PathLike, content: bytes | None) -> Iterator[tuple[zipfile.ZipFile, IO[bytes]]]:
    """The archive and the stream below it; `_FORMAT_ERRORS` raised meanwhile become DamagedFileError."""
    try:
        stream: IO[bytes] = open(path, "rb") if content is None else io.BytesIO(content)  # noqa: SIM115
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise errors.MissingFileError(f"{path}: no such file") from error
    with stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                yield archive, stream
        except _FORMAT_ERRORS as error:
            reason = str(error) or type(error).__name__
            raise errors.DamagedFileError(f"{path}: not a sound npz file: {reason}. {REPAIR}") from error


def _read_members(
    archive: zipfile.ZipFile,
    stream: IO[bytes],
    required: list[str],
    optional: list[str],
    memory_map: set[str],
    max_bytes: int,
) -> dict[str, np.ndarray]:
    """All arrays asked for. Raises any of `_FORMAT_ERRORS`."""
    infos = _directory(archive)
    missing = [name for name in required if name not in infos]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}; it holds {', '.join(sorted(infos)) or 'nothing'}")
    wanted = required + [name for name in optional if name in infos and name not in required]
    file_bytes = stream.seek(0, io.SEEK_END)
    members = {name: _read_header(archive, infos[name], name, file_bytes) for name in wanted}
    mapped = {
        name
        for name in memory_map.intersection(wanted)
        if members[name].info.compress_type == zipfile.ZIP_STORED and members[name].num_bytes
    }
    declared = sum(member.num_bytes for name, member in members.items() if name not in mapped)
    if declared > max_bytes:
        raise ValueError(f"its arrays declare {declared} bytes, the limit is {max_bytes}")
    return {
        name: _map_data(stream, member, file_bytes) if name in mapped else _read_data(archive, name, member)
        for name, member in members.items()
    }


def _directory(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The npy members by name, each there once."""
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if not info.filename.endswith(_SUFFIX):
            continue
        name = info.filename.removesuffix(_SUFFIX)
        if name in infos:
            raise ValueError(f"member {name} is there twice")
        infos[name] = info
    return infos


def _read_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, file_bytes: int) -> _Member:
    """Reads and checks what a member says of itself, before anything of that size is allocated."""
    if info.flag_bits & 0x1:
        raise ValueError(f"member {name} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"member {name} is compressed with method {info.compress_type}, expected 0 or 8 (deflate)")
    largest = info.compress_size * (1 if info.compress_type == zipfile.ZIP_STORED else _LARGEST_DEFLATE_RATIO)
    if info.compress_size > file_bytes or info.file_size > largest:
        raise ValueError(f"member {name} claims {info.file_size} bytes, which the {file_bytes} of the file cannot hold")
    with archive.open(info) as member_stream:
        stream = io.BytesIO(member_stream.read(_MAX_HEADER_BYTES))
    version = np.lib.format.read_magic(stream)
    parsers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in parsers:
        raise ValueError(f"member {name} has npy version {version}, expected 1.0 or 2.0")
    shape, fortran_order, dtype = parsers[version](stream)
    member = _Member(info, dtype, shape, fortran_order, stream.tell())
    if dtype.kind not in _KINDS or dtype.itemsize == 0 or dtype.shape:
        raise ValueError(f"member {name} has dtype {dtype}, expected numbers or fixed-length strings (never objects)")
    if any(isinstance(length, bool) or length < 0 for length in shape):
        raise ValueError(f"member {name} has shape {shape}")
    if member.header_bytes + member.num_bytes != info.file_size:
        raise ValueError(
            f"member {name} declares shape {shape} and dtype {dtype}, "
            f"{member.header_bytes + member.num_bytes} bytes with its header, but holds {info.file_size}"
        )
    return member


def _read_data(archive: zipfile.ZipFile, name: str, member: _Member) -> np.ndarray:
    """The array of one member. Reading to the end makes zipfile verify the CRC."""
    flat = np.empty(math.prod(member.shape), member.dtype)
    target = flat.view(np.uint8).data
    with archive.open(member.info) as stream:
        stream.read(member.header_bytes)
        filled = 0
        while block := stream.read(_BLOCK_BYTES):
            target[filled : filled + len(block)] = block
            filled += len(block)
    if filled != member.num_bytes:
        raise ValueError(f"member {name} ends after {filled} of {member.num_bytes} bytes")
    return flat.reshape(member.shape, order="F" if member.fortran_order else "C")


def _map_data(stream: IO[bytes], member: _Member, file_bytes: int) -> np.ndarray:
    """The array of one stored member, mapped read-only."""
    stream.seek(member.info.header_offset)
    header = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    name_bytes, extra_bytes = header[-2:]
    start = member.info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + member.header_bytes
    if start + member.num_bytes > file_bytes:
        raise ValueError(f"member {member.info.filename} reaches beyond the end of the file")
    order: Any = "F" if member.fortran_order else "C"
    return np.memmap(stream, member.dtype, mode="r", offset=start, shape=member.shape, order=order)


def write(path: files.PathLike, arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> None:
    """Writes an npz file, whole or not at all. Equal arrays in equal order give equal bytes.

    Args:
        path: the file to create or replace.
        arrays: numbers or strings by name.
        compress: with deflate, instead of stored.

    Raises:
        InvalidValueError: an array holds objects or structures, or a name cannot be a member's name.
    """
    with StreamWriter(path, compress=compress) as writer:
        for name, array in arrays.items():
            writer.array(name, array)


class StreamWriter:
    """Context manager that writes an npz file member by member; the file appears only on a clean exit.

    Args:
        path: the file to create or replace.
        compress: with deflate, instead of stored. Compressed members cannot be memory-mapped.
    """

    def __init__(self, path: files.PathLike, *, compress: bool = False) -> None:
        self._path = pathlib.Path(path)
        self._method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        self._names: set[str] = set()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "StreamWriter":
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(files.write_whole(self._path))
            self._stream = stack.enter_context(open(temporary, "wb"))
            self._archive = stack.enter_context(zipfile.ZipFile(self._stream, "w"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def array(self, name: str, array: np.ndarray) -> None:
        """Writes one whole array.

        Raises:
            InvalidValueError: it holds objects or structures; the name is taken or cannot be a member's name.
        """
        array = np.asarray(array)
        self._write_member(name, array.dtype, array.shape, _bytes_of(array))

    def blocks(
        self, name: str, dtype: np.typing.DTypeLike, shape: tuple[int, ...], blocks: Iterable[np.ndarray]
    ) -> None:
        """Writes one array of shape [rows, ...] from consecutive blocks of its rows.

        Args:
            name: the member's name, without the suffix .npy.
            dtype: of the member; every block must have it.
            shape: of the member.
            blocks: arrays of shape [any, *shape[1:]] whose rows add up to shape[0].

        Raises:
            InvalidValueError: a block has another dtype or row shape, or the rows do not add up. The file is then
                not written at all, provided that the error leaves the `with`.
        """
        dtype = np.dtype(dtype)
        self._write_member(name, dtype, tuple(shape), _checked_rows(name, dtype, tuple(shape), blocks))

    def written_so_far(self) -> tuple[str, int]:
        """Path of the unfinished file and its size; what has been written can be read there, the last member last."""
        self._stream.flush()
        return self._stream.name, self._stream.tell()

    def _write_member(self, name: str, dtype: np.dtype, shape: tuple[int, ...], data: Iterable[Any]) -> None:
        if not name or "/" in name or "\\" in name or "\0" in name or name in self._names:
            raise errors.InvalidValueError(f"{self._path}: {name!r} cannot name a member, or is taken already")
        if dtype.kind not in _KINDS or dtype.itemsize == 0:
            raise errors.InvalidValueError(
                f"{self._path}: member {name} has dtype {dtype}, expected numbers or fixed-length strings"
            )
        self._names.add(name)
        header = io.BytesIO()
        description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, description)
        num_bytes = len(header.getvalue()) + math.prod(shape) * dtype.itemsize
        # Left at its default date, 1980, so that the bytes are a function of the arrays alone.
        info = zipfile.ZipInfo(name + _SUFFIX)
        info.compress_type = self._method
        # Whether a member needs ZIP64 is decided before it is written, with room for data that deflate enlarges.
        zip64 = num_bytes > zipfile.ZIP64_LIMIT // 2
        info.extra = self._alignment_extra(info, zip64)
        with self._archive.open(info, "w", force_zip64=zip64) as stream:
            stream.write(header.getvalue())
            for piece in data:
                stream.write(piece)

    def _alignment_extra(self, info: zipfile.ZipInfo, zip64: bool) -> bytes:
        """An extra field of the zip header that puts the member's first byte at a multiple of `_ALIGNMENT`."""
        start = self._stream.tell() + _LOCAL_HEADER.size + len(info.filename.encode()) + 4
        start += _ZIP64_EXTRA_BYTES if zip64 else 0
        padding = -start % _ALIGNMENT
        return struct.pack("<HH", _ALIGNMENT_EXTRA_ID, padding) + bytes(padding)


def _bytes_of(array: np.ndarray) -> Iterator[memoryview]:
    """The array's bytes in C order, in pieces, so that zipfile copies little at a time."""
    view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    for start in range(0, len(view), _BLOCK_BYTES):
        yield view[start : start + _BLOCK_BYTES]


def _checked_rows(
    name: str, dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[np.ndarray]
) -> Iterator[memoryview]:
    """The bytes of the blocks, once each has been found to fit."""
    rows = 0
    for block in blocks:
        if block.dtype != dtype or block.ndim != len(shape) or block.shape[1:] != shape[1:]:
            raise errors.InvalidValueError(
                f"member {name}: a block of dtype {block.dtype} and shape {block.shape} does not fit "
                f"dtype {dtype} and rows of shape {shape[1:]}"
            )
        rows += len(block)
        if rows > shape[0]:
            break
        yield from _bytes_of(block)
    if rows != shape[0]:
        raise errors.InvalidValueError(f"member {name}: the blocks have {rows} or more rows, expected {shape[0]}")
