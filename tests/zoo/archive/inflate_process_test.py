"""Inflating in another process gives what inflating here gives, ends when it must, and leaves no process."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.zoo.archive import archives, passes
from zoo import errors
from zoo.archive import digests, inflate, inflate_process, pump
from zoo.remote import source

# More than the slots of both sides hold at a time.
OUTPUT = np.random.default_rng(0).integers(0, 64, 30_000_000, np.uint8).tobytes()


@pytest.fixture(scope="module")
def content():
    return archives.gz(OUTPUT, level=1, num_members=2)


@pytest.fixture
def here():
    """As many inflaters in processes of their own as a test wants; none is left when it ends."""
    opened = []

    def make(state=None, where="a.gz"):
        opened.append(inflate_process.OwnProcess(state, where))
        return opened[-1]

    yield make
    for inflater in opened:
        inflater.close()
        assert inflater._process.returncode is not None


def pieces(content, size=inflate_process.MAX_CHUNK_BYTES):
    return [content[at : at + size] for at in range(0, len(content), size)]


def everything(inflater, chunks):
    """All batches, as what can be compared: contents, histories, boundaries and states."""
    batches = []
    for chunk in chunks:
        inflater.give(chunk)
        batches += [
            (
                batch.position,
                bytes(batch.data),
                bytes(batch.history),
                batch.boundaries,
                batch.member_position,
                batch.state() if batch.ends_at_boundary else None,
            )
            for batch in inflater.take(chunk)
        ]
    return batches


@pytest.mark.parametrize("size", [300_001, inflate_process.MAX_CHUNK_BYTES])
def test_batches_are_those_of_this_process(here, content, size):
    chunks = pieces(content, size)
    there, reference = here(), inflate_process.ThisProcess(None, "a.gz")
    batches = everything(there, chunks)
    assert batches == everything(reference, chunks)
    assert b"".join(batch[1] for batch in batches) == OUTPUT
    there.finish()
    assert (there.num_output, there.gzip_members) == (len(OUTPUT), 2)
    assert (reference.num_output, reference.gzip_members) == (len(OUTPUT), 2)


def test_it_goes_on_from_any_state(here, content):
    states = [batch[-1] for batch in everything(here(), pieces(content)) if batch[-1] is not None]
    for state in (states[0], states[-2]):
        again = here(state)
        assert (again.num_output, again.gzip_members) == (state.boundary.position, state.gzip_member)
        batches = everything(again, pieces(content[state.boundary.offset :]))
        assert b"".join(batch[1] for batch in batches) == OUTPUT[state.boundary.position :]
        again.finish()


def test_two_chunks_can_be_announced_before_one_is_taken(here, content):
    chunks, inflater, output = pieces(content, 1_000_000), here(), []
    inflater.give(chunks[0])
    for this, following in zip(chunks, [*chunks[1:], None], strict=True):
        if following is not None:
            inflater.give(following)
        output += [bytes(batch.data) for batch in inflater.take(this)]
    assert b"".join(output) == OUTPUT


def test_damage_comes_with_its_place_after_all_that_was_sound(here, content):
    damaged = bytearray(content)
    damaged[len(content) // 3] ^= 0x55
    outcomes = []

    def inflate_all(inflater, output):
        for chunk in pieces(bytes(damaged), 1_000_000):
            inflater.give(chunk)
            output.extend(bytes(batch.data) for batch in inflater.take(chunk))

    for inflater in (here(), inflate_process.ThisProcess(None, "a.gz")):
        output = []
        with pytest.raises(inflate.InflateError, match=r"^a\.gz: .*damaged.* found at compressed offset") as caught:
            inflate_all(inflater, output)
        outcomes.append(
            (str(caught.value), caught.value.offset, caught.value.position, b"".join(output), inflater.gzip_members)
        )
    assert outcomes[0] == outcomes[1]


def test_a_file_that_ends_early_is_found_at_the_end(here, content):
    inflater = here()
    everything(inflater, pieces(content[:-9]))
    with pytest.raises(inflate.InflateError, match="truncated"):
        inflater.finish()


def test_a_process_that_dies_is_told_of(here, content):
    inflater = here(where="zoo.tar.gz")
    chunk = content[:1000]
    inflater.give(chunk)
    list(inflater.take(chunk))
    inflater._process.send_signal(signal.SIGKILL)
    inflater._process.wait()
    inflater.give(chunk)
    with pytest.raises(
        inflate_process.InflateProcessError, match=r"zoo\.tar\.gz: the process .* status -9 .* same command continues"
    ):
        list(inflater.take(chunk))
    assert issubclass(inflate_process.InflateProcessError, errors.HeldoutError)


@pytest.mark.parametrize("where", ["give", "take"])
def test_closing_frees_who_waits(here, content, where):
    inflater, ended = here(), threading.Event()

    def give():
        for _ in range(4):
            inflater.give(content[:100])

    def take():
        list(inflater.take(b""))

    def wait():
        with pytest.raises(inflate_process.InflateProcessError):
            {"give": give, "take": take}[where]()
        ended.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert not ended.wait(0.3)
    inflater.close()
    assert ended.wait(10)


def test_it_does_not_outlive_who_started_it(tmp_path):
    program = (
        "import time\nfrom zoo.archive import inflate_process\n"
        "inflater = inflate_process.OwnProcess(None, 'a')\nprint(inflater._process.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        # An orphan that nobody waits for stays as a zombie where there is no init.
        status = pathlib.Path(f"/proc/{child}/stat")
        if status.exists() and status.read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the process that inflates is still there")


def test_ctrl_c_in_a_terminal_does_not_reach_it(here):
    # A terminal interrupts the whole process group, at any moment: also before the process can ask not to be.
    assert os.getpgid(here()._process.pid) != os.getpgid(0)


def test_short_archives_are_inflated_here():
    assert isinstance(
        inflate_process.open_inflater(None, "a", inflate_process.WORTH_BYTES - 1), inflate_process.ThisProcess
    )


def test_long_ones_in_a_process_of_their_own(here):
    inflater = inflate_process.open_inflater(None, "a", inflate_process.WORTH_BYTES)
    assert isinstance(inflater, inflate_process.OwnProcess)
    inflater.close()


def test_a_pump_with_it_gives_all_and_ends_it(here, content, tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    inflater, sums, output = here(), digests.StreamDigests(), []
    options = source.Options(chunk_bytes=inflate_process.MAX_CHUNK_BYTES + 12_345)
    with source.open_source(str(path), options) as archive, pump.Pump(archive, inflater, 0, sums) as flow:
        for item in flow:
            if isinstance(item, pump.Chunk):
                assert len(item.data) <= inflate_process.MAX_CHUNK_BYTES
            else:
                output.append(bytes(item.batch.data))
    assert b"".join(output) == OUTPUT
    assert sums.num_bytes == len(content)
    assert inflater._process.returncode is not None


@pytest.mark.parametrize("damage", [False, True])
def test_a_pass_with_it_finds_what_one_without_finds(tmp_path, monkeypatch, damage):
    files = {}
    for run_id in range(4):
        files |= passes.run_files(0.5, run_id, num_values=400_000)
    archive = passes.write(tmp_path / "a.tar.gz", files)
    if damage:
        archives.flip(archive, archive.stat().st_size // 2)
    results = []
    for worth in (1, 1 << 40):
        monkeypatch.setattr(inflate_process, "WORTH_BYTES", worth)
        facts, places = passes.indexed(archive, tmp_path / str(worth))
        results.append((facts, places.index.read_bytes(), places.run_table.read_bytes()))
    assert results[0] == results[1]
    assert results[0][0].state == ("damaged" if damage else "sound")
