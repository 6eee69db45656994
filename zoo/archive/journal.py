"""What a pass over an archive has found so far, on disk: an index that grows, and where the pass stands.

One SQLite file beside the index that it will become. Everything between two `commit`s is one transaction, so a kill
leaves the state of the last commit: members, points and rows on the one hand, the state of decompressor, digests and
tar parser on the other, always of the same moment.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import json
import pathlib
import sqlite3
from typing import Any

import numpy as np

from zoo import errors, files, layout, run_scan
from zoo.archive import index, names, seek_points

_EXTRA_TABLES = {
    "progress": "CREATE TABLE progress (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "blob": "CREATE TABLE blob (key TEXT PRIMARY KEY, content BLOB NOT NULL)",
    "run_row": (
        "CREATE TABLE run_row (ratio TEXT NOT NULL, run_id INTEGER NOT NULL, num_train INTEGER NOT NULL, "
        "num_test INTEGER NOT NULL, subset_mask BLOB NOT NULL, train_correctness BLOB NOT NULL, "
        "test_correctness BLOB NOT NULL, sha256 BLOB NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (ratio, run_id)) "
        "WITHOUT ROWID"
    ),
}
_ROW_BLOBS = ("subset_mask", "train_correctness", "test_correctness", "sha256")


class Journal:
    """The growing index; a context manager that keeps what was committed.

    Args:
        path: the SQLite file, created where missing.

    Raises:
        DamagedFileError: the file is there and is no journal of this version.
    """

    def __init__(self, path: files.PathLike) -> None:
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(self.path, isolation_level=None)
        except sqlite3.Error as error:
            raise _as_own(error, self.path) from error
        try:
            self._database.execute("PRAGMA journal_mode = DELETE")
            self._database.execute("PRAGMA synchronous = FULL")
            self._create_or_check()
            self._database.execute("BEGIN")
        except sqlite3.Error as error:
            self._database.close()
            raise _as_own(error, self.path) from error
        except BaseException:
            self._database.close()
            raise

    def _create_or_check(self) -> None:
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._database.execute("BEGIN")
            for statement in (*index.TABLES.values(), index.MEMBER_RUN, *_EXTRA_TABLES.values()):
                self._database.execute(statement)
            self._database.execute(f"PRAGMA user_version = {index.SCHEMA_VERSION}")
            self._database.execute("COMMIT")
        elif version != index.SCHEMA_VERSION:
            raise errors.DamagedFileError(
                f"{self.path}: schema version {version}, expected {index.SCHEMA_VERSION}; delete the file to start anew"
            )

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def commit(self, progress: Mapping[str, Any], blobs: Mapping[str, bytes | bytearray]) -> None:
        """Makes everything so far durable, together with where the pass stands.

        Args:
            progress: values that go through JSON.
            blobs: bytes by name; those of the last commit are dropped.
        """
        self._execute("DELETE FROM blob")
        for key, content in blobs.items():
            self._execute("INSERT INTO blob VALUES (?, ?)", (key, content))
        self._execute("DELETE FROM progress")
        for key, value in progress.items():
            self._execute("INSERT INTO progress VALUES (?, ?)", (key, json.dumps(value)))
        self._execute("COMMIT")
        self._execute("BEGIN")

    def progress(self) -> dict[str, Any]:
        """What the last commit said; empty before the first."""
        return {key: json.loads(value) for key, value in self._execute("SELECT key, value FROM progress")}

    def blobs(self) -> dict[str, bytes]:
        """The bytes of the last commit."""
        return dict(self._execute("SELECT key, content FROM blob"))

    def add_point(self, point_id: int, point: seek_points.Point) -> None:
        """Adds a point."""
        values = (point_id, point.position, point.offset, point.bits, point.window)
        self._execute("INSERT INTO point VALUES (?, ?, ?, ?, ?)", values)

    def add_member(self, member: index.Member) -> None:
        """Adds a member."""
        ratio, run_id = (None, None) if member.run is None else (layout.ratio_name(member.run[0]), member.run[1])
        values = vars(member) | {"ratio": ratio, "run_id": run_id}
        places = ", ".join("?" * len(index.MEMBER_COLUMNS))
        self._execute(f"INSERT INTO member VALUES ({places})", [values[column] for column in index.MEMBER_COLUMNS])

    def judge_member(self, member_id: int, state: index.State, reason: str) -> None:
        """Changes what is known of a member that has been added."""
        self._execute("UPDATE member SET state = ?, reason = ? WHERE member_id = ?", (state, reason, member_id))

    def judge_record(self, run: tuple[float, int], reason: str) -> None:
        """The sound record of a run cannot be used after all."""
        query = "SELECT member_id, name FROM member WHERE ratio = ? AND run_id = ? AND state = 'sound'"
        for member_id, name in self._execute(query, (layout.ratio_name(run[0]), run[1])).fetchall():
            if names.classify(name).part == "aux_arrays":
                self.judge_member(member_id, "damaged", reason)

    def names_of_run(self, subset_ratio: float, run_id: int) -> list[str]:
        """Names of the members that were added and not refused, of one run."""
        query = "SELECT name FROM member WHERE ratio = ? AND run_id = ? AND state != 'refused'"
        return [name for (name,) in self._execute(query, (layout.ratio_name(subset_ratio), run_id))]

    def count_members(self, state: index.State) -> int:
        """Number of members in a state."""
        return int(self._execute("SELECT count(*) FROM member WHERE state = ?", (state,)).fetchone()[0])

    def add_row(self, row: run_scan.RunRow) -> None:
        """Adds what a run got right."""
        values = (
            layout.ratio_name(row.run.subset_ratio), row.run.run_id, row.num_train, row.num_test,
            row.subset_mask_bits.tobytes(), row.train_correctness_bits.tobytes(), row.test_correctness_bits.tobytes(),
            row.source_sha256.tobytes(), row.source_size,
        )  # fmt: skip
        self._execute("INSERT INTO run_row VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def row_sizes(self) -> list[tuple[int, int, int]]:
        """(N, M, number of rows), the most frequent first, of those as frequent the one of the first row."""
        times = collections.Counter((num_train, num_test) for _, _, num_train, num_test, _ in self.row_names())
        return [(*sizes, count) for sizes, count in times.most_common()]

    def row_names(self) -> list[tuple[float, int, int, int, bytes]]:
        """(subset ratio, run id, N, M, SHA-256) of every row, sorted by ratio and id."""
        query = "SELECT ratio, run_id, num_train, num_test, sha256 FROM run_row ORDER BY CAST(ratio AS REAL), run_id"
        return [(float(ratio), *rest) for ratio, *rest in self._execute(query)]

    def row_column(self, column: str, runs: Sequence[tuple[float, int]]) -> Iterator[np.ndarray]:
        """One column of the rows of some runs, one array [1, bytes] uint8 after the other.

        Args:
            column: subset_mask, train_correctness, test_correctness or sha256.
            runs: subset ratio and run id of each row wanted.
        """
        assert column in _ROW_BLOBS
        for ratio, run_id in runs:
            query = f"SELECT {column} FROM run_row WHERE ratio = ? AND run_id = ?"
            content = self._execute(query, (layout.ratio_name(ratio), run_id)).fetchone()[0]
            yield np.frombuffer(content, np.uint8)[None]

    def row_source_sizes(self, runs: Sequence[tuple[float, int]]) -> list[int]:
        """Bytes of the record behind each row."""
        query = "SELECT size FROM run_row WHERE ratio = ? AND run_id = ?"
        return [self._execute(query, (layout.ratio_name(ratio), run_id)).fetchone()[0] for ratio, run_id in runs]

    def write_index(self, target: files.PathLike, facts: index.Facts) -> None:
        """Writes the index that was gathered to a file of its own, whole or not at all.

        Must follow a `commit`, because another database is attached.
        """
        self._execute("COMMIT")
        with files.write_whole(target) as temporary:
            self._execute("ATTACH DATABASE ? AS target", (str(temporary),))
            self._execute("PRAGMA target.journal_mode = OFF")
            self._execute(f"PRAGMA target.application_id = {index.APPLICATION_ID}")
            self._execute(f"PRAGMA target.user_version = {index.SCHEMA_VERSION}")
            self._execute("BEGIN")
            for name, statement in index.TABLES.items():
                self._execute(statement.replace("CREATE TABLE ", "CREATE TABLE target."))
                self._execute(f"INSERT INTO target.{name} SELECT * FROM main.{name} ORDER BY 1")
            self._execute(index.MEMBER_RUN.replace("INDEX ", "INDEX target."))
            for key, value in vars(facts).items():
                self._execute("INSERT INTO target.fact VALUES (?, ?)", (key, json.dumps(value)))
            self._execute("COMMIT")
            self._execute("DETACH DATABASE target")
        self._execute("BEGIN")

    def _execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise _as_own(error, self.path) from error


def _as_own(error: sqlite3.Error, path: pathlib.Path) -> Exception:
    """A full disk is the disk's fault, everything else the file's."""
    if "disk is full" in str(error) or "disk I/O error" in str(error):
        return errors.DiskSpaceError(
            f"{path}: {error}; make room or choose another folder; what was finished is kept, and the same command "
            "continues"
        )
    return errors.DamagedFileError(f"{path}: cannot be continued: {error}; delete the file to start anew")
