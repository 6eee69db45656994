"""The index of an archive: its members, where each lies in the compressed file, and where inflation can begin.

One SQLite file. It lets a member be read by one range request of little more than the member's own size, and says by
size and digest which archive it belongs to. An index comes from elsewhere as often as the archive does, so reading one
trusts nothing: the database is opened read-only, must hold exactly the tables below, and every value is held against
its range; the names of members go through `zoo.archive.names` like those in the archive itself.

    fact      key, value (JSON): what is known of the archive as a whole
    point     where inflation can begin; see `zoo.archive.seek_points`
    member    one row for every member that is no folder, in the order of the archive

Its size is about 150 bytes a member and 100 to 1000 a point.
"""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import json
import pathlib
import sqlite3
from typing import Any, Literal

from zoo import errors, files, layout
from zoo.archive import names, seek_points

SCHEMA_VERSION = 1
# "HeLd" as a number: tells our SQLite files from others.
APPLICATION_ID = 0x48654C64

State = Literal["sound", "unchecked", "damaged", "refused"]
_STATES = ("sound", "unchecked", "damaged", "refused")
TABLES = {
    "fact": "CREATE TABLE fact (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "point": (
        "CREATE TABLE point (point_id INTEGER PRIMARY KEY, position INTEGER NOT NULL, offset INTEGER NOT NULL, "
        "bits INTEGER NOT NULL, window BLOB NOT NULL)"
    ),
    "member": (
        "CREATE TABLE member (member_id INTEGER PRIMARY KEY, name TEXT NOT NULL, ratio TEXT, run_id INTEGER, "
        "size INTEGER NOT NULL, crc32 INTEGER NOT NULL, position INTEGER NOT NULL, point_id INTEGER NOT NULL, "
        "end_offset INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL)"
    ),
}
MEMBER_COLUMNS = (
    "member_id", "name", "ratio", "run_id", "size", "crc32", "position", "point_id", "end_offset", "state", "reason",
)  # fmt: skip
_LARGEST = 1 << 50


@dataclasses.dataclass(frozen=True)
class Member:
    """One file in an archive.

    Attributes:
        member_id: its place in the archive, from 0.
        name: path in the archive.
        size: bytes.
        crc32: of its bytes.
        position: where its bytes begin in the uncompressed archive.
        point_id: number of the point from which to inflate.
        end_offset: where in the compressed file the bytes end that are needed.
        state: "sound" if what it holds was looked into and is right; "unchecked" if it reads well but nothing in it
            could prove it right; "damaged"; "refused" if no archive of a zoo may hold such a member.
        reason: why it is damaged or refused, else empty.
        parsed: what the name says; None for refused members.
    """

    member_id: int
    name: str
    size: int
    crc32: int
    position: int
    point_id: int
    end_offset: int
    state: State
    reason: str
    parsed: names.MemberName | None

    @property
    def why(self) -> str:
        """The reason without the name of the member, or of its checkpoint, for messages that say it already."""
        text = self.reason.removeprefix("member ")
        head, _, rest = text.partition(": ")
        # Below the experiment, for an archive need not have its folder.
        relative = self.name if self.parsed is None else self.parsed.relative
        said = tuple(name for name in (relative, relative.rpartition(".")[0]) if name)
        return rest if rest and head.strip("'").endswith(said) else text

    @property
    def run(self) -> tuple[float, int] | None:
        """Subset ratio and run id, None for what belongs to no run."""
        if self.parsed is None or self.parsed.subset_ratio is None or self.parsed.run_id is None:
            return None
        return self.parsed.subset_ratio, self.parsed.run_id


@dataclasses.dataclass(frozen=True)
class Facts:
    """What an index says of its archive as a whole.

    Attributes:
        name: file name of the archive.
        size: its bytes.
        md5: hexadecimal, None where it was not computed.
        crc32c: of all its bytes.
        uncompressed_size: bytes of the tar stream in it.
        experiment: name of the experiment.
        folder: path of its folder in the archive, empty where its files lie at the top.
        header_formats: of the tar headers there are: "v7", "ustar", "gnu", "pax".
        num_runs: runs whose record can be used.
        state: "sound" or "damaged".
        faults: what is wrong with the archive as a whole, one sentence each.
        checked: what the digests were compared with, a sentence.
    """

    name: str
    size: int
    md5: str | None
    crc32c: int
    uncompressed_size: int
    experiment: str
    folder: str
    header_formats: tuple[str, ...]
    num_runs: int
    state: Literal["sound", "damaged"]
    faults: tuple[str, ...]
    checked: str


class Index:
    """An index on disk, for reading; a context manager.

    Args:
        path: the SQLite file.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no index, one of another version, or its values are out of range.
    """

    def __init__(self, path: files.PathLike) -> None:
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise errors.MissingFileError(f"{path}: no such file; make the index with zoo_index or zoo_stream")
        with self._guarded():
            # Immutable: no lock or journal is created beside the file, which may lie where nothing can be written.
            address = f"{self.path.resolve().as_uri()}?mode=ro&immutable=1"
            self._database = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            try:
                self._check_schema()
                self.facts = self._read_facts()
            except BaseException:
                self._database.close()
                raise

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, KeyError, TypeError, ValueError, OverflowError) as error:
            raise errors.DamagedFileError(
                f"{self.path}: not a sound index of an archive: {error}. Name another file; or, if this was an index "
                "and is damaged, delete it and make it again with zoo_index."
            ) from error

    def _check_schema(self) -> None:
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON"):
            self._database.execute(f"PRAGMA {pragma}")
        application = self._database.execute("PRAGMA application_id").fetchone()[0]
        if application != APPLICATION_ID:
            raise ValueError(f"application id {application:#x}, expected {APPLICATION_ID:#x}")
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema version {version}, expected {SCHEMA_VERSION}")
        there = dict(
            self._database.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite^_%' ESCAPE '^'")
        )
        if there != TABLES | {"member_run": MEMBER_RUN}:
            raise ValueError(f"tables {', '.join(sorted(there))} are not those of an index")

    def _read_facts(self) -> Facts:
        stored = {key: json.loads(value) for key, value in self._database.execute("SELECT key, value FROM fact")}
        values = {field.name: stored[field.name] for field in dataclasses.fields(Facts)}
        for name in ("size", "crc32c", "uncompressed_size", "num_runs"):
            _check_integer(values[name], name)
        for name in ("name", "experiment", "folder", "checked"):
            if not isinstance(values[name], str):
                raise ValueError(f"{name} is {values[name]!r}, expected text")
        if values["md5"] is not None and not isinstance(values["md5"], str):
            raise ValueError(f"md5 is {values['md5']!r}")
        if values["state"] not in ("sound", "damaged"):
            raise ValueError(f"state is {values['state']!r}")
        layout.check_experiment_name(values["experiment"])
        for name in ("header_formats", "faults"):
            values[name] = tuple(names.printable(str(text)) for text in values[name])
        for name in ("name", "checked"):
            values[name] = names.printable(values[name])
        return Facts(**values)

    def runs(self) -> list[tuple[float, int]]:
        """Subset ratio and run id of every run that has a readable member, sorted."""
        with self._guarded():
            rows = self._database.execute(
                "SELECT DISTINCT ratio, run_id FROM member WHERE run_id IS NOT NULL AND state IN ('sound', 'unchecked')"
            )
            return sorted((_ratio(ratio), _check_integer(run_id, "run_id")) for ratio, run_id in rows)

    def members(self, run: tuple[float, int] | None = None) -> Iterator[Member]:
        """The members in the order of the archive.

        Args:
            run: subset ratio and run id, for the members of one run only.
        """
        condition, arguments = "", ()  # type: tuple[str, tuple[Any, ...]]
        if run is not None:
            condition, arguments = "WHERE ratio = ? AND run_id = ?", (layout.ratio_name(run[0]), run[1])
        query = f"SELECT {', '.join(MEMBER_COLUMNS)} FROM member {condition} ORDER BY member_id"
        with self._guarded():
            for row in self._database.execute(query, arguments):
                yield self._member(row)

    def members_of_no_run(self) -> Iterator[Member]:
        """The members that belong to the experiment or to nothing, in the order of the archive."""
        query = f"SELECT {', '.join(MEMBER_COLUMNS)} FROM member WHERE run_id IS NULL ORDER BY member_id"
        with self._guarded():
            for row in self._database.execute(query):
                yield self._member(row)

    def faulty_members(self) -> Iterator[Member]:
        """The damaged and refused members, in the order of the archive."""
        query = (
            f"SELECT {', '.join(MEMBER_COLUMNS)} FROM member WHERE state IN ('damaged', 'refused') ORDER BY member_id"
        )
        with self._guarded():
            for row in self._database.execute(query):
                yield self._member(row)

    def point(self, point_id: int) -> seek_points.Point:
        """A point by its number.

        Raises:
            DamagedFileError: there is none, or it lies outside the archive.
        """
        with self._guarded():
            row = self._database.execute(
                "SELECT position, offset, bits, window FROM point WHERE point_id = ?", (point_id,)
            ).fetchone()
            if row is None:
                raise ValueError(f"point {point_id} is not there")
            position, offset, bits, window = row
            _check_integer(position, "position")
            if _check_integer(offset, "offset") > self.facts.size or _check_integer(bits, "bits") > 7:
                raise ValueError(f"point {point_id} lies at {offset}, bit {bits}, of {self.facts.size}")
            if not isinstance(window, bytes):
                raise ValueError(f"point {point_id} has no window")
            return seek_points.Point(position, offset, bits, window)

    def _member(self, row: Iterable[Any]) -> Member:
        values = dict(zip(MEMBER_COLUMNS, row, strict=True))
        ratio, run_id = values.pop("ratio"), values.pop("run_id")
        for name in ("member_id", "size", "crc32", "position", "point_id", "end_offset"):
            _check_integer(values[name], name)
        name = values["name"]
        if not isinstance(name, str) or values["state"] not in _STATES or not isinstance(values["reason"], str):
            raise ValueError(f"member {values['member_id']} is not described as a member is")
        if values["end_offset"] > self.facts.size:
            raise ValueError(f"member {name!r} ends at {values['end_offset']} of {self.facts.size}")
        parsed = None if values["state"] == "refused" else names.classify(name)
        # They are printed: an index from elsewhere must not speak to the terminal.
        values["name"] = name if parsed is not None else names.printable(name)
        values["reason"] = names.printable(values["reason"])
        member = Member(**values, parsed=parsed)
        stored_run = None if run_id is None else (_ratio(ratio), _check_integer(run_id, "run_id"))
        if parsed is not None and member.run != stored_run:
            raise ValueError(f"member {name!r} is listed under another run")
        return member


MEMBER_RUN = "CREATE INDEX member_run ON member (ratio, run_id)"


def _ratio(name: Any) -> float:
    ratio = layout.parse_ratio(name) if isinstance(name, str) else None
    if ratio is None:
        raise ValueError(f"subset ratio {name!r}")
    return ratio


def _check_integer(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
        raise ValueError(f"{name} is {value!r}, expected a whole number from 0")
    return value
