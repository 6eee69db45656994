"""Which members of an archive count, under which names, and what is said of the others."""

import tarfile

import numpy as np
import pytest

from tests.zoo.archive import archives, passes
from zoo import errors, layout, run_table
from zoo.archive import index

RUN = passes.run_files(0.5, 1)
RECORD, INDEX, DATA = RUN
OTHER = passes.run_files(0.5, 2)


def indexed(tmp_path, members, **options):
    """Members by name and data, or as for `archives.tar_bytes`, or a whole tar."""
    if isinstance(members, dict):
        members = [archives.member(name, data) for name, data in members.items()]
    tar = members if isinstance(members, bytes) else archives.tar_bytes(members)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archives.gz(tar))
    facts, places = passes.indexed(path, tmp_path / "zoo", **options)
    return facts, passes.members(places)


def refusals(members):
    return {member.name: member.reason for member in members if member.state == "refused"}


def test_one_archive_holds_one_experiment(tmp_path):
    second = passes.run_files(0.5, 3, folder="second")
    recipes = {"second/recipe.json": b"{}", "e/recipe.json": b'{"a": 1}'}
    facts, members = indexed(tmp_path, RUN | second | recipes | OTHER)
    assert (facts.experiment, facts.folder, facts.num_runs, facts.state) == ("e", "e", 2, "damaged")
    assert refusals(members).keys() == {*second}
    for reason in refusals(members).values():
        assert "belongs to another experiment than e; an archive holds one experiment" in reason


@pytest.mark.parametrize(
    ("prefix", "folder", "experiment"),
    [("", "e", "e"), ("./", "e", "e"), ("some/where/", "some/where/e", "e")],
)
def test_folder_and_name_of_the_experiment(tmp_path, prefix, folder, experiment):
    facts, members = indexed(tmp_path, {prefix + name: data for name, data in RUN.items()})
    assert (facts.folder, facts.experiment, facts.state) == (folder, experiment, "sound")
    assert [member.parsed.relative for member in members] == [name.removeprefix("e/") for name in RUN]


def test_an_experiment_without_a_folder_and_one_that_is_renamed(tmp_path):
    bare = {name.removeprefix("e/"): data for name, data in RUN.items()}
    (tmp_path / "bare").mkdir()
    facts, _ = indexed(tmp_path / "bare", bare)
    assert (facts.folder, facts.experiment, facts.num_runs) == ("", "experiment", 1)
    facts, _ = indexed(tmp_path, RUN, experiment="renamed")
    assert (facts.folder, facts.experiment) == ("e", "renamed")
    table = run_table.read(layout.run_table_path(tmp_path / "zoo", "e"))
    assert table.experiment == "renamed"


@pytest.mark.parametrize("spelling", ["e/{}", "./e/{}", "e//{}", "e/./{}", "e/{}/."])
@pytest.mark.parametrize("behind", [{}, OTHER])
def test_of_two_members_that_are_one_file_the_first_counts(tmp_path, spelling, behind):
    names = [name.removeprefix("e/") for name in RUN]
    again = [archives.member(spelling.format(name), b"another") for name in (*names, "recipe.json")]
    first = [archives.member(name, data) for name, data in ({"e/recipe.json": b"{}"} | RUN | behind).items()]
    facts, members = indexed(tmp_path, [*first, *again])
    assert facts.num_runs == 1 + bool(behind)
    assert [member.state for member in members if member.reason == ""].count("sound") == 3 * facts.num_runs
    refused = [member for member in members if member.state == "refused"]
    assert len(refused) == 4
    assert all("is there twice; only the first counts" in member.reason for member in refused)


def test_other_runs_and_epochs_are_other_files(tmp_path):
    members = RUN | passes.run_files(0.5, 1, epoch=4) | passes.run_files(0.5, 10) | passes.run_files(0.05, 1)
    facts, found = indexed(tmp_path, members)
    assert (facts.num_runs, len(found), facts.state) == (3, 11, "sound")


def test_what_is_no_file_of_a_zoo_is_listed_and_not_more(tmp_path):
    others = dict.fromkeys(["notes.txt", "e/notes.txt", "e/0.5/1/recipe.json", "f/0.50/1/aux_arrays.npz"], b"x")
    facts, members = indexed(tmp_path, others | RUN | {"z/last.txt": b""})
    assert (facts.state, facts.folder) == ("sound", "e")
    assert {member.name for member in members if member.parsed.part == "other"} == {*others, "z/last.txt"}


def test_folders_are_no_members_unless_they_stand_for_a_file(tmp_path):
    folders = [archives.member(name, type=tarfile.DIRTYPE) for name in ("e", "e/0.5", "e/0.5/7", "x/y")]
    facts, members = indexed(tmp_path, [*folders, *(archives.member(name, data) for name, data in RUN.items())])
    assert [member.name for member in members] == list(RUN)
    assert facts.state == "sound"
    false = archives.member("e/0.5/8/aux_arrays.npz", type=tarfile.DIRTYPE)
    unsafe = archives.member("../out", type=tarfile.DIRTYPE)
    (tmp_path / "other").mkdir()
    _, members = indexed(tmp_path / "other", [false, unsafe])
    found = refusals(members)
    assert found["e/0.5/8/aux_arrays.npz/"].endswith("a folder, where zoos have a file")
    assert 'holds ".."' in found["../out/"]


def test_names_of_refused_members_can_be_shown(tmp_path):
    names = ["e/\x1b[2J", "e/a\nb", "e/\udcff\udcfe", "e/\u202e", "/é"]
    _, members = indexed(tmp_path, [archives.member(name, b"x") for name in names])
    assert [member.name for member in members] == ["e/\\x1b[2J", "e/a\\nb", "e/\\udcff\\udcfe", "e/\\u202e", "/é"]
    assert all((member.name + member.reason).isprintable() for member in members)


REFUSED = {
    "twice": lambda data: [archives.member(RECORD, RUN[RECORD]), archives.member(RECORD, data)],
    "outside": lambda data: [archives.member(RECORD, RUN[RECORD]), archives.member("../\x1b" + RECORD, data)],
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("flipped", [False, True])
def test_an_archive_that_breaks_off_within_a_refused_member(tmp_path, kind, flipped):
    """What is refused stays refused, and the index can be read."""
    data = np.random.default_rng(0).bytes(300_000)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archives.gz(archives.tar_bytes([*REFUSED[kind](data), archives.member(INDEX, RUN[INDEX])])))
    if flipped:
        content = path.read_bytes()
        path.write_bytes(content[:150_000] + bytes(50) + content[150_050:])
    else:
        archives.truncate(path, 150_000)
    facts, places = passes.indexed(path, tmp_path / "zoo")
    assert facts.state == "damaged"
    assert facts.num_runs == 1
    assert "\x1b" not in "".join(facts.faults)
    refused = [member for member in passes.members(places) if member.state != "sound"]
    assert refused[0].state == "refused"
    assert ("is there twice" in refused[0].reason) == (kind == "twice")
    with index.Index(places.index) as stored:
        assert stored.runs() == [(0.5, 1)]


def test_a_member_within_which_the_archive_breaks_off_is_damaged(tmp_path):
    data = np.random.default_rng(0).bytes(300_000)
    path = passes.write(tmp_path / "a.tar.gz", RUN | {"e/0.5/2/checkpoints/ckpt-1.data-00000-of-00001": data})
    archives.truncate(path, 150_000)
    facts, places = passes.indexed(path, tmp_path / "zoo")
    assert list(passes.states(places).values()) == ["sound"] * 3 + ["damaged"]
    assert "the archive is damaged near its byte 150000" in passes.members(places)[-1].reason
    assert facts.num_runs == 1


def test_a_second_copy_behind_a_damaged_first_is_still_refused(tmp_path):
    facts, members = indexed(tmp_path, [archives.member(RECORD, b"damaged"), archives.member(RECORD, RUN[RECORD])])
    assert [member.state for member in members] == ["damaged", "refused"]
    assert facts.num_runs == 0
    assert not layout.run_table_path(tmp_path / "zoo", "e").exists()


def test_formats_are_noted(tmp_path):
    data = b"".join(
        archives.tar_bytes([archives.member(name, content, tar_format)], tar_format)[
            : 512 + -(-len(content) // 512) * 512
        ]
        for tar_format, (name, content) in zip(("v7", "ustar", "gnu"), RUN.items(), strict=True)
    )
    facts, _ = indexed(tmp_path, data + archives.END)
    assert (facts.header_formats, facts.state) == (("v7", "ustar", "gnu"), "sound")


def test_a_name_for_the_experiment_that_is_none(tmp_path):
    with pytest.raises(errors.InvalidValueError, match="experiment is 'a/b'"):
        indexed(tmp_path, RUN, experiment="a/b")
