"""Writes sorted tables and protocol buffers, well-formed or not, under right checksums."""

import google_crc32c


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def masked(data):
    """The masked CRC32C of bytes, as four bytes."""
    crc32c = google_crc32c.value(data)
    return ((crc32c >> 15 | crc32c << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def entry(key, value, num_shared=0):
    return varint(num_shared) + varint(len(key)) + varint(len(value)) + key + value


def block(entries, restarts=(0,)):
    return entries + b"".join(offset.to_bytes(4, "little") for offset in (*restarts, len(restarts)))


def trailed(content, kind=0):
    return content + bytes([kind]) + masked(content + bytes([kind]))


def handle(offset, size):
    return varint(offset) + varint(size)


def table(*blocks, handles=None, kind=0):
    """A table of these data blocks; `handles` replaces those of the blocks in the index block."""
    content, found = b"", []
    for data in blocks:
        found.append(handle(len(content), len(data)))
        content += trailed(data, kind)
    last = content + trailed(block(b""))
    index = block(b"".join(entry(bytes([i]), value) for i, value in enumerate(handles or found)))
    footer = handle(len(content), len(block(b""))) + handle(len(last), len(index))
    return last + trailed(index) + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def field(number, value):
    """One field of a protocol buffer: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def checksum_field(crc32c_bytes):
    return varint(6 << 3 | 5) + crc32c_bytes


HEADER = field(1, 1) + field(3, field(1, 1))


def bundle_entry(dtype=1, shape=(2,), size=8, offset=0, shard=0, data=bytes(8), extra=b""):
    dimensions = b"".join(field(2, field(1, size)) for size in shape)
    numbers = field(1, dtype) + field(2, dimensions) + field(3, shard) + field(4, offset) + field(5, size)
    return numbers + checksum_field(masked(data)) + extra


def index(*pairs, header=HEADER):
    """A checkpoint's index of these keys and values."""
    return table(block(entry(b"", header) + b"".join(entry(key, value) for key, value in pairs)))
