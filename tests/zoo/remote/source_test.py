"""Objects on this machine, on a real web server and behind fsspec, read whole, in ranges and by many threads."""

import contextlib
import dataclasses
import datetime
import hashlib
import ipaddress
import socket
import ssl
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
import fsspec
import numpy as np
import pytest

from tests.zoo.remote import conftest, fault_server, reading
from zoo import errors
from zoo.remote import http_filesystem, source

Faults = fault_server.Faults


@pytest.mark.parametrize("where", ["path", "file", "http"])
def test_ranges_and_streams(server, root, content, where):
    url = {"path": str(root / reading.NAME), "file": (root / reading.NAME).as_uri(), "http": server.url(reading.NAME)}[
        where
    ]
    with source.open_source(url, reading.FAST) as opened:
        assert opened.accepts_ranges
        assert (opened.state.url, opened.state.size) == (url, conftest.SIZE)
        assert opened.state.version
        for start, size in [
            (0, 1),
            (0, 0),
            (conftest.SIZE, 0),
            (conftest.SIZE - 1, 1),
            (999, 250_000),
            (0, conftest.SIZE),
        ]:
            assert opened.read(start, size) == content[start : start + size]
        assert reading.read_all(opened) == content
        for start, stop in [(0, 0), (5, 6), (1, None), (99_999, 100_001), (conftest.SIZE, None), (300_000, 500_000)]:
            assert reading.read_all(opened, start, stop) == content[start:stop]
        assert {len(chunk) for chunk in opened.stream()} == {100_000, 3}
        opened.check_unchanged()


@pytest.mark.parametrize("where", ["path", "http"])
def test_bytes_that_are_not_there(server, root, where):
    with source.open_source(
        str(root / reading.NAME) if where == "path" else server.url(reading.NAME), reading.FAST
    ) as opened:
        for start, size in [(0, conftest.SIZE + 1), (conftest.SIZE, 1), (-1, 1), (5, -1)]:
            with pytest.raises(
                errors.InvalidValueError, match=r"zoo\.tar\.gz: bytes .* were asked for, it has 1000003"
            ):
                opened.read(start, size)
        for start, stop in [(0, conftest.SIZE + 1), (5, 4), (-1, None)]:
            with pytest.raises(errors.InvalidValueError, match="were asked for, it has 1000003"):
                opened.stream(start, stop)


def test_empty_objects(server, root):
    (root / "empty").write_bytes(b"")
    for url in (str(root / "empty"), server.url("empty")):
        with source.open_source(url, reading.FAST) as opened:
            assert opened.state.size == 0
            assert opened.read(0, 0) == b""
            assert reading.read_all(opened) == b""
        assert source.read_small(url, 10, reading.FAST) == b""


def test_digests_of_buckets(server, content):
    server.hashes = True
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        assert opened.state.md5 == hashlib.md5(content).hexdigest()
        assert opened.state.crc32c is not None
        assert opened.state.version.startswith("generation:")
        assert reading.read_all(opened) == content
    server.faults = Faults(only=lambda method, path, wanted: method == "HEAD", status=403)
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        assert opened.state.md5 == hashlib.md5(content).hexdigest()


def test_redirects(server, content):
    away = "/elsewhere"
    server.faults = Faults(only=lambda method, path, wanted: path == away, redirect_to=server.url(reading.NAME))
    with source.open_source(server.url(away[1:]), reading.FAST) as opened:
        assert reading.read_all(opened) == content
    server.faults = Faults(redirect_to=away)
    with pytest.raises(errors.NetworkError, match="elsewhere: the server redirects in a circle"):
        source.open_source(server.url(away[1:]), reading.FAST)


def test_nobody_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x?signature=secret"
        with pytest.raises(errors.NetworkError, match=r"/x: failed 3 times .* failed \(Connection refused\)") as caught:
            source.open_source(url, reading.FAST)
        assert "secret" not in str(caught.value)


def test_nobody_answers():
    with socket.socket() as listening, contextlib.ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        # Once the queue is full, the kernel lets further connections wait.
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        with pytest.raises(errors.NetworkError, match=r"failed 3 times .* no connection was made within 0\.4 s"):
            source.open_source(f"http://127.0.0.1:{listening.getsockname()[1]}/x", reading.HASTY)


def test_the_file_system_as_fsspec_defines_it(server, content):
    web = http_filesystem.HttpFileSystem()
    assert web.info(server.url(reading.NAME))["size"] == conftest.SIZE
    assert web.cat_file(server.url(reading.NAME)) == content
    assert web.cat_file(server.url(reading.NAME), 10, 20) == content[10:20]
    assert web.cat_file(server.url(reading.NAME), conftest.SIZE - 5) == content[-5:]
    assert web.cat_file(server.url(reading.NAME), 5, 5) == b""
    web.close()


def test_a_proxy_is_used(server, content, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url(""))
    monkeypatch.setenv("http_proxy", server.url(""))
    with source.open_source(f"http://zoos.invalid/{reading.NAME}", reading.FAST) as opened:
        assert reading.read_all(opened) == content


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a key and a certificate for the loopback address that nobody else has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    today = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(today - datetime.timedelta(1)).not_valid_after(today + datetime.timedelta(1))
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    pem = serialization.Encoding.PEM
    plain = (pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*plain) + signed.public_bytes(pem))
    return path


def test_certificates(root, content, certificate, monkeypatch):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with fault_server.FaultServer(root, tls=tls) as server:
        with pytest.raises(errors.NetworkError, match=r"https://.*cannot be verified \(.*REQUESTS_CA_BUNDLE"):
            source.open_source(server.url(reading.NAME), reading.FAST)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
            server.faults = Faults(only=reading.is_large, every=3, cut_after=40_000)
            assert reading.read_all(opened) == content


@pytest.mark.parametrize("url", ["http://", "https:///x", "http://[::1/x"])
def test_no_address(url):
    with pytest.raises(errors.InvalidValueError, match="not a web address"):
        source.open_source(url, reading.FAST)


def test_unknown_protocols():
    with pytest.raises(errors.InvalidValueError, match="nonesuch://x: no file system for such an address"):
        source.open_source("nonesuch://x", reading.FAST)


@pytest.mark.parametrize("field", ["num_tries", "timeout_s", "backoff_s", "num_parallel", "chunk_bytes"])
def test_options_are_positive(field):
    with pytest.raises(errors.InvalidValueError, match=f"{field} is 0, expected more than 0"):
        dataclasses.replace(reading.FAST, **{field: 0})


def test_local_files_that_are_none(tmp_path):
    with pytest.raises(errors.MissingFileError, match="none: no such file"):
        source.open_source(str(tmp_path / "none"))
    with pytest.raises(errors.MissingFileError, match="is a folder or a device"):
        source.open_source(str(tmp_path))


def test_local_files_that_change(root, content):
    path = root / reading.NAME
    with source.open_source(str(path), reading.FAST) as opened:
        path.write_bytes(content[:10])
        with pytest.raises(errors.MismatchError, match=r"zoo\.tar\.gz: ends at or before byte 500, it had 1000003"):
            opened.read(500, 5)
        with pytest.raises(errors.MismatchError, match="changed"):
            opened.check_unchanged()


def test_small_objects(server, root, content):
    small = content[:5000]
    (root / "small.json").write_bytes(small)
    for url in (server.url("small.json"), str(root / "small.json")):
        assert source.read_small(url, 5000, reading.FAST) == small
        with pytest.raises(errors.InvalidValueError, match=r"small\.json: has more than 4999 bytes"):
            source.read_small(url, 4999, reading.FAST)
    with pytest.raises(errors.MissingFileError, match="none: no such file"):
        source.read_small(str(root / "none"), 5, reading.FAST)


def test_closing_a_stream_stops_its_threads(server):
    server.faults = Faults(only=reading.is_large, bytes_per_s=400_000)
    before = threading.active_count()
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        stream = opened.stream()
        next(stream)
        stream.close()
        num_requests = len(server.requests)
        time.sleep(0.4)
        assert len(server.requests) <= num_requests + 1
    names = [thread.name for thread in threading.enumerate()]
    assert threading.active_count() <= before + 4, names


def test_a_slow_reader_holds_few_chunks(server):
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        server.bytes_sent = 0
        stream = opened.stream()
        next(stream)
        time.sleep(0.3)
        # One was taken, num_parallel + 1 are made or waiting.
        assert server.bytes_sent <= 100_000 * (reading.FAST.num_parallel + 2)
        stream.close()


def test_many_threads(server, content):
    failures = []
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        server.faults = Faults(only=reading.is_large, every=5, cut_after=1000)

        def work(seed):
            rng = np.random.default_rng(seed)
            for start in rng.integers(0, conftest.SIZE - 5000, 20):
                if opened.read(int(start), 5000) != content[start : start + 5000]:
                    failures.append(start)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_addresses_of_protocols_that_do_not_work_name_those_that_do():
    works = r"a path, file://, http://, https:// or gs://"
    with pytest.raises(errors.InvalidValueError, match=rf"nonesuch://x: no file system .* expected {works}"):
        source.open_source("nonesuch://x", reading.FAST)
    # Known to fsspec, and nobody answers there.
    with pytest.raises(
        errors.NetworkError, match=rf"ftp://127.0.0.1:1/a: cannot be opened by ftp:// .*{works}"
    ) as caught:
        source.open_source("ftp://user:SECRET@127.0.0.1:1/a", reading.FAST)
    assert "SECRET" not in str(caught.value)


def test_other_protocols_of_fsspec(content):
    fsspec.filesystem("memory").pipe_file("/zoo.tar.gz", content)
    with source.open_source("memory://zoo.tar.gz", reading.FAST) as opened:
        assert opened.state == source.ObjectState("memory://zoo.tar.gz", conftest.SIZE, None)
        assert reading.read_all(opened, 5) == content[5:]
        fsspec.filesystem("memory").pipe_file("/zoo.tar.gz", content[:10])
        with pytest.raises(errors.NetworkError, match="failed 3 times in a row, the last time because no bytes were s"):
            opened.read(5, 10)
    with pytest.raises(errors.MissingFileError, match="memory://none: no such object"):
        source.open_source("memory://none", reading.FAST)
