"""Errors that a user can mend.

Every error that the project raises on purpose carries `HeldoutError` beside the builtin it refines, so that library
users catch the builtin they expect and the programs print the message alone, without a traceback. A message names
the file, flag or value, what was found, what was expected, and the repair. `explain` does the same for what the
operating system reports.
"""

import errno


class HeldoutError(Exception):
    """Base of all errors with a message meant for the user."""


class DamagedFileError(HeldoutError, ValueError):
    """A file is truncated, tampered with, or not what its name promises."""


class MissingFileError(HeldoutError, FileNotFoundError):
    """A file or folder that was asked for does not exist."""


class MismatchError(HeldoutError, ValueError):
    """Two things that must agree do not: recipes, labels, shapes, variables."""


class InvalidValueError(HeldoutError, ValueError):
    """A flag or argument lies outside what is allowed."""


class UsageError(InvalidValueError):
    """A program was started without a flag that it needs."""


class DiskSpaceError(HeldoutError, OSError):
    """The disk has too little room for what is to be written."""


class IntegrityError(DamagedFileError):
    """Bytes do not have the digest that they must have."""


class UnsafeArchiveError(DamagedFileError):
    """An archive holds what no archive of a zoo holds: paths that leave the folder, links, devices, duplicates."""


class NetworkError(HeldoutError, ConnectionError):
    """A server cannot be reached, fails again and again, or refuses for good."""


class BusyError(HeldoutError, BlockingIOError):
    """Another process is at work in the same place."""


_CONTINUE = "the same command then continues"
_REPAIRS = {
    errno.ENOSPC: f"make room or choose another folder; {_CONTINUE}",
    errno.EDQUOT: f"your disk quota is used up: make room or choose another folder; {_CONTINUE}",
    errno.EACCES: "choose a folder that you may write to, or change its permissions",
    errno.EPERM: "choose a folder that you may write to, or change its permissions",
    errno.EROFS: "choose a folder on a file system that can be written to",
    errno.EEXIST: "a file stands where a folder was expected; choose another path",
    errno.ENOTDIR: "a file stands where a folder was expected; choose another path",
    errno.EISDIR: "a folder stands where a file was expected; choose another path",
}


def explain(error: HeldoutError | OSError) -> str:
    """The message of an error for the user; errors of the operating system get their file and a repair."""
    if isinstance(error, HeldoutError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    repair = _REPAIRS.get(error.errno or 0, f"check the path and the disk, then try again; {_CONTINUE}")
    return f"{where}{error.strerror or error}: {repair}"
