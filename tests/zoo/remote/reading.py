"""How the tests read the object that their server has."""

import dataclasses
import os
import pathlib

from zoo.remote import source

NAME = "zoo.tar.gz"
FAST = source.Options(num_tries=3, timeout_s=10.0, backoff_s=0.01, num_parallel=3, chunk_bytes=100_000)
HASTY = dataclasses.replace(FAST, timeout_s=0.4)


def is_large(method: str, path: str, wanted: str) -> bool:
    """Requests for the object's bytes, as against those that look at it."""
    return method == "GET" and wanted != "bytes=0-0"


def read_all(opened: source.Source, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(opened.stream(start, stop))


def replace(path: pathlib.Path, content: bytes) -> None:
    """Another object under the same name; the old file may still be open."""
    new = path.with_name("new")
    new.write_bytes(content)
    os.utime(new, ns=(10**18, 10**18))
    new.replace(path)
