"""Gzip files of every make, for the tests of the deflate layer."""

import gzip
import struct
import zlib

import numpy as np


def floats(size: int, seed: int = 0) -> bytes:
    """Float32 weights, as checkpoints hold them: hardly compressible."""
    return (np.random.default_rng(seed).standard_normal(size // 4) * 0.05).astype("f4").tobytes()


def text(size: int, seed: int = 0) -> bytes:
    """Numbers in words' clothing: many matches, some of them far back."""
    numbers = np.random.default_rng(seed).integers(0, 5000, size // 4)
    return " ".join(f"run {number}" if number % 7 else "epoch" for number in numbers).encode()[:size]


def mixed(size: int, seed: int = 0) -> bytes:
    """Weights, words and zeros in turn, as a tar archive of a zoo has them."""
    part = size // 8 & ~3
    return b"".join([floats(3 * part, seed), text(2 * part, seed), bytes(part), floats(2 * part, seed + 1)])


def member(
    data: bytes,
    level: int = 6,
    *,
    strategy: int = zlib.Z_DEFAULT_STRATEGY,
    flush: int | None = None,
    every: int = 50_000,
    flags: int = 0,
) -> bytes:
    """One gzip member with any of the header's fields.

    Args:
        data: what it holds.
        level: 0 stores.
        strategy: of zlib.
        flush: kind of flush after each `every` bytes; None for none.
        every: see there.
        flags: of the header: 2 checksum, 4 extra field, 8 name, 16 comment.
    """
    header = b"\x1f\x8b\x08" + bytes([flags]) + struct.pack("<IBB", 1234567, 2, 3)
    if flags & 4:
        header += struct.pack("<H", 6) + b"AB\x02\x00xy"
    header += (b"zoo.tar\0" if flags & 8 else b"") + (b"by hand\0" if flags & 16 else b"")
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF) if flags & 2 else b""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15, 8, strategy)
    body = b""
    if flush is None:
        body = compressor.compress(data)
    else:
        for start in range(0, len(data), every):
            body += compressor.compress(data[start : start + every]) + compressor.flush(flush)
    body += compressor.flush()
    return header + body + struct.pack("<II", zlib.crc32(data), len(data) % 2**32)


def makes(size: int) -> dict[str, bytes]:
    """Files by name; `gzip.decompress` reads all of them."""
    data = mixed(size)
    halves = [data[: size // 3], data[size // 3 :]]
    return {
        "fast": member(data, 1),
        "default": member(data, 6),
        "best": member(data, 9),
        "stored": member(data, 0),
        "fixed codes": member(data, 6, strategy=zlib.Z_FIXED),
        "literals only": member(data, 6, strategy=zlib.Z_HUFFMAN_ONLY),
        "runs": member(data, 6, strategy=zlib.Z_RLE),
        "sync flushes": member(data, 6, flush=zlib.Z_SYNC_FLUSH, every=size // 20),
        "full flushes": member(data, 6, flush=zlib.Z_FULL_FLUSH, every=size // 20),
        "partial flushes": member(data, 6, flush=zlib.Z_PARTIAL_FLUSH, every=size // 30),
        "text": member(text(size), 6),
        "zeros": member(bytes(size), 6),
        "all fields": member(data, 6, flags=2 | 4 | 8 | 16),
        "python": gzip.compress(data),
        "several members": b"".join(member(half, 6, flags=8) for half in halves) + member(b"") + member(data[:100]),
        "empty members first": member(b"") * 3 + member(data),
        "blocked": b"".join(member(data[start : start + 5000]) for start in range(0, len(data), 5000)),
        "padded": member(data) + bytes(1000),
        "empty": member(b""),
        "one byte": member(b"x", flags=2),
    }
