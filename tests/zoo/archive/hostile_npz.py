"""npz files of raw bytes, for records that must be refused."""

import io
import struct
import zipfile

import numpy as np


def npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """The beginning of an npy file, padded to 128 bytes."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def of_raw(members: dict[str, bytes]) -> bytes:
    """An npz file whose members have these bytes, whatever they are."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def claiming() -> bytes:
    """A record whose arrays say that they have 10**12 numbers, and have none."""
    keys = ("correctness_train", "correctness_removed", "correctness_test")
    keys += ("index_train", "index_removed", "index_test", "subsample_idx")
    return of_raw(dict.fromkeys(keys, npy_header("<i8", (10**12,))))


def pickled(record: bytes) -> bytes:
    """The record with an array of Python objects."""
    arrays = np.load(io.BytesIO(record))
    stream = io.BytesIO()
    np.savez(stream, **{**arrays, "correctness_train": arrays["correctness_train"].astype(object)})
    return stream.getvalue()
