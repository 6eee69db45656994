"""An index comes from elsewhere: nothing in it is believed, and one that is sound is what was written."""

import contextlib
import sqlite3

import hypothesis
from hypothesis import strategies as st
import pytest

from tests.zoo import corruptions
from tests.zoo.archive import archives
from zoo import errors
from zoo.archive import index, indexing, scan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    zoo = archives.make_zoo(folder / "zoo", num_parameters=0)
    archive = archives.write_archive(zoo, "synthetic", folder / "a.tar.gz")
    places = indexing.places_beside(archive)
    indexing.make(str(archive), places, scan.Expected())
    return places.index


def changed(made, tmp_path, *statements):
    path = tmp_path / "changed.sqlite"
    path.write_bytes(made.read_bytes())
    with sqlite3.connect(path) as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    return path


def read_all(path):
    with index.Index(path) as stored:
        for member in stored.members():
            stored.point(member.point_id)
        return stored.runs(), list(stored.members_of_no_run()), list(stored.faulty_members()), stored.facts


def test_what_was_written_is_read(made):
    runs, _, faulty, facts = read_all(made)
    assert runs == list(archives.DEFAULT_RUNS)
    assert faulty == []
    assert (facts.experiment, facts.folder, facts.name, facts.state) == ("synthetic", "synthetic", "a.tar.gz", "sound")
    with index.Index(made) as stored:
        members = list(stored.members((0.5, 1)))
    assert [member.parsed.part for member in members] == ["aux_arrays"]
    assert members[0].run == (0.5, 1)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("PRAGMA user_version = 2", "schema version 2, expected 1"),
        ("PRAGMA application_id = 7", "application id 0x7"),
        ("DROP TABLE point", "are not those of an index"),
        ("CREATE TABLE extra (a)", "are not those of an index"),
        ("CREATE VIEW v AS SELECT 1", "are not those of an index"),
        ("CREATE TRIGGER t AFTER INSERT ON fact BEGIN SELECT 1; END", "are not those of an index"),
        ("DELETE FROM fact WHERE key = 'size'", "'size'"),
        ("UPDATE fact SET value = '-1' WHERE key = 'size'", "size is -1"),
        ("UPDATE fact SET value = 'x' WHERE key = 'size'", "Expecting value"),
        ("UPDATE fact SET value = '\"..\"' WHERE key = 'experiment'", r"experiment is '\.\.'"),
        ("UPDATE fact SET value = '1' WHERE key = 'name'", "name is 1"),
        ("UPDATE fact SET value = '1' WHERE key = 'md5'", "md5 is 1"),
        ("UPDATE fact SET value = '\"good\"' WHERE key = 'state'", "state is 'good'"),
        ("UPDATE member SET name = '../../etc/passwd'", r'holds "\.\."'),
        ("UPDATE member SET name = x'00'", "is not described"),
        ("UPDATE member SET size = 1 << 60", "size is"),
        ("UPDATE member SET size = 'much'", "size is 'much'"),
        ("UPDATE member SET end_offset = 1 << 40", "ends at"),
        ("UPDATE member SET state = 'fine'", "is not described"),
        ("UPDATE member SET run_id = 77", "is listed under another run"),
        ("UPDATE member SET ratio = '7'", "subset ratio '7'"),
        ("UPDATE member SET point_id = 99", "point 99 is not there"),
        ("UPDATE point SET bits = 9", "bit 9"),
        ("UPDATE point SET offset = 1 << 40", "lies at"),
        ("UPDATE point SET window = 'text'", "has no window"),
    ],
)
def test_changed_values_are_refused(made, tmp_path, statement, message):
    path = changed(made, tmp_path, statement)
    with pytest.raises(errors.DamagedFileError, match=message):
        read_all(path)


def test_no_index_and_no_database(tmp_path):
    with pytest.raises(errors.MissingFileError, match="zoo_index"):
        index.Index(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("not a database, by no means" * 100)
    with pytest.raises(errors.DamagedFileError, match="not a sound index"):
        index.Index(tmp_path / "text.sqlite")
    sqlite3.connect(tmp_path / "empty.sqlite").close()
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(errors.DamagedFileError, match="application id"):
        index.Index(tmp_path / "empty.sqlite")


@hypothesis.settings(
    max_examples=150, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(data=st.data())
def test_damaged_bytes_are_refused_or_give_values_in_range(made, tmp_path, data):
    path = tmp_path / "damaged.sqlite"
    path.write_bytes(data.draw(corruptions.corrupted(made.read_bytes())))
    with contextlib.suppress(errors.DamagedFileError):
        read_all(path)


def test_an_index_on_a_file_system_without_writing_can_be_read(made, tmp_path):
    folder = tmp_path / "read only"
    folder.mkdir()
    copy = folder / "index #1?.sqlite"
    copy.write_bytes(made.read_bytes())
    folder.chmod(0o555)
    try:
        assert read_all(copy)[0] == list(archives.DEFAULT_RUNS)
        assert [path.name for path in folder.iterdir()] == [copy.name]
    finally:
        folder.chmod(0o755)
