"""Going on behind damage: what comes out is the true end of the file, or nothing does."""

import gzip
import shutil
import subprocess
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.zoo.archive import gzips
from zoo.archive import gzip_stream, inflate, resync

DATA = gzips.mixed(1_500_000)
FILES = gzips.makes(1_500_000)
# The one consists of a single block, the other of references to references.
WITHOUT = {"zeros", "text", "empty", "one byte"}


def reader_of(content):
    def read(offset, size):
        assert offset >= 0
        assert size > 0
        assert offset + size <= len(content)
        return content[offset : offset + size]

    return read


def search(content, offset, **options):
    return resync.resync(reader_of(content), offset, len(content), **options)


def go_on(content, found):
    """All output from the place that was found."""
    inflater = gzip_stream.GzipInflater(found.state)
    output = b"".join(batch.data for batch in inflater.feed(content[found.skipped_to :]))
    inflater.finish()
    return output


def with_damage(content, place, size, seed=0):
    noise = np.random.default_rng(seed).bytes(size)
    return content[:place] + noise + content[place + size :]


@pytest.mark.parametrize("name", sorted(set(FILES) - WITHOUT))
def test_from_anywhere_the_next_place_is_found(name):
    content, expected = FILES[name], gzip.decompress(FILES[name])
    for share in (0.003, 0.2, 0.37, 0.6):
        offset = int(len(content) * share)
        found = search(content, offset, position=12345, gzip_member=7)
        assert found.skipped_from == offset
        assert offset < found.skipped_to == found.state.boundary.offset < offset + 300_000
        assert found.state.boundary.position == 12345
        assert found.state.gzip_member >= 7
        output = go_on(content, found)
        assert len(output) > 100_000
        assert expected.endswith(output)


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.skipif(shutil.which("gzip") is None, reason="needs gzip")
def test_damaged_files_of_gzip(level):
    content = subprocess.run(["gzip", f"-{level}"], input=DATA, stdout=subprocess.PIPE, check=True).stdout
    expected, num_found = gzip.decompress(content), 0
    rng = np.random.default_rng(level)
    for seed, place in enumerate(rng.integers(20, len(content) // 2, 12)):
        damaged = with_damage(content, int(place), 4000, seed)
        inflater = gzip_stream.GzipInflater()
        with pytest.raises(inflate.InflateError) as caught:
            list(inflater.feed(damaged))
        found = search(damaged, caught.value.offset)
        if caught.value.offset < len(content) - 200_000:
            assert found is not None
            assert expected.endswith(go_on(damaged, found))
            num_found += 1
    assert num_found > 2


def test_checksums_are_unknown_behind_a_block_and_known_behind_a_header():
    first, second = gzips.member(DATA), gzips.member(DATA[:200_000])
    content = first + second
    found = search(content, 300_000)
    assert found.state.crc32 is None
    assert not found.state.boundary.fresh
    assert go_on(with_damage(content, len(first) - 8, 8), found)
    found = search(content, len(first) - 5_000, gzip_member=1)
    assert found.skipped_to == len(first) + 10
    assert (found.state.boundary.fresh, found.state.crc32, found.state.gzip_member) == (True, 0, 2)
    assert go_on(content, found) == DATA[:200_000]
    bad = with_damage(content, len(content) - 8, 8)
    with pytest.raises(inflate.InflateError, match="CRC32"):
        go_on(bad, found)


def test_flush_points_are_places():
    content = gzips.member(DATA, 6, flush=3, every=100_000)
    found = search(content, 200_000)
    assert found.skipped_to < 300_000
    assert DATA.endswith(go_on(content, found))


def test_places_where_two_segments_of_the_search_meet():
    flushed = gzips.member(DATA, 6, flush=zlib.Z_SYNC_FLUSH, every=100_000)
    rest = flushed[flushed.index(b"\0\0\xff\xff") + 4 :]
    places = set()
    for missing in range(-2, 18):
        noise = gzips.floats(300_000)[: resync._SEGMENT_BYTES - missing]
        places.add(search(noise + rest, 0).skipped_to - len(noise))
    assert len(places) == 1


def test_headers_of_large_members_and_members_with_giant_blocks():
    zeros = gzips.member(bytes(30_000_000))
    content = gzips.floats(50_000) + zeros
    found = search(content, 0)
    assert found.skipped_to == 50_010
    assert go_on(content, found) == bytes(30_000_000)


def test_headers_in_noise_are_not_believed():
    header = gzips.member(b"")[:10]
    noise = gzips.floats(100_000)
    short = gzips.member(b"x" * 50)
    wrong = short[:-8] + bytes(8)
    for content in (noise + header + noise, noise + wrong + noise, noise + b"\x1f\x8b\x08\xff" + noise, noise + header):
        assert search(content, 0) is None
    found = search(noise + short + bytes(100), 0)
    assert found.skipped_to == len(noise) + 10


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_none_where_there_is_none(name):
    content = FILES[name]
    assert search(content, min(20, len(content))) is None


@pytest.mark.parametrize("content", [b"", b"x", bytes(100_000), b"\xff" * 100_000, gzips.floats(600_000)])
def test_noise_gives_nothing(content):
    assert search(content, 0) is None


def test_search_is_bounded():
    content = gzips.floats(600_000) + FILES["default"]
    requests = []

    def read(offset, size):
        requests.append((offset, size))
        return content[offset : offset + size]

    assert resync.resync(read, 0, len(content), max_search=500_000) is None
    found = resync.resync(read, 0, len(content), max_search=700_000)
    assert found is not None
    assert len(requests) < 20


def test_every_bit_offset_is_found():
    content = FILES["default"]
    inflater = gzip_stream.GzipInflater()
    places = [place for batch in inflater.feed(content) for place in batch.boundaries if not place.fresh]
    assert {place.bits for place in places} == set(range(8))
    data = content[: places[-1].offset + 100]
    bits = set(resync._coded_blocks(data)) | set(resync._stored_blocks(data))
    # The last block of a file is not looked for.
    for place in places[:-1]:
        assert 8 * place.offset - place.bits in bits


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 3000), st.sampled_from(["default", "fast", "stored", "several members"]))
def test_what_comes_out_behind_damage_is_true(seed, size, name):
    content = FILES[name]
    place = seed % (len(content) - size)
    damaged = with_damage(content, place, size, seed)
    found = search(damaged, place + size)
    if place + size < len(content) - 300_000:
        assert found is not None
    if found is not None:
        assert gzip.decompress(content).endswith(go_on(damaged, found))
