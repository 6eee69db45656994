"""The parser of tar streams, held against what GNU tar writes in all its formats."""

import os
import shutil
import subprocess

import pytest

from tests.zoo.archive import tar_examples, tar_reading

GNU_TAR = shutil.which("tar")
pytestmark = pytest.mark.skipif(GNU_TAR is None, reason="there is no tar program")


@pytest.fixture
def tree(tmp_path):
    """A folder with files of several sizes, long names, links, a pipe and a file with holes."""
    root = tmp_path / "e"
    for number, content in enumerate(tar_examples.CONTENTS):
        path = root / "0.5" / str(number) / "aux_arrays.npz"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    (root / "link").symlink_to("0.5/0/aux_arrays.npz")
    os.link(root / "0.5/1/aux_arrays.npz", root / "hard")
    os.mkfifo(root / "pipe")
    return root


def run_tar(*arguments, folder):
    command = [GNU_TAR, "--create", "--file=-", *arguments, "e"]
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("tar_format", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_as_gnu_tar_writes_it(tree, tar_format):
    if tar_format in ("oldgnu", "gnu", "posix"):
        long_path = tree / ("l" * 200) / ("m" * 200)
        long_path.mkdir(parents=True)
        (long_path / "file").write_bytes(b"content")
        (tree / "long_link").symlink_to("t" * 300)
        (tree / "é\udcff").write_bytes(b"not UTF-8")
    if tar_format == "v7":
        (tree / "pipe").unlink()  # it has no pipes
    data = run_tar(f"--format={tar_format}", folder=tree.parent)
    found = tar_reading.parse_whole(data, 5000)
    assert tar_reading.comparable(found) == tar_reading.expected_of(data)
    by_name = {member.name: content for member, content in found}
    for number, content in enumerate(tar_examples.CONTENTS):
        assert number == 1 or by_name[f"e/0.5/{number}/aux_arrays.npz"] == content


@pytest.mark.parametrize(
    "arguments",
    [
        ("--format=gnu",),
        ("--format=posix", "--sparse-version=0.0"),
        ("--format=posix", "--sparse-version=0.1"),
        ("--format=posix", "--sparse-version=1.0"),
    ],
)
def test_files_with_holes_are_special(tree, arguments):
    with open(tree / "holes", "wb") as stream:
        for number in range(60):
            stream.seek(number * 100_000)
            stream.write(b"x")
    data = run_tar("--sparse", *arguments, folder=tree.parent)
    found = tar_reading.parse_whole(data)
    assert {member.name for member, _ in found if member.kind == "special"} >= {"e/pipe"}
    (holes,) = [member for member, _ in found if "holes" in member.name]
    if os.stat(tree / "holes").st_blocks * 512 >= 6_000_000:
        pytest.skip("this file system keeps no holes")
    assert holes.kind == "special"
    expected = [(name, position) for name, _, position, *_ in tar_reading.expected_of(data)]
    ours = [(member.name.rstrip("/"), member.header_position) for member, _ in found]
    assert [pair for pair in ours if "holes" not in pair[0]] == [pair for pair in expected if "holes" not in pair[0]]


def test_incremental_archives_of_gnu_tar(tree):
    """Their folders have data, and their headers times where ustar has the prefix."""
    data = run_tar("--format=gnu", "--listed-incremental=snapshot", folder=tree.parent)
    found = tar_reading.parse_whole(data)
    folders = {member.name: content for member, content in found if member.kind == "directory"}
    assert b"Yaux_arrays.npz" in folders["e/0.5/0/"]
    assert {member.name for member, _ in found} >= {"e/0.5/2/aux_arrays.npz", "e/link", "e/pipe"}
