"""The C library that inflates: zlib-ng where it is there, else the system's zlib.

Python's zlib module neither stops at the borders of deflate blocks nor tells them, so the functions of the C library
are called through ctypes; the interpreter lock is released meanwhile. zlib-ng, as the Python package of that name
brings it along, inflates about half as fast again as zlib. Its extension module exports the library's functions under
names of their own (zng_inflate); where it does not, or they do not do what they must, the system's library is taken.
"""

from collections.abc import Callable
import ctypes
import ctypes.util
import dataclasses
import functools
import importlib.util
from typing import Any
import zlib

from zoo import errors

try:
    # As zlib.crc32, in a tenth of the time.
    from zlib_ng.zlib_ng import crc32 as crc32
except ImportError:
    from zlib import crc32 as crc32

Z_OK, Z_STREAM_END, Z_MEM_ERROR, Z_BUF_ERROR = 0, 1, -4, -5
Z_BLOCK = 5
# Bits of `data_type` after a call with Z_BLOCK: number of unused bits of the last byte taken, in the last block, at
# the end of a block.
UNUSED_BITS, IN_LAST_BLOCK, AT_BLOCK_END = 7, 64, 128
_RAW_WINDOW_BITS = -15
_PROBE_BYTES = 5000


class ZStream(ctypes.Structure):
    """z_stream of zlib, and zng_stream of zlib-ng: equal up to `data_type`, behind which nothing is read."""

    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_size_t),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_size_t),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    )


@dataclasses.dataclass(frozen=True)
class Functions:
    """What is used of the library; each function takes a reference to a `ZStream` first and returns a status.

    Attributes:
        name: "zlib-ng" or "zlib".
        init: prepares for raw deflate data.
        inflate: with a flush mode.
        end: frees.
        reset: begins another stream.
        prime: with a number of bits and their value.
        set_dictionary: with the window and its size.
    """

    name: str
    init: Callable[[Any], int]
    inflate: Callable[[Any, int], int]
    end: Callable[[Any], int]
    reset: Callable[[Any], int]
    prime: Callable[[Any, int, int], int]
    set_dictionary: Callable[[Any, bytes, int], int]


def _typed(library: Any, prefix: str) -> tuple[Any, ...]:
    """The functions that both libraries have in the same form, with their argument types."""
    pointer, number = ctypes.c_void_p, ctypes.c_int
    types = {
        "inflate": [pointer, number],
        "inflateEnd": [pointer],
        "inflateReset": [pointer],
        "inflatePrime": [pointer, number, number],
        "inflateSetDictionary": [pointer, ctypes.c_char_p, ctypes.c_uint],
    }
    functions = []
    for name, argument_types in types.items():
        function = getattr(library, prefix + name)
        function.argtypes = argument_types
        functions.append(function)
    return tuple(functions)


def _zlib_ng() -> Functions | None:
    """zlib-ng, if its Python package is there and exports it."""
    try:
        found = importlib.util.find_spec("zlib_ng.zlib_ng")
        if found is None or found.origin is None:
            return None
        library = ctypes.CDLL(found.origin)
        init = library.zng_inflateInit2
        init.argtypes = [ctypes.c_void_p, ctypes.c_int]
        return Functions("zlib-ng", lambda stream: init(stream, _RAW_WINDOW_BITS), *_typed(library, "zng_"))
    except (ImportError, OSError, AttributeError, ValueError):
        return None


def _system_names() -> list[str | None]:
    """Where libz may be: as the linker finds it, under its usual names, with Python's own module, in the program."""
    names: list[str | None] = [ctypes.util.find_library("z"), "libz.so.1", "libz.dylib", "zlib1.dll"]
    return [name for name in (*names, getattr(zlib, "__file__", None)) if name] + [None]


def _system_zlib(name: str | None) -> Functions | None:
    """The library of that name, if it is there and is zlib."""
    try:
        library = ctypes.CDLL(name)
        library.zlibVersion.restype = ctypes.c_char_p
        init = library.inflateInit2_
        init.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        version, size = library.zlibVersion(), ctypes.sizeof(ZStream)
        return Functions("zlib", lambda stream: init(stream, _RAW_WINDOW_BITS, version, size), *_typed(library, ""))
    except (OSError, AttributeError, TypeError):
        return None


def _works(functions: Functions) -> bool:
    """Whether a known stream of two blocks inflates, stops between them, and goes on from there with a window."""
    data = bytes(range(256)) * (_PROBE_BYTES // 256) + b"the second block refers to the first: " + bytes(range(256))
    compressor = zlib.compressobj(6, zlib.DEFLATED, _RAW_WINDOW_BITS)
    compressed = compressor.compress(data[:-300]) + compressor.flush(zlib.Z_SYNC_FLUSH)
    compressed += compressor.compress(data[-300:]) + compressor.flush()
    stream, output = ZStream(), ctypes.create_string_buffer(2 * len(data))
    source = ctypes.create_string_buffer(compressed, len(compressed))
    stream.next_in, stream.avail_in = ctypes.addressof(source), len(compressed)
    stream.next_out, stream.avail_out = ctypes.addressof(output), len(output)
    reference = ctypes.byref(stream)
    if functions.init(reference) != Z_OK:
        return False
    stopped = False
    try:
        for _ in range(8):
            status = functions.inflate(reference, Z_BLOCK)
            num_output = len(output) - stream.avail_out
            if status == Z_OK and stream.data_type & AT_BLOCK_END and not stream.data_type & IN_LAST_BLOCK:
                stopped = True
                bits, last = stream.data_type & UNUSED_BITS, source[len(compressed) - stream.avail_in - 1][0]
                functions.reset(reference)
                if bits:
                    functions.prime(reference, bits, last >> (8 - bits))
                if functions.set_dictionary(reference, output.raw[:num_output], num_output) != Z_OK:
                    return False
            elif status == Z_STREAM_END:
                return stopped and output.raw[:num_output] == data
            elif status != Z_OK:
                return False
        return False
    finally:
        functions.end(reference)


@functools.cache
def functions() -> Functions:
    """The functions of the library that is used.

    Raises:
        MissingFileError: there is none on this machine.
    """
    found = _zlib_ng()
    if found is not None and _works(found):
        return found
    for name in _system_names():
        found = _system_zlib(name)
        if found is not None and _works(found):
            return found
    raise errors.MissingFileError(
        "neither zlib-ng nor the zlib library (libz) was found on this machine; install one (pip install zlib-ng; "
        "Debian and Ubuntu: zlib1g; conda: zlib)"
    )
