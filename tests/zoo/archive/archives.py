"""Zoos and archives for tests: small real ones, archives by other hands, hostile ones, and damage.

make_zoo        a zoo folder with real records and checkpoints
write_archive   its tar.gz, as several programs would have written it
HOSTILE         archives that must be refused, by what is wrong with them
flip, truncate  damage to a file
"""

from collections.abc import Callable, Iterable, Sequence
import io
import pathlib
import random
import struct
import tarfile
import tempfile
from typing import Any
import zipfile
import zlib

import numpy as np

from tests.zoo import runs as simulated_runs
from tests.zoo.archive import checkpoint_files, hostile_npz
from zoo import aux_arrays, files, layout

TAR_FORMATS = {"v7": tarfile.USTAR_FORMAT, "ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT}
TAR_FORMATS |= {"pax": tarfile.PAX_FORMAT}
DEFAULT_RUNS = ((0.5, 0), (0.5, 1), (0.7, 0))
_COPY_BYTES = 1 << 20
_CHECKSUM = slice(148, 156)

Member = tuple[tarfile.TarInfo, bytes]


def make_zoo(
    folder: pathlib.Path,
    *,
    experiment: str = "synthetic",
    runs: Iterable[tuple[float, int]] = DEFAULT_RUNS,
    num_train: int = 60,
    num_test: int = 20,
    num_parameters: int = 2000,
    epoch: int = 2,
    seed: int = 0,
    recipe: dict[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a zoo of random runs, each with a record and, if `num_parameters` is not 0, one real checkpoint.

    Args:
        folder: the zoo, created where missing.
        experiment: its only experiment.
        runs: ratio and run id of each run; equal arguments give equal runs.
        num_train: N.
        num_test: M.
        num_parameters: float32 values in a checkpoint; its data file has about 4 bytes for each.
        epoch: of the checkpoints.
        seed: of everything random.
        recipe: content of recipe.json; None for no such file.

    Returns:
        `folder`.
    """
    for ratio, run_id in runs:
        run = layout.Run(folder, experiment, ratio, run_id)
        run_seed = zlib.crc32(f"{seed}/{layout.ratio_name(ratio)}/{run_id}".encode())
        arrays = simulated_runs.random_run(run_seed, num_train, num_test, ratio)
        aux_arrays.write(run.aux_arrays_path, aux_arrays.from_masks(*arrays))
        if num_parameters:
            _write_checkpoint(run.checkpoint_prefix(epoch), num_parameters, epoch, run_seed)
    if recipe is not None:
        files.write_json(layout.recipe_path(folder, experiment), recipe)
    return folder


def _write_checkpoint(prefix: pathlib.Path, num_parameters: int, epoch: int, seed: int) -> None:
    values = (0.05 * np.random.default_rng(seed).standard_normal(num_parameters)).astype(np.float32)
    num_biases = num_parameters // 10
    w, b = values[num_biases:].reshape(-1, 1), values[:num_biases]
    checkpoint_files.write(prefix, w, b, epoch=epoch, global_step=100 * epoch)


def write_archive(
    zoo: pathlib.Path,
    experiment: str,
    target: pathlib.Path,
    *,
    tar_format: str = "gnu",
    order: str | int = "sorted",
    level: int = 6,
    num_gzip_members: int = 1,
    with_directories: bool = True,
    prefix: str = "",
) -> pathlib.Path:
    """Packs all files of an experiment; equal arguments give equal bytes.

    Args:
        zoo: the zoo.
        experiment: its experiment.
        target: the tar.gz to write; ending .tar leaves it uncompressed.
        tar_format: "v7", "ustar", "gnu" or "pax".
        order: of the members: "sorted", "reversed", or the seed of a shuffle.
        level: of deflate, 0 to 9.
        num_gzip_members: parts of about equal size that are compressed one by one.
        with_directories: whether folders are members, too.
        prefix: what all names begin with, as "./" or "published/".

    Returns:
        `target`.
    """
    root = layout.experiment_directory(zoo, experiment)
    paths = sorted(path for path in [root, *root.rglob("*")] if path.is_file() or with_directories)
    if isinstance(order, int):
        random.Random(order).shuffle(paths)
    elif order == "reversed":
        paths.reverse()
    with tempfile.TemporaryFile() as stream:
        with _opened(stream, tar_format) as archive:
            for path in paths:
                info = _info(f"{prefix}{path.relative_to(zoo)}", tar_format)
                info.mode = 0o755 if path.is_dir() else 0o644
                if path.is_dir():
                    info.type = tarfile.DIRTYPE
                    archive.addfile(info)
                else:
                    info.size = path.stat().st_size
                    with open(path, "rb") as source:
                        archive.addfile(info, source)
        _compress(stream, target, level, num_gzip_members)
    return target


def _compress(stream: Any, target: pathlib.Path, level: int, num_members: int) -> None:
    num_bytes = stream.tell()
    stream.seek(0)
    with open(target, "wb") as output:
        if target.suffix == ".tar":
            output.write(stream.read())
            return
        for part in range(num_members):
            end = num_bytes * (part + 1) // num_members
            compressor = zlib.compressobj(level, zlib.DEFLATED, 31)
            while chunk := stream.read(min(_COPY_BYTES, end - stream.tell())):
                output.write(compressor.compress(chunk))
            output.write(compressor.flush())


def gz(tar: bytes, level: int = 6, num_members: int = 1) -> bytes:
    """The bytes as one or more gzip members."""
    ends = [len(tar) * (part + 1) // num_members for part in range(num_members)]
    starts = [0, *ends[:-1]]
    parts = []
    for start, end in zip(starts, ends, strict=True):
        compressor = zlib.compressobj(level, zlib.DEFLATED, 31)
        parts.append(compressor.compress(tar[start:end]) + compressor.flush())
    return b"".join(parts)


class _V7Info(tarfile.TarInfo):
    """A header as before there was a magic."""

    def tobuf(self, *_: Any, **__: Any) -> bytes:
        ustar = super().tobuf(tarfile.USTAR_FORMAT)
        return with_checksum(ustar[:257] + bytes(255))


def with_checksum(block: bytes) -> bytes:
    """A header of 512 bytes with its checksum made right."""
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * 0x20
    return block[: _CHECKSUM.start] + b"%06o\0 " % total + block[_CHECKSUM.stop :]


def _info(name: str, tar_format: str) -> tarfile.TarInfo:
    return _V7Info(name) if tar_format == "v7" else tarfile.TarInfo(name)


def _opened(stream: Any, tar_format: str) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="w", format=TAR_FORMATS[tar_format], errors="surrogateescape")


def member(name: str, data: bytes = b"", tar_format: str = "gnu", **fields: Any) -> Member:
    """A file for `tar_bytes`, or something else by attributes of `tarfile.TarInfo` such as `type` and `linkname`."""
    info = _info(name, tar_format)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_bytes(members: Sequence[Member], tar_format: str = "gnu") -> bytes:
    """A whole uncompressed archive."""
    stream = io.BytesIO()
    with _opened(stream, tar_format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def raw_member(block: bytes, data: bytes = b"") -> bytes:
    """A header as it is, its checksum made right, and padded data."""
    return with_checksum(block) + data + bytes(-len(data) % 512)


def header(name: str, size: int | bytes, type_flag: bytes = b"0", tar_format: str = "gnu") -> bytes:
    """A header of 512 bytes; a size in bytes is put into its field as it is."""
    block = _info(name, tar_format).tobuf(TAR_FORMATS[tar_format])[:512]
    field = size if isinstance(size, bytes) else tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    return with_checksum(block[:124] + field.ljust(12, b"\0") + block[136:156] + type_flag + block[157:])


def pax_extension(records: bytes, type_flag: bytes = b"x") -> bytes:
    """A PAX extension that holds the bytes, whatever they are."""
    return raw_member(header("././@PaxHeader", len(records), type_flag, "ustar"), records)


def pax_record(key: str, value: str) -> bytes:
    """A record of a PAX extension with its right length."""
    rest = f" {key}={value}\n".encode("utf-8", "surrogateescape")
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


END = bytes(1024)


def record(seed: int = 0, ratio: float = 0.5) -> bytes:
    """A sound aux_arrays.npz."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / layout.AUX_ARRAYS_NAME
        aux_arrays.write(path, aux_arrays.from_masks(*simulated_runs.random_run(seed, ratio=ratio)))
        return path.read_bytes()


def npz_bomb(num_bytes: int = 3 << 30) -> bytes:
    """A small aux_arrays.npz whose correctness_train is huge once inflated; all it says of its sizes is true.

    Its checksum is not, since nobody should get as far.
    """
    description = hostile_npz.npy_header("|b1", (num_bytes - 128,))
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = compressor.compress(description) + compressor.flush(zlib.Z_FULL_FLUSH)
    zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = zeros.compress(bytes(_COPY_BYTES)) + zeros.flush(zlib.Z_FULL_FLUSH)
    data += block * (num_bytes // _COPY_BYTES - 1) + compressor.compress(bytes(_COPY_BYTES - 128)) + compressor.flush()
    members = {"correctness_train": data}
    for key in ("correctness_removed", "correctness_test"):
        members[key] = hostile_npz.npy_header("|b1", (0,))
    for key in ("index_train", "index_removed", "index_test", "subsample_idx"):
        members[key] = hostile_npz.npy_header("<i8", (0,))
    npz = bytearray(hostile_npz.of_raw(members))
    # Method and size of the first member, in its own header and in the directory.
    for start, method, size in ((0, 8, 22), (npz.index(b"PK\x01\x02"), 10, 24)):
        struct.pack_into("<H", npz, start + method, zipfile.ZIP_DEFLATED)
        struct.pack_into("<I", npz, start + size, num_bytes)
    return bytes(npz)


# A sound run goes before and another behind whatever is wrong.
EXPERIMENT = "e"
AUX_PATH = "e/0.5/1/aux_arrays.npz"
_FIRST, _LAST = "e/0.5/0/aux_arrays.npz", "e/0.5/2/aux_arrays.npz"


def _between(middle: bytes) -> bytes:
    first, last = (
        raw_member(header(name, len(data)), data) for name, data in ((_FIRST, record(1)), (_LAST, record(2)))
    )
    return first + middle + last + END


def _with(*members: Member) -> Callable[[], bytes]:
    return lambda: tar_bytes([member(_FIRST, record(1)), *members, member(_LAST, record(2))])


def _raw(build: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: _between(build())


def _file(name: str) -> Callable[[], bytes]:
    return _with(member(name, b"outside"))


def _holding(build: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: _with(member(AUX_PATH, build()))()


def _pax(key: str, value: str, data: bytes = b"data") -> Callable[[], bytes]:
    return _raw(lambda: pax_extension(pax_record(key, value)) + raw_member(header(AUX_PATH, len(data)), data))


def _sparse() -> bytes:
    """GNU tar's old form: one piece of 512 bytes at the end of a file of 1 MiB, and one more block of its map."""
    block = bytearray(header(AUX_PATH, 512, b"S"))
    block[386:410] = b"%011o\0%011o\0" % ((1 << 20) - 512, 512)
    block[482], block[483:495] = 1, b"%011o\0" % (1 << 20)
    return with_checksum(bytes(block)) + bytes(512) + b"x" * 512


# Uncompressed tar bytes by what is wrong with them.
HOSTILE: dict[str, Callable[[], bytes]] = {
    # Paths.
    "absolute_path": _file("/tmp/heldout-hostile"),
    "absolute_path_of_a_run": _file("/e/0.5/1/aux_arrays.npz"),
    "parent_folder": _file("../e/0.5/1/aux_arrays.npz"),
    "parent_folder_within": _file("e/0.5/1/../../../../outside"),
    "backslash": _file("e\\0.5\\1\\aux_arrays.npz"),
    "newline": _file("e/0.5/1/aux_arrays.npz\nchecked"),
    "escape_sequence": _file("e/0.5/1/\x1b[2Jaux_arrays.npz"),
    "direction_of_text": _file("e/0.5/1/zpn.\u202esyarra_xua"),
    "nul": _pax("path", "e/0.5/1/aux_arrays.npz\0.txt"),
    "not_utf8": _file("e/0.5/1/\udcff"),
    "long_path": _file("e/" + 300 * "long/" + "aux_arrays.npz"),
    "longer_path": _file("e/" + 1000 * "long/" + "aux_arrays.npz"),
    # What is neither file nor folder.
    "symbolic_link": _with(member(AUX_PATH, type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "symbolic_link_to_folder": _with(
        member("e/0.5/1", type=tarfile.SYMTYPE, linkname="/tmp"), member(AUX_PATH, b"outside")
    ),
    "hard_link": _with(member(AUX_PATH, type=tarfile.LNKTYPE, linkname="/etc/passwd")),
    "character_device": _with(member(AUX_PATH, type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "block_device": _with(member(AUX_PATH, type=tarfile.BLKTYPE, devmajor=8)),
    "pipe": _with(member(AUX_PATH, type=tarfile.FIFOTYPE)),
    "folder_for_file": _with(member(AUX_PATH, type=tarfile.DIRTYPE)),
    "unknown_type": _raw(lambda: raw_member(header(AUX_PATH, 4, b"Z"), b"data")),
    "sparse": _raw(_sparse),
    "sparse_pax": _pax("GNU.sparse.realsize", str(1 << 40)),
    # The same file twice.
    "duplicate": lambda: _with(member(AUX_PATH, record(3)), member(AUX_PATH, record(4)))(),
    "duplicate_in_another_spelling": lambda: _with(
        member(AUX_PATH, record(3)), member("./e//0.5/./1/aux_arrays.npz", record(4))
    )(),
    # Sizes.
    "huge_size": _raw(lambda: raw_member(header(AUX_PATH, b"\x80" + (1 << 50).to_bytes(11, "big")))),
    "huge_pax_size": _pax("size", str(1 << 62)),
    "size_beyond_the_end": _raw(lambda: raw_member(header(AUX_PATH, 1 << 30))),
    "negative_size": _raw(lambda: raw_member(header(AUX_PATH, (-512).to_bytes(12, "big", signed=True)))),
    "negative_pax_size": _pax("size", "-512"),
    "size_no_number": _raw(lambda: raw_member(header(AUX_PATH, b"0x200"))),
    "folder_with_data": _raw(lambda: raw_member(header(AUX_PATH + "/", 4, b"\0"), b"data")),
    # Extensions.
    "pax_wrong_length": _raw(lambda: pax_extension(b"99 path=x\n") + raw_member(header(AUX_PATH, 4), b"data")),
    "pax_for_all": _raw(lambda: pax_extension(pax_record("path", AUX_PATH), b"g")),
    "huge_extension": _raw(lambda: raw_member(header("././@LongLink", 1 << 30, b"L"))),
    "extension_twice": _raw(
        lambda: (
            pax_extension(pax_record("path", "x"))
            + pax_extension(pax_record("path", AUX_PATH))
            + raw_member(header("y", 4), b"data")
        )
    ),
    "extension_without_member": lambda: _between(pax_extension(pax_record("path", "x")) + END),
    "behind_the_end": lambda: _between(END + tar_bytes([member(AUX_PATH, record(3))])),
    # Content.
    "npz_bomb": _holding(npz_bomb),
    "npz_that_claims": _holding(hostile_npz.claiming),
    "npz_with_pickle": _holding(lambda: hostile_npz.pickled(record())),
    "npz_none": _holding(lambda: b"no npz file"),
}


def hostile(kind: str) -> bytes:
    """The tar.gz of one kind in `HOSTILE`."""
    return gz(HOSTILE[kind]())


def flip(path: pathlib.Path, offset: int, mask: int = 1) -> None:
    """Flips bits of one byte of a file; a negative offset counts from the end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(data)


def truncate(path: pathlib.Path, size: int) -> None:
    """Cuts a file off; a negative size says how many bytes go."""
    data = path.read_bytes()
    path.write_bytes(data[:size])
