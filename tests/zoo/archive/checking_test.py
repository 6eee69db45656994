"""A verification names what is wrong with an archive, by itself and against its index, and leaves nothing behind."""

import hashlib

import pytest

from tests.zoo.archive import archives, passes
from zoo.archive import checking, extract_plan, index, scan

OTHER = {"e/readme.txt": b"read me", "e/recipe.json": b"{}"}
FILES = OTHER | passes.run_files(0.3, 0, num_values=40_000) | passes.run_files(0.5, 1, num_values=40_000)


@pytest.fixture
def made(tmp_path):
    """An archive and its index."""
    archive = passes.write(tmp_path / "a.tar.gz", FILES)
    return archive, passes.indexed(archive, tmp_path / "zoo")[1].index


def checked(archive, tmp_path, index_path=None, **expected):
    work = tmp_path / "work" / "check.sqlite"
    if index_path is None:
        result = checking.check(str(archive), work, None, scan.Expected(**expected))
    else:
        with index.Index(index_path) as stored:
            result = checking.check(str(archive), work, stored, scan.Expected(**expected))
    assert list(work.parent.iterdir()) == []
    return result


def test_a_sound_archive(made, tmp_path):
    alone = checked(made[0], tmp_path)
    assert (alone.num_members, alone.num_proved, alone.findings) == (8, 6, ())
    by_index = checked(made[0], tmp_path, made[1], md5=hashlib.md5(made[0].read_bytes()).hexdigest())
    assert (by_index.num_members, by_index.num_proved, by_index.findings) == (8, 8, ())
    assert by_index.facts.num_runs == 2


def test_a_digest_that_is_wrong(made, tmp_path):
    result = checked(made[0], tmp_path, md5="0" * 32)
    assert [finding.name for finding in result.findings] == [None]
    assert f"the one known for this archive is {'0' * 32}" in result.findings[0].reason


def test_an_archive_that_is_cut_short_is_read_all_the_same(made, tmp_path):
    size = made[0].stat().st_size
    assert checked(made[0], tmp_path, size=size).findings == ()
    archives.truncate(made[0], size // 2)
    result = checked(made[0], tmp_path, made[1], size=size)
    reasons = [finding.reason for finding in result.findings if finding.name is None]
    assert f"it has {size // 2} bytes, the archive that is known has {size}" in reasons
    assert any(finding.name is not None for finding in result.findings)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_damage_is_named(made, tmp_path, share):
    archives.flip(made[0], int(share * made[0].stat().st_size), 0x55)
    result = checked(made[0], tmp_path, made[1])
    reasons = {finding.name: finding.reason for finding in result.findings}
    assert "MD5 is" in " ".join(finding.reason for finding in result.findings if finding.name is None)
    found = {name for name in reasons if name is not None}
    assert found
    assert all(name in FILES for name in found)
    assert any("lost: the index has it" in reason or "damaged" in reason for reason in reasons.values())
    # What is neither named nor proved is no longer in doubt.
    assert result.num_proved + len(found) == len(FILES)


def test_an_archive_with_other_members_than_the_index(made, tmp_path):
    changed = FILES | {"e/readme.txt": b"READ ME", "e/new.txt": b"new"}
    del changed["e/recipe.json"]
    path = passes.write(tmp_path / "other.tar.gz", changed)
    reasons = {finding.name: finding.reason for finding in checked(path, tmp_path, made[1]).findings}
    assert reasons.keys() == {None, "e/readme.txt", "e/new.txt", "e/recipe.json"}
    assert reasons["e/readme.txt"].startswith("damaged: 7 bytes with CRC32 ")
    assert reasons["e/new.txt"] == "is not in the index"
    assert reasons["e/recipe.json"] == "lost: the index has it, the archive no longer gives it"


def test_refused_members_do_not_stand_for_those_that_count(tmp_path):
    members = [archives.member(name, data) for name, data in [*FILES.items(), ("e/0.3/0/aux_arrays.npz", b"again")]]
    path = tmp_path / "twice.tar.gz"
    path.write_bytes(archives.gz(archives.tar_bytes(members)))
    _, places = passes.indexed(path, tmp_path / "zoo")
    result = checked(path, tmp_path, places.index)
    assert {finding.name for finding in result.findings} == {None, "e/0.3/0/aux_arrays.npz"}
    assert [finding.reason for finding in result.findings if finding.name] == [
        "refused: is there twice; only the first counts"
    ]
    assert result.num_proved == 8


class _StoppedError(Exception):
    pass


def test_a_check_that_was_broken_off_goes_on(made, tmp_path):
    def progress(done, total):
        raise _StoppedError

    work = tmp_path / "work" / "check.sqlite"
    with pytest.raises(_StoppedError):
        checking.check(str(made[0]), work, progress=progress)
    assert any(path.name.endswith(".part") for path in work.parent.iterdir())
    assert checked(made[0], tmp_path).findings == ()


@pytest.mark.parametrize("top", ["e/", ""])
def test_a_member_is_named_once_and_not_told_to_be_restored(tmp_path, top):
    """What is said of it comes from readers of files, which name them in their own way and say how to mend them."""
    first, second = passes.run_files(0.3, 0), passes.run_files(0.3, 1)
    bad = {f"{top}0.3/2/aux_arrays.npz": b"no npz", f"{top}0.3/1/checkpoints/ckpt-3.index": b"no index"}
    files = {name.removeprefix("e/" if not top else ""): data for name, data in (first | second).items()} | bad
    archive = passes.write(tmp_path / "a.tar.gz", files)
    _, places = passes.indexed(archive, tmp_path / "zoo", experiment="e")
    with index.Index(places.index) as stored:
        problems = {problem.reason for problem in extract_plan.plan(stored, tmp_path, "e", stored.runs()).problems}
        problems |= {problem.reason for problem in extract_plan.plan(stored, tmp_path, "e", [(0.3, 2)]).problems}
    whys = {finding.name: finding.reason for finding in checked(archive, tmp_path).findings if finding.name}
    assert whys.keys() == bad.keys()
    for name, why in whys.items():
        assert f"{name} is damaged in the archive: {why.removeprefix('damaged: ')}" in problems
        assert "0.3/" not in why
        assert not why.endswith(("again.", "again"))
