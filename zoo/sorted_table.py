"""The sorted table of keys and values that index files of TensorFlow checkpoints are (LevelDB's format), in Python.

    block ... block   entries of ascending keys, each with the beginning that it shares with the key before left out
    meta block        empty in checkpoints
    index block       for each data block its offset and size
    footer            48 bytes: offset and size of the last two, padding, a magic number

Behind each block stand a byte for its compression and a masked CRC32C of block and byte. Nothing is trusted: blocks
must lie one behind the other, keys must ascend, and their number and length are limited, so that a small file cannot
claim more than it holds.
"""

from collections.abc import Iterator

import google_crc32c

from zoo import errors, protocol_buffers

MAX_BYTES = 1 << 26
# The checkpoint of a ResNet-50 with its optimizer has under a thousand entries, with keys of a hundred bytes.
_MAX_ENTRIES = 1 << 18
_MAX_KEY_BYTES = 4096
_MAX_ALL_KEY_BYTES = 1 << 28
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
_MASK_DELTA = 0xA282EAD8
# How a damaged checkpoint is mended, at the end of every message about one, behind a semicolon.
REPAIR = "fetch it again, or delete the checkpoint and train the run again"


def unmasked(crc32c: int) -> int:
    """The CRC32C behind its masked form; files hold it masked since digests of digests are weak."""
    rotated = (crc32c - _MASK_DELTA) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def read(content: bytes, where: str) -> list[tuple[bytes, bytes]]:
    """Keys and values of a table, in its order, which is ascending. Every checksum is verified.

    Args:
        content: the bytes of the file.
        where: what messages begin with, usually the path.

    Raises:
        DamagedFileError: it is no such table, is truncated, fails a checksum, is compressed, breaks the order, or is
            larger than any checkpoint's.
    """
    try:
        return list(_entries(content))
    except ValueError as error:
        raise errors.DamagedFileError(f"{where}: damaged checkpoint index: {error}; {REPAIR}") from error


def _entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(content) > MAX_BYTES:
        raise ValueError(f"{len(content)} bytes, expected {MAX_BYTES} at most")
    if len(content) < _FOOTER_BYTES:
        raise ValueError(f"{len(content)} bytes, expected {_FOOTER_BYTES} or more")
    footer = content[-_FOOTER_BYTES:]
    if not footer.endswith(_MAGIC):
        raise ValueError("it does not end in the magic number of a table: truncated, or no checkpoint index")
    meta_handle, behind = _handle(footer, 0)
    index_handle, _ = _handle(footer, behind)
    _block(content, *meta_handle)
    end_of_last, last_key, num_entries, num_key_bytes = 0, None, 0, 0
    for _, handle in _pairs(_block(content, *index_handle)):
        (offset, size), behind = _handle(handle, 0)
        if offset < end_of_last or behind != len(handle):
            raise ValueError(f"the block at byte {offset} is not behind the one before")
        end_of_last = offset + size + _TRAILER_BYTES
        for key, value in _pairs(_block(content, offset, size)):
            num_entries += 1
            num_key_bytes += len(key)
            if last_key is not None and key <= last_key:
                raise ValueError(f"key {key[:80]!r} follows {last_key[:80]!r}: not in ascending order")
            if num_entries > _MAX_ENTRIES or num_key_bytes > _MAX_ALL_KEY_BYTES:
                raise ValueError(f"more than {_MAX_ENTRIES} entries, or more than {_MAX_ALL_KEY_BYTES} bytes of keys")
            last_key = key
            yield key, value


def _handle(content: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position behind them."""
    offset, position = protocol_buffers.varint(content, position)
    size, position = protocol_buffers.varint(content, position)
    return (offset, size), position


def _block(content: bytes, offset: int, size: int) -> bytes:
    end = offset + size
    if end + _TRAILER_BYTES > len(content) - _FOOTER_BYTES:
        raise ValueError(f"a block of {size} bytes at byte {offset} reaches beyond the end of {len(content)} bytes")
    stored = int.from_bytes(content[end + 1 : end + _TRAILER_BYTES], "little")
    if google_crc32c.value(content[offset : end + 1]) != unmasked(stored):
        raise ValueError(f"the block at byte {offset} fails its checksum")
    if content[end]:
        raise ValueError(f"the block at byte {offset} is compressed (kind {content[end]}), which is not supported")
    return content[offset:end]


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block; what stands behind them serves searching only."""
    num_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (num_restarts + 1)
    if end < 0:
        raise ValueError(f"a block of {len(block)} bytes claims {num_restarts} restart points")
    position, key = 0, b""
    while position < end:
        num_shared, position = protocol_buffers.varint(block, position)
        num_own, position = protocol_buffers.varint(block, position)
        num_value, position = protocol_buffers.varint(block, position)
        behind = position + num_own + num_value
        if num_shared > len(key) or num_shared + num_own > _MAX_KEY_BYTES or behind > end:
            raise ValueError(
                f"an entry claims {num_shared} + {num_own} bytes of key and {num_value} of value, which do not fit"
            )
        key = key[:num_shared] + block[position : position + num_own]
        yield key, block[position + num_own : behind]
        position = behind
