"""Event files of scalars, as TensorBoard reads them; written without TensorFlow.

An event file is a sequence of records, each

    8 bytes    length n of the event, little-endian
    4 bytes    masked CRC32C of these
    n bytes    the event, a protocol buffer: wall time, step, and a summary of tags and values
    4 bytes    masked CRC32C of it

The first event has the version of the format instead of a summary. A file grows by one write for each event; a kill can
leave the last one cut off, where readers stop. Every program writes files of its own; TensorBoard joins those of a
folder.
"""

from collections.abc import Mapping
import os
import pathlib
import socket
import struct
import time
from typing import BinaryIO

import google_crc32c

from zoo import files

_VERSION = b"brain.Event:2"
_MASK_DELTA = 0xA282EAD8
# Field number and kind of storage, as one byte.
_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY = b"\x09", b"\x10", b"\x1a", b"\x2a"
_VALUE, _TAG, _SIMPLE_VALUE = b"\x0a", b"\x0a", b"\x15"


class EventWriter:
    """Appends scalars to a fresh event file.

    Args:
        folder: where; made where missing.
    """

    def __init__(self, folder: files.PathLike) -> None:
        self._folder = pathlib.Path(folder)
        self._stream: BinaryIO | None = None

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one event; the file begins with the first.

        Args:
            step: position on the axis, 0 or more.
            scalars: numbers by tag, stored as float32.

        Raises:
            OSError: the file cannot be written.
        """
        if self._stream is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time_ns() // 10**9}.{socket.gethostname()}.{os.getpid()}"
            number = len(list(self._folder.glob(f"{name}.*")))
            self._stream = open(self._folder / f"{name}.{number}", "xb", buffering=0)  # noqa: SIM115 - see `close`
            self._stream.write(_record(_event(_FILE_VERSION + _sized(_VERSION))))
        values = b"".join(_VALUE + _sized(_scalar(tag, value)) for tag, value in scalars.items())
        self._stream.write(_record(_event(_STEP + _varint(step) + _SUMMARY + _sized(values))))

    def close(self) -> None:
        """Ends the file."""
        if self._stream is not None:
            self._stream.close()


def _event(fields: bytes) -> bytes:
    return _WALL_TIME + struct.pack("<d", time.time()) + fields


def _scalar(tag: str, value: float) -> bytes:
    return _TAG + _sized(tag.encode()) + _SIMPLE_VALUE + struct.pack("<f", value)


def _sized(content: bytes) -> bytes:
    return _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """7 bits a byte, lowest first."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + _checksum(length) + event + _checksum(event)


def _checksum(content: bytes) -> bytes:
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF)
