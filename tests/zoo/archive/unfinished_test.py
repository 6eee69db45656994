"""Passes that were broken off are found and told how far they got, without a byte being written."""

import shutil
import sqlite3

import pytest

from tests.zoo.archive import archives, passes
from zoo import errors, files
from zoo.archive import indexing, journal, seek_points, unfinished


class _StoppedError(Exception):
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A zoo in which a pass was broken off in the middle, and the archive."""
    folder = tmp_path_factory.mktemp("made")
    content = {
        name: data for run_id in range(4) for name, data in passes.run_files(0.5, run_id, num_values=400_000).items()
    }
    archive = passes.write(folder / "a.tar.gz", content)

    def progress(done, total):
        if done > total / 2:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        passes.indexed(archive, folder / "zoo", chunk_bytes=1 << 14, save_bytes=1 << 14, progress=progress)
    return folder / "zoo", archive


@pytest.fixture
def begun(made, tmp_path):
    """A zoo of its own for the test, the archive, and the places of the results."""
    zoo = shutil.copytree(made[0], tmp_path / "zoo")
    return zoo, made[1], indexing.places_in_zoo(zoo, passes.EXPERIMENT)


def test_how_far_a_pass_got(begun):
    zoo, archive, places = begun
    before = {path: path.read_bytes() for path in zoo.rglob("*") if path.is_file()}
    found = unfinished.of_experiment(zoo, passes.EXPERIMENT)
    assert (found.path, found.archive, found.num_bytes) == (places.journal, "a.tar.gz", archive.stat().st_size)
    assert 0.2 * found.num_bytes < found.num_done < 0.8 * found.num_bytes
    assert unfinished.experiments(zoo) == [passes.EXPERIMENT]
    assert {path: path.read_bytes() for path in zoo.rglob("*") if path.is_file()} == before


def test_a_pass_that_is_under_way_or_was_killed_tells_what_is_saved(begun, tmp_path):
    zoo, _, places = begun
    saved = unfinished.of_experiment(zoo, passes.EXPERIMENT)
    with journal.Journal(places.journal) as log:
        for point_id in range(10_000, 10_100):  # more than is held in memory
            log.add_point(point_id, seek_points.Point(point_id, point_id, 0, bytes(1 << 15)))
        assert unfinished.of_experiment(zoo, passes.EXPERIMENT) == saved
        # As a kill would leave it in the midst of a transaction.
        killed = shutil.copytree(zoo, tmp_path / "killed")
    before = {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()}
    assert len(before) == 3
    found = unfinished.of_experiment(killed, passes.EXPERIMENT)
    assert (found.archive, found.num_done, found.num_bytes) == (saved.archive, saved.num_done, saved.num_bytes)
    assert {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()} == before


def test_a_pass_that_came_to_its_end_is_none(begun):
    zoo, archive, places = begun
    passes.indexed(archive, zoo, chunk_bytes=1 << 14)
    assert unfinished.of_experiment(zoo, passes.EXPERIMENT) is None
    places.journal.write_bytes(b"left behind")
    assert unfinished.of_experiment(zoo, passes.EXPERIMENT) is None
    places.run_table.unlink()  # the index alone is not all that a pass gives
    assert unfinished.of_experiment(zoo, passes.EXPERIMENT) is not None


def set_values(places, *values):
    database = sqlite3.connect(places.journal)
    database.execute("DELETE FROM progress")
    database.executemany("INSERT INTO progress VALUES (?, ?)", values)
    database.commit()
    database.close()


IDENTITY = ("identity", '{"name": "a\\u001b[2J.tar.gz", "size": 100}')


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([IDENTITY, ("inflater", "null"), ("ended", "false")], ("a\\x1b[2J.tar.gz", 0, 100)),
        ([IDENTITY, ("inflater", "null"), ("ended", "true")], ("a\\x1b[2J.tar.gz", 100, 100)),
        ([IDENTITY, ("inflater", '{"boundary": 7}'), ("ended", "false")], (None, None, None)),
        ([IDENTITY, ("inflater", "nu"), ("ended", "false")], (None, None, None)),
        ([("identity", "[]"), ("inflater", "null"), ("ended", "false")], (None, None, None)),
        ([], (None, None, None)),
    ],
)
def test_what_a_journal_says(begun, values, expected):
    zoo, _, places = begun
    set_values(places, *values)
    found = unfinished.of_experiment(zoo, passes.EXPERIMENT)
    assert (found.archive, found.num_done, found.num_bytes) == expected


@pytest.mark.parametrize("content", [b"", b"no database", None])
def test_a_journal_that_cannot_be_read(begun, content):
    zoo, _, places = begun
    if content is None:
        archives.truncate(places.journal, 4096)
    else:
        places.journal.write_bytes(content)
    found = unfinished.of_experiment(zoo, passes.EXPERIMENT)
    assert found == unfinished.UnfinishedPass(places.journal, None, None, None)


def test_other_folders(begun):
    zoo, _, places = begun
    (zoo / ".hidden").mkdir()
    (zoo / "file").touch()
    files.write_text(zoo / "other" / "notes.txt", "")
    assert unfinished.experiments(zoo) == [passes.EXPERIMENT]
    assert unfinished.of_experiment(zoo, "other") is None
    with pytest.raises(errors.MissingFileError, match="no such folder; give the folder that holds the experiments"):
        unfinished.experiments(zoo / "none")
    assert places.journal.exists()
