"""Inflating and digesting side by side give what one after the other would, from wherever either stands."""

import hashlib
import threading

import numpy as np
import pytest

from tests.zoo.archive import archives
from tests.zoo.remote import fault_server
from zoo import errors
from zoo.archive import digests, inflate, inflate_process, pump
from zoo.remote import source

OUTPUT = np.random.default_rng(0).integers(0, 64, 3_000_000, np.uint8).tobytes()
FAST = source.Options(chunk_bytes=100_000, num_tries=2, backoff_s=0.01, timeout_s=2.0)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    target = tmp_path_factory.mktemp("pumped") / "a.gz"
    target.write_bytes(archives.gz(OUTPUT, num_members=2))
    return target


def num_pump_threads():
    return sum(thread.name in ("digest", "read", "inflate") for thread in threading.enumerate())


def pumped(path, inflater=None, inflate_from=0, sums=None):
    """All output, all compressed bytes that were handed over, the states, and the digests."""
    sums = sums or digests.StreamDigests()
    output, compressed, states, digest_offsets = b"", b"", [], []
    inflater = inflater or inflate_process.ThisProcess(None, "a.gz")
    with (
        source.open_source(str(path), FAST) as archive,
        pump.Pump(archive, inflater, inflate_from, sums) as flow,
    ):
        for item in flow:
            if isinstance(item, pump.Chunk):
                assert item.offset == inflate_from + len(compressed)
                compressed += item.data
            else:
                output += bytes(item.batch.data)
                assert item.batch.ends_at_boundary == (item.state is not None)
                if item.state is not None:
                    states.append(item.state)
                    digest_offsets.append(flow.digest_state(item.state.boundary.offset)["num_bytes"])
    assert num_pump_threads() == 0
    return output, compressed, states, digest_offsets, sums


def test_everything_comes_once_and_in_order(path):
    output, compressed, states, digest_offsets, sums = pumped(path)
    content = path.read_bytes()
    assert output == OUTPUT
    assert compressed == content
    assert sums.md5_hex() == hashlib.md5(content).hexdigest()
    assert len(states) >= 2
    assert digest_offsets == sorted(digest_offsets)


@pytest.mark.parametrize("digested", [0, 1, 250_000, 900_000, None])
def test_either_may_be_ahead(path, digested):
    content = path.read_bytes()
    _, _, states, _, _ = pumped(path)
    sums = digests.StreamDigests()
    sums.update(content[:digested])
    for state in (states[0], states[-1]):
        again = digests.StreamDigests.from_state(sums.state())
        start = state.boundary.offset
        output, compressed, _, _, again = pumped(path, inflate_process.ThisProcess(state, "a.gz"), start, again)
        assert output == OUTPUT[state.boundary.position :]
        assert compressed == content[start:]
        assert again.md5_hex() == hashlib.md5(content).hexdigest()


def test_damage_comes_after_all_that_was_sound(tmp_path, path):
    copy = tmp_path / "a.gz"
    copy.write_bytes(path.read_bytes())
    archives.flip(copy, -4)  # the size in the last trailer
    batches, sums = [], digests.StreamDigests()
    with source.open_source(str(copy), FAST) as archive:
        with (
            pump.Pump(archive, inflate_process.ThisProcess(None, "a.gz"), 0, sums) as flow,
            pytest.raises(inflate.InflateError),
        ):
            batches.extend(bytes(item.batch.data) for item in flow if isinstance(item, pump.Inflated))
        assert num_pump_threads() == 0
        # What was not digested yet can be, from there on.
        assert sums.num_bytes <= copy.stat().st_size
        for chunk in archive.stream(sums.num_bytes):
            sums.update(chunk)
    assert b"".join(batches) == OUTPUT
    assert sums.md5_hex() == hashlib.md5(copy.read_bytes()).hexdigest()


def test_a_server_that_fails_ends_the_pass(path):
    with fault_server.FaultServer(path.parent) as server:
        server.faults = fault_server.Faults(only=lambda method, _, bytes_asked: "300000-" in bytes_asked, status=503)
        with source.open_source(server.url("a.gz"), FAST) as archive:
            flow = pump.Pump(archive, inflate_process.ThisProcess(None, "a.gz"), 0, digests.StreamDigests())
            with flow, pytest.raises(errors.NetworkError, match="503"):
                list(flow)
    assert num_pump_threads() == 0


class FailingDigests(digests.StreamDigests):
    def update(self, data):
        if self.num_bytes > 200_000:
            raise MemoryError("no more")
        super().update(data)


def test_digests_that_fail_end_the_pass(path):
    with (
        source.open_source(str(path), FAST) as archive,
        pump.Pump(archive, inflate_process.ThisProcess(None, "a.gz"), 0, FailingDigests()) as flow,
        pytest.raises(MemoryError, match="no more"),
    ):
        list(flow)
    assert num_pump_threads() == 0


def test_who_leaves_early_leaves_no_threads(path):
    with (
        source.open_source(str(path), FAST) as archive,
        pump.Pump(archive, inflate_process.ThisProcess(None, "a.gz"), 0, digests.StreamDigests()) as flow,
    ):
        next(iter(flow))
        assert num_pump_threads() >= 1
    assert num_pump_threads() == 0


def test_who_is_slow_is_not_overrun(tmp_path):
    """Output waits when nobody takes it: most of a large file has not been inflated."""
    target = tmp_path / "a.gz"
    target.write_bytes(archives.gz(bytes(200 << 20), level=1))
    inflater = inflate_process.ThisProcess(None, "a.gz")
    with (
        source.open_source(str(target), source.Options()) as archive,
        pump.Pump(archive, inflater, 0, digests.StreamDigests()) as flow,
    ):
        items = iter(flow)
        for _ in range(3):
            next(items)
        threading.Event().wait(0.5)
        assert inflater.num_output <= 30 << 20


def test_the_oldest_digest_state_serves_where_all_are_ahead(path):
    sums = digests.StreamDigests()
    sums.update(path.read_bytes()[:1000])
    with source.open_source(str(path), FAST) as archive:
        flow = pump.Pump(archive, inflate_process.ThisProcess(None, "a.gz"), 0, sums)
        assert flow.digest_state(10)["num_bytes"] == flow.digest_state(5000)["num_bytes"] == 1000
