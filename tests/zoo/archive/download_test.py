"""Downloads through a server that fails, resumed after kills: what is accepted is right, and what is not is deleted."""

import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import google_crc32c
import numpy as np
import pytest

from tests.zoo.remote import fault_server
from zoo import errors, files
from zoo.archive import digests, download, lock
from zoo.remote import source

SIZE = 1_000_003
NAME = "zoo.tar.gz"
FAST = source.Options(num_tries=3, timeout_s=10.0, backoff_s=0.01, num_parallel=3, chunk_bytes=100_000)
Faults = fault_server.Faults
ROOT = pathlib.Path(__file__).parents[3]
# One download in a process that is to be killed.
WORKER = """
import sys
from zoo.archive import download
from zoo.remote import source
download._JOURNAL_BYTES = 1 << 20
with source.open_source(sys.argv[1], source.Options(chunk_bytes=1 << 18)) as opened:
    print(download.download(opened, sys.argv[2], expected_md5=sys.argv[3]).checked)
"""


def is_large(method, path, wanted):
    return method == "GET" and wanted != "bytes=0-0"


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(0).bytes(SIZE)


@pytest.fixture
def server(tmp_path, content):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / NAME).write_bytes(content)
    with fault_server.FaultServer(folder) as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "here" / NAME


@pytest.fixture
def eager(monkeypatch):
    """A journal after every chunk."""
    monkeypatch.setattr(download, "_JOURNAL_BYTES", 1)


def fetch(server, target, **kwargs):
    with source.open_source(server.url(NAME), FAST) as opened:
        return download.download(opened, target, **kwargs)


def md5_of(content):
    return hashlib.md5(content).hexdigest()


def interrupt(server, target, num_bytes):
    """A download that ends after so many bytes."""
    with source.open_source(server.url(NAME), FAST) as opened:
        server.faults = Faults(only=lambda m, p, wanted: wanted.startswith(f"bytes={num_bytes}-"), status=503)
        with pytest.raises(errors.NetworkError, match="failed 3 times in a row"):
            download.download(opened, target)
    server.faults = Faults()


def leftovers(target):
    return sorted(path.name for path in target.parent.iterdir() if path.suffix != ".lock")


def test_whole(server, target, content):
    calls = []
    result = fetch(
        server, target, expected_md5=md5_of(content).upper(), progress=lambda *numbers: calls.append(numbers)
    )
    crc32c = google_crc32c.value(content)
    assert result == download.DownloadResult(target, SIZE, md5_of(content), crc32c, "MD5 verified")
    assert target.read_bytes() == content
    assert leftovers(target) == [NAME]
    assert calls == [(done, SIZE) for done in [*range(0, SIZE, 100_000), SIZE]]


def test_what_it_was_compared_with(server, target, content, monkeypatch):
    assert fetch(server, target).checked == f"nothing to compare with: MD5 is {md5_of(content)}"
    target.unlink()
    server.hashes = True
    assert fetch(server, target).checked == "MD5 verified"
    target.unlink()
    # As for composite objects.
    crc32c_only = server.hash_header(server.root / NAME).partition(",")[0]
    monkeypatch.setattr(server, "hash_header", lambda path: crc32c_only)
    assert fetch(server, target).checked == f"CRC32C verified, MD5 is {md5_of(content)}"


def test_local_and_empty_objects(tmp_path, target):
    (tmp_path / "empty").write_bytes(b"")
    with source.open_source(str(tmp_path / "empty"), FAST) as opened:
        result = download.download(opened, target, expected_md5=md5_of(b""))
    assert (result.checked, target.read_bytes()) == ("MD5 verified", b"")


def test_an_existing_target(server, target, content):
    target.parent.mkdir()
    target.write_bytes(bytes(SIZE))
    (target.parent / f".{NAME}.part.json").write_text("{}")
    result = fetch(server, target, expected_md5=md5_of(content))
    assert result.checked == "was there already with the right size; its content was not read"
    assert (result.md5, result.crc32c) == (None, None)
    assert leftovers(target) == [NAME]
    target.write_bytes(b"x")
    with pytest.raises(errors.MismatchError, match=r"zoo\.tar\.gz: exists and has 1 bytes, http.* has 1000003; delete"):
        fetch(server, target)
    assert target.read_bytes() == b"x"


@pytest.mark.parametrize(
    "faults",
    [
        {"cut_after": 50_000, "every": 3},
        {"status": 503, "every": 4, "times": 2},
        {"ignore_range": True},
        {"no_head": True},
    ],
    ids=lambda faults: next(iter(faults)),
)
def test_faults_on_the_way(server, target, content, faults):
    server.faults = Faults(**faults)
    assert fetch(server, target, expected_md5=md5_of(content)).checked == "MD5 verified"
    assert target.read_bytes() == content


def test_resume(server, target, content):
    interrupt(server, target, 500_000)
    assert leftovers(target) == [f".{NAME}.part", f".{NAME}.part.json"]
    # What lies behind the journal's place is not trusted.
    with open(target.with_name(f".{NAME}.part"), "ab") as stream:
        stream.write(b"never synced")
    num_before = len(server.requests)
    calls = []
    result = fetch(server, target, expected_md5=md5_of(content), progress=lambda *numbers: calls.append(numbers))
    assert result.checked == "MD5 verified"
    assert target.read_bytes() == content
    assert calls[0] == (500_000, SIZE)
    ranges = {wanted for method, _, wanted in server.requests[num_before:] if method == "GET"}
    assert ranges == {"bytes=0-0"} | {
        f"bytes={start}-{min(start + 100_000, SIZE) - 1}" for start in range(500_000, SIZE, 100_000)
    }
    assert leftovers(target) == [NAME]


def test_resume_where_ranges_are_ignored(server, target, content):
    server.faults = Faults(ignore_range=True)
    with source.open_source(server.url(NAME), FAST) as opened:
        server.faults = Faults(ignore_range=True, close_after=650_000)
        with pytest.raises(errors.NetworkError, match="failed 3 times"):
            download.download(opened, target)
    server.faults = Faults(ignore_range=True)
    assert fetch(server, target, expected_md5=md5_of(content)).checked == "MD5 verified"
    assert target.read_bytes() == content


@pytest.mark.parametrize("has_crc32c", [True, False])
def test_resume_without_the_state_of_md5(server, target, content, monkeypatch, has_crc32c):
    server.hashes = has_crc32c
    monkeypatch.setattr(digests, "_library", lambda: None)
    interrupt(server, target, 500_000)
    result = fetch(server, target, expected_md5=md5_of(content))
    if has_crc32c:
        assert result.checked == (
            "CRC32C verified, MD5 not computed (the digest state could not be saved on this machine)"
        )
        assert result.md5 is None
    else:
        assert (result.checked, result.md5) == ("MD5 verified", md5_of(content))
    assert target.read_bytes() == content


@pytest.mark.parametrize("known", ["expected", "md5", "crc32c", "lost"])
def test_damage_on_the_way_is_never_accepted(server, target, content, monkeypatch, known):
    server.hashes = known in ("md5", "crc32c")
    if known == "crc32c":
        crc32c_only = server.hash_header(server.root / NAME).partition(",")[0]
        monkeypatch.setattr(server, "hash_header", lambda path: crc32c_only)
    if known == "lost":
        monkeypatch.setattr(digests, "_library", lambda: None)
        interrupt(server, target, 100_000)
    server.faults = Faults(flip_at=345_678)
    kind = "CRC32C" if known == "crc32c" else "MD5"
    with pytest.raises(
        errors.IntegrityError,
        match=rf"/zoo\.tar\.gz: the {kind} of what arrived for .*here/zoo\.tar\.gz is [0-9a-f]+, expected [0-9a-f]+; "
        r"it has been deleted, the same command begins anew",
    ):
        fetch(server, target, expected_md5=md5_of(content) if known in ("expected", "lost") else None)
    assert leftovers(target) == []
    server.faults = Faults()
    fetch(server, target)
    assert target.read_bytes() == content


def test_a_wrong_md5(server, target, content):
    with pytest.raises(errors.IntegrityError, match=rf"is {md5_of(content)}, expected {'0' * 32}; it has been deleted"):
        fetch(server, target, expected_md5="0" * 32)
    assert leftovers(target) == []
    server.hashes = True
    server.bytes_sent = 0
    with pytest.raises(
        errors.IntegrityError, match=rf"its MD5 is {md5_of(content)} according to the server, expected {'0' * 32}; noth"
    ):
        fetch(server, target, expected_md5="0" * 32)
    assert server.bytes_sent <= 1
    with pytest.raises(errors.InvalidValueError, match="the expected MD5 is 'abc', expected 32 hexadecimal digits"):
        fetch(server, target, expected_md5="abc")


def test_an_object_that_changes(server, target, content, eager):
    path = server.root / NAME

    def change():
        path.with_name("new").write_bytes(content[::-1])
        path.with_name("new").replace(path)

    server.change_after = (5, change)
    with pytest.raises(errors.MismatchError, match="changed on the server while it was read"):
        fetch(server, target)
    with pytest.raises(
        errors.MismatchError,
        match=r"\.zoo\.tar\.gz\.part\.json: belongs to a download of another object, whose version is 'etag:.*; delete "
        r"it and \.zoo\.tar\.gz\.part to begin anew",
    ):
        fetch(server, target)
    for name in leftovers(target):
        (target.parent / name).unlink()
    fetch(server, target)
    assert target.read_bytes() == content[::-1]


def test_an_object_that_changes_at_the_end(server, target, content):
    server.faults = Faults(no_etag=True, ignore_conditions=True)
    with source.open_source(server.url(NAME), FAST) as opened:

        def change(done, total):
            if done == total:
                (server.root / NAME).write_bytes(content[:-1])

        with pytest.raises(errors.MismatchError, match="it has 1000002 bytes and version None, 1000003 bytes and"):
            download.download(opened, target, progress=change)
    assert NAME not in leftovers(target)


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"size": 5}, errors.MismatchError, r"whose size is 5; that of http.* is 1000003; delete it and"),
        ({"url": "gs://x/y"}, errors.MismatchError, r"whose url is 'gs://x/y'; that of"),
        ({"schema_version": 9}, errors.DamagedFileError, "schema_version is 9, expected 1; delete it and"),
        ({"digests": {}}, errors.DamagedFileError, r"part\.json: not the saved state of a digest: .*; delete it and"),
        ({"digests": 5}, errors.DamagedFileError, r"part\.json: not the saved state of a digest: .*; delete it and"),
        (
            None,
            errors.DamagedFileError,
            r"tells of 500000 bytes, \.zoo\.tar\.gz\.part has 10 and the object 1000003; del",
        ),
    ],
)
def test_journals_that_do_not_fit(server, target, change, kind, reason):
    interrupt(server, target, 500_000)
    journal = target.with_name(f".{NAME}.part.json")
    if change is None:
        os.truncate(target.with_name(f".{NAME}.part"), 10)
    else:
        journal.write_text(json.dumps(json.loads(journal.read_text()) | change))
    with pytest.raises(kind, match=reason):
        fetch(server, target)
    assert journal.exists()


def test_no_secrets_in_the_journal(server, target, content):
    with source.open_source(server.url(NAME) + "?signature=secret", FAST) as opened:
        server.faults = Faults(only=lambda m, p, wanted: wanted.startswith("bytes=500000-"), status=503)
        with pytest.raises(errors.NetworkError):
            download.download(opened, target)
    server.faults = Faults()
    assert "secret" not in target.with_name(f".{NAME}.part.json").read_text()
    with source.open_source(server.url(NAME) + "?signature=new", FAST) as opened:
        assert download.download(opened, target, expected_md5=md5_of(content)).checked == "MD5 verified"


def test_disk_space(server, target):
    with source.open_source(server.url(NAME), FAST) as opened:
        opened.state = source.ObjectState(opened.state.url, 10**17, opened.state.version)
        with pytest.raises(errors.DiskSpaceError, match=r"the missing bytes of http.*zoo\.tar\.gz need"):
            download.download(opened, target)


def test_two_processes(server, target):
    target.parent.mkdir()
    with lock.held(target.with_name(f".{NAME}.lock")), pytest.raises(errors.BusyError, match="held by another process"):
        fetch(server, target)


def test_a_full_disk(server, target, content):
    """A limit on the size of files gives the error of a full disk in all but its number."""
    script = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "from zoo import errors\n"
        "try:\n    " + "\n    ".join(WORKER.strip().splitlines()) + "\n"
        "except OSError as error:\n    print(errors.explain(error))\n"
    )
    command = [sys.executable, "-c", script, server.url(NAME), str(target), md5_of(content)]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert f".{NAME}.part: File too large" in output.stdout
    assert output.stderr == ""
    assert fetch(server, target, expected_md5=md5_of(content)).checked == "MD5 verified"


def test_kills(server, target, tmp_path):
    """Whenever the process is killed, the same command finishes, and no bytes are fetched twice but the last."""
    content = np.random.default_rng(1).bytes(12_000_000)
    (server.root / NAME).write_bytes(content)
    server.faults = Faults(only=is_large, bytes_per_s=8e5)
    command = [sys.executable, "-c", WORKER, server.url(NAME), str(target), md5_of(content)]
    draws = random.Random(0)
    num_kills = 0
    for _ in range(4):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        time.sleep(draws.uniform(0.5, 1.2))
        num_kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not target.exists() or target.read_bytes() == content
    server.faults = Faults()
    finished = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert num_kills >= 2
    assert finished.stdout == "MD5 verified\n"
    assert target.read_bytes() == content
    # At most a journal's interval and what was read ahead of it is read again.
    assert server.bytes_sent <= len(content) + (num_kills + 1) * ((1 << 20) + 6 * (1 << 18))


def test_what_a_download_still_needs(tmp_path):
    target = tmp_path / "new" / "a.tar.gz"
    assert (download.missing_room(target, 100), download.saved_bytes(target)) == (100, 0)
    target.parent.mkdir()
    (target.parent / ".a.tar.gz.part").write_bytes(bytes(30))
    # Without a journal it is written anew, into the room that it has.
    assert (download.missing_room(target, 100), download.saved_bytes(target)) == (70, 0)
    assert download.missing_room(target, 20) == 0
    sums = digests.StreamDigests()
    sums.update(bytes(25))
    journal = target.parent / ".a.tar.gz.part.json"
    files.write_json(journal, {"digests": sums.state()})
    assert download.saved_bytes(target) == 25
    for damaged in ("{", "[]", '{"digests": 3}', '{"digests": {"num_bytes": -1}}'):
        journal.write_text(damaged)
        assert download.saved_bytes(target) == 0
