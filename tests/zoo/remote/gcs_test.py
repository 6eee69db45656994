"""gs:// through gcsfs: against an emulator, and against a server that fails in the middle of the same protocol."""

import base64
import hashlib
import json
import time

import google_crc32c
import pytest

from tests.zoo.remote import emulator, fault_server
from zoo import errors
from zoo.remote import source

NAME = "zoos/zoo 1.tar.gz"
FAST = source.Options(num_tries=3, timeout_s=0.5, backoff_s=0.01, num_parallel=3, chunk_bytes=300_000)
Faults = fault_server.Faults


@pytest.fixture(scope="module")
def bucket(content):
    with emulator.serving({NAME: content}) as (endpoint, url):
        yield endpoint, f"{url}/{NAME}"


def test_emulator(bucket, content):
    with source.open_source(bucket[1], FAST) as opened:
        assert opened.state.size == len(content)
        assert opened.state.md5 == hashlib.md5(content).hexdigest()
        assert opened.state.crc32c == google_crc32c.value(content)
        assert opened.state.version.startswith("generation:")
        assert opened.read(999, 12_345) == content[999:13_344]
        assert b"".join(opened.stream()) == content
        assert b"".join(opened.stream(5, 700_000)) == content[5:700_000]
        opened.check_unchanged()
    assert source.read_small(bucket[1], 2_000_000, FAST) == content
    with pytest.raises(errors.InvalidValueError, match="has more than 5 bytes"):
        source.read_small(bucket[1], 5, FAST)


def test_objects_that_are_not_in_the_emulator(bucket):
    for url in (bucket[1] + "x", "gs://none/x"):
        with pytest.raises(errors.MissingFileError, match="no such object"):
            source.open_source(url, FAST)
    with pytest.raises(errors.MissingFileError, match="gs://zoos/zoos: no such object, but perhaps a folder"):
        source.open_source("gs://zoos/zoos", FAST)


def test_an_object_that_is_replaced_in_the_emulator(content):
    with emulator.serving({"a": content}) as (endpoint, url), source.open_source(f"{url}/a", FAST) as opened:
        emulator.upload(endpoint, "a", content[::-1])
        with pytest.raises(errors.MismatchError, match=r"gs://zoos/a: changed on the server.* version generation:"):
            opened.check_unchanged()


@pytest.fixture
def server(tmp_path, content, monkeypatch):
    """A fault server with the files that the protocol's paths lead to."""
    listing = tmp_path / "storage" / "v1" / "b" / "zoos" / "o" / "zoo.tar.gz"
    data = tmp_path / "download" / "storage" / "v1" / "b" / "zoos" / "o" / "zoo.tar.gz"
    for path in (listing, data):
        path.parent.mkdir(parents=True)
    write_facts(listing, size=str(len(content)), generation="7")
    data.write_bytes(content)
    with fault_server.FaultServer(tmp_path) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{running.port}")
        yield running


def write_facts(path, **facts):
    path.write_text(json.dumps({"name": "zoo.tar.gz", "bucket": "zoos"} | facts))


def facts_path(server):
    return server.root / "storage" / "v1" / "b" / "zoos" / "o" / "zoo.tar.gz"


def is_data(method, path, wanted):
    return path.startswith("/download/")


def opened_there():
    return source.open_source("gs://zoos/zoo.tar.gz", FAST)


def test_reads_are_pinned_to_a_generation(server, content):
    with opened_there() as opened:
        assert (opened.state.version, opened.state.md5, opened.state.crc32c) == ("generation:7", None, None)
        assert b"".join(opened.stream()) == content
    assert all("generation=7" in path for method, path, _ in server.requests if is_data(method, path, ""))


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "times": 2},
        {"status": 502, "times": 2},
        {"status": 429, "times": 2},
        {"status": 408, "times": 2},
        {"cut_after": 0, "times": 2},
        {"close_after": 1000, "times": 2},
        {"stall_after": 1000, "times": 2},
        {"delay_s": 1.5, "times": 1},
    ],
    ids=lambda fault: next(iter(fault)) + str(next(iter(fault.values()))),
)
def test_faults_that_pass(server, content, fault, capfd):
    with opened_there() as opened:
        server.faults = Faults(only=is_data, **fault)
        assert opened.read(0, 500_000) == content[:500_000]
    assert server.faults.num_struck
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ({"status": 503}, errors.NetworkError, r"failed 3 times in a row, .* because the server answered 503"),
        ({"cut_after": 10}, errors.NetworkError, r"failed 3 times in a row, .* because the connection failed"),
        ({"stall_after": 10}, errors.NetworkError, r"failed 3 times in a row, .* because the connection failed"),
        ({"status": 403}, errors.NetworkError, r"access was refused \(403\).*--gcs_token"),
        ({"status": 401}, errors.NetworkError, r"access was refused \(401\).*--gcs_token"),
        ({"status": 404}, errors.MismatchError, "changed on the server .* version generation:7 is not there any more"),
        ({"status": 412}, errors.MismatchError, "changed on the server"),
        ({"ignore_range": True}, errors.NetworkError, "gave 1000003 bytes where 1000 were asked for"),
    ],
    ids=str,
)
def test_faults_that_stay(server, fault, kind, reason, capfd):
    with opened_there() as opened:
        server.faults = Faults(only=is_data, **fault)
        with pytest.raises(kind, match=reason):
            opened.read(0, 1000)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_large_ranges_are_halved_where_they_never_get_through(server, content):
    """What gcsfs got before a cut is lost, so asking for the same again would fail for ever."""
    large = source.Options(num_tries=5, timeout_s=0.5, backoff_s=0.01, chunk_bytes=1 << 20)
    with source.open_source("gs://zoos/zoo.tar.gz", large) as opened:
        server.faults = Faults(only=is_data, close_after=300_000)
        assert opened.read(0, len(content)) == content


def test_a_stored_content_encoding(server):
    write_facts(facts_path(server), size="5", contentEncoding="gzip")
    with pytest.raises(errors.DamagedFileError, match="is stored with Content-Encoding gzip"):
        opened_there()


def test_answers_that_nobody_expects(server):
    facts_path(server).write_text("nonsense")
    with pytest.raises(
        errors.NetworkError, match=r"gs://zoos/zoo\.tar\.gz: cannot be read \(JSONDecodeError: .*--gcs_t"
    ):
        opened_there()


def test_digests(server, content):
    md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
    write_facts(facts_path(server), size=str(len(content)), md5Hash=md5, crc32c="AAAAAQ==")
    with opened_there() as opened:
        assert (opened.state.md5, opened.state.crc32c) == (hashlib.md5(content).hexdigest(), 1)
        assert opened.state.version is None
        assert opened.read(3, 3) == content[3:6]


def test_credentials_that_are_none(tmp_path):
    for token in (str(tmp_path / "none.json"), "none.json"):
        with pytest.raises(errors.MissingFileError, match=r"--gcs_token=.*none\.json: no such file; public zoos need"):
            source.open_source("gs://zoos/x", source.Options(gcs_token=token))
    (tmp_path / "key.json").write_text("{}")
    with pytest.raises(errors.NetworkError, match=r"the credentials given by --gcs_token cannot be used \("):
        source.open_source("gs://zoos/x", source.Options(gcs_token=str(tmp_path / "key.json")))


def test_opening_is_quick(bucket):
    """The experimental service that gcsfs would ask first keeps it waiting for most of a minute."""
    start = time.monotonic()
    source.open_source(bucket[1], FAST).close()
    assert time.monotonic() - start < 5
