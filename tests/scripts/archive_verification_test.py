"""The program that verifies an archive, as a user starts it: which archive, what it plans, where its work files lie."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.zoo.archive import archives, passes
from tests.zoo.remote import fault_server
from zoo import files
from zoo.archive import indexing

ROOT = pathlib.Path(__file__).parents[2]
FILES = {"e/readme.txt": b"read me"} | passes.run_files(0.3, 0) | passes.run_files(0.5, 1)
# A superuser may write everywhere, unless without its capabilities.
_AS_USER = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def start(*arguments, cwd=ROOT, before=(), **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HELDOUT_")}
    result = subprocess.run(
        [*before, sys.executable, "-m", "scripts.zoo_verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        check=False,
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


@pytest.fixture
def served(tmp_path):
    """A folder with an archive, its index, and a registry that knows it."""
    folder = tmp_path / "served"
    folder.mkdir()
    archive = passes.write(folder / "a.tar.gz", FILES)
    indexing.make(str(archive), indexing.places_beside(archive))
    (folder / ".a.tar.gz.index.sqlite.lock").unlink()
    entry = {"name": "e", "url": "a.tar.gz", "size": archive.stat().st_size}
    files.write_json(folder / "zoos.json", {"schema_version": 1, "experiments": [entry]})
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_known_archive_is_verified_where_it_is_published(served, tmp_path):
    (tmp_path / "here").mkdir()
    with fault_server.FaultServer(served) as server:
        registry = f"--registry={server.url('zoos.json')}"
        result = start(registry, "--experiment=e", cwd=tmp_path / "here")
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("a.tar.gz: ")
        assert f"7 files, 7 proved right by their checksums, compared with {server.url('a.tar.gz')}" in result.stdout
        assert names(tmp_path / "here") == []
        assert start(registry, cwd=tmp_path / "here").stdout == result.stdout  # it names one experiment only
        unknown = start(registry, "--experiment=f", cwd=tmp_path / "here")
        assert unknown.returncode != 0
        assert "--experiment=f: no such zoo is known; known are cifar10-inception" in unknown.stderr


def test_offline_nothing_on_a_server_is_verified(served, tmp_path):
    archive = served / "a.tar.gz"
    for arguments in (
        ["--experiment=cifar10-inception"],
        ["--archive=http://127.0.0.1:9/a.tar.gz"],
        [f"--archive={archive}", "--index=http://127.0.0.1:9/a.index.sqlite"],
        ["--experiment=e", "--registry=http://127.0.0.1:9/zoos.json"],
    ):
        result = start(*arguments, "--offline", "--num_tries=1", cwd=tmp_path)
        assert result.returncode != 0
        assert result.stderr.startswith("error: --offline: ")
        assert "lies on a server" in result.stderr
    assert start(f"--archive={archive}", "--offline", cwd=tmp_path).returncode == 0


def test_three_ways_to_say_what_is_meant(served, tmp_path):
    result = start()
    assert result.returncode == 2
    for way in (
        "--zoo (a zoo on this machine)",
        "--archive (an archive",
        "--experiment (the published archive of cifar",
    ):
        assert way in result.stderr
    for arguments, message in (
        (["--zoo=z", "--archive=a"], "--zoo is for zoos on this machine, not for an archive"),
        (["--experiment=e", "--predictions=1"], "--predictions is for zoos on this machine, not for an archive"),
        (["--archive=a", "--norestore"], "--restore is for zoos on this machine, not for an archive"),
        (["--zoo=z", "--work_dir=w"], "--work_dir is for archives: give --archive, or --experiment without --zoo"),
        (["--zoo=z", "--index=i"], "--index is for archives: give --archive, or --experiment without --zoo"),
    ):
        result = start(*arguments)
        assert result.returncode == 2
        assert message in result.stderr
    # The zoo that one usually works on is no contradiction to an archive.
    assert start(f"--archive={served / 'a.tar.gz'}", cwd=tmp_path, HELDOUT_ZOO=str(tmp_path)).returncode == 0


def test_a_plan_writes_nothing_and_reads_no_archive(served, tmp_path):
    size = (served / "a.tar.gz").stat().st_size
    before = names(served)
    with fault_server.FaultServer(served) as server:
        url = server.url("a.tar.gz")
        result = start(f"--archive={url}", "--dry_run", cwd=tmp_path)
        assert server.bytes_sent < size / 2
        there = start(f"--archive={url}", "--dry_run", f"--index={server.url('none.sqlite')}", cwd=tmp_path)
        assert there.returncode == 1
        assert "none.sqlite" in there.stderr
    assert result.returncode == 0, result.stderr
    for line in (
        f"{url}: {files.size_text(size)} ({size} bytes) would be read once",
        f"compared with {url}.index.sqlite",
        "work files, deleted in the end: ..a.tar.gz.verify.part",
    ):
        assert line in result.stdout.splitlines()
    assert f"disk: {files.size_text(indexing.disk_needed(size))} at most are needed, " in result.stdout
    assert (names(served), names(tmp_path)) == (before, ["served"])


def test_a_plan_of_an_archive_here(served, tmp_path):
    (served / "a.tar.gz.index.sqlite").unlink()
    (served / "..a.tar.gz.verify.part").touch()
    flags = [f"--registry={served / 'zoos.json'}", "--experiment=e", "--dry_run"]
    result = start(*flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "no index to compare with\n" in result.stdout
    assert f"an earlier pass is continued: {served}/..a.tar.gz.verify.part\n" in result.stdout
    assert "digest: no MD5 is known" in result.stdout
    plan = json.loads(start(*flags, "--format=json", f"--work_dir={tmp_path}/w", cwd=tmp_path).stdout)
    assert (plan["work_dir"], plan["continues"], plan["index"]) == (f"{tmp_path}/w", False, None)
    assert plan["size"] == (served / "a.tar.gz").stat().st_size
    assert names(tmp_path) == ["served"]


@contextlib.contextmanager
def read_only(folder):
    """A folder that may not be written to; yields what a command line must begin with for that to hold."""
    folder.chmod(0o555)
    before = [] if os.geteuid() else _AS_USER
    try:
        script = f"import os, sys; sys.exit(os.access({str(folder)!r}, os.W_OK))"
        with contextlib.suppress(FileNotFoundError):
            if subprocess.run([*before, sys.executable, "-c", script], check=False).returncode == 0:
                yield before
                return
        pytest.skip("needs a user without the rights of the superuser")
    finally:
        folder.chmod(0o755)


def test_the_folder_of_the_archive_need_not_be_written_to(served, tmp_path):
    (tmp_path / "here").mkdir()
    archive = f"--archive={served / 'a.tar.gz'}"
    with read_only(served) as before:
        plan = start(archive, "--dry_run", cwd=tmp_path / "here", before=before)
        assert "work files, deleted in the end: ..a.tar.gz.verify.part\n" in plan.stdout
        result = start(archive, cwd=tmp_path / "here", before=before)
        assert result.returncode == 0, result.stderr
        assert f"compared with {served}/a.tar.gz.index.sqlite" in result.stdout
        refused = start(archive, cwd=served, before=before)
        assert refused.returncode != 0
        assert f"{served}: not a folder that may be written to" in refused.stderr
        assert "choose another with --work_dir" in refused.stderr
        plan = start(archive, "--dry_run", cwd=served, before=before)
        assert plan.returncode == 0
        assert "warning: " in plan.stdout
        assert start(archive, f"--work_dir={tmp_path}/new", cwd=served, before=before).returncode == 0
    assert (names(tmp_path / "here"), names(tmp_path / "new")) == ([], [])


def test_the_folder_for_work_files_is_named(served, tmp_path):
    (tmp_path / "file").touch()
    result = start(f"--archive={served / 'a.tar.gz'}", f"--work_dir={tmp_path}/file", cwd=tmp_path)
    assert result.returncode != 0
    assert f"{tmp_path}/file: not a folder that may be written to" in result.stderr
    assert "--work_dir" in result.stderr


def test_a_disk_that_is_too_small_for_the_work_files_is_refused(served, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    namespace = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=1m tmpfs {disk}"
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run([*namespace, mount], capture_output=True, check=False).returncode == 0:
            result = start(
                f"--archive={served / 'a.tar.gz'}",
                f"--work_dir={disk}",
                before=[*namespace, f'{mount} && "$0" "$@"; status=$?; ls -A {disk}; exit $status'],
            )
            assert result.returncode == 1
            assert f"error: {disk}: the work files of the verification need 16.8 MB, " in result.stderr
            assert "make room or choose another folder with --work_dir" in result.stderr
            assert result.stdout == ""
            return
    pytest.skip("needs Linux with unprivileged mount namespaces (util-linux's unshare)")


def test_an_archive_that_is_not_there_leaves_nothing(tmp_path):
    result = start(f"--archive={tmp_path}/none.tar.gz", f"--work_dir={tmp_path}/w", cwd=tmp_path)
    assert result.returncode == 1
    assert "none.tar.gz" in result.stderr
    assert names(tmp_path) == []


def test_damage_is_named(served, tmp_path):
    archives.truncate(served / "a.tar.gz", -2000)
    flags = [f"--registry={served / 'zoos.json'}", "--experiment=e"]
    result = start(*flags, "--max_problems=1", cwd=tmp_path)
    assert result.returncode == 3
    assert "  and " in result.stdout
    assert "names them all" in result.stdout
    check = json.loads(start(*flags, "--format=json", cwd=tmp_path).stdout)
    reasons = [finding["reason"] for finding in check["findings"]]
    assert any("the archive that is known has" in reason for reason in reasons)
    shutil.rmtree(served)


def test_an_archive_of_which_nothing_can_be_read_is_damaged_and_leaves_nothing(served, tmp_path):
    archive = served / "a.tar.gz"
    archive.write_bytes(b"\0" + archive.read_bytes()[1:])
    before = names(served)
    result = start(f"--archive={archive}", f"--work_dir={tmp_path}/w", cwd=tmp_path)
    assert result.returncode == 3
    assert "it is not a gzip file" in result.stderr
    assert names(served) == before
    assert names(tmp_path / "w") == []
