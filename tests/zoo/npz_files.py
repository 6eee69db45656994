"""Arrays of all kinds for npz files, and zip archives made by hand, sound or not."""

import struct
import zipfile

import numpy as np

ARRAYS = {
    "mask": np.array([True, False, True]),
    "index": np.arange(12, dtype=np.int64).reshape(3, 4),
    "scalar": np.float32(2.5).reshape(()),
    "name": np.array(["a", "bcd"]),
    "bytes": np.array([b"a", b"bcd"]),
    "empty": np.zeros((0, 3), np.uint8),
    "big_endian": np.arange(3, dtype=">i4"),
    "complex": np.array([1j, 2]),
}


def npy_header(descr, shape, version=(1, 0), fortran_order=False):
    text = repr({"descr": descr, "fortran_order": fortran_order, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text


def write_raw(path, members, method=zipfile.ZIP_STORED):
    """A zip archive of raw bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)


def patch_directory(path, offset, value, form="<I"):
    """Overwrites a field of the first entry of the zip directory."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(bytes(data))


def assert_same(read, expected):
    assert list(read) == list(expected)
    for name, array in expected.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)
