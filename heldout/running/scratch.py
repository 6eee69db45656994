"""Temporary folders of a program and its workers, whose names tell whose they are, so that none is left for long.

A worker that is killed deletes nothing, and TensorFlow leaves files in every process that ends otherwise than by the
interpreter's own exit. Workers therefore get a folder of their parent's for all that is temporary. The parent deletes
it in the end; what a killed parent left goes when the next one begins on the same machine.
"""

from collections.abc import Iterator
import contextlib
import os
import re
import shutil
import tempfile

from zoo import files

_NAME = re.compile(r"heldout-(?P<machine>[0-9a-f]{8})-(?P<process>[1-9][0-9]{0,8})-.+")


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """A fresh folder for the time of a block."""
    path = make()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def make() -> str:
    """A fresh folder of this process, for itself to delete; deletes those of processes that are no more."""
    _remove_stale()
    return tempfile.mkdtemp(prefix=f"heldout-{files.machine()}-{os.getpid()}-")


def _remove_stale() -> None:
    with os.scandir(tempfile.gettempdir()) as entries:
        named = [(entry, match) for entry in entries if (match := _NAME.fullmatch(entry.name))]
    for entry, match in named:
        with contextlib.suppress(OSError):  # another program may be deleting it too
            made = entry.stat(follow_symlinks=False).st_mtime
            if match["machine"] == files.machine() and not files.is_running(int(match["process"]), known_at=made):
                shutil.rmtree(entry.path, ignore_errors=True)  # those of other users stay
