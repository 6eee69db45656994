"""A real server that fails: after each fault the bytes are right, or the error says exactly why not."""

import dataclasses
import os
import random
import signal
import threading
import time

import numpy as np
import pytest

from tests.zoo.remote import conftest, fault_server, reading
from zoo import errors
from zoo.remote import source

Faults = fault_server.Faults


@pytest.mark.parametrize("fault", ["cut_after", "close_after", "stall_after"])
def test_what_came_before_a_cut_is_kept(server, content, fault):
    with source.open_source(server.url(reading.NAME), reading.HASTY) as opened:
        server.faults = Faults(only=reading.is_large, every=3, **{fault: 40_000})
        server.bytes_sent = 0
        assert reading.read_all(opened) == content
        # A reset may take along what the kernel had not handed over yet.
        assert server.bytes_sent <= conftest.SIZE + (40_000 * 8 if fault == "cut_after" else 0)
        assert server.faults.num_struck >= 4
        server.faults = Faults(only=reading.is_large, **{fault: 400_000})
        assert opened.read(3, conftest.SIZE - 3) == content[3:]


def test_a_server_that_cuts_always_is_given_up_only_without_progress(server, content):
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        server.faults = Faults(only=reading.is_large, close_after=20_000)
        assert reading.read_all(opened) == content
        server.faults = Faults(only=reading.is_large, close_after=0)
        with pytest.raises(
            errors.NetworkError,
            match=r"zoo\.tar\.gz: failed 3 times in a row, the last time because the connection was closed after 0 of "
            r"100000 bytes; .*the same command again: it continues",
        ):
            reading.read_all(opened)


def test_stalled_for_good(server):
    with source.open_source(server.url(reading.NAME), reading.HASTY) as opened:
        server.faults = Faults(only=reading.is_large, stall_after=0)
        with pytest.raises(errors.NetworkError, match="failed 3 times in a row, the last time because no byte came"):
            opened.read(0, 10)
        server.faults = Faults(only=reading.is_large, delay_s=3)
        with pytest.raises(errors.NetworkError, match=r"failed 3 times .* because no byte came for 0\.4 s"):
            opened.read(0, 10)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408, 416])
def test_bursts_of_refusals(server, content, status):
    server.faults = Faults(status=status, times=2)
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        server.faults = Faults(status=status, times=2)
        assert opened.read(10, 10) == content[10:20]
        server.faults = Faults(status=status, every=4, times=2)
        assert reading.read_all(opened) == content
        server.faults = Faults(status=status)
        with pytest.raises(errors.NetworkError, match=rf"failed 3 times .*because the server answered {status}"):
            opened.read(0, 10)
        assert server.faults.num_struck == 3
        with pytest.raises(errors.NetworkError, match=rf"failed 3 times .*because the server answered {status}"):
            opened.check_unchanged()


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured(server, as_date):
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        # Dates have whole seconds.
        value = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2)) if as_date else "0.7"
        server.faults = Faults(status=429, retry_after=value, times=1)
        start = time.monotonic()
        opened.read(0, 10)
        assert time.monotonic() - start > 0.7
        server.faults = Faults(status=503, retry_after="soon", times=1)
        opened.read(0, 10)


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (404, errors.MissingFileError, r"no such object \(404 Not Found\); check the address"),
        (410, errors.MissingFileError, r"no such object \(410 Gone\)"),
        (401, errors.NetworkError, r"access was refused \(401 Unauthorized\).*--gcs_token"),
        (403, errors.NetworkError, r"access was refused \(403 Forbidden\).*--gcs_token"),
        (400, errors.NetworkError, r"the server answered 400 Bad Request, expected the object"),
    ],
)
def test_refusals_for_good(server, status, kind, reason):
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        server.faults = Faults(status=status)
        for action in (lambda: opened.read(0, 10), lambda: reading.read_all(opened), opened.check_unchanged):
            with pytest.raises(kind, match=reason):
                action()
        with pytest.raises(kind, match=reason):
            source.open_source(server.url(reading.NAME), reading.FAST)
        with pytest.raises(kind, match=reason):
            source.read_small(server.url(reading.NAME), conftest.SIZE, reading.FAST)


def test_a_server_that_ignores_ranges(server, content):
    server.faults = Faults(ignore_range=True)
    with source.open_source(server.url(reading.NAME), reading.HASTY) as opened:
        assert not opened.accepts_ranges
        assert opened.state.size == conftest.SIZE
        with pytest.raises(
            errors.NetworkError, match=r"sends the whole object .* with zoo_download, then give the local"
        ):
            opened.read(0, 10)
        assert opened.read(0, 0) == b""
        num_before = len(server.requests)
        assert reading.read_all(opened) == content
        assert len(server.requests) == num_before + 1
        assert reading.read_all(opened, 500_000, 700_001) == content[500_000:700_001]
        assert {len(chunk) for chunk in opened.stream()} == {100_000, 3}
        server.faults = Faults(ignore_range=True, close_after=900_000, times=3)
        assert reading.read_all(opened, 700_000) == content[700_000:]
        server.faults = Faults(ignore_range=True, close_after=600_000)
        with pytest.raises(errors.NetworkError, match="failed 3 times in a row"):
            reading.read_all(opened, 700_000)
        server.faults = Faults(ignore_range=True, no_length=True, close_after=650_000, times=2)
        assert reading.read_all(opened) == content
        server.faults = Faults(ignore_range=True, no_length=True, close_after=650_000)
        with pytest.raises(errors.NetworkError, match="because the connection was cut at byte 650000"):
            reading.read_all(opened)
        server.faults = Faults(ignore_range=True, stall_after=900_000, times=1)
        assert reading.read_all(opened) == content


def test_ranges_that_are_ignored_from_some_time_on(server, content):
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        server.faults = Faults(only=lambda method, path, wanted: "300000-" in wanted, ignore_range=True)
        assert opened.accepts_ranges
        assert reading.read_all(opened) == content
        assert not opened.accepts_ranges
    server.faults = Faults()
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        server.faults = Faults(ignore_range=True, bytes_per_s=2e5)
        server.bytes_sent = 0
        with pytest.raises(errors.NetworkError, match="sends the whole object where a part of it was asked for"):
            opened.read(0, 10)
        assert server.bytes_sent < conftest.SIZE / 2
        assert not opened.accepts_ranges


@pytest.mark.parametrize("as_status", [None, 403, 405])
def test_no_head(server, content, as_status):
    server.faults = Faults(only=lambda method, *_: method == "HEAD", no_head=True, status=as_status)
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        assert opened.accepts_ranges
        assert reading.read_all(opened) == content
        opened.check_unchanged()


@pytest.mark.parametrize("told_by", ["condition", "etag", "size", "generation", "modified"])
def test_an_object_that_changes(server, root, content, told_by):
    server.hashes = told_by == "generation"
    faults = Faults(no_etag=told_by == "size", ignore_conditions=told_by in ("etag", "size"))
    faults.weak_etag = told_by == "modified"
    server.faults = faults
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        server.change_after = (
            3,
            lambda: reading.replace(root / reading.NAME, content[: -1 if told_by == "size" else None]),
        )
        by_server = "the server says 412" if told_by in ("condition", "generation", "modified") else "it"
        with pytest.raises(
            errors.MismatchError, match=rf"zoo\.tar\.gz: changed on the server while it was read: {by_server}"
        ):
            reading.read_all(opened)
        with pytest.raises(errors.MismatchError, match="changed on the server"):
            opened.check_unchanged()
        with pytest.raises(errors.MismatchError, match="changed on the server"):
            opened.read(0, 5)


def test_an_object_that_shrinks_below_the_range(server, root, content):
    server.faults = Faults(no_etag=True)
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        reading.replace(root / reading.NAME, content[:10])
        with pytest.raises(errors.MismatchError, match="it has 10 bytes, 1000003 were expected"):
            opened.read(500, 5)


def test_an_object_that_changes_where_ranges_are_ignored(server, root, content):
    server.faults = Faults(ignore_range=True, no_etag=True)
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        reading.replace(root / reading.NAME, content[:10])
        with pytest.raises(errors.MismatchError, match="it has 10 bytes, 1000003 were expected"):
            reading.read_all(opened)


def test_an_object_without_a_version(server, content):
    server.faults = Faults(no_etag=True)
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        assert opened.state.version is None
        assert reading.read_all(opened) == content
        opened.check_unchanged()
    server.faults = Faults(weak_etag=True)
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        assert opened.state.version.startswith("modified:")


def test_a_wrong_content_range(server, content):
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        server.faults = Faults(wrong_content_range=True, times=2)
        assert opened.read(7, 100) == content[7:107]
        server.faults = Faults(wrong_content_range=True)
        with pytest.raises(
            errors.NetworkError,
            match="because the server answered Content-Range 'bytes 8-106/1000003' and Content-Length 100 where bytes "
            "7-106 were asked for",
        ):
            opened.read(7, 100)
        server.faults = Faults(other_total=2 * conftest.SIZE)
        with pytest.raises(errors.MismatchError, match="it has 2000006 bytes, 1000003 were expected"):
            opened.read(7, 100)
    server.faults = Faults(wrong_content_range=True)
    with pytest.raises(errors.NetworkError, match="where byte 0 was asked for"):
        source.open_source(server.url(reading.NAME), reading.FAST)


def test_short_answers_to_ranges(server, content):
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        server.faults = Faults(short_range=33_333)
        server.bytes_sent = 0
        assert reading.read_all(opened) == content
        assert server.bytes_sent == conftest.SIZE


@pytest.mark.parametrize("ignore_range", [False, True])
def test_a_stored_content_encoding(server, ignore_range):
    with source.open_source(server.url(reading.NAME), reading.FAST) as opened:
        server.faults = Faults(content_encoding="gzip", ignore_range=ignore_range)
        for action in (
            lambda: reading.read_all(opened),
            lambda: source.open_source(server.url(reading.NAME), reading.FAST),
            lambda: source.read_small(server.url(reading.NAME), conftest.SIZE, reading.FAST),
        ):
            with pytest.raises(errors.DamagedFileError, match=r"Content-Encoding gzip, so its bytes .* depend on who"):
                action()


def test_an_unknown_size(server):
    server.faults = Faults(no_length=True, ignore_range=True)
    with pytest.raises(errors.NetworkError, match=r"zoo\.tar\.gz: the server does not say how large the object is"):
        source.open_source(server.url(reading.NAME), reading.FAST)


@pytest.mark.parametrize("faults", [{"no_length": True}, {"close_after": 100, "times": 2}, {"status": 503, "times": 2}])
def test_small_objects_of_difficult_servers(server, root, content, faults):
    (root / "small.json").write_bytes(content[:5000])
    server.faults = Faults(**faults)
    assert source.read_small(server.url("small.json"), 5000, reading.FAST) == content[:5000]
    server.faults = Faults(close_after=100)
    with pytest.raises(
        errors.NetworkError, match="failed 3 times in a row, the last time because the connection was clo"
    ):
        source.read_small(server.url("small.json"), 5000, reading.FAST)
    server.faults = Faults(no_length=True)
    with pytest.raises(errors.InvalidValueError, match="has more than 4999 bytes"):
        source.read_small(server.url("small.json"), 4999, reading.FAST)


class MixedFaults(Faults):
    """A fault drawn anew for each request, from all that a reader gets over."""

    def __init__(self, seed):
        super().__init__()
        self.draws = random.Random(seed)

    def for_request(self, method, path, wanted):
        num_bytes = self.draws.randrange(60_000)
        kinds = [
            {"cut_after": num_bytes},
            {"close_after": num_bytes},
            {"short_range": num_bytes + 1},
            {"status": self.draws.choice([500, 503, 429])},
            {"wrong_content_range": True},
            {"delay_s": 0.01},
            {},
            {},
        ]
        return Faults(**self.draws.choice(kinds))


@pytest.mark.parametrize("seed", range(5))
def test_mixed_faults(server, content, seed):
    with source.open_source(server.url(reading.NAME), dataclasses.replace(reading.FAST, num_tries=40)) as opened:
        server.faults = MixedFaults(seed)
        assert reading.read_all(opened) == content
        for start, stop in np.sort(np.random.default_rng(seed).integers(0, conftest.SIZE, (10, 2))).tolist():
            assert opened.read(start, stop - start) == content[start:stop]
        opened.check_unchanged()


@pytest.mark.parametrize("kind", ["waiting", "stalled", "streaming"])
def test_control_c_ends_every_wait(server, kind):
    patient = dataclasses.replace(reading.FAST, timeout_s=60.0, backoff_s=60.0)
    with source.open_source(server.url(reading.NAME), patient) as opened:
        server.faults = (
            Faults(only=reading.is_large, status=503)
            if kind == "waiting"
            else Faults(only=reading.is_large, stall_after=10)
        )
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            reading.read_all(opened) if kind == "streaming" else opened.read(0, 100)
        assert time.monotonic() - start < 3
