"""One process at a time in one place."""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib

from zoo import errors, files


@contextlib.contextmanager
def held(path: files.PathLike) -> Iterator[None]:
    """Holds a lock as long as the context lasts; it ends with the process, however that ends.

    Args:
        path: the lock file, created where missing, with the number of the process that holds it. It is left behind.

    Raises:
        BusyError: another process holds it.
        OSError: the folder may not be written to.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read(20).strip()
            raise errors.BusyError(
                f"{path}: held by another process{f' ({holder})' if holder else ''}; wait for it or stop it"
            ) from error
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        yield
