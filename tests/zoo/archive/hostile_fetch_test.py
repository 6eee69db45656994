"""Hostile archives, indexed and fetched from as a user would: what is wrong is refused and named, the rest is had."""

import pathlib
import subprocess
import sys

import pytest

from tests.zoo.archive import archives, passes
from zoo import errors, layout, run_table
from zoo.archive import index, indexing

SOUND = {"e/0.5/0/aux_arrays.npz": archives.record(1), "e/0.5/2/aux_arrays.npz": archives.record(2)}
FIRST = {"e/0.5/1/aux_arrays.npz": archives.record(3)}
OWN = {"e/.archive.index.sqlite.lock", "e/archive.index.sqlite", "e/run_table.npz"}

# What is said of a member whose name is other than that of a sound run, or of the archive; the others are had.
REFUSED = {
    "absolute_path": "its path is absolute",
    "absolute_path_of_a_run": "its path is absolute",
    "parent_folder": 'its path holds ".."',
    "parent_folder_within": 'its path holds ".."',
    "backslash": "its path holds a backslash",
    "newline": "its path holds control characters",
    "escape_sequence": "its path holds control characters",
    "direction_of_text": "its path holds control characters",
    "nul": "its path holds control characters",
    "not_utf8": "its path is not UTF-8",
    "long_path": "expected 1024 at most",
    "symbolic_link": "a link to '/etc/passwd'",
    "symbolic_link_to_folder": "a link to '/tmp'",
    "hard_link": "a link to '/etc/passwd'",
    "character_device": "a device, pipe or sparse file",
    "block_device": "a device, pipe or sparse file",
    "pipe": "a device, pipe or sparse file",
    "folder_for_file": "a folder, where zoos have a file",
    "unknown_type": "a device, pipe or sparse file",
    "sparse": "a device, pipe or sparse file",
    "sparse_pax": "a device, pipe or sparse file",
    "duplicate": "is there twice; only the first counts",
    "duplicate_in_another_spelling": "is there twice; only the first counts",
    "size_no_number": "expected an octal number",
    "pax_wrong_length": "expected <length> <key>=<value>",
    "extension_twice": "two extensions of one sort",
    "extension_without_member": "the archive ends behind an extension",
    "behind_the_end": "data behind the two blocks of zeros",
    "npz_bomb": "its arrays declare 3221225344 bytes, the limit is 268435456",
    "npz_that_claims": "declares shape",
    "npz_with_pickle": "dtype object",
    "npz_none": "not a sound npz file",
    "size_beyond_the_end": "the archive ends within this member",
}
# Nothing behind them can be understood in only one way: no index is made.
REFUSED_AS_A_WHOLE = {
    "longer_path": "expected 4096 at most",
    "huge_size": "declares 1125899906842624 bytes",
    "huge_pax_size": "declares 4611686018427387904 bytes",
    "negative_size": "declares -512 bytes",
    "negative_pax_size": "declares -512 bytes",
    "folder_with_data": "named like a folder",
    "pax_for_all": "gives path of all members at once",
    "huge_extension": "an extension declares 1073741824 bytes",
}
WITH_ANOTHER_RUN = ("duplicate", "duplicate_in_another_spelling", "behind_the_end")


def test_every_kind_is_here():
    assert {*REFUSED, *REFUSED_AS_A_WHOLE} == set(archives.HOSTILE)


def outside(tmp_path):
    """Everything that is not below the zoo's folder, of what is within reach of a test."""
    found = passes.files_below(tmp_path)
    return {name for name in found if not name.startswith("zoo/")} | {
        str(path) for path in (pathlib.Path("/tmp/heldout-hostile"), pathlib.Path("/e")) if path.exists()
    }


def archive_of(tmp_path, kind):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archives.hostile(kind))
    return path


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_wrong_is_named_and_the_rest_is_had(tmp_path, kind):
    archive, zoo = archive_of(tmp_path, kind), tmp_path / "zoo"
    facts, places = passes.indexed(archive, zoo)
    assert facts.state == "damaged"
    with index.Index(places.index) as stored:
        said = [*facts.faults, *(member.reason for member in stored.faulty_members())]
        assert all(member.name.isprintable() for member in stored.faulty_members())
    assert any(REFUSED[kind] in text for text in said), said
    result = passes.fetched(archive, zoo)
    expected = dict(SOUND)
    if kind == "size_beyond_the_end":
        del expected["e/0.5/2/aux_arrays.npz"]
    if kind in WITH_ANOTHER_RUN:
        expected |= FIRST
    found = passes.files_below(zoo)
    assert {name: data for name, data in found.items() if name not in OWN} == expected
    assert result.num_files == facts.num_runs == len(expected)
    table = run_table.read(places.run_table)
    assert [f"e/0.5/{run_id}/aux_arrays.npz" for run_id in table.run_id] == sorted(expected)
    assert outside(tmp_path) == {"a.tar.gz"}


@pytest.mark.parametrize("kind", REFUSED_AS_A_WHOLE)
def test_what_can_be_read_in_two_ways_is_refused_as_a_whole(tmp_path, kind):
    archive, zoo = archive_of(tmp_path, kind), tmp_path / "zoo"
    for _ in range(2):
        with pytest.raises(errors.UnsafeArchiveError, match=r"a\.tar\.gz: byte [0-9]+ of the tar data") as caught:
            passes.indexed(archive, zoo)
        assert REFUSED_AS_A_WHOLE[kind] in str(caught.value)
    assert not layout.archive_index_path(zoo, "e").exists()
    assert passes.files_below(zoo).keys() <= {"e/.archive.index.sqlite.lock", "e/.archive.index.sqlite.part"}
    assert outside(tmp_path) == {"a.tar.gz"}


MEASURED = """
import pathlib, re, sys
from tests.zoo.archive import passes
archive, zoo = map(pathlib.Path, sys.argv[1:])
facts, _ = passes.indexed(archive, zoo)
passes.fetched(archive, zoo)
# Unlike getrusage, this does not begin with the memory of the process that started this one.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
print(facts.num_runs, int(peak[1]) * 1024)
"""


@pytest.mark.parametrize(
    "members",
    [
        {"e/0.5/1/aux_arrays.npz": lambda: archives.npz_bomb(3 << 30)},
        {"e/0.5/1/aux_arrays.npz": lambda: archives.npz_bomb(255 << 20)},
        {f"e/0.5/{run_id}/checkpoints/ckpt-1.data-00000-of-00001": lambda: bytes(150 << 20) for run_id in range(4)},
    ],
    ids=["bomb", "bomb_just_below_the_limit", "halves_without_the_other"],
)
def test_memory_is_bounded(tmp_path, members):
    archive = passes.write(tmp_path / "a.tar.gz", SOUND | {name: build() for name, build in members.items()}, level=1)
    command = [sys.executable, "-c", MEASURED, str(archive), str(tmp_path / "zoo")]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[3])
    num_runs, num_bytes = map(int, output.stdout.split())
    assert num_runs == 2
    assert num_bytes < 1e9


def test_a_link_in_the_zoo_is_not_followed_out_of_it_by_an_archive(tmp_path):
    """A link member is refused, so that no later member can go through it."""
    archive = archive_of(tmp_path, "symbolic_link_to_folder")
    passes.indexed(archive, tmp_path / "zoo")
    passes.fetched(archive, tmp_path / "zoo")
    assert not [path for path in (tmp_path / "zoo").rglob("*") if path.is_symlink()]
    assert not pathlib.Path("/tmp/aux_arrays.npz").exists()
    assert indexing.places_in_zoo(tmp_path / "zoo", "e").index.exists()
