"""Files that appear whole or not at all.

Everything is written beside its target under a temporary name, flushed to the disk, and renamed. A kill leaves the
old file or the new one, never half of one; what it may leave besides is a temporary file, which `is_temporary`
recognises and `remove_stale_temporaries` deletes.
"""

from collections.abc import Iterator, Mapping
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import socket
import time
from typing import Any

from zoo import errors

PathLike = str | os.PathLike[str]

_TEMPORARY_MARK = ".tmp-"
# What `temporary_beside` makes, and what TensorFlow appends to it (.index, .data-00000-of-00001, _temp), or SQLite
# (-journal).
_TEMPORARY_OF_PROCESS = re.compile(
    rf"\..+{re.escape(_TEMPORARY_MARK)}(?P<machine>[0-9a-f]{{8}})-(?P<process>[1-9][0-9]{{0,8}})-[0-9a-f]{{8}}([._-].*)?",
    re.DOTALL,
)
# Nothing of ours leaves a file for so long without writing to it.
_STALE_SECONDS = 24 * 3600
# The time of boot is known in whole seconds, and clocks are set.
_CLOCK_SECONDS = 5.0


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is the unfinished work of an earlier process."""
    return name.startswith(".") and _TEMPORARY_MARK in name


def temporary_beside(target: PathLike) -> pathlib.Path:
    """A fresh hidden name in the folder of `target`; nothing is created."""
    target = pathlib.Path(target)
    return target.with_name(f".{target.name}{_TEMPORARY_MARK}{machine()}-{os.getpid()}-{secrets.token_hex(4)}")


@functools.cache
def machine() -> str:
    """What process ids are unique in: this host since it was started, or a container with ids of its own."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def is_running(process: int, known_at: float | None = None) -> bool:
    """Whether there is a process of this id on this machine that is at work.

    Args:
        process: its id.
        known_at: a time, in seconds since 1970, at which it was; one that began later only has its id.
    """
    try:
        os.kill(process, 0)  # signal 0 only asks whether the process is there
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        # Behind the name, which may hold anything: the state, and as the twentieth the start in ticks since boot.
        fields = pathlib.Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        lines = pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return True  # not Linux, or it has just gone; who asks again gets the answer
    if fields[0] == "Z":
        return False  # it has ended, and nobody has asked how
    booted = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    began = booted + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return known_at is None or began <= known_at + _CLOCK_SECONDS


def remove_stale_temporaries(directory: PathLike) -> None:
    """Deletes what dead processes left unfinished in a folder: files and folders made under `temporary_beside` names.

    Only what lies directly in the folder is looked at. Of processes of this machine, those that are no more are dead.
    Whether those of other machines are, which may share the file system, cannot be told from here: theirs goes when
    it has not been written to for a day.

    Args:
        directory: the folder; it need not exist.

    Raises:
        OSError: something may not be deleted.
    """
    try:
        with os.scandir(directory) as entries:
            stale = [entry for entry in entries if _is_stale(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in stale:
        # Another process may be cleaning up here too.
        with contextlib.suppress(FileNotFoundError):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def _is_stale(entry: os.DirEntry[str]) -> bool:
    match = _TEMPORARY_OF_PROCESS.fullmatch(entry.name)
    if match is None:
        return False
    if match["machine"] != machine():
        return _newest(entry) < time.time() - _STALE_SECONDS
    return not is_running(int(match["process"]), known_at=_newest(entry))


def _newest(entry: os.DirEntry[str]) -> float:
    """When a file, or anything in a folder, was last written to; now for what has just gone."""
    try:
        times = [entry.stat(follow_symlinks=False).st_mtime]
        if entry.is_dir(follow_symlinks=False):
            times += [path.lstat().st_mtime for path in pathlib.Path(entry.path).rglob("*")]
    except FileNotFoundError:
        return time.time()
    return max(times)


@contextlib.contextmanager
def write_whole(target: PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path; on success it is synced and renamed to `target`, on failure it is removed.

    Args:
        target: the file to create or replace. Its folder is created where missing.

    Yields:
        The path to write to, in the same folder.

    Raises:
        OSError: the disk is full or may not be written to. An error of the operating system that names no file, as a
            full disk gives it, gets `target` as its filename.
    """
    target = pathlib.Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # Errors without a number are our own, whose message a filename would replace.
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(target)
        raise


def sync(path: PathLike) -> None:
    """Flushes one file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(target: PathLike, text: str) -> None:
    """Writes UTF-8 text, whole or not at all."""
    with write_whole(target) as path:
        path.write_text(text, encoding="utf-8")


def write_json(target: PathLike, value: Mapping[str, Any]) -> None:
    """Writes a JSON object, indented and with a final newline, whole or not at all. NaN is refused."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: PathLike) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is not UTF-8 JSON, or not an object.
    """
    try:
        value = json.loads(pathlib.Path(path).read_bytes().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise errors.MissingFileError(f"{path}: no such file") from error
    except (ValueError, RecursionError) as error:
        raise errors.DamagedFileError(
            f"{path}: not valid JSON ({error}); delete it and run the command again"
        ) from error
    if not isinstance(value, dict):
        raise errors.DamagedFileError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def size_text(num_bytes: int) -> str:
    """A number of bytes for people, in decimal units: "513 B", "1.5 MB"."""
    size, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} {units[0]}" if size >= 99.5 or units[0] == "B" else f"{size:.1f} {units[0]}"


def count_text(number: int, noun: str) -> str:
    """A number of things for people: "1 run", "2 runs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def free_bytes(folder: PathLike) -> int:
    """Room in the file system of a folder, which need not exist yet."""
    return shutil.disk_usage(_nearest(folder)).free


def _nearest(path: PathLike) -> pathlib.Path:
    """The path, or what exists of it."""
    existing = pathlib.Path(path).absolute()
    while not existing.exists():
        existing = existing.parent
    return existing


def room_report(folder: PathLike, num_bytes: int) -> list[str]:
    """What a dry run says of the disk: nothing is refused, and nothing written.

    Args:
        folder: where something would be written; it need not exist yet.
        num_bytes: room that it needs at most.

    Returns:
        A line with what is needed and what is free; one that begins with "warning:" for each thing that would refuse
        the work itself.
    """
    free, existing = free_bytes(folder), _nearest(folder)
    lines = [f"disk: {size_text(num_bytes)} at most are needed, {size_text(free)} are free"]
    if num_bytes > free:
        lines.append(f"warning: {folder}: has too little room; make room or choose another folder")
    if fault := _fault(existing):
        lines.append(f"warning: {existing}: {fault}")
    return lines


def check_room(folder: PathLike, num_bytes: int, what: str, repair: str = "") -> None:
    """Refuses to begin what would fill the disk.

    Args:
        folder: where it would be written; it need not exist yet.
        num_bytes: room that is needed.
        what: what needs it, in the plural.
        repair: what to do besides making room or choosing another folder, with a comma in front.

    Raises:
        DiskSpaceError: there is less room; the message says so where the folder could not be written to anyhow.
    """
    free = free_bytes(folder)
    if num_bytes <= free:
        return
    existing = _nearest(folder)
    if fault := _fault(existing):
        raise errors.DiskSpaceError(f"{folder}: {what} cannot be written there: {existing} {fault}")
    raise errors.DiskSpaceError(
        f"{folder}: {what} need {size_text(num_bytes)}, {size_text(free)} are free; make room or choose another "
        f"folder{repair}"
    )


def _fault(existing: pathlib.Path) -> str:
    """Why no room would help, with the repair; "" where it would."""
    if not existing.is_dir():
        return "is a file, expected a folder; choose another path"
    if shutil.disk_usage(existing).total == 0:
        return "lies in a file system that takes no files (its size is 0 B); choose another folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return "may not be written to; choose another folder, or change its permissions"
    return ""


def sha256_of_file(path: PathLike) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
