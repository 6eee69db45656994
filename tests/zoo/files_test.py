"""Files appear whole or not at all, and damaged JSON is refused."""

import hashlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from zoo import errors, files


def test_write_whole_replaces_and_creates_folders(tmp_path):
    target = tmp_path / "new" / "file.txt"
    files.write_text(target, "one")
    files.write_text(target, "two")
    assert target.read_text() == "two"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_write_whole_keeps_the_old_file_on_failure(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")

    def interrupted():
        with files.write_whole(target) as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_appears_before_the_end(tmp_path):
    with files.write_whole(tmp_path / "file.txt") as path:
        path.write_text("half")
        names = [entry.name for entry in tmp_path.iterdir()]
        assert len(names) == 1
        assert files.is_temporary(names[0])


def test_temporary_names_are_fresh_and_recognised(tmp_path):
    first, second = (files.temporary_beside(tmp_path / "ckpt-3") for _ in range(2))
    assert first != second
    assert first.parent == tmp_path
    assert not first.exists()
    assert files.is_temporary(first.name)
    assert not files.is_temporary("ckpt-3")
    assert not files.is_temporary("a.tmp-b")
    assert not files.is_temporary(".hidden")


FILL = """
from zoo import files, npz
import numpy as np
for write, name, content in (files.write_text, "a.txt", "x" * 100_000), (npz.write, "b.npz", dict(x=np.ones(10_000))):
    try:
        write("{disk}/" + name, content)
    except OSError as error:
        print(error.errno, error.filename)
"""


def test_a_full_disk_names_the_file(tmp_path):
    """For real: a file system of 20 KB in a mount namespace of its own."""
    namespace = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=20k tmpfs {tmp_path}"
    try:
        possible = subprocess.run([*namespace, mount], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        possible = False
    if not possible:
        pytest.skip("needs Linux with unprivileged mount namespaces (util-linux's unshare)")
    command = f"{mount} && {sys.executable} -c {shlex.quote(FILL.format(disk=tmp_path))} && ls -A {tmp_path}"
    root = pathlib.Path(__file__).parents[2]
    result = subprocess.run([*namespace, command], capture_output=True, text=True, check=False, cwd=root)
    assert result.stdout == f"28 {tmp_path}/a.txt\n28 {tmp_path}/b.npz\n", result.stderr


def test_errors_that_name_their_file_or_are_our_own_are_left_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, files.write_whole(tmp_path / "a"):
        (tmp_path / "none").read_text()
    assert str(caught.value.filename) == str(tmp_path / "none")
    with pytest.raises(errors.MissingFileError) as missing, files.write_whole(tmp_path / "a"):
        raise errors.MissingFileError("none: no such file")
    assert str(missing.value) == "none: no such file"


def temporary_mark(process=None, machine=None):
    """The end of a temporary name, ".tmp-<machine>-<process>-<8 digits>"; of a process that has ended by default."""
    if process is None:
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        process = ended.pid
    own_machine = files.temporary_beside("a").name.split("-")[1]
    return f".tmp-{machine or own_machine}-{process}-0123abcd"


def make(folder, *names):
    for name in names:
        if name.endswith("/"):
            (folder / name).mkdir()
            (folder / name / "inside").touch()
        else:
            (folder / name).touch()


def test_stale_temporaries_are_removed_and_nothing_else(tmp_path):
    dead, alive = temporary_mark(), temporary_mark(os.getpid())
    stale = [f".a.npz{dead}", f".ckpt-3{dead}.index", f".ckpt-3{dead}.data-00000-of-00001", f".ckpt-3{dead}_temp/"]
    kept = [f".a.npz{alive}", f".ckpt-3{alive}_temp/", f"{alive}{alive}", "a.npz", f"a{dead}", dead]
    kept += [
        ".hidden",
        ".hidden.tmp-",
        ".notes.tmp-old",
        f".notes{dead[:-1]}",
        f".a{temporary_mark(99999999999)}",
        "sub/",
    ]
    make(tmp_path, *stale, *kept)
    make(tmp_path / "sub", f".a.npz{dead}")
    (tmp_path / f".link{dead}").symlink_to(tmp_path / "sub")
    files.remove_stale_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(name.rstrip("/") for name in kept)
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == [f".a.npz{dead}", "inside"]


def test_what_other_machines_left_goes_by_its_age(tmp_path):
    there = temporary_mark(machine="0123abcd")
    names = [f".new{there}", f".old{there}", f".old-folder{there}_temp/", f".folder-in-use{there}/"]
    make(tmp_path, *names)
    two_days_ago = time.time() - 2 * 24 * 3600
    for name in [*names[1:], f"{names[2]}inside"]:
        os.utime(tmp_path / name, (two_days_ago, two_days_ago))
    files.remove_stale_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([names[0], names[3].rstrip("/")])


def test_our_own_temporary_names_are_recognised_once_the_process_is_gone(tmp_path):
    program = f"from zoo import files; files.temporary_beside({str(tmp_path / 'a.npz')!r}).touch()"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=pathlib.Path(__file__).parents[2])
    files.temporary_beside(tmp_path / "mine").touch()
    assert len(list(tmp_path.iterdir())) == 2
    files.remove_stale_temporaries(tmp_path)
    assert [path.name.split(".")[1] for path in tmp_path.iterdir()] == ["mine"]


def test_no_folder_has_no_temporaries(tmp_path):
    files.remove_stale_temporaries(tmp_path / "none")


def test_json_round_trip(tmp_path):
    value = {"name": "Ω", "ratios": [0.1, 0.7], "none": None}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")


def test_write_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_read_json_of_nothing(tmp_path):
    with pytest.raises(errors.MissingFileError, match="no such file"):
        files.read_json(tmp_path / "none.json")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_read_json_refuses_what_is_no_json(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(errors.DamagedFileError, match=r"a\.json: not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_read_json_refuses_what_is_no_object(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(errors.DamagedFileError, match="expected a JSON object, found list"):
        files.read_json(tmp_path / "a.json")


def test_sha256(tmp_path):
    data = bytes(range(256)) * 1000
    (tmp_path / "a").write_bytes(data)
    assert files.sha256_of_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (168_000, "168 kB"), (999_600, "1.0 MB"), (239 * 10**9, "239 GB")],
)
def test_sizes_for_people(num_bytes, text):
    assert files.size_text(num_bytes) == text


def test_free_room_is_that_of_the_nearest_folder_that_exists(tmp_path):
    free = files.free_bytes(tmp_path)
    assert 0 < free <= shutil.disk_usage(tmp_path).total
    assert abs(files.free_bytes(tmp_path / "not" / "there" / "yet") - free) < 1 << 30
    (tmp_path / "file").touch()
    assert files.free_bytes(tmp_path / "file" / "below") > 0
    assert not (tmp_path / "not").exists()


def test_what_would_fill_the_disk_is_not_begun(tmp_path):
    files.check_room(tmp_path, 1, "the runs")
    files.check_room(tmp_path / "new", 0, "the runs")
    with pytest.raises(errors.DiskSpaceError) as caught:
        files.check_room(tmp_path / "new", 10**18, "the runs", ", or fetch fewer")
    message = rf"{tmp_path}/new: the runs need 1000000 TB, [0-9.]+ .B are free; make room or choose another folder"
    assert re.fullmatch(message + ", or fetch fewer", str(caught.value))
    with pytest.raises(errors.DiskSpaceError, match=r"choose another folder$"):
        files.check_room(tmp_path, 10**18, "the runs")


def test_where_nothing_can_be_written_it_is_not_for_lack_of_room(tmp_path):
    with pytest.raises(errors.DiskSpaceError) as caught:
        files.check_room("/proc/x/y", 4_100_000, "the scores", ", or write fewer")
    assert str(caught.value) == (
        "/proc/x/y: the scores cannot be written there: /proc lies in a file system that takes no files (its size is "
        "0 B); choose another folder"
    )
    assert files.room_report("/proc/x", 0)[1:] == [
        "warning: /proc: lies in a file system that takes no files (its size is 0 B); choose another folder"
    ]
    (tmp_path / "file").touch()
    with pytest.raises(errors.DiskSpaceError, match="file is a file, expected a folder; choose another path"):
        files.check_room(tmp_path / "file" / "below", 10**18, "the scores")


def test_a_locked_folder_is_named_before_its_room(tmp_path, not_root):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    files.check_room(folder, 0, "the scores")  # nothing to write
    with pytest.raises(errors.DiskSpaceError, match=r"locked may not be written to; choose another folder, or change"):
        files.check_room(folder / "new", 10**18, "the scores")


def test_what_a_dry_run_says_of_the_disk(tmp_path):
    folder = tmp_path / "not" / "there"
    (line,) = files.room_report(folder, 3000)
    assert re.fullmatch(r"disk: 3\.0 kB at most are needed, [0-9.]+ .B are free", line)
    lines = files.room_report(folder, 10**18)
    assert lines[1:] == [f"warning: {folder}: has too little room; make room or choose another folder"]
    (tmp_path / "file").touch()
    lines = files.room_report(tmp_path / "file" / "below", 1)
    assert lines[1:] == [f"warning: {tmp_path / 'file'}: is a file, expected a folder; choose another path"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture
def not_root():
    """Whoever runs the tests: the system answers for another user whether something may be written to."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setresuid(65534, 0, 0)
    yield
    if is_root:
        os.setresuid(0, 0, 0)


def test_a_dry_run_warns_of_a_folder_that_may_not_be_written_to(tmp_path, not_root):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert files.room_report(folder / "new", 0)[1:] == [
        f"warning: {folder}: may not be written to; choose another folder, or change its permissions"
    ]


def test_numbers_of_things_for_people():
    assert [files.count_text(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


def test_a_process_that_has_another_s_id_is_not_that_one():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        assert files.is_running(process.pid)
        assert files.is_running(process.pid, known_at=time.time())
        assert not files.is_running(process.pid, known_at=time.time() - 3600)
        process.kill()
        # Until somebody asks how it ended it keeps its id.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not files.is_running(process.pid)
    assert not files.is_running(process.pid)


def test_what_was_left_before_a_process_of_that_id_began_is_stale(tmp_path):
    left = files.temporary_beside(tmp_path / "a")
    left.write_text("half")
    files.remove_stale_temporaries(tmp_path)
    assert left.exists()
    os.utime(left, (0, 0))
    files.remove_stale_temporaries(tmp_path)
    assert not left.exists()
