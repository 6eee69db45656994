"""Copies one object to this disk: resumable, digested on the way, and accepted only if its digests are right.

What has arrived lies in `.NAME.part` beside the target. The journal `.NAME.part.json` tells how many of its bytes are
safe on the disk, which object they belong to, and the state of the digests at that place; what lies behind is written
anew. The target appears when everything is there and has been checked.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import time
from typing import IO, Any

from zoo import errors, files
from zoo.archive import digests, lock
from zoo.remote import addresses, source

SCHEMA_VERSION = 1
Progress = Callable[[int, int], None]
# A kill loses at most so many bytes or so many seconds of work, whichever is less.
_JOURNAL_BYTES = 64 << 20
_JOURNAL_INTERVAL_S = 5.0


@dataclasses.dataclass(frozen=True)
class DownloadResult:
    """A finished download.

    Attributes:
        path: the file.
        size: its bytes.
        md5: hexadecimal MD5 of what was written, or None where it was not computed.
        crc32c: CRC32C of what was written, or None where it was there already.
        checked: what the digests were compared with, for the user.
    """

    path: pathlib.Path
    size: int
    md5: str | None
    crc32c: int | None
    checked: str


def missing_room(target: files.PathLike, size: int) -> int:
    """How many bytes a file will grow by, in a download of `size` bytes that may have begun."""
    part = _part(pathlib.Path(target))
    return max(0, size - part.stat().st_size) if part.is_file() else size


def saved_bytes(target: files.PathLike) -> int:
    """How many bytes of a download that was begun need not be read again; 0 where its journal cannot be read."""
    try:
        state = files.read_json(_journal(pathlib.Path(target))).get("digests", {})
        return digests.StreamDigests.from_state(state).num_bytes
    except errors.HeldoutError:
        return 0


def _part(target: pathlib.Path) -> pathlib.Path:
    """What has arrived of a file."""
    return target.with_name(f".{target.name}.part")


def _journal(target: pathlib.Path) -> pathlib.Path:
    """What tells how much of it is safe on the disk."""
    return target.with_name(f".{target.name}.part.json")


def download(
    opened: source.Source,
    target: files.PathLike,
    *,
    expected_md5: str | None = None,
    progress: Progress | None = None,
) -> DownloadResult:
    """Copies an object to a file, or continues to.

    Args:
        opened: the object.
        target: the file. If it exists already, its size alone is looked at.
        expected_md5: hexadecimal MD5 that the object must have.
        progress: called with the number of bytes that are there and the number of all bytes.

    Raises:
        InvalidValueError: `expected_md5` is no MD5.
        IntegrityError: the bytes have another digest than the expected one or the server's. They are deleted.
        MismatchError: the target exists with another size, the journal belongs to another object, or the object changed
            meanwhile.
        DamagedFileError: the journal is not sound.
        DiskSpaceError: the disk has too little room for what is missing.
        BusyError: another process is downloading to the same place.
        NetworkError, MissingFileError: as `Source.stream`; what has arrived is kept.
        OSError: the disk is full or may not be written to.
    """
    target = pathlib.Path(target)
    md5 = _checked_md5(opened, expected_md5)
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock.held(target.with_name(f".{target.name}.lock")):
        work = _Download(opened, target, md5, progress or (lambda done, total: None))
        work.remove_leftovers()
        return work.existing() or work.run()


class _Download:
    """One download; the caller holds the lock."""

    def __init__(self, opened: source.Source, target: pathlib.Path, md5: str | None, progress: Progress) -> None:
        self._opened = opened
        self._state = opened.state
        self._where = addresses.display(opened.state.url)
        self._target = target
        self._part = _part(target)
        self._journal = _journal(target)
        self._md5 = md5
        self._progress = progress
        self._digests = digests.StreamDigests()
        self._found_md5: str | None = None

    def existing(self) -> DownloadResult | None:
        """What is said of a target that exists already; None if there is none."""
        try:
            size = self._target.stat().st_size
        except FileNotFoundError:
            return None
        if not self._target.is_file() or size != self._state.size:
            raise errors.MismatchError(
                f"{self._target}: exists and has {size} bytes, {self._where} has {self._state.size}; delete it or "
                f"choose another name"
            )
        # A kill just before the end of an earlier download may have left it.
        self._journal.unlink(missing_ok=True)
        return DownloadResult(
            self._target, size, None, None, "was there already with the right size; its content was not read"
        )

    def run(self) -> DownloadResult:
        self._resume()
        with open(self._part, "ab") as stream:
            stream.truncate(self._digests.num_bytes)
            files.check_room(
                self._target.parent, self._state.size - self._digests.num_bytes, f"the missing bytes of {self._where}"
            )
            try:
                self._append(stream)
                stream.flush()
            except OSError as error:
                # A full disk names no file; errors without a number are our own.
                if error.errno is not None and error.filename is None:
                    error.filename = str(self._part)
                raise
        self._opened.check_unchanged()
        checked = self._verify()
        files.sync(self._part)
        os.replace(self._part, self._target)
        self._journal.unlink(missing_ok=True)
        return DownloadResult(self._target, self._state.size, self._found_md5, self._digests.crc32c, checked)

    def remove_leftovers(self) -> None:
        """Deletes journals that a kill left half-written."""
        for path in self._journal.parent.iterdir():
            if files.is_temporary(path.name) and path.name.startswith(f".{self._journal.name}."):
                path.unlink(missing_ok=True)

    def _resume(self) -> None:
        """Takes over the journal's digests, if there is a journal and it is of this object."""
        try:
            journal = files.read_json(self._journal)
        except errors.MissingFileError:
            return
        if self._state.version is None and self._state.crc32c is None and self._md5 is None:
            return  # nothing could tell whether what is there belongs to the same object
        repair = f"delete it and {self._part.name} to begin anew"
        if journal.get("schema_version") != SCHEMA_VERSION:
            raise errors.DamagedFileError(
                f"{self._journal}: schema_version is {journal.get('schema_version')!r}, expected {SCHEMA_VERSION}; "
                f"{repair}"
            )
        for key, now in self._identity().items():
            if journal.get(key) != now:
                raise errors.MismatchError(
                    f"{self._journal}: belongs to a download of another object, whose {key} is {journal.get(key)!r}; "
                    f"that of {self._where} is {now!r}; {repair}"
                )
        try:
            self._digests = digests.StreamDigests.from_state(journal.get("digests", {}))
        except errors.DamagedFileError as error:
            raise errors.DamagedFileError(f"{self._journal}: {error}; {repair}") from error
        there = self._part.stat().st_size if self._part.is_file() else 0
        if not self._digests.num_bytes <= min(there, self._state.size):
            raise errors.DamagedFileError(
                f"{self._journal}: tells of {self._digests.num_bytes} bytes, {self._part.name} has {there} and the "
                f"object {self._state.size}; {repair}"
            )

    def _identity(self) -> dict[str, Any]:
        """By what two downloads are known to be of the same object. The address comes without its signature."""
        return {"url": self._where, "size": self._state.size, "version": self._state.version}

    def _append(self, stream: IO[bytes]) -> None:
        with contextlib.closing(self._opened.stream(self._digests.num_bytes)) as chunks:
            saved_bytes, saved_at = self._digests.num_bytes, time.monotonic()
            while True:
                self._progress(self._digests.num_bytes, self._state.size)
                try:
                    chunk = next(chunks, None)
                except errors.HeldoutError:
                    # Here file and digests agree, so the chunk before need not be lost.
                    self._save(stream)
                    raise
                if chunk is None:
                    return
                stream.write(chunk)
                self._digests.update(chunk)
                num_unsaved = self._digests.num_bytes - saved_bytes
                if num_unsaved >= _JOURNAL_BYTES or time.monotonic() - saved_at >= _JOURNAL_INTERVAL_S:
                    self._save(stream)
                    saved_bytes, saved_at = self._digests.num_bytes, time.monotonic()

    def _save(self, stream: IO[bytes]) -> None:
        """Writes the journal, once the bytes that it tells of are on the disk."""
        stream.flush()
        os.fdatasync(stream.fileno())
        journal = {"schema_version": SCHEMA_VERSION, **self._identity(), "digests": self._digests.state()}
        files.write_json(self._journal, journal)

    def _verify(self) -> str:
        """Compares the digests with all that is known of the object, and says with what."""
        crc32c, md5 = self._digests.crc32c, self._digests.md5_hex()
        if md5 is None and self._state.crc32c is None:
            # Nothing else is left to tell what was lost with the state of the digest.
            with open(self._part, "rb") as stream:
                md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        self._found_md5 = md5
        known = [("MD5", self._md5, md5), ("MD5", self._state.md5, md5)]
        known += [("CRC32C", _hex(self._state.crc32c), _hex(crc32c))]
        for kind, expected, found in known:
            if None not in (expected, found) and expected != found:
                self._part.unlink()
                self._journal.unlink(missing_ok=True)
                raise errors.IntegrityError(
                    f"{self._where}: the {kind} of what arrived for {self._target} is {found}, expected {expected}; "
                    f"it has been deleted, the same command begins anew"
                )
        compared = {kind for kind, expected, found in known if expected is not None and found is not None}
        if "MD5" in compared:
            return "MD5 verified"
        found = f"MD5 is {md5}" if md5 else "MD5 not computed (the digest state could not be saved on this machine)"
        return f"CRC32C verified, {found}" if compared else f"nothing to compare with: {found}"


def _checked_md5(opened: source.Source, md5: str | None) -> str | None:
    """The expected MD5 in lower case, once it is known not to be hopeless."""
    if md5 is None:
        return None
    expected, known = md5.strip().lower(), opened.state.md5
    if not re.fullmatch("[0-9a-f]{32}", expected):
        raise errors.InvalidValueError(f"the expected MD5 is {md5!r}, expected 32 hexadecimal digits")
    if known is not None and known != expected:
        raise errors.IntegrityError(
            f"{addresses.display(opened.state.url)}: its MD5 is {known} according to the server, expected {expected}; "
            f"nothing was downloaded; check the address and the expected MD5"
        )
    return expected


def _hex(crc32c: int | None) -> str | None:
    return None if crc32c is None else f"{crc32c:08x}"
