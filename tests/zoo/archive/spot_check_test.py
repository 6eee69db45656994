"""A look at a few members tells another archive from the one that an index was made of, and reads little."""

import pytest

from tests.zoo.archive import archives, passes
from zoo import errors
from zoo.archive import index, indexing, spot_check
from zoo.remote import source

RUNS = [(0.3, run_id) for run_id in range(10)]


def write(path, changed=()):
    """An archive that is stored, so that its size does not depend on what is in it."""
    contents = {}
    for run in RUNS:
        for name, data in passes.run_files(*run).items():
            contents[name] = data[:-1] + bytes([data[-1] ^ 1]) if name in changed else data
    return passes.write(path, contents, level=0)


@pytest.fixture
def made(tmp_path):
    archive = write(tmp_path / "a.tar.gz")
    places = indexing.places_beside(archive)
    indexing.make(str(archive), places)
    return archive, places


def checked(archive, places):
    with index.Index(places.index) as stored, source.open_source(str(archive)) as opened:
        assert opened.state.size == stored.facts.size
        return spot_check.check(stored, opened)


def test_the_right_archive_is_accepted_by_members_from_its_first_run_to_its_last(made):
    assert checked(*made) == 4
    with index.Index(made[1].index) as stored:
        found = spot_check._members(stored)
    assert [member.run[1] for member in found] == [0, 3, 6, 9]


@pytest.mark.parametrize("run", [RUNS[0], RUNS[-1]])
def test_another_archive_of_the_same_size_is_refused(made, run):
    archive, places = made
    write(archive, changed=passes.run_files(*run))
    with pytest.raises(errors.MismatchError, match=rf"a\.tar\.gz\.index\.sqlite: index of another .*/{run[1]}/.*") as e:
        checked(archive, places)
    assert "delete the index to make it anew" in str(e.value)


def test_what_cannot_be_inflated_at_all_is_refused(made):
    archive, places = made
    archive.write_bytes(b"\xff" * archive.stat().st_size)
    with pytest.raises(errors.MismatchError, match="index of another archive"):
        checked(archive, places)


def test_large_members_are_passed_over(made, monkeypatch):
    with index.Index(made[1].index) as stored:
        sizes = [member.size for member in stored.members()]
    monkeypatch.setattr(spot_check, "_MOST_INFLATED", min(sizes) - 1)
    assert checked(*made) == 0
    monkeypatch.undo()
    monkeypatch.setattr(spot_check, "_MOST_READ", 10)
    assert checked(*made) == 0


def test_of_a_damaged_archive_only_what_was_proved_is_read(tmp_path):
    archive = write(tmp_path / "a.tar.gz")
    archives.truncate(archive, -archive.stat().st_size // 2)
    places = indexing.places_beside(archive)
    facts = indexing.make(str(archive), places).facts
    assert facts.state == "damaged"
    assert checked(archive, places) > 1
    path = passes.changed_index(places.index, tmp_path, "UPDATE member SET state = 'unchecked' WHERE run_id = 0")
    with index.Index(path) as stored:
        found = spot_check._members(stored)
    assert min(member.run[1] for member in found) == 1
    assert {member.state for member in found} == {"sound"}


def test_an_index_that_contradicts_itself_is_refused(made, tmp_path):
    path = passes.changed_index(made[1].index, tmp_path, "UPDATE point SET position = position + 1000000")
    with pytest.raises(errors.DamagedFileError, match="does not lie behind point"):
        checked(made[0], indexing.Places(path))


def test_a_pass_that_was_made_is_believed_of_its_own_archive_only(made):
    archive, places = made
    assert not indexing.make(str(archive), places).is_new
    write(archive, changed=passes.run_files(*RUNS[0]))
    before = places.index.read_bytes()
    with pytest.raises(errors.MismatchError, match="index of another archive"):
        indexing.make(str(archive), places)
    assert places.index.read_bytes() == before
