"""The gzip inflater: all of every file, in any chunks, from any boundary on, and nothing unsound in silence."""

import base64
import collections
import gzip
import json
import struct
import tracemalloc
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.zoo import corruptions
from tests.zoo.archive import gzips
from zoo import errors
from zoo.archive import gzip_stream, inflate

SIZE = 400_000
FILES = gzips.makes(SIZE)
SMALL = gzips.makes(600)


def chunks_of(content, size):
    return [content[start : start + size] for start in range(0, len(content), size)]


def inflate_all(chunks, state=None, batch_bytes=1 << 20):
    """All batches, with the state after each that has one, checked for what holds of every batch."""
    inflater = gzip_stream.GzipInflater(state, batch_bytes=batch_bytes)
    begin = position = 0 if state is None else state.boundary.position
    batches, output = [], b"" if state is None else state.window
    for chunk in chunks:
        for batch in inflater.feed(chunk):
            assert batch.position == position
            assert len(batch.data) <= 1 << 21
            assert batch.data or batch.boundaries
            assert batch.history == (output[-(1 << 15) :] if output else b"")
            assert all(batch.position <= b.position <= batch.position + len(batch.data) for b in batch.boundaries)
            output += batch.data
            position += len(batch.data)
            assert inflater.num_output >= position
            batches.append((batch, inflater.state() if batch.ends_at_boundary else None))
    inflater.finish()
    assert inflater.num_output == position
    return output[len(output) - (position - begin) :], batches, inflater


def boundaries_of(batches):
    """All boundaries, of several empty gzip members at one place only the last."""
    found = [boundary for batch, _ in batches for boundary in batch.boundaries]
    return list({(boundary.position, boundary.fresh): boundary for boundary in found}.values())


@pytest.mark.parametrize("name", FILES)
def test_everything_comes_out_however_it_is_cut(name):
    content = FILES[name]
    expected = gzip.decompress(content)
    output, batches, inflater = inflate_all([content])
    assert output == expected
    for size in (10_007, 1 << 16):
        other, other_batches, _ = inflate_all(chunks_of(content, size))
        assert other == expected
        assert boundaries_of(other_batches) == boundaries_of(batches)
    assert inflater.gzip_members == content.count(b"\x1f\x8b\x08")


@pytest.mark.parametrize("name", SMALL)
def test_single_bytes(name):
    content = SMALL[name]
    whole = inflate_all([content])
    single = inflate_all(chunks_of(content, 1))
    assert single[0] == whole[0] == gzip.decompress(content)
    assert boundaries_of(single[1]) == boundaries_of(whole[1])
    assert single[2].header == whole[2].header


def test_views_and_arrays_are_chunks_too():
    content = FILES["default"]
    views = [memoryview(content)[:1000], bytearray(content[1000:2000]), np.frombuffer(content[2000:], np.uint8).data]
    assert inflate_all([*views, b""])[0] == gzip.decompress(content)


@pytest.mark.parametrize("name", FILES)
def test_every_boundary_is_a_place_to_go_on_from(name):
    content = FILES[name]
    expected, batches, _ = inflate_all([content])
    boundaries = [(boundary, batch) for batch, _ in batches for boundary in batch.boundaries]
    if name in ("default", "stored", "full flushes"):
        assert len(boundaries) > 5
    for boundary, batch in boundaries[:: max(1, len(boundaries) // 25)]:
        window = batch.window(boundary)
        known = expected[max(0, boundary.position - (1 << 15)) : boundary.position]
        assert known.endswith(window)
        assert not boundary.fresh or window == b""
        assert boundary.first_byte == (content[boundary.offset - 1] if boundary.bits else 0)
        state = gzip_stream.InflaterState(boundary, window, 1, None, 0, None)
        output, _, _ = inflate_all(chunks_of(content[boundary.offset :], 50_021), state)
        assert output == expected[boundary.position :]


@pytest.mark.parametrize("name", FILES)
def test_saved_states_continue_and_still_check_the_checksum(name):
    content = FILES[name]
    expected, batches, _ = inflate_all([content])
    _, cut, _ = inflate_all([content], batch_bytes=10_000)
    everything = boundaries_of(batches)
    states = [state for _, state in batches + cut if state is not None]
    if name not in ("empty", "one byte", "zeros"):
        assert states
    for state in states[:: max(1, len(states) // 10)]:
        again = gzip_stream.InflaterState.from_json(json.loads(json.dumps(state.to_json())))
        assert again == state
        place = state.boundary
        output, later, inflater = inflate_all(chunks_of(content[place.offset :], 40_009), again)
        assert output == expected[place.position :]
        assert inflater.header is not None
        assert inflater.header.mtime == (1234567 if name != "python" else inflater.header.mtime)
        rest = [boundary for boundary in everything if boundary.position > place.position]
        assert [boundary for boundary in boundaries_of(later) if boundary.position > place.position] == rest
        wrong = gzip_stream.InflaterState.from_json(state.to_json() | {"crc32": state.crc32 ^ 1})
        with pytest.raises(inflate.InflateError, match="CRC32"):
            inflate_all([content[place.offset :]], wrong)


def test_state_of_the_last_batch_stays_while_more_input_is_taken():
    content = FILES["default"]
    inflater = gzip_stream.GzipInflater()
    batches = []
    at = 0
    while not (batches and batches[-1].ends_at_boundary):
        batches = list(inflater.feed(content[at : at + 1]))
        at += 1
    state = inflater.state()
    assert not list(inflater.feed(content[at : at + 1]))
    assert inflater.state() == state
    again = gzip_stream.GzipInflater(state)
    assert again.state() == state


def test_state_is_refused_where_there_is_none():
    with pytest.raises(errors.InvalidValueError, match="nothing has been inflated"):
        gzip_stream.GzipInflater().state()
    inflater = gzip_stream.GzipInflater()
    batch = list(inflater.feed(FILES["zeros"][:200]))[-1]
    assert not batch.ends_at_boundary
    with pytest.raises(errors.InvalidValueError, match="inside a deflate block"):
        inflater.state()


def test_large_blocks_take_bounded_memory_and_leave_states():
    content = gzips.member(bytes(60_000_000), 9)
    tracemalloc.start()
    try:
        inflater = gzip_stream.GzipInflater()
        total, num_states = 0, 0
        for batch in inflater.feed(content):
            total += len(batch.data)
            num_states += batch.ends_at_boundary
        inflater.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 60_000_000
    assert num_states >= 10
    assert peak < 20_000_000


def test_all_output_comes_with_its_chunk():
    content = gzips.member(bytes(7_000_000), 9)
    # Around the input that fills a batch to the last byte.
    for end in range(2000, 2100):
        batches = list(gzip_stream.GzipInflater().feed(content[:end]))
        assert sum(len(batch.data) for batch in batches) == len(zlib.decompressobj(31).decompress(content[:end]))
    assert len(batches) == 2
    inflater, reference = gzip_stream.GzipInflater(), zlib.decompressobj(31)
    for start in range(len(content)):
        made = sum(len(batch.data) for batch in inflater.feed(content[start : start + 1]))
        assert made == len(reference.decompress(content[start : start + 1]))


def test_many_tiny_blocks_do_not_gather():
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    content = (
        b"".join(compressor.compress(b"x") + compressor.flush(zlib.Z_PARTIAL_FLUSH) for _ in range(40_000))
        + compressor.flush()
    )
    output, batches, _ = inflate_all([content])
    assert output == b"x" * 40_000
    assert len(batches) > 2
    assert max(len(batch.boundaries) for batch, _ in batches) <= 1 << 14


def test_endless_empty_blocks_and_members_do_not_gather():
    header, empty_stored = gzips.member(b"")[:10], b"\0\0\0\xff\xff"
    for content in (gzips.member(b"") * 1000 + header, header + empty_stored * 10_000):
        (batch,) = gzip_stream.GzipInflater().feed(content)
        assert batch.data == b""
        assert len(batch.boundaries) == 1


def test_header_facts():
    _, _, inflater = inflate_all([FILES["all fields"] + FILES["default"]])
    header = inflater.header
    assert (header.flags, header.mtime, header.extra_flags, header.system, header.name) == (
        30,
        1234567,
        2,
        3,
        "zoo.tar",
    )


@pytest.mark.parametrize("name", ["all fields", "several members", "default", "stored"])
def test_truncation_anywhere(name):
    content = SMALL[name]
    starts = (
        [0]
        if name != "several members"
        else [i for i in range(len(content)) if content[i:].startswith(b"\x1f\x8b\x08")]
    )
    for size in range(len(content)):
        inflater = gzip_stream.GzipInflater(where="zoo.tar.gz")
        list(inflater.feed(content[:size]))
        if size and size in starts:
            inflater.finish()
            continue
        with pytest.raises(inflate.InflateError, match=r"zoo\.tar\.gz: it is (truncated|empty)") as caught:
            inflater.finish()
        assert caught.value.offset == size


@pytest.mark.parametrize(
    ("size", "part"),
    [(0, "it is empty"), (5, "inside the header of gzip member 1"), (300, "inside the deflate data of gzip member 1")],
)
def test_truncation_names_the_part(size, part):
    inflater = gzip_stream.GzipInflater()
    list(inflater.feed(SMALL["default"][:size]))
    with pytest.raises(inflate.InflateError, match=part):
        inflater.finish()
    inflater = gzip_stream.GzipInflater()
    list(inflater.feed(SMALL["default"][:-3]))
    with pytest.raises(inflate.InflateError, match="inside the trailer of gzip member 1"):
        inflater.finish()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\3\4 a zip file", r"not a gzip file: .* found 50"),
        (b"\x1f\x9d", "not a gzip file"),
        (b"\x1f\x8b\x07\0", "compression method 7, expected 8"),
        (b"\x1f\x8b\x08\xe0", "reserved gzip flags are set: 0xe0"),
        (b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 1_100_000, "a gzip header of more than"),
        (SMALL["one byte"][:10] + b"\0\0" + SMALL["one byte"][12:], "the gzip header has the checksum"),
        (SMALL["default"] + b"garbage", "after the end of the last gzip member: .* found 67"),
        (SMALL["default"] + bytes(100) + b"garbage", "bytes behind the end: zero padding, then"),
        (
            SMALL["default"][:-8] + bytes(4) + SMALL["default"][-4:],
            "gzip member 1 is damaged: .* its trailer says 00000000",
        ),
        (SMALL["default"][:-4] + bytes(4), "its trailer says [0-9a-f]{8} and 0"),
        (SMALL["default"][:10] + b"\xff" * 20, r"the deflate data is damaged \(invalid block type\)"),
    ],
)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_damage_is_named(content, message, size):
    chunk_size = max(size, len(content) // 3000)
    inflater = gzip_stream.GzipInflater(where="zoo.tar.gz")
    with pytest.raises(inflate.InflateError, match=rf"zoo\.tar\.gz: .*{message}") as caught:
        collections.deque((batch for chunk in chunks_of(content, chunk_size) for batch in inflater.feed(chunk)), 0)
    assert 0 <= caught.value.offset <= len(content)


def test_what_comes_before_damage_is_given_out_first():
    content = FILES["text"]
    place = len(content) // 2
    damaged = content[:place] + gzips.floats(3000) + content[place:]
    inflater, batches = gzip_stream.GzipInflater(batch_bytes=10_000), []
    with pytest.raises(inflate.InflateError) as caught:
        batches.extend(batch for chunk in chunks_of(damaged, 1000) for batch in inflater.feed(chunk))
    output = b"".join(batch.data for batch in batches)
    assert len(output) == caught.value.position
    expected = gzip.decompress(content)
    assert output[: len(expected) // 3] == expected[: len(expected) // 3]
    assert place - 100 < caught.value.offset < place + 60_000


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SMALL)), st.data(), st.integers(1, 400))
def test_damage_never_gives_other_bytes_in_silence(name, data, size):
    content = data.draw(corruptions.corrupted(SMALL[name]))
    try:
        expected = gzip.decompress(content)
    except (EOFError, OSError, zlib.error):
        expected = None
    try:
        output = inflate_all(chunks_of(content, size))[0]
    except inflate.InflateError:
        # We refuse more than Python does: reserved flags, header checksums, an empty file.
        return
    assert output == expected


def test_unknown_checksum_is_not_checked():
    content = FILES["default"]
    _, batches, _ = inflate_all([content], batch_bytes=30_000)
    state = next(state for _, state in batches if state is not None)
    unknown = gzip_stream.InflaterState.from_json(state.to_json() | {"crc32": None, "isize": 7})
    output, later, _ = inflate_all([content[state.boundary.offset :] + SMALL["default"]], unknown)
    assert output.endswith(gzip.decompress(SMALL["default"]))
    assert all(state.crc32 is None for _, state in later if state is not None and state.gzip_member == 1)
    bad = SMALL["default"][:-8] + bytes(8)
    with pytest.raises(inflate.InflateError, match="gzip member 2 is damaged"):
        inflate_all([content[state.boundary.offset :] + bad], unknown)


@pytest.mark.parametrize(
    "change",
    [
        {"window": "!"},
        {"window": "AAAA"},
        {"crc32": "x"},
        {"isize": -1},
        {"boundary": {"position": 0, "offset": 0, "bits": 1, "fresh": False, "first_byte": 256}},
        {"gzip_member": 1.5},
        {"boundary": {"position": 0, "offset": 0, "bits": 8, "fresh": False}},
        {"boundary": {"position": 0}},
        {"header": {"flags": 0}},
        {"more": 1},
    ],
)
def test_damaged_states_are_refused(change):
    state = gzip_stream.InflaterState(gzip_stream.Boundary(5, 6, 0, False), b"abc", 1, 0, 3, None)
    assert gzip_stream.InflaterState.from_json(state.to_json()) == state
    with pytest.raises(errors.DamagedFileError, match="not the saved state of an inflater"):
        gzip_stream.InflaterState.from_json(state.to_json() | change)
    with pytest.raises(errors.DamagedFileError, match="not the saved state"):
        gzip_stream.InflaterState.from_json({})


def test_window_of_a_state_is_capped():
    value = gzip_stream.InflaterState(gzip_stream.Boundary(5, 6, 0, False), b"", 1, 0, 3, None).to_json()
    value["window"] = base64.b64encode(zlib.compress(bytes(100_000))).decode()
    with pytest.raises(errors.DamagedFileError, match="out of range"):
        gzip_stream.InflaterState.from_json(value)


def test_sizes_beyond_32_bits_wrap_around():
    content = FILES["default"]
    _, batches, _ = inflate_all([content], batch_bytes=30_000)
    state = next(state for _, state in batches if state is not None)
    large = gzip_stream.InflaterState.from_json(state.to_json() | {"isize": 2**32 - 5})
    size = len(gzip.decompress(content)) - state.boundary.position
    rest = content[state.boundary.offset : -4] + struct.pack("<I", (2**32 - 5 + size) % 2**32)
    assert len(inflate_all([rest], large)[0]) == size
