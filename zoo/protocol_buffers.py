"""The fields of a protocol buffer, without its description: numbers and bytes by field number.

Only what checkpoints use is read: varints, fixed numbers, and bytes that hold texts or further protocol buffers.
Everything raises ValueError over bytes that are not as promised; the caller knows the file and says so.
"""

from collections.abc import Iterator, Mapping

# How a field is stored.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}


def varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first.

    Args:
        content: bytes that hold it.
        position: where it begins.

    Returns:
        The number, in [0, 2^64), and the position behind it.

    Raises:
        ValueError: the bytes end within it, or it has more than 64 bits.
    """
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            raise ValueError("ends within a number")
        byte = content[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >> 64:
                break
            return number, position
    raise ValueError("a number of more than 64 bits")


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field, in order; varints come as integers, all else as bytes.

    Raises:
        ValueError: a field is cut off, or stored in no known way.
    """
    position = 0
    while position < len(message):
        tag, position = varint(message, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = varint(message, position)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, position = varint(message, position)
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"a field is stored in kind {kind}, which protocol buffers of checkpoints have not")
        if position + size > len(message):
            raise ValueError("a field reaches beyond the end of its entry")
        yield tag >> 3, message[position : position + size]
        position += size


def last_fields(message: bytes) -> dict[int, int | bytes]:
    """Values by field number; of repeated ones the last counts.

    Raises:
        ValueError: as in `fields`.
    """
    return dict(fields(message))


def number(values: Mapping[int, int | bytes], field: int) -> int:
    """A field that holds a number in [0, 2^63); 0 where it is left out.

    Raises:
        ValueError: it holds something else.
    """
    value = values.get(field, 0)
    if isinstance(value, bytes) or value >= 1 << 63:
        raise ValueError(f"field {field} holds {value!r:.40}, expected a number from 0")
    return value


def message(values: Mapping[int, int | bytes], field: int) -> bytes:
    """A field that holds a protocol buffer itself; empty where it is left out.

    Raises:
        ValueError: it holds a number.
    """
    value = values.get(field, b"")
    if not isinstance(value, bytes):
        raise ValueError(f"field {field} holds a number, expected several fields")
    return value
